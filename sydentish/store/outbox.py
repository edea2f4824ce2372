"""The outbox: what must still reach somebody, written in the transaction of its cause.

One thing is in flight per destination: what is leased is the destination, and with it its first due row. A
destination that fails is left alone for a while (`retry_ts`); a row that fails steps back behind the others of
its destination (`due_ts`), so that one that is always refused holds nothing else up.
"""

from dataclasses import dataclass

from sydentish.domain.delivery import LATE_CAP_MS, Delivery, backoff_ms
from sydentish.store.counters import next_number
from sydentish.store.database import Tx

_FARTHEST_MS = 2 * LATE_CAP_MS


@dataclass(frozen=True, slots=True)
class Lease:
    """A row that this process may deliver until the lease runs out.

    Attributes:
        delivery: what is to be delivered.
        created_ts: when its cause happened, in ms.
        failing: whether the destination failed last time.
        until_ts: when others may try, in ms; also what tells this lease from a later one.
    """

    delivery: Delivery
    created_ts: int
    failing: bool
    until_ts: int


def add(
    tx: Tx, *, kind: str, destination: str, idempotency_key: str, payload: str, now_ms: int
) -> int | None:
    """Writes down what must reach a destination, due at once; its number.

    A key that is there already changes nothing, and there is no number then.
    """
    outbox_id = next_number(tx, "outbox")
    added = tx.run(
        """
        INSERT INTO outbox
            (outbox_id, kind, destination, idempotency_key, payload, state, created_ts, due_ts, attempts)
        VALUES (?, ?, ?, ?, ?, 'pending', ?, ?, 0) ON CONFLICT (idempotency_key) DO NOTHING
        """,
        (outbox_id, kind, destination, idempotency_key, payload, now_ms, now_ms),
    )
    if not added:
        return None
    know(tx, kind, destination)
    _reschedule(tx, kind, destination)
    return outbox_id


def know(tx: Tx, kind: str, destination: str) -> None:
    """There is such a destination, from now on at the latest."""
    tx.run(
        """
        INSERT INTO outbox_destinations (kind, destination, lease_until_ts, failures, retry_ts)
        VALUES (?, ?, 0, 0, 0) ON CONFLICT (kind, destination) DO NOTHING
        """,
        (kind, destination),
    )


def rows_of(tx: Tx, cause: str, state: str = "pending") -> list[int]:
    """The numbers of the rows that still wait to be delivered for a cause, or are in another state.

    Args:
        tx: the transaction.
        cause: the idempotency key of the one row that it has, or what stands before a colon in the keys of several.
        state: `pending`, or `dead` for those that were given up.
    """
    # The semicolon is the character behind the colon.
    rows = tx.rows(
        "SELECT outbox_id FROM outbox"
        " WHERE (idempotency_key = ? OR (idempotency_key >= ? AND idempotency_key < ?)) AND state = ?",
        (cause, f"{cause}:", f"{cause};", state),
    )
    return [outbox_id for (outbox_id,) in rows]


def withdraw(tx: Tx, outbox_id: int) -> None:
    """Deletes a row: what it says is no longer so. One that is on its way just now may arrive all the same."""
    row = tx.row("DELETE FROM outbox WHERE outbox_id = ? RETURNING kind, destination", (outbox_id,))
    if row is not None:
        _reschedule(tx, *row)


