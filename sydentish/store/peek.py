"""A look at a database file that changes nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sydentish.store.database import Tx
from sydentish.store.migrate import SchemaError, last_step
from sydentish.store.sqlite import SqliteTx

# https://www.sqlite.org/fileformat.html, section 1.3.
MAGIC = b"SQLite format 3\x00"
"""What each database of SQLite begins with."""


def check_sqlite_file(path: Path, newest: int) -> None:
    """Whether a file can be the database, as far as that can be seen without a lock and without writing.

    Args:
        path: a file that exists.
        newest: the number of the newest step of the schema that this program knows.

    Raises:
        SchemaError: it is no database, that of another program, or that of a newer version of this one.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head and head != MAGIC:
        raise SchemaError(f"{path}: is no SQLite database")
    # While another process has it open, or after one was killed, what it holds is not in this file alone.
    if not head or path.with_name(f"{path.name}-wal").exists():
        return
    # Immutable: SQLite makes no files beside it, as it would do even to read.
    _known_version(path, newest, "mode=ro&immutable=1")


def sqlite_schema(path: Path, newest: int) -> int:
    """The number of the last step that a database has seen, 0 for an empty one; also while a server writes to it.

    Args:
        path: a file that exists.
        newest: the number of the newest step of the schema that this program knows.

    Raises:
        SchemaError: it is no database, that of another program, or that of a newer version of this one.
    """
    return _known_version(path, newest, "mode=ro")


@contextmanager
def looking(path: Path) -> Iterator[Tx]:
    """Reads a file of the current schema, also while a server writes to it.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    with closing(sqlite3.connect(_address(path, "mode=ro"), uri=True)) as connection:
        yield SqliteTx(connection)


def _address(path: Path, how: str) -> str:
    return f"{path.absolute().as_uri()}?{how}"


def _known_version(path: Path, newest: int, how: str) -> int:
    try:
        with closing(sqlite3.connect(_address(path, how), uri=True)) as connection:
            version = last_step(connection)
    except sqlite3.DatabaseError as error:
        raise SchemaError(f"{path}: cannot be opened as a database: {error}") from error
    if version is None:
        raise SchemaError(f"{path}: is the database of another program")
    if version > newest:
        raise SchemaError(
            f"{path}: was used by a newer version: it has schema {version}, this one knows {newest}"
        )
    return version
