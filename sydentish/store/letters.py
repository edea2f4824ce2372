"""The rows of the outbox as operators see them, and what becomes of those that nobody delivers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sydentish.store import outbox
from sydentish.store.database import Tx, number

_COLUMNS = """o.outbox_id, o.kind, o.destination, o.state, o.created_ts, o.due_ts, o.died_ts, o.attempts, o.last_error,
    o.payload, (SELECT d.retry_ts FROM outbox_destinations AS d WHERE d.kind = o.kind AND d.destination = o.destination),
    (SELECT count(*) FROM invitations AS i WHERE i.outbox_id = o.outbox_id)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows are meant; None stands for any.

    Attributes:
        kind: of this kind.
        state: in this state, `pending` or `dead`.
        destination: to this destination.
        died_before_ts: that were given up before this time, in ms.
    """

    kind: str | None = None
    state: str | None = None
    destination: str | None = None
    died_before_ts: int | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A row of the outbox; times in ms.

    Attributes:
        outbox_id: its number.
        kind: what it is.
        destination: whom it must reach.
        state: `pending`, or `dead` when it was given up.
        created_ts: when its cause happened, or when an operator had it tried anew.
        due_ts: when it is to be tried.
        died_ts: when it was given up.
        attempts: how many times it was tried.
        last_error: how the last of them ended.
        payload: what it says; empty where that was not kept.
        retry_ts: when its destination is to be tried.
        invitations: how many invitations it carries; they go when it does.
    """

    outbox_id: int
    kind: str
    destination: str
    state: str
    created_ts: int
    due_ts: int
    died_ts: int | None
    attempts: int
    last_error: str | None
    payload: str = field(repr=False)
    retry_ts: int | None
    invitations: int

    @property
    def next_try_ts(self) -> int:
        """When a row that waits is tried, in ms."""
        return max(self.due_ts, self.retry_ts or 0)


@dataclass(frozen=True, slots=True)
class Text:
    """All that is written in a row, of which some may be somebody's own."""

    outbox_id: int
    payload: str = field(repr=False)
    last_error: str | None = field(repr=False)


def letter(tx: Tx, outbox_id: int) -> Letter | None:
    """The row of this number."""
    row = tx.row(f"SELECT {_COLUMNS} FROM outbox AS o WHERE o.outbox_id = ?", (outbox_id,))  # noqa: S608 - a constant
    return Letter(*row) if row else None


def letters_after(tx: Tx, wanted: Wanted, outbox_id: int, limit: int) -> list[Letter]:
    """The next rows that are meant, in the order of their numbers, behind `outbox_id`."""
    asked: list[tuple[str, str | int | None]] = [
        ("o.kind = ?", wanted.kind),
        ("o.state = ?", wanted.state),
        ("o.destination = ?", wanted.destination),
        ("o.died_ts < ?", wanted.died_before_ts),
    ]
    given = [(condition, value) for condition, value in asked if value is not None]
    where = " AND ".join(["o.outbox_id > ?", *(condition for condition, _ in given)])
    rows = tx.rows(
        f"SELECT {_COLUMNS} FROM outbox AS o WHERE {where} ORDER BY o.outbox_id LIMIT ?",  # noqa: S608 - constants
        (outbox_id, *(value for _, value in given), limit),
    )
    return [Letter(*row) for row in rows]


def texts_after(tx: Tx, outbox_id: int, limit: int) -> list[Text]:
    """What is written in the next rows, in the order of their numbers, behind `outbox_id`."""
    rows = tx.rows(
        "SELECT outbox_id, payload, last_error FROM outbox WHERE outbox_id > ? ORDER BY outbox_id LIMIT ?",
        (outbox_id, limit),
    )
    return [Text(*row) for row in rows]


def count(tx: Tx) -> int:
    """How many rows there are."""
    return number(tx, "SELECT count(*) FROM outbox")


def revive(tx: Tx, found: Letter, now_ms: int) -> None:
    """Has a row that was given up tried anew, as if its cause had happened just now; its destination is tried at once.

    One that still waits is due now, with all that waits for its destination.
    """
    tx.run(
        """
        UPDATE outbox SET state = 'pending', created_ts = ?, due_ts = ?, died_ts = NULL, attempts = 0
        WHERE outbox_id = ? AND state = 'dead'
        """,
        (now_ms, now_ms, found.outbox_id),
    )
    # Else, where it is missing in a database that is damaged, nothing would ever be tried.
    outbox.know(tx, found.kind, found.destination)
    outbox.wake(tx, found.kind, found.destination, now_ms)


def purge_dead(tx: Tx, before_ts: int, limit: int) -> int:
    """Deletes some rows that were given up before a time, in ms, with the invitations in them; how many rows."""
    return tx.run(
        """
        DELETE FROM outbox WHERE outbox_id IN (
            SELECT outbox_id FROM outbox WHERE died_ts < ? ORDER BY died_ts LIMIT ?
        )
        """,
        (before_ts, limit),
    )


def purge_destinations(
    tx: Tx, now_ms: int, after: tuple[str, str] | None, limit: int, methods: Sequence[str]
) -> tuple[int, tuple[str, str] | None]:
    """Deletes those of some destinations that have no rows, and nothing worth remembering.

    Args:
        tx: the transaction.
        now_ms: the time, in ms.
        after: kind and name of the last one that was looked at before this; None to begin.
        limit: how many are looked at.
        methods: those that need not be remembered.

    Returns:
        How many were deleted, and where to go on; None at the end.
    """
    rows = tx.rows(
        """
        SELECT kind, destination, method FROM outbox_destinations WHERE (kind, destination) > (?, ?)
        ORDER BY kind, destination LIMIT ?
        """,
        (*(after or ("", "")), limit),
    )
    gone = sum(
        tx.run(
            """
            DELETE FROM outbox_destinations
            WHERE kind = ? AND destination = ? AND retry_ts <= ? AND lease_until_ts <= ? AND NOT EXISTS (
                SELECT 1 FROM outbox AS o
                WHERE o.kind = outbox_destinations.kind AND o.destination = outbox_destinations.destination
            )
            """,
            (kind, destination, now_ms, now_ms),
        )
        for kind, destination, method in rows
        if method is None or method in methods
    )
    return gone, rows[-1][:2] if len(rows) == limit else None
