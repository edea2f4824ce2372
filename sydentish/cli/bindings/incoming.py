"""Reading what comes from a file or a pipe, which may be silent for long, without holding up signals."""

import os
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

_CHUNK = 64 * 1024


@implementer(IReadDescriptor)
class Incoming:
    """Reads what there is by now; a signal that ends the reactor ends the reading, too.

    A thread that reads would hold up the end of the program for as long as nothing comes.

    Args:
        file: nothing was read of it before.
        reactor: says when there is something to read.

    Attributes:
        stopped: whether the reactor is ending.
    """

    def __init__(self, file: BinaryIO, reactor: Any) -> None:  # noqa: ANN401 - several interfaces
        self._file = file
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        self._ended: Deferred[None] = Deferred()
        self.stopped = False
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)

    async def read(self) -> bytes:
        """What there is next, in a bounded amount; nothing at the end, and once it is stopped."""
        if not self.stopped:
            self._waiting = Deferred()
            self._reactor.addReader(self)
            await self._waiting
        return b"" if self.stopped else os.read(self._file.fileno(), _CHUNK)

    def end(self) -> None:
        """All is done that is done with it: the reactor need not wait any longer."""
        self._ended.callback(None)

    def _stop(self) -> "Deferred[None]":
        self.stopped = True
        self.doRead()
        return self._ended

    def doRead(self) -> None:
        """There is something to read, or the end."""
        waiting, self._waiting = self._waiting, None
        self._reactor.removeReader(self)
        if waiting is not None:
            waiting.callback(None)

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._file.fileno()

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "incoming"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - the interface
        """See `IReadDescriptor`: a pipe whose other end is closed is at its end, which reading tells."""
        self.doRead()
