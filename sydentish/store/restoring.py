"""Puts a copy of a database in the place of the one that is there."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sydentish.disk import sync
from sydentish.domain.peers import Peer
from sydentish.store import peers as peer_rows
from sydentish.store import recalls, statements
from sydentish.store.copies import copy_into, copy_pages, put
from sydentish.store.counters import JUMP, STATEMENT, raise_to, value
from sydentish.store.database import Tx
from sydentish.store.migrate import alone_in
from sydentish.store.sqlite import SqliteTx, connect

_SIDECARS = ("-wal", "-shm", "-journal")
# Whoever has a database open in WAL mode holds a read lock here (https://www.sqlite.org/fileformat.html, section 1.2:
# no page lies on these bytes; os_unix.c: PENDING_BYTE + 2, 510 bytes).
_LOCKED_AT, _LOCKED_BYTES = 0x4000_0002, 510


class InUse(Exception):
    """Another process has the database open."""


def adapt(tx: Tx, server_name: str, configured: Sequence[Peer], present: int, now_ms: int) -> None:
    """Makes a copy fit to go on from.

    Statements get numbers that were not used since the copy was made. What was in flight then is in flight no longer. And
    it is noted that peers are to be asked for what is missing.

    Args:
        tx: a transaction on the copy.
        server_name: our own.
        configured: the peers of the configuration.
        present: the last number of a statement in the database that the copy replaces, where that can be told.
        now_ms: the time, in ms.
    """
    own_id = max(value(tx, STATEMENT), statements.last_id(tx, server_name))
    peer_rows.configure(tx, configured, now_ms)
    recalls.note(tx, own_id)
    raise_to(tx, STATEMENT, max(own_id, present) + JUMP)
    tx.run("UPDATE peers SET lease_until_ts = 0")
    tx.run("UPDATE outbox_destinations SET lease_until_ts = 0")


def adapt_file(copy: Path, server_name: str, configured: Sequence[Peer], present: int, now_ms: int) -> None:
    """As `adapt`, of a file of the current schema that nobody else uses, and that is one file then.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    with closing(connect(copy, 0)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        adapt(SqliteTx(connection), server_name, configured, present, now_ms)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = DELETE")
    sync(copy)


def last_number(path: Path) -> int:
    """The last number of a statement in a database; 0 where there is none, or none that can be read."""
    if not path.exists():
        return 0
    try:
        # Not only for reading: else SQLite would leave behind what it needs beside the file for that.
        with closing(connect(path, 0)) as connection:
            return value(SqliteTx(connection), STATEMENT)
    except sqlite3.Error:
        return 0


def check_unused(path: Path) -> None:
    """Whether anybody has a database open.

    Raises:
        InUse: somebody has.
        OSError: it cannot be opened.
    """
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED_BYTES, _LOCKED_AT)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise InUse from None


def put_in_place(copy: Path, path: Path, on_progress: Callable[[int, int], None]) -> Path | None:
    """Replaces a database by a copy: wholly, or not at all.

    The file stays the same one, whose contents are replaced in a transaction: a process that has opened it meanwhile, and
    waits, finds the new ones. If it were another file, that process would go on with the old one, and SQLite would take
    the write-ahead log of the one for that of the other.

    Args:
        copy: in a folder of its own, on the same disk as `path`; adapted.
        path: the database; there may be none.
        on_progress: hears how many pages are done, and of how many.

    Returns:
        Where the database is kept that was there; None if there was none.

    Raises:
        InUse: another process has the database open.
        sqlite3.Error, OSError: it cannot be written; then it is as it was.
    """
    with alone_in(path.parent):
        if not path.exists():
            _put_alone(copy, path)
            return None
        check_unused(path)
        place = _free_name(path)
        try:
            _replace(copy, path, place, on_progress)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            # So damaged that SQLite can make nothing of it; so nobody has opened it meanwhile.
            _move_aside(path, place)
            _put_alone(copy, path)
        return place


def _replace(copy: Path, path: Path, place: Path, on_progress: Callable[[int, int], None]) -> None:
    kept = copy.with_name("kept")
    with _nobody_else(path) as present:
        copy_pages(present, kept, lambda _done, _of: None)
        put(kept, place)
        try:
            with closing(sqlite3.connect(copy, isolation_level=None)) as source:
                copy_into(source, present, on_progress)
        except BaseException:
            place.unlink()
            raise


def _move_aside(path: Path, place: Path) -> None:
    for suffix in ("", *_SIDECARS):
        file = path.with_name(f"{path.name}{suffix}")
        if file.exists():
            file.rename(place.with_name(f"{place.name}{suffix}"))


@contextmanager
def _nobody_else(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database that lets nobody else in; its write-ahead log is empty, and gone."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise InUse from None
            raise
        connection.execute("PRAGMA synchronous = FULL")
        yield connection


def _put_alone(copy: Path, path: Path) -> None:
    """Where there is no database, what once lay beside one is of no use, and would be taken for a part of this one."""
    for suffix in _SIDECARS:
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
    put(copy, path)


def _free_name(path: Path) -> Path:
    """Where the database is kept that was there: what is kept already stays."""
    number = 1
    place = path.with_name(f"{path.name}.before-restore")
    while os.path.lexists(place):
        number += 1
        place = path.with_name(f"{path.name}.before-restore-{number}")
    return place
