"""Copies of a database file: consistent, whole, and looked through before anybody relies on them."""

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sydentish.disk import sync
from sydentish.store import figures
from sydentish.store.database import number
from sydentish.store.peek import check_sqlite_file, sqlite_schema
from sydentish.store.shape import acting, first_of, tables
from sydentish.store.sqlite import SqliteTx, connect

# 4 MB: long enough to be fast, short enough to stop between two.
_PAGES_AT_ONCE = 1000
# How many steps of SQLite's machine lie between two moments in which a signal is heard.
_STEPS = 100_000


class CopyProblem(Exception):
    """A copy cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a database.

    Attributes:
        schema: the number of the last step of the schema that it has seen.
        rows: how many rows each table has.
        newest_ts: when the newest association was stated, in ms; None without any.
    """

    schema: int
    rows: Mapping[str, int]
    newest_ts: int | None


@contextmanager
def snapshot(path: Path, busy_timeout_ms: int) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of a database, while others write.

    Copying must have this: SQLite's backup begins anew whenever somebody else has written between two of its steps, so
    that beside a busy server it would never end. Writers are not held up, but the write-ahead log grows meanwhile.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    with closing(connect(path, busy_timeout_ms, read_only=True)) as connection:
        connection.execute("BEGIN")
        # Only the first read fixes which state that is.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield connection


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that nobody writes to, for reading.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    # A copy that was made while a server ran, by copying all of its files, has a part of it in the log. Without one,
    # nothing is written beside it, so that it may lie where nothing can be written.
    log = file.with_name(f"{file.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    uri = f"{file.absolute().as_uri()}?{how}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        # Whoever goes on as somebody else may not open the log any more.
        connection.execute("PRAGMA schema_version").fetchone()
        yield connection


def copy_pages(source: sqlite3.Connection, target: Path, on_progress: Callable[[int, int], None]) -> None:
    """Copies a database into a new file, which is for its owner alone, and on disk when this returns.

    Args:
        source: see `snapshot`.
        target: there must be no such file.
        on_progress: hears how many pages are done, and of how many; may raise to stop it.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        copy_into(source, copy, on_progress)
        # A file for itself, that can be read on any disk: with a write-ahead log SQLite makes further ones.
        copy.execute("PRAGMA journal_mode = DELETE")
    sync(target)


def copy_into(
    source: sqlite3.Connection, target: sqlite3.Connection, on_progress: Callable[[int, int], None]
) -> None:
    """Has all of a database be what another is, in one transaction; see `copy_pages`."""
    source.backup(target, pages=_PAGES_AT_ONCE, progress=lambda _status, left, of: on_progress(of - left, of))


def contents(connection: sqlite3.Connection) -> Contents:
    """What is in a database of ours."""
    tx = SqliteTx(connection)
    rows = {name: number(tx, f'SELECT count(*) FROM "{name}"') for name in tables(tx)}  # noqa: S608 - its own
    (newest_ts,) = tx.row("SELECT max(ts) FROM associations") or (None,)
    return Contents(figures.schema(tx), rows, newest_ts)


def checked_contents(path: Path, newest: int) -> Contents:
    """What is in a copy, once every page, index and reference in it was found good.

    Args:
        path: the copy; nobody writes to it.
        newest: the number of the newest step of the schema that this program knows.

    Raises:
        CopyProblem: it is damaged, or empty.
        SchemaError: it is no database of ours, or that of a newer version.
        OSError: it cannot be read.
    """
    check_sqlite_file(path, newest)
    if not sqlite_schema(path, newest):
        raise CopyProblem(f"{path}: is no backup of this program: it is empty")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection, interruptible(connection):
            for name, _, _ in acting(SqliteTx(connection)):
                # First of all: it may be made to take for ever, or to change what is written.
                raise CopyProblem(
                    f"{path}: has views or triggers, such as {name!r}: no backup of this program has"
                )
            damage = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
            damage += [
                f"a row of {table} refers to one of {parent} that is not there"
                for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check")
            ]
            if not damage:
                return contents(connection)
    except sqlite3.DatabaseError as error:
        damage = [str(error)]
    raise CopyProblem(f"{path}: is damaged: {first_of(damage)}")


@contextmanager
def interruptible(connection: sqlite3.Connection) -> Iterator[None]:
    """Lets a signal end what takes long within SQLite.

    Raises:
        KeyboardInterrupt: one came.
    """
    connection.set_progress_handler(_go_on, _STEPS)
    try:
        yield
    except sqlite3.OperationalError as error:
        # What the handler of the signal has raised, SQLite tells as this.
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _go_on() -> int:
    """While this runs, Python runs the handlers of signals; what they raise ends the statement."""
    return 0


@contextmanager
def workshop(beside: Path) -> Iterator[Path]:
    """A folder for what is not finished, on the same disk as a file; whatever happens, it is gone at the end.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(tempfile.mkdtemp(dir=beside.parent, prefix=f".{beside.name}.", suffix=".part"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(made: Path, path: Path, *, replace: bool = False) -> None:
    """Gives a finished file on the same disk its name, in one step.

    Args:
        made: the file.
        path: its name.
        replace: whether a file of that name may be overwritten.

    Raises:
        FileExistsError: there is such a file.
        OSError: it cannot be done.
    """
    if replace or not _linked(made, path):
        made.replace(path)
    sync(path.parent)


def _linked(made: Path, path: Path) -> bool:
    """Gives a file a second name, which unlike a renaming fails where there is something; whether the disk can do that."""
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:
        # FAT, and some that are reached over a network.
        if path.exists():
            raise FileExistsError(errno.EEXIST, "there is such a file", str(path)) from None
        return False
    return True
