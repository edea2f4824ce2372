"""Ports for servers that others start."""

import random
import socket
from contextlib import suppress

# Below those that outgoing connections are given: one of these could take a port before it is listened on.
_ports = iter(random.sample(range(20_000, 32_768), 12_768))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; none is given twice."""
    for port in _ports:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("there is no port left")
