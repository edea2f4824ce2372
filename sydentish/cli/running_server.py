"""The running server: from its start to its end, and what signals do to it in between."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from sydentish.app import App, Outside
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.lifecycle import why_not_starting
from sydentish.supervision.notify import Notifier

# For the last lines of the log, and what else comes after everything is finished.
_END_SECONDS = 5.0
# For a thread that is still at something when all else has ended.
_HANGING_SECONDS = 2.0

Read = Callable[[], tuple[Config, Sequence[str]]]

_log = Logger()


class HangUps:
    """SIGHUP, from the first moment on: until there is something to read again, it is kept in mind."""

    def __init__(self) -> None:
        self._came = False
        self._tell: Callable[[], None] | None = None

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handles the signal."""
        if self._tell is None:
            self._came = True
        else:
            self._tell()

    def tell(self, reactor: IReactorFromThreads, request: Callable[[], None]) -> None:
        """Calls `request` in the reactor for each signal from now on, and once if there was one before."""
        # Whether one comes before this line or after it, it is heard of.
        self._tell = lambda: reactor.callFromThread(request)
        if self._came:
            request()


class Reloads:
    """Has everything read again when that is asked for: one after the other, and only while the server runs.

    Args:
        app: the server.
        read: reads the configuration.
        notifier: tells the service manager.
        status: what the server does, for people.
    """

    def __init__(self, app: App, read: Read, notifier: Notifier, status: Callable[[], str]) -> None:
        self._app = app
        self._read = read
        self._notifier = notifier
        self._status = status
        self._asked = False
        self._at_work = False

    def request(self) -> None:
        """Asks for it; what is asked for twice before it begins is done once."""
        self._asked = True
        if not self._at_work:
            Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        self._at_work = True
        while self._asked and self._app.stage.name == "ready":
            self._asked = False
            await self._reload()
        self._at_work = False

    async def _reload(self) -> None:
        self._notifier.reloading("reading the configuration again")
        was_good = False
        try:
            was_good = await self._app.reloading.reload(self._read)
        except Exception:  # noqa: BLE001 - the next request is to be heard all the same
            _log.failure("what was changed could not be taken up")
        if self._app.stage.name == "ready":
            trouble = "" if was_good else "; what was changed could not be taken up: see the log"
            self._notifier.ready(f"{self._status()}{trouble}")


class Server:
    """The server in its process.

    Args:
        app: the server itself.
        keys: what it signs with.
        outside: what is around it.
        stop_seconds: how long it may take to stop.
    """

    def __init__(self, app: App, keys: KeyRing, outside: Outside, stop_seconds: float) -> None:
        self._app = app
        self._keys = keys
        self._reactor: Any = outside.reactor
        self._manager = outside.manager
        self._stop_seconds = stop_seconds
        self._exit_status = 0

    def run(self, hangups: HangUps, read: Read) -> int:
        """Runs the reactor until a signal ends it; the exit status.

        Args:
            hangups: when everything is to be read again.
            read: reads the configuration again.
        """
        reloads = Reloads(self._app, read, self._manager.notifier, self._status)
        self._reactor.callWhenRunning(lambda: Deferred.fromCoroutine(self._start(hangups, reloads)))
        self._reactor.addSystemEventTrigger(
            "before", "shutdown", lambda: Deferred.fromCoroutine(self._stop())
        )
        self._reactor.run()
        return self._exit_status

    def _status(self) -> str:
        return f"serving as {self._keys.server_name}, signing with {self._keys.active.key_id}"

    async def _start(self, hangups: HangUps, reloads: Reloads) -> None:
        try:
            MultiService.startService(self._app)
            await self._app.listening()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server cannot start
            reason = getattr(error, "subFailure", None)
            why = why_not_starting(reason.value if reason else error)
            _log.critical("cannot start: {reason}", reason=why)
            self._manager.notifier.status(f"cannot start: {why}")
            self._exit_status = 1
            self._reactor.stop()
            return
        self._say_where()
        self._manager.notifier.ready(self._status())
        hangups.tell(self._reactor, reloads.request)

    def _say_where(self) -> None:
        for listener in self._app.listeners:
            _log.info("listening on {where}", where=listener.description)
        for unused in self._manager.sockets.unused:
            _log.warn(
                "no listener uses the inherited socket {name} ({where}): who connects to it waits for nothing; give a "
                "listener systemd:name={name}, or take it out of the socket unit",
                name=unused.name,
                where=unused.address,
            )
        _log.info(
            "{server_name} is ready, signing with {key}",
            server_name=self._keys.server_name,
            key=self._keys.active.key_id,
        )

    async def _stop(self) -> None:
        # Whoever asks twice does not want to wait.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self._end_at_last()
        _log.info("stopping")
        self._manager.notifier.stopping("finishing what is at hand", self._stop_seconds + _END_SECONDS)
        try:
            stopped = Deferred.fromCoroutine(self._app.stopService())
            await stopped.addTimeout(self._stop_seconds, self._reactor)
        except DeferredTimeoutError:
            _log.warn(
                "not everything could be finished in {seconds} s; what was accepted is on disk",
                seconds=self._stop_seconds,
            )
        _log.info("stopped")

    def _end_at_last(self) -> None:
        """Ends the process when it is time, though a thread may wait for a file that never comes: the pool waits for it."""
        timer = threading.Timer(self._stop_seconds + _HANGING_SECONDS, lambda: os._exit(self._exit_status))
        timer.daemon = True
        timer.start()
