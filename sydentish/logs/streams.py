"""Where lines go without anybody waiting for it."""

import os
import select
import threading
from collections.abc import Callable
from itertools import accumulate
from typing import Protocol

_MAX_WAITING = 10_000
_GATHER_SECONDS = 0.02
_CLOSE_SECONDS = 2.0


class Stream(Protocol):
    """What a `LogFile` writes to; any text file will do."""

    def write(self, text: str, /) -> object:
        """Takes text."""

    def flush(self) -> None:
        """Called after each line."""

    def close(self) -> None:
        """Called after the last line."""


class BackgroundStream:
    """A `Stream` that never makes its caller wait: a thread of its own writes what is queued.

    Who reads a pipe may stop reading it, and a disk may be full. Lines are lost then, once too many wait; they
    are counted, and one line says so when there is a way again. Any thread may write.

    Args:
        descriptor: where to write; closed in the end.
        lost_line: makes the line that says how many were lost.
        max_waiting: how many lines may wait.

    Attributes:
        lost: how many lines were lost since the beginning.
    """

    def __init__(
        self, descriptor: int, lost_line: Callable[[int], str], *, max_waiting: int = _MAX_WAITING
    ) -> None:
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._dropped = 0
        self.lost = 0
        self._closing = threading.Event()
        self._torn = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Queues a line, or drops it when too many wait."""
        with self._changed:
            if len(self._waiting) >= self._max_waiting or self._closing.is_set():
                self._dropped += 1
                self.lost += 1
                return
            self._waiting.append(text)
            if len(self._waiting) == 1:
                self._changed.notify()

    def flush(self) -> None:
        """The thread does it."""

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Waits until all that was queued is written, but no longer than some seconds."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        lost = 0
        while taken := self._take():
            lines, dropped = taken
            lost = self._say(lost)
            unwritten = self._put(lines)
            with self._changed:
                self.lost += unwritten
            lost = self._say(lost + unwritten + dropped)
            # Lines gather meanwhile: to change threads for each of them would cost as much as to answer it.
            self._closing.wait(_GATHER_SECONDS)
        os.close(self._descriptor)

    def _take(self) -> tuple[list[str], int] | None:
        """Waits for lines; all that are queued, and how many were dropped behind them; None in the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._dropped or self._closing.is_set())
            if not self._waiting and not self._dropped:
                return None
            taken = (self._waiting, self._dropped)
            self._waiting, self._dropped = [], 0
            return taken

    def _say(self, lost: int) -> int:
        """Says how many lines were lost; how many are still to be told of."""
        return lost if lost and self._put([self._lost_line(lost)]) else 0

    def _put(self, lines: list[str]) -> int:
        """Writes lines; how many of them could not be written whole."""
        encoded = [line.encode(errors="backslashreplace") for line in lines]
        if self._torn and encoded:
            encoded[0] = b"\n" + encoded[0]
        data = b"".join(encoded)
        done = self._write_all(data)
        if done:
            self._torn = not data[:done].endswith(b"\n")
        return sum(end > done for end in accumulate(map(len, encoded)))

    def _write_all(self, data: bytes) -> int:
        """Writes until there is no way; how many bytes were written."""
        done = 0
        while done < len(data):
            try:
                done += os.write(self._descriptor, data[done:])
            except BlockingIOError:  # another process has made the pipe one that does not wait
                ready = select.poll()
                ready.register(self._descriptor, select.POLLOUT)
                ready.poll()
            except OSError:
                break
        return done
