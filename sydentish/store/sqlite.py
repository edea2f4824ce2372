"""The embedded engine: one thread that writes and commits in groups, and a few that read.

SQLite allows one writer at a time, and a durable commit costs a wait for the disk. So all writes of the
process go through one thread, which takes what is queued, runs each function under its own savepoint, commits
once, and only then answers all of them: a hundred binds wait for the disk once, not a hundred times.

Answers go back to the reactor in batches, too: one `callFromThread` for everything that is finished.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any, Concatenate

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from sydentish.domain.errors import Busy
from sydentish.store.calls import Job, Replies, take_group
from sydentish.store.checkpoints import CHECKPOINT_SECONDS, Checkpoints, truncate
from sydentish.store.database import Dialect, P, Row, T, Tx, Value
from sydentish.store.measures import READ, WRITE, Measures, ThreadMeasures

_log = Logger()

# What may be over in a moment, or once somebody has made room: no mistakes of ours.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
)

DIALECT = Dialect(
    name="sqlite",
    # The request's array drives the join: without CROSS the planner may scan the whole table instead.
    lookup_hashes="""
        SELECT json_group_object(asked.value, hashes.mxid), count(*)
        FROM json_each(?) AS asked
        CROSS JOIN lookup_hashes AS hashes ON hashes.pepper_id = ? AND hashes.hash = asked.value
    """,
    lookup_plain="""
        SELECT json_group_object(asked.value ->> 0, associations.mxid), count(*)
        FROM json_each(?) AS asked
        CROSS JOIN associations
            ON associations.medium = asked.value ->> 1 AND associations.address = asked.value ->> 2
    """,
)


class SqliteTx:
    """A transaction on one SQLite connection; implements `Tx`."""

    dialect = DIALECT

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, params: Sequence[Value] = ()) -> int:
        """See `Tx.run`."""
        return self._connection.execute(sql, params).rowcount

    def row(self, sql: str, params: Sequence[Value] = ()) -> Row | None:
        """See `Tx.row`."""
        row: Row | None = self._connection.execute(sql, params).fetchone()
        return row

    def rows(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """See `Tx.rows`."""
        return self._connection.execute(sql, params).fetchall()


class _RolledBackError(Exception):
    """SQLite has undone a transaction by itself."""


class SqliteDatabase(Service):
    """A `Database` in one SQLite file; see the module's text.

    Several processes may share the file: each waits for the others' transactions up to `busy_timeout_ms`.

    Args:
        path: the database file, with the current schema (see `migrate`).
        reactor: where results are delivered.
        readers: the number of reading threads.
        max_queue: how many calls may wait; more are refused with `Busy`.
        busy_timeout_ms: how long to wait for another process, in ms.
        checkpoint_seconds: how long what was deleted may stay on the disk, in seconds.

    Attributes:
        measures: how long calls wait and take.
        turns: how often the writing thread has gone round, with something to write or without: as long as it
            grows, that thread does not hang.
    """

    def __init__(
        self,
        path: Path,
        reactor: IReactorFromThreads,
        *,
        readers: int,
        max_queue: int,
        busy_timeout_ms: int,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._path = path
        self._replies = Replies(reactor)
        self._max_queue = max_queue
        self._busy_timeout_ms = busy_timeout_ms
        self._writes: SimpleQueue[Job | None] = SimpleQueue()
        self._reads: SimpleQueue[Job | None] = SimpleQueue()
        self.measures = Measures({READ: self._reads.qsize, WRITE: self._writes.qsize})
        self._readers = readers
        self._checkpoint_seconds = checkpoint_seconds
        self._reading: list[Deferred[None]] = []
        self._writing: list[Deferred[None]] = []
        self.turns = 0

    def startService(self) -> None:
        """Opens the file and starts the threads.

        Raises:
            sqlite3.Error, OSError: it cannot be opened.
        """
        writer = connect(self._path, self._busy_timeout_ms)
        readers = [connect(self._path, self._busy_timeout_ms, read_only=True) for _ in range(self._readers)]
        Service.startService(self)
        self._writing.append(self._start("store-writer", self._write_loop, writer))
        for number, reader in enumerate(readers):
            self._reading.append(self._start(f"store-reader-{number}", self._read_loop, reader))

    def stopService(self) -> "Deferred[Any]":
        """Finishes what is queued, then ends the threads."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        # The writer last and alone: if all close at once, each may take another for the last, whose task it is to
        # empty the log, and none does it.
        for _ in self._reading:
            self._reads.put(None)
        await gatherResults(self._reading)
        for _ in self._writing:
            self._writes.put(None)
        await gatherResults(self._writing)

    def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> "Deferred[T]":
        """See `Database.write`."""
        return self._enqueue(WRITE, self._writes, lambda tx: fn(tx, *args, **kwargs))

    def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> "Deferred[T]":
        """See `Database.read`."""
        return self._enqueue(READ, self._reads, lambda tx: fn(tx, *args, **kwargs))

    def _enqueue(self, name: str, queue: "SimpleQueue[Job | None]", call: Callable[[Tx], T]) -> "Deferred[T]":
        if not self.running:
            raise Busy("The server is stopping")
        if queue.qsize() >= self._max_queue:
            self.measures.note_full(name)
            raise Busy("The server has too much to do: try again soon")
        reply: Deferred[T] = Deferred()
        queue.put(Job(call, reply))
        return reply

    def _start(
        self, name: str, loop: Callable[[sqlite3.Connection], None], connection: sqlite3.Connection
    ) -> "Deferred[None]":
        """Starts a thread; what comes back fires when its connection is closed."""
        ended: Deferred[None] = Deferred()

        def run() -> None:
            with closing(connection):
                loop(connection)
            self._replies.add([(ended, None)])

        threading.Thread(target=run, name=name, daemon=True).start()
        return ended

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        measures = self.measures.thread(WRITE)
        checkpoints = Checkpoints(connection, self._path, self._busy_timeout_ms, self._checkpoint_seconds)
        while (group := take_group(self._writes, checkpoints.seconds_left())) is not None:
            self.turns += 1  # before the answers: who has one sees that it was another turn
            if group:
                begun = monotonic()
                self._answer(measures, group, _commit_group(connection, group), begun)
            checkpoints.run_if_due()
        checkpoints.run_last()

    def _read_loop(self, connection: sqlite3.Connection) -> None:
        measures = self.measures.thread(READ)
        while (job := self._reads.get()) is not None:
            begun = monotonic()
            self._answer(measures, [job], [_read(connection, job)], begun)

    def _answer(
        self, measures: ThreadMeasures, group: list[Job], results: list[object], begun: float
    ) -> None:
        measures.note([job.queued for job in group], begun, monotonic())
        measures.refused += sum(isinstance(result, Busy) for result in results)
        self._replies.add([(job.reply, result) for job, result in zip(group, results, strict=True)])