def lease(tx: Tx, kind: str, now_ms: int, lease_ms: int, limit: int, *, failing: bool) -> list[Lease]:
    """Takes the first due row of each of at most `limit` destinations that are due and not leased.

    Times further ahead than any back-off or lease can reach come from a clock that was wrong, and are over.

    Args:
        tx: the transaction.
        kind: which rows.
        now_ms: the time, in ms.
        lease_ms: how long they are taken for, in ms.
        limit: how many.
        failing: take from destinations that failed last time, or from the others: each have slots of their own,
            so that those that answer need not wait behind those that don't.
    """
    destinations = tx.rows(
        """
        SELECT destination, method FROM outbox_destinations
        WHERE kind = ? AND (next_due_ts <= ? OR next_due_ts > ?)
            AND (lease_until_ts <= ? OR lease_until_ts > ?) AND (failures > 0) = ?
        ORDER BY next_due_ts LIMIT ?
        """,
        (kind, now_ms, now_ms + _FARTHEST_MS, now_ms, now_ms + _FARTHEST_MS, int(failing), limit),
    )
    leases = []
    for destination, method in destinations:
        row = tx.row(
            """
            SELECT outbox_id, payload, attempts, created_ts FROM outbox
            WHERE kind = ? AND destination = ? AND state = 'pending' ORDER BY due_ts, outbox_id LIMIT 1
            """,
            (kind, destination),
        )
        if row is None:  # an operator has dropped it
            _reschedule(tx, kind, destination)
            continue
        outbox_id, payload, attempts, created_ts = row
        tx.run(
            "UPDATE outbox_destinations SET lease_until_ts = ? WHERE kind = ? AND destination = ?",
            (now_ms + lease_ms, kind, destination),
        )
        delivery = Delivery(outbox_id, destination, payload, attempts, method)
        leases.append(Lease(delivery, created_ts, failing, now_ms + lease_ms))
    return leases


def next_due(tx: Tx, kind: str, *, failing: bool) -> int | None:
    """When there is something to lease, in ms; None when nothing is pending.

    Args:
        tx: the transaction.
        kind: which rows.
        failing: whether destinations that failed last time count.
    """
    row = tx.row(
        """
        SELECT min(CASE WHEN lease_until_ts > next_due_ts THEN lease_until_ts ELSE next_due_ts END)
        FROM outbox_destinations WHERE kind = ? AND next_due_ts IS NOT NULL AND (failures = 0 OR ? = 1)
        """,
        (kind, int(failing)),
    )
    return row[0] if row else None


def delivered(tx: Tx, kind: str, lease: Lease, method: str | None) -> None:
    """The destination took it: the row is done, and the destination is well."""
    tx.run("DELETE FROM outbox WHERE outbox_id = ?", (lease.delivery.outbox_id,))
    if method is not None:
        tx.run(
            "UPDATE outbox_destinations SET method = ? WHERE kind = ? AND destination = ?",
            (method, kind, lease.delivery.destination),
        )
    _clear_failures(tx, kind, lease.delivery.destination)
    release(tx, kind, lease)


def bury(
    tx: Tx, kind: str, lease: Lease, reason: str, now_ms: int, *, answered: bool, keeps_payload: bool = True
) -> None:
    """The row is given up, and stays listed until an operator decides.

    Args:
        tx: the transaction.
        kind: of the row.
        lease: the row.
        reason: for the operator.
        now_ms: the time, in ms.
        answered: the destination has refused it, so the destination itself is well.
        keeps_payload: whether it could be tried again; a payload with secrets is not kept for that.
    """
    tx.run(
        """
        UPDATE outbox SET state = 'dead', died_ts = ?, attempts = attempts + 1, last_error = ?,
            payload = CASE WHEN ? = 1 THEN payload ELSE '' END
        WHERE outbox_id = ?
        """,
        (now_ms, reason, int(keeps_payload), lease.delivery.outbox_id),
    )
    if answered:
        _clear_failures(tx, kind, lease.delivery.destination)
    release(tx, kind, lease)


def retry(  # noqa: PLR0917 - a row, a time and a reason
    tx: Tx, kind: str, lease: Lease, due_ts: int, reason: str, now_ms: int, jitter: float | None
) -> None:
    """The row is tried again at `due_ts`.

    Args:
        tx: the transaction.
        kind: of the row.
        lease: the row.
        due_ts: when it is due again, in ms.
        reason: for the operator.
        now_ms: the time, in ms.
        jitter: a random number between -1 and 1 for the back-off of the destination; None if the destination is well.
    """
    tx.run(
        "UPDATE outbox SET due_ts = ?, attempts = attempts + 1, last_error = ? WHERE outbox_id = ?",
        (due_ts, reason, lease.delivery.outbox_id),
    )
    if jitter is None:
        _clear_failures(tx, kind, lease.delivery.destination)
    else:
        _back_off(tx, (kind, lease.delivery.destination), now_ms, jitter)
    release(tx, kind, lease)


