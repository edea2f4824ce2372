"""How far behind peers are: for operators, and for metrics."""

from dataclasses import dataclass

from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.store.database import Tx, number
from sydentish.store.peers import PeerState, states
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
    parked = "SELECT count(*) FROM parked_statements WHERE peer = ?"
    return [
        PeerReport(each, *lag(tx, server_name, each), number(tx, parked, each.peer.name))
        for each in states(tx)
    ]


def lag(tx: Tx, server_name: str, state: PeerState) -> tuple[int, int | None]:
    """How many of our statements a peer has not acknowledged, and since when the oldest of them waits, in ms."""
    name, after = state.peer.name, state.acknowledged_id
    behind = number(
        tx, "SELECT count(*) FROM associations WHERE origin_server = ? AND origin_id > ?", server_name, after
    ) + number(tx, "SELECT count(*) FROM tombstones WHERE origin_id > ?", after)
    # With the plus sign SQLite looks each number up. Without, it takes the bound of the one for a range of the other,
    # which it goes through for each row.
    bound, unbound = (
        tx.row(
            f"""
            SELECT count(*), min(made.ts) FROM parked_statements AS p
            JOIN {table} AS made ON {whose} made.origin_id = +p.origin_id
            WHERE p.peer = ? AND p.origin_id <= ?
            """,  # noqa: S608 - constants
            (*whom, name, after),
        )
        or (0, None)
        for table, whose, whom in (
            ("associations", "made.origin_server = ? AND", (server_name,)),
            ("tombstones", "", ()),
        )
    )
    fresh = log_between(tx, server_name, after, MAX_ORIGIN_ID, 1)
    made = [ts for ts in (bound[1], unbound[1], *(each.ts for each in fresh)) if ts is not None]
    return behind + bound[0] + unbound[0], max(state.since_ts, min(made)) if made else None


def behind_at(tx: Tx, origin_id: int) -> list[str]:
    """The peers that have not acknowledged one of our statements yet, or have refused it by name.

    Those that are no longer in the configuration are not among them: they are left alone.
    """
    rows = tx.rows(
        """
        SELECT name FROM peers WHERE source <> 'gone' AND (
            acknowledged_id < ? OR EXISTS (SELECT 1 FROM parked_statements WHERE peer = name AND origin_id = ?)
        ) ORDER BY name
        """,
        (origin_id, origin_id),
    )
    return [name for (name,) in rows]
