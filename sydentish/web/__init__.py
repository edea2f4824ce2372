"""Answering: from bytes on a socket to a deed, and back."""
