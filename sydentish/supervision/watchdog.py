"""Tells the service manager that the server still works, as long as it does."""

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure


class Watchdog(Service):
    """Gives a sign of life while the reactor turns and the database's writer does.

    It is the turns of the writer that count, so that a database which has much to do, or has to wait for another
    process, is no hung one: then nothing turns at all.

    Args:
        alive: gives the sign.
        interval: how often it is looked, in seconds: half of what the manager waits for a sign.
        turns: how often the writer has turned.
        ping: gives the writer something to do; may be refused.
        clock: what time is taken by.
    """

    def __init__(
        self,
        *,
        alive: Callable[[], None],
        interval: float,
        turns: Callable[[], int],
        ping: Callable[[], "Deferred[None]"],
        clock: IReactorTime,
    ) -> None:
        self._alive = alive
        self._interval = interval
        self._turns = turns
        self._ping = ping
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._seen = -1
        self._asked = False

    def startService(self) -> None:
        """Gives the first sign at once."""
        Service.startService(self)
        self._looking.start(self._interval)

    def stopService(self) -> None:
        """Gives no further sign."""
        Service.stopService(self)
        self._looking.stop()

    def _look(self) -> None:
        turns = self._turns()
        if turns != self._seen:
            self._seen = turns
            self._alive()
        if not self._asked:
            self._asked = True
            maybeDeferred(self._ping).addBoth(self._answered)

    def _answered(self, result: object) -> None:
        self._asked = False
        # Refused is a ping also when too much waits before it: then it is to be seen by the turns.
        if self.running and not isinstance(result, Failure):
            self._alive()
