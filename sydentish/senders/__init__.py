"""To people: rendering and sending messages."""
