"""Brings a database file to the current schema, step by step, or refuses to touch it.

Steps are files `schema/NNNN_why.sql`, applied in the order of their numbers, each in one transaction. Where an
engine needs other SQL, `NNNN_why.<engine>.sql` takes the place of the shared file.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from sydentish.store.sqlite import DIALECT, connect

_VERSIONS = """
    CREATE TABLE IF NOT EXISTS schema_steps (
        number BIGINT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL,
        applied_ts BIGINT NOT NULL
    )
"""


class SchemaError(Exception):
    """The database cannot be used by this version of the program; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the schema."""

    number: int
    name: str
    sql: str


def shipped_steps(engine: str = DIALECT.name) -> list[Step]:
    """The steps that this version of the program brings along for an engine, in order."""
    return steps_in(files("sydentish.store") / "schema", engine)


def steps_in(folder: Traversable, engine: str) -> list[Step]:
    """The steps of a folder for an engine, in the order of their numbers."""
    steps: dict[int, Step] = {}
    # Shared files first: an engine's own file then takes its place.
    for file in sorted(folder.iterdir(), key=lambda file: (file.name.count("."), file.name)):
        name, *own = file.name.removesuffix(".sql").split(".")
        if file.name.endswith(".sql") and own in ([], [engine]):
            number = int(name.split("_")[0])
            if number in steps and steps[number].name != name:
                raise SchemaError(f"{name} and {steps[number].name} have the same number")
            steps[number] = Step(number, name, file.read_text())
    return [steps[number] for number in sorted(steps)]


def migrate_sqlite(path: Path, busy_timeout_ms: int, now_ms: int, steps: list[Step]) -> list[Step]:
    """Applies the steps that the file has not seen yet, and returns them.

    Before the first of them a copy of a file that holds data is kept beside it (`<name>.before-NNNN`).
    Processes that start together wait for one another; the second finds nothing left to do.

    Raises:
        SchemaError: the file is newer than `steps`, is no database of ours, or a step failed and was undone.
    """
    with alone_in(path.parent):
        try:
            with closing(connect(path, busy_timeout_ms)) as connection:
                return _migrate(connection, path, now_ms, steps)
        except sqlite3.DatabaseError as error:
            raise SchemaError(f"{path}: cannot be opened as a database: {error}") from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process migrates or replaces a database in this folder; a process that dies lets go.

    SQLite's own locks don't cover it all: two processes cannot both turn to WAL, or keep the same copy.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _migrate(connection: sqlite3.Connection, path: Path, now_ms: int, steps: list[Step]) -> list[Step]:
    done = last_step(connection)
    if done is None:
        raise SchemaError(f"{path}: is the database of another program")
    newest = steps[-1].number
    if done > newest:
        raise SchemaError(
            f"{path}: the database has schema {done}, this program knows {newest}: "
            "it was used by a newer version. Install that version again, or restore the copy it kept."
        )
    todo = [step for step in steps if step.number > done]
    if done and todo:
        _keep_copy(connection, path.with_name(f"{path.name}.before-{todo[0].number:04d}"))
    for step in todo:
        try:
            _apply(connection, step, now_ms)
        except sqlite3.DatabaseError as error:
            raise SchemaError(f"{path}: step {step.name} failed and was undone: {error}") from error
    return todo


def last_step(connection: sqlite3.Connection) -> int | None:
    """The number of the last step that the database has seen, 0 for an empty one; None for another program's."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return 0
    if "schema_steps" not in tables:
        return None
    (number,) = connection.execute("SELECT coalesce(max(number), 0) FROM schema_steps").fetchone()
    # What is no whole number, this program has not written.
    return number if isinstance(number, int) else None


def _keep_copy(connection: sqlite3.Connection, copy: Path) -> None:
    # Under another name until it is whole, and closed to others from the beginning.
    part = copy.with_name(f"{copy.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
    connection.execute("VACUUM INTO ?", (str(part),))
    part.replace(copy)


def _apply(connection: sqlite3.Connection, step: Step, now_ms: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_VERSIONS)
        for statement in _statements(step.sql):
            connection.execute(statement)
        connection.execute("INSERT INTO schema_steps VALUES (?, ?, ?)", (step.number, step.name, now_ms))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(sql: str) -> Iterator[str]:
    """One statement after the other: `executescript` would commit in between."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():  # the last one needs no semicolon
        yield statement
