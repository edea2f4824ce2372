"""Sydentish: an identity server for Matrix."""