def release(tx: Tx, kind: str, lease: Lease) -> None:
    """Ends a lease; one that has run out and belongs to somebody else by now is left alone."""
    tx.run(
        "UPDATE outbox_destinations SET lease_until_ts = 0 WHERE kind = ? AND destination = ? AND lease_until_ts = ?",
        (kind, lease.delivery.destination, lease.until_ts),
    )
    _reschedule(tx, kind, lease.delivery.destination)


def wake(tx: Tx, kind: str, destination: str, now_ms: int) -> bool:
    """The destination was heard from: what waits for it is due now; whether anything does.

    Its failures stay counted until it takes something: being heard from is a reason to try, and no proof.
    """
    tx.run(
        "UPDATE outbox SET due_ts = ? WHERE kind = ? AND destination = ? AND state = 'pending' AND due_ts > ?",
        (now_ms, kind, destination, now_ms),
    )
    tx.run(
        "UPDATE outbox_destinations SET retry_ts = 0 WHERE kind = ? AND destination = ?", (kind, destination)
    )
    return _reschedule(tx, kind, destination) is not None


def failing(tx: Tx, kind: str) -> set[str]:
    """The destinations that are left alone for a while."""
    rows = tx.rows(
        "SELECT destination FROM outbox_destinations WHERE kind = ? AND next_due_ts IS NOT NULL AND failures > 0",
        (kind,),
    )
    return {destination for (destination,) in rows}


def counts(tx: Tx) -> list[tuple[str, str, int, int]]:
    """Kind, state, number of rows, and the time of the oldest cause in ms, for all kinds and states there are."""
    rows = tx.rows("SELECT kind, state, count(*), min(created_ts) FROM outbox GROUP BY kind, state")
    return [(kind, state, number, oldest) for kind, state, number, oldest in rows]


def _back_off(tx: Tx, key: tuple[str, str], now_ms: int, jitter: float) -> None:
    """Leaves a destination alone for a while."""
    row = tx.row(
        "SELECT failures, failing_since_ts FROM outbox_destinations WHERE kind = ? AND destination = ?", key
    )
    failures, since = row or (0, None)
    since = now_ms if since is None else since
    tx.run(
        """
        UPDATE outbox_destinations SET failures = ?, failing_since_ts = ?, retry_ts = ?
        WHERE kind = ? AND destination = ?
        """,
        (failures + 1, since, now_ms + backoff_ms(failures + 1, now_ms - since, jitter), *key),
    )


def _clear_failures(tx: Tx, kind: str, destination: str) -> None:
    tx.run(
        """
        UPDATE outbox_destinations SET failures = 0, failing_since_ts = NULL, retry_ts = 0
        WHERE kind = ? AND destination = ?
        """,
        (kind, destination),
    )


def _reschedule(tx: Tx, kind: str, destination: str) -> int | None:
    """Derives when there is something to do for a destination from its rows and its back-off."""
    row = tx.row(
        """
        SELECT o.due_ts, d.retry_ts FROM outbox AS o, outbox_destinations AS d
        WHERE o.kind = ? AND o.destination = ? AND o.state = 'pending'
            AND d.kind = o.kind AND d.destination = o.destination
        ORDER BY o.due_ts LIMIT 1
        """,
        (kind, destination),
    )
    due_ts = max(row) if row else None
    tx.run(
        "UPDATE outbox_destinations SET next_due_ts = ? WHERE kind = ? AND destination = ?",
        (due_ts, kind, destination),
    )
    return due_ts
