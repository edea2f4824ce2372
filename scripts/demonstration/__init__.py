"""What `scripts/demo` shows.

A daemon is started as an operator would start it. Beside it, in this process, there are a homeserver over HTTPS
and a mail relay, on sockets of their own. Every step shows what went over the wire, and is checked.
"""
