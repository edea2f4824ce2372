"""Handlers: from the parameters of a request to a deed, and from its result to an answer."""
