"""Pushes: what each peer is sent next, what it has acknowledged, and when the next is tried."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sydentish.domain.delivery import FIRST_RETRY_MS, LATE_CAP_MS, backoff_ms
from sydentish.domain.peers import REFUSED, Failed
from sydentish.domain.statements import MAX_ORIGIN_ID, Statement
from sydentish.store.database import Tx
from sydentish.store.peers import PeerState, state
from sydentish.store.statements import erase_acknowledged, last_own_id, log_between, own_statement

# Times further ahead than any back-off or lease can reach come from a clock that was wrong, and are over.
_FARTHEST_MS = 2 * LATE_CAP_MS


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be pushed next.

    Attributes:
        statements: what is sent.
        until_id: what the peer has acknowledged, if it takes them.
        moves_on: whether there is anything to note when it takes them.
        parked_ids: where these were refused before: their numbers, and those of others that were superseded since.
    """

    statements: Sequence[Statement]
    until_id: int
    moves_on: bool
    parked_ids: Sequence[int] = ()


def batch(tx: Tx, server_name: str, state: PeerState, now_ms: int, limit: int) -> Batch:
    """What is to be pushed to a peer next: what is new to it, then what was parked long enough.

    Args:
        tx: the transaction.
        server_name: our own.
        state: the peer.
        now_ms: the time, in ms.
        limit: how many statements at the most.
    """
    name, after = state.peer.name, state.acknowledged_id
    fresh = log_between(tx, server_name, after, MAX_ORIGIN_ID, limit)
    if fresh:
        until = fresh[-1].origin_id
        rows = tx.rows(
            "SELECT origin_id FROM parked_statements WHERE peer = ? AND origin_id > ? AND origin_id <= ?",
            (name, after, until),
        )
        parked_ids = {origin_id for (origin_id,) in rows}
        sent = [each for each in fresh if each.origin_id not in parked_ids]
        return Batch(sent, until, moves_on=True)
    rows = tx.rows(
        """
        SELECT origin_id FROM parked_statements WHERE peer = ? AND (retry_ts <= ? OR retry_ts > ?)
        ORDER BY retry_ts, origin_id LIMIT ?
        """,
        (name, now_ms, now_ms + _FARTHEST_MS, limit),
    )
    due_ids = tuple(origin_id for (origin_id,) in rows)
    again = [own_statement(tx, server_name, origin_id) for origin_id in due_ids]
    return Batch([each for each in again if each is not None], after, bool(due_ids), due_ids)


def due(tx: Tx, server_name: str, now_ms: int, heartbeat_ms: int) -> list[str]:
    """The peers that something is to be pushed to now.

    Args:
        tx: the transaction.
        server_name: our own.
        now_ms: the time, in ms.
        heartbeat_ms: a peer that has acknowledged nothing for so long is sent an empty push, as is one that has failed.
    """
    newest = last_own_id(tx, server_name)
    rows = tx.rows(
        """
        SELECT name FROM peers
        WHERE source <> 'gone' AND paused = 0
            AND (retry_ts <= ? OR retry_ts > ?) AND (lease_until_ts <= ? OR lease_until_ts > ?)
            AND (acknowledged_id < ? OR failures > 0 OR coalesce(last_success_ts, 0) NOT BETWEEN ? AND ?
                OR EXISTS (
                    SELECT 1 FROM parked_statements AS p
                    WHERE p.peer = name AND (p.retry_ts <= ? OR p.retry_ts > ?)
                ))
        ORDER BY name
        """,
        (
            *(now_ms, now_ms + _FARTHEST_MS) * 2,
            newest,
            now_ms - heartbeat_ms + 1,
            now_ms,
            *(now_ms, now_ms + _FARTHEST_MS),
        ),
    )
    return [name for (name,) in rows]


def next_retry(tx: Tx, now_ms: int) -> int | None:
    """When the next peer is tried again that was left alone, or belongs to another process, in ms."""
    row = tx.row(
        """
        SELECT min(next_ts) FROM (
            SELECT CASE WHEN retry_ts > lease_until_ts THEN retry_ts ELSE lease_until_ts END AS next_ts
            FROM peers WHERE source <> 'gone' AND paused = 0
        ) AS times WHERE next_ts > ?
        """,
        (now_ms,),
    )
    return row[0] if row else None


def left_alone(tx: Tx, now_ms: int) -> set[str]:
    """The peers that have failed, and are not tried now."""
    return {name for (name,) in tx.rows("SELECT name FROM peers WHERE retry_ts > ?", (now_ms,))}


def lease(tx: Tx, name: str, now_ms: int, lease_ms: int) -> int | None:
    """Takes a peer for this process; until when, in ms, which also tells this lease from a later one.

    None when another process has it, or nothing is to be pushed to it now.
    """
    until_ts = now_ms + lease_ms
    taken = tx.run(
        """
        UPDATE peers SET lease_until_ts = ?
        WHERE name = ? AND source <> 'gone' AND paused = 0
            AND (retry_ts <= ? OR retry_ts > ?) AND (lease_until_ts <= ? OR lease_until_ts > ?)
        """,
        (until_ts, name, *(now_ms, now_ms + _FARTHEST_MS) * 2),
    )
    return until_ts if taken else None


def release(tx: Tx, name: str, lease_until_ts: int) -> bool:
    """Ends a lease; one that has run out and belongs to somebody else by now is left alone. Whether it had not ended."""
    return (
        tx.run(
            "UPDATE peers SET lease_until_ts = 0 WHERE name = ? AND lease_until_ts = ?",
            (name, lease_until_ts),
        )
        > 0
    )


