"""What the rest of the project sees of a database: transactions, as plain functions of `(tx, ...)`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

Value = str | int | float | bytes | None
Row = tuple[Any, ...]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The few places where the engines' SQL differs.

    Attributes:
        name: the engine, which also names its own variant of a schema file.
        lookup_hashes: maps a JSON array of hashes to one JSON object, and says how many are in it; arguments: the array,
            the pepper's ID.
        lookup_plain: the same for a JSON array of `[entry, medium, address]`; arguments: the array.
    """

    name: str
    lookup_hashes: str
    lookup_plain: str


class Tx(Protocol):
    """A transaction in progress. SQL has `?` for its arguments, whatever the engine."""

    @property
    def dialect(self) -> Dialect:
        """The engine's own SQL."""

    def run(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Runs a statement; the number of rows that it changed."""

    def row(self, sql: str, params: Sequence[Value] = ()) -> Row | None:
        """The first row, or None."""

    def rows(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """All rows."""


def number(tx: Tx, sql: str, *params: Value) -> int:
    """The one number that a query asks for; 0 when it finds nothing."""
    row = tx.row(sql, params)
    return int(row[0]) if row else 0


class Database(Protocol):
    """One call is one transaction, in a thread; nobody else says commit.

    The function gets the transaction as its first argument, must not wait for anything but the database, and
    returns plain values. If it raises, nothing of what it wrote stays, and the exception comes out of the call.

    Both raise `Busy` when the database cannot do it now; nothing was written then.
    """

    def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> "Deferred[T]":
        """Runs `fn(tx, ...)` and answers once what it wrote is on disk."""

    def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> "Deferred[T]":
        """Runs `fn(tx, ...)` on one consistent state of the database, without the right to write."""
