"""Tells the service manager how the server is, as sd_notify(3) does: datagrams with a `NAME=value` on each line."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# A manager that does not listen must not hold up the server, and a full queue is emptied in no time.
_SEND_SECONDS = 1.0
_EXTEND_EVERY_SECONDS = 10.0
_EXTEND_BY_SECONDS = 30.0
_MOST_EXTENSIONS = 360


class Notifier:
    """Tells the service manager how the server is, or nobody.

    What cannot be sent is lost: the server runs no worse without.

    Args:
        address: the path of the manager's socket, or its abstract name with `@` in front (unix(7)); None when there is
            none. Anything else is nowhere that can be reached.
    """

    def __init__(self, address: str | None) -> None:
        self._address = None
        if address is not None and len(address) > 1 and address[0] in "/@":
            self._address = "\0" + address[1:] if address[0] == "@" else address

    def ready(self, status: str) -> None:
        """The server serves, for the first time or again."""
        self._tell("READY=1", f"STATUS={_line(status)}")

    def reloading(self, status: str) -> None:
        """The server reads its configuration again; `ready` is to follow, whether that works or not."""
        # Without the time, systemd 253 and later would not know which request to reload is meant.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", f"STATUS={_line(status)}")

    def stopping(self, status: str, seconds: float) -> None:
        """The server ends, and may take so many seconds."""
        self._tell("STOPPING=1", f"STATUS={_line(status)}", f"EXTEND_TIMEOUT_USEC={_microseconds(seconds)}")

    def status(self, status: str) -> None:
        """What the server does, for people."""
        self._tell(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """The server still works: without this word, the manager ends it and starts it again."""
        self._tell("WATCHDOG=1")

    @contextmanager
    def extending(self, status: str) -> Iterator[None]:
        """Asks for more time to start, again and again while something runs that may take long; an hour at most.

        Args:
            status: what that is, for people.
        """
        self.status(status)
        ended = threading.Event()
        thread = threading.Thread(target=self._extend, args=(ended,), name="supervision", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _extend(self, ended: threading.Event) -> None:
        for _ in range(_MOST_EXTENSIONS):
            self._tell(f"EXTEND_TIMEOUT_USEC={_microseconds(_EXTEND_BY_SECONDS)}")
            if ended.wait(_EXTEND_EVERY_SECONDS):
                return

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(_SEND_SECONDS)
            sending.connect(self._address)
            sending.send("\n".join(lines).encode(errors="replace"))


def _line(text: str) -> str:
    return " ".join(text.split())


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)
