"""What tests of the store and of the actions share: a file's contents, other sides of `Database`, and things to wait for."""

import sqlite3
from contextlib import closing

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sydentish.domain.delivery import Delivery
from sydentish.domain.errors import Busy
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store.sqlite import DIALECT, SqliteTx, connect

START_MS = 1_700_000_000_000
"""When tests begin."""

SECONDS = 20
"""How long a test waits for what must happen."""


def rows(path, sql, params=()):
    """What a fresh connection finds in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, params).fetchall()


def write(path, work):
    """What `work` makes of a transaction on the file."""
    with closing(connect(path, 5000)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        result = work(SqliteTx(connection))
        connection.execute("COMMIT")
    return result


def contents(path):
    """Everything in the database, by table."""
    tables = [name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: rows(path, f"SELECT * FROM {table}") for table in tables}


def address(number):
    """One address of many."""
    return Threepid(EMAIL, f"u{number}@example.org")


def at_once(coroutine):
    """The result of a coroutine that has nothing to wait for."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


class InlineDatabase:
    """A `Database` without threads: every call is done when it returns."""

    def __init__(self, path):
        self.connection = connect(path, 5000)

    def write(self, fn, *args, **kwargs):
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = fn(SqliteTx(self.connection), *args, **kwargs)
        except Exception:  # noqa: BLE001 - it comes out of the Deferred
            self.connection.execute("ROLLBACK")
            return fail()
        self.connection.execute("COMMIT")
        return succeed(result)

    read = write


class StatementFailed(Exception):
    """The statement that a test wanted to fail."""


class FailingTx:
    """A transaction that breaks instead of running its nth statement."""

    dialect = DIALECT

    def __init__(self, tx, nth):
        self._tx = tx
        self._left = nth

    def _count(self):
        self._left -= 1
        if self._left == 0:
            raise StatementFailed

    def run(self, sql, params=()):
        self._count()
        return self._tx.run(sql, params)

    def row(self, sql, params=()):
        self._count()
        return self._tx.row(sql, params)

    def rows(self, sql, params=()):
        self._count()
        return self._tx.rows(sql, params)


class FailingDatabase:
    """A `Database` each of whose transactions breaks at its nth statement; 0 lets them be."""

    def __init__(self, db):
        self._db = db
        self.nth = 0

    def write(self, fn, *args, **kwargs):
        return self._db.write(lambda tx: fn(FailingTx(tx, self.nth), *args, **kwargs))

    def read(self, fn, *args, **kwargs):
        return self._db.read(lambda tx: fn(FailingTx(tx, self.nth), *args, **kwargs))


class WatchedDatabase:
    """A `Database` that counts calls, and refuses as many of each kind as a test says."""

    def __init__(self, db):
        self._db = db
        self.writes = self.reads = 0
        self.refuse_writes = self.refuse_reads = 0

    def write(self, fn, *args, **kwargs):
        self.writes += 1
        if self.refuse_writes:
            self.refuse_writes -= 1
            raise Busy("refused")
        return self._db.write(fn, *args, **kwargs)

    def read(self, fn, *args, **kwargs):
        self.reads += 1
        if self.refuse_reads:
            self.refuse_reads -= 1
            raise Busy("refused")
        return self._db.read(fn, *args, **kwargs)


class Watch:
    """Notes what it is called with; a test can wait until it was called often enough."""

    def __init__(self):
        self.seen = []
        self._waiting = []

    def __call__(self, value=None):
        self.seen.append(value)
        # Who waits goes on only when the caller is done.
        reactor.callLater(0, self._look)

    def _look(self):
        due = [waiter for count, waiter in self._waiting if count <= len(self.seen)]
        self._waiting = [(count, waiter) for count, waiter in self._waiting if count > len(self.seen)]
        for waiter in due:
            waiter.callback(None)

    async def count(self, count):
        waiter = Deferred()
        self._waiting.append((count, waiter))
        reactor.callLater(0, self._look)
        await waiter.addTimeout(SECONDS, reactor)
        return self.seen


class WatchedClock(Clock):
    """A clock that tells when somebody begins to wait by it."""

    def __init__(self, seconds):
        super().__init__()
        self.rightNow = seconds
        self._armed = []

    def callLater(self, when, what, *args, **kwargs):
        call = super().callLater(when, what, *args, **kwargs)
        armed, self._armed = self._armed, []
        for waiter in armed:
            # Who waits goes on only when the caller is done.
            reactor.callLater(0, waiter.callback, None)
        return call

    def now_ms(self):
        return round(self.seconds() * 1000)

    async def armed(self):
        """When the next thing is due, in seconds from now, as soon as somebody waits."""
        while not self.getDelayedCalls():
            waiter = Deferred()
            self._armed.append(waiter)
            await waiter.addTimeout(SECONDS, reactor)
        return self.getDelayedCalls()[0].getTime() - self.seconds()


class HeldDeliverer:
    """Keeps each delivery until the test says what became of it."""

    def __init__(self):
        self.arrived = Watch()
        self.held: list[tuple[Delivery, Deferred]] = []
        self.cancelled = 0

    async def deliver(self, delivery):
        answer = Deferred(self._cancel)
        self.held.append((delivery, answer))
        self.arrived(delivery)
        return await answer

    def _cancel(self, _answer):
        self.cancelled += 1

    def end(self, result, destination=None):
        """Ends the oldest delivery, or the oldest to that destination, with a result or an exception."""
        index = next(
            number
            for number, (delivery, _) in enumerate(self.held)
            if destination in (None, delivery.destination)
        )
        _, answer = self.held.pop(index)
        answer.callback(result) if not isinstance(result, Exception) else answer.errback(result)