def connect(path: Path, busy_timeout_ms: int, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the file, set up as this project needs it; the file is made if there is none.

    The file holds addresses, so nobody but its owner may read it.
    """
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in (
        f"busy_timeout = {busy_timeout_ms:d}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        # What was deleted was secret, or somebody's own: it is overwritten. What a file brings along is not trusted.
        *("secure_delete = ON", "trusted_schema = OFF"),
        f"query_only = {'ON' if read_only else 'OFF'}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def empty_log(path: Path, busy_timeout_ms: int) -> bool:
    """Has what was deleted leave the disk now, not at the next checkpoint; False when others keep it there for a while.

    Raises:
        sqlite3.Error: the file cannot be used.
    """
    with closing(connect(path, busy_timeout_ms)) as connection:
        return truncate(connection)


def _commit_group(connection: sqlite3.Connection, group: list[Job]) -> list[object]:
    """Runs all jobs in one transaction; what comes back of each is on disk, or an exception and undone."""
    try:
        with _transaction(connection, "BEGIN IMMEDIATE"):
            return [_run_in_savepoint(connection, job) for job in group]
    except Exception as error:  # noqa: BLE001 - the thread must go on, and everybody hear that nothing was written
        return [_told(error)] * len(group)


def _run_in_savepoint(connection: sqlite3.Connection, job: Job) -> object:
    connection.execute("SAVEPOINT job")
    try:
        result = job.call(SqliteTx(connection))
    except Exception as error:
        if not connection.in_transaction:
            # A full disk, for example: SQLite has undone the whole group, so nobody in it may hear "done".
            raise _RolledBackError from error
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return _told(error)
    connection.execute("RELEASE job")
    return result


def _read(connection: sqlite3.Connection, job: Job) -> object:
    try:
        with _transaction(connection, "BEGIN"):
            return job.call(SqliteTx(connection))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
        return _told(error)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _told(error: Exception) -> Exception:
    """What the caller is told: the trouble of a moment as `Busy`, a mistake of ours as it is."""
    if not isinstance(error, _RolledBackError) and _primary_code(error) not in _PASSING:
        return error
    reason = error.__cause__ or error
    _log.error("the database failed: {kind}: {reason}", kind=type(reason).__name__, reason=str(reason))
    return Busy("The database cannot do this now: try again soon")


def _primary_code(error: Exception) -> int | None:
    """SQLite's result code without its details; None for errors that are not SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
