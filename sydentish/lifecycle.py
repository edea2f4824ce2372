"""Starting and stopping: in order, and in reverse order."""

import errno
import os
from pathlib import Path
from typing import Literal

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger

from sydentish.web.http import HttpFactory

_log = Logger()

_LOCK = ".lock"


class ListenerProblem(Exception):
    """A listener cannot be made; the message says which, and why."""


StageName = Literal["starting", "ready", "stopping"]


class Stage:
    """How far the server is: whoever asks shares one, which is changed by what starts and stops the server.

    Attributes:
        name: it is `starting` until every listener listens, then `ready`, and from the first moment of its end
            on `stopping`.
    """

    __slots__ = ("name",)

    def __init__(self) -> None:
        self.name: StageName = "starting"


class Ordered(MultiService):
    """Services that build on one another: they stop one after the other, the last that started first."""

    async def stopService(self) -> None:
        """Waits for each service to stop before the one that it builds on does.

        Whoever cannot wait any longer cancels; what has not stopped by then is left as it is.
        """
        Service.stopService(self)
        for service in reversed(self.services):
            try:
                await maybeDeferred(service.stopService)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the others are to stop all the same
                _log.failure("a part of the server did not stop well")


class Listener(Service):
    """One listening socket.

    Args:
        description: the endpoint string, for messages.
        endpoint: where to listen.
        factory: answers.
        clock: what time is waited by.
        drain_seconds: how long requests may take to finish when the server stops.
    """

    def __init__(
        self,
        description: str,
        endpoint: IStreamServerEndpoint,
        factory: HttpFactory,
        *,
        clock: IReactorTime,
        drain_seconds: float,
    ) -> None:
        self.description = description
        self._endpoint = endpoint
        self._factory = factory
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._port: IListeningPort | None = None
        self.listening: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Begins to listen; `listening` fires when it does, or with the reason why it cannot."""
        Service.startService(self)
        self._endpoint.listen(self._factory).addCallback(self._listens).chainDeferred(self.listening)

    async def stopService(self) -> None:
        """Stops listening and lets requests finish; cuts those that take too long."""
        Service.stopService(self)
        if self._port is None:
            return
        await maybeDeferred(self._port.stopListening)
        drained = self._factory.drain()
        drained.addTimeout(self._drain_seconds, self._clock)
        try:
            await drained
        except DeferredTimeoutError:
            _log.warn("some requests took too long to finish and were cut")
            self._factory.abort()

    def _listens(self, port: IListeningPort) -> None:
        self._port = port


def why_not_starting(error: BaseException) -> str:
    """What the operator is told when a part of the server cannot start, such as a socket."""
    if isinstance(error, CannotListenError):
        port = os.fsdecode(error.port) if isinstance(error.port, bytes) else error.port
        if not isinstance(port, int):
            return _why_no_socket(str(port), error.socketError)
        return f"cannot listen on {error.interface or '*'}:{port}: {_reason(error.socketError)}"
    if isinstance(error, OSError) and error.filename is not None:
        # Of a link, the name of what was to be made: a unix socket has one beside it as its lock.
        made = os.fsdecode(error.filename2 or error.filename)
        if error.filename2 is not None and made.endswith(_LOCK):
            return _why_no_socket(made.removesuffix(_LOCK), error)
        return f"{made}: {error.strerror}"
    return str(error)


def _why_no_socket(path: str, error: object) -> str:
    missing = isinstance(error, OSError) and error.errno == errno.ENOENT
    reason = f"there is no directory {Path(path).parent}" if missing else _reason(error)
    return f"cannot listen on {path}: {reason}"


def _reason(error: object) -> object:
    return getattr(error, "strerror", None) or error
