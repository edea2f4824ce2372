"""What `scripts/demo` shows.

A daemon is started as an operator would start it. Beside it, in this process, there are a homeserver over HTTPS,
a mail relay and an SMS gateway, on sockets of their own. Every step shows what went over the wire, and is checked.
"""
