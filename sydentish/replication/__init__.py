"""Statements to peers and from them: over mutual TLS, in the wire format of Sydent."""
