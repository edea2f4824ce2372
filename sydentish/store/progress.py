"""How far behind peers are: for operators, and for metrics."""

from dataclasses import dataclass

from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.store.database import Tx
from sydentish.store.peers import PeerState, states
from sydentish.store.pushes import parked
from sydentish.store.statements import log_between


@dataclass(frozen=True, slots=True)
class PeerReport:
    """A peer, how it fares, and what waits for it.

    Attributes:
        state: the peer.
        behind: how many of our statements it has not acknowledged.
        waiting_since_ts: since when the oldest of them waits, in ms; None without any.
        parked: how many of them it has refused by name.
    """

    state: PeerState
    behind: int
    waiting_since_ts: int | None
    parked: int


def report(tx: Tx, server_name: str) -> list[PeerReport]:
    """All peers, how they fare, and what waits for them.

    Args:
        tx: the transaction.
        server_name: our own.
    """
    return [
        PeerReport(each, *lag(tx, server_name, each), len(parked(tx, each.peer.name))) for each in states(tx)
    ]


def lag(tx: Tx, server_name: str, state: PeerState) -> tuple[int, int | None]:
    """How many of our statements a peer has not acknowledged, and since when the oldest of them waits, in ms."""
    name, after = state.peer.name, state.acknowledged_id
    rows = tx.rows(
        """
        SELECT count(*), NULL FROM associations WHERE origin_server = ? AND origin_id > ?
        UNION ALL
        SELECT count(*), NULL FROM tombstones WHERE origin_id > ?
        UNION ALL
        SELECT count(*), min(a.ts) FROM parked_statements AS p
        CROSS JOIN associations AS a ON a.origin_server = ? AND a.origin_id = p.origin_id
        WHERE p.peer = ? AND p.origin_id <= ?
        UNION ALL
        SELECT count(*), min(t.ts) FROM parked_statements AS p
        CROSS JOIN tombstones AS t ON t.origin_id = p.origin_id
        WHERE p.peer = ? AND p.origin_id <= ?
        """,
        (server_name, after, after, server_name, name, after, name, after),
    )
    fresh = log_between(tx, server_name, after, MAX_ORIGIN_ID, 1)
    made = [ts for _, ts in rows if ts is not None] + [each.ts for each in fresh]
    return sum(number for number, _ in rows), max(state.since_ts, min(made)) if made else None
