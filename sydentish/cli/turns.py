"""Long work on a database that a server uses meanwhile."""

from collections.abc import Callable
from typing import Concatenate

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from sydentish.store.database import Database, P, T, Tx

_LONGEST_PAUSE = 0.5  # s
# Of the time that the transaction took. With less, waits for the lock grow fast.
_SHARE = 0.6


class Turns:
    """Writes to a database in turns with other processes: after each transaction it leaves them alone for a while.

    Who waits for SQLite's lock only looks now and then whether it is free. To a process that writes one transaction
    right after the other, a server would lose it for seconds.

    Args:
        db: the database.
        clock: what time is taken by.
    """

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        self._free_until = 0.0

    def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> "Deferred[T]":
        """See `Database.write`; what the caller does between two transactions is part of the pause."""
        return Deferred.fromCoroutine(self._write(lambda tx: fn(tx, *args, **kwargs)))

    async def _write(self, fn: Callable[[Tx], T]) -> T:
        pause = self._free_until - self._clock.seconds()
        if pause > 0:
            await deferLater(self._clock, min(pause, _LONGEST_PAUSE))
        begun = 0.0

        def work(tx: Tx) -> T:
            # Not before: while it waits for the lock it is in nobody's way.
            nonlocal begun
            begun = self._clock.seconds()
            return fn(tx)

        result = await self._db.write(work)
        ended = self._clock.seconds()
        self._free_until = ended + _SHARE * (ended - begun)
        return result

    def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> "Deferred[T]":
        """See `Database.read`; reading is in nobody's way."""
        return self._db.read(fn, *args, **kwargs)