def acknowledged(tx: Tx, name: str, pushed: Batch, lease_until_ts: int, now_ms: int) -> bool:
    """The peer has taken a batch: it is well, the lease ends, and what every peer has heard of is erased.

    Under a lease that has ended before, nothing is noted, and the batch is sent again.

    Returns:
        Whether its last push had failed.
    """
    row = tx.row("SELECT failures FROM peers WHERE name = ? AND lease_until_ts = ?", (name, lease_until_ts))
    if row is None:
        return False
    tx.run(
        """
        UPDATE peers SET last_success_ts = ?, failures = 0, failing_since_ts = NULL, retry_ts = 0
        WHERE name = ?
        """,
        (now_ms, name),
    )
    skip(tx, name, pushed, lease_until_ts)
    return bool(row[0])


def skip(tx: Tx, name: str, behind: Batch, lease_until_ts: int) -> None:
    """Moves on: what is in a batch need not be sent any more. The lease ends; under one that has ended, nothing is noted."""
    noted = tx.run(
        "UPDATE peers SET acknowledged_id = ?, lease_until_ts = 0 WHERE name = ? AND lease_until_ts = ?",
        (behind.until_id, name, lease_until_ts),
    )
    if noted:
        let_go(tx, name, behind.parked_ids)


def park(  # noqa: PLR0917 - a peer, statements and times
    tx: Tx,
    name: str,
    origin_ids: Collection[int],
    reason: str,
    lease_until_ts: int,
    now_ms: int,
    jitter: float,
    *,
    rest: bool = False,
) -> None:
    """Notes that the peer has refused some statements by name, which are tried again later; the lease ends.

    Under a lease that has ended before, nothing is noted.

    Args:
        tx: the transaction.
        name: the peer.
        origin_ids: the statements.
        reason: what it says.
        lease_until_ts: the lease.
        now_ms: the time, in ms.
        jitter: a random number between -1 and 1.
        rest: whether the peer is left alone for a moment: it refuses one statement after the other.
    """
    if not release(tx, name, lease_until_ts):
        return
    if rest:
        tx.run("UPDATE peers SET retry_ts = ? WHERE name = ?", (now_ms + FIRST_RETRY_MS, name))
    for origin_id in origin_ids:
        hold_back(tx, name, [origin_id], reason, now_ms)
        row = tx.row(
            "SELECT tries, parked_ts FROM parked_statements WHERE peer = ? AND origin_id = ?",
            (name, origin_id),
        )
        if row is not None:
            tries, parked_ts = row[0] + 1, row[1]
            retry_ts = now_ms + backoff_ms(tries, now_ms - parked_ts, jitter)
            tx.run(
                "UPDATE parked_statements SET tries = ?, retry_ts = ? WHERE peer = ? AND origin_id = ?",
                (tries, retry_ts, name, origin_id),
            )


def hold_back(tx: Tx, name: str, origin_ids: Collection[int], reason: str, retry_ts: int) -> None:
    """Notes that some statements are to be sent to a peer once more, whatever it has acknowledged.

    Args:
        tx: the transaction.
        name: the peer.
        origin_ids: the statements.
        reason: why, for the operator.
        retry_ts: when, in ms.
    """
    if state(tx, name) is None:
        return
    for origin_id in origin_ids:
        tx.run(
            """
            INSERT INTO parked_statements (peer, origin_id, reason, parked_ts, tries, retry_ts)
            VALUES (?, ?, ?, ?, 0, ?)
            ON CONFLICT (peer, origin_id) DO UPDATE SET reason = excluded.reason, retry_ts = excluded.retry_ts
            """,
            (name, origin_id, reason, retry_ts, retry_ts),
        )


def let_go(tx: Tx, name: str, origin_ids: Collection[int]) -> None:
    """The peer has taken some statements: those of them that were parked no longer are."""
    for origin_id in origin_ids:
        tx.run("DELETE FROM parked_statements WHERE peer = ? AND origin_id = ?", (name, origin_id))
    erase_acknowledged(tx)


def parked(tx: Tx, name: str) -> list[tuple[int, str]]:
    """The statements that are parked for a peer, and what it has said of each."""
    rows = tx.rows(
        "SELECT origin_id, reason FROM parked_statements WHERE peer = ? ORDER BY origin_id", (name,)
    )
    return [(origin_id, reason) for origin_id, reason in rows]


def failed(  # noqa: PLR0917 - a peer, a reason and times
    tx: Tx, name: str, failure: Failed, lease_until_ts: int, now_ms: int, jitter: float
) -> int:
    """A push has failed: the peer is left alone for a while; until when, in ms. The lease ends.

    Under a lease that has ended before, nothing is noted.

    Args:
        tx: the transaction.
        name: the peer.
        failure: what went wrong.
        lease_until_ts: the lease.
        now_ms: the time, in ms.
        jitter: a random number between -1 and 1.
    """
    found = state(tx, name)
    if found is None or not release(tx, name, lease_until_ts):
        return now_ms
    since = now_ms if found.failing_since_ts is None else found.failing_since_ts
    failures = found.failures + 1
    # One that answers, but takes nothing, may well take the next statement that is made.
    failing_ms = 0 if failure.kind == REFUSED else now_ms - since
    retry_ts = now_ms + backoff_ms(failures, failing_ms, jitter)
    tx.run(
        """
        UPDATE peers SET failures = ?, failing_since_ts = ?, retry_ts = ?, last_failure = ?, last_failure_ts = ?
        WHERE name = ?
        """,
        (failures, since, retry_ts, failure.reason, now_ms, name),
    )
    return retry_ts


def wake(tx: Tx, name: str) -> bool:
    """The peer was heard from: what waits for it is tried now; whether it was left alone.

    Its failures stay counted until it takes something: being heard from is a reason to try, and no proof.
    """
    return tx.run("UPDATE peers SET retry_ts = 0 WHERE name = ? AND retry_ts > 0", (name,)) > 0
