"""What is pushed to a peer, signed and ready to be sent."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import Peer
from sydentish.domain.statements import Statement
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store.database import Tx
from sydentish.store.pushes import Batch


@dataclass(frozen=True, slots=True)
class Push:
    """A push that is ready to be sent.

    Attributes:
        peer: to whom.
        batch: what is in it.
        body: the same as JSON, signed.
        lease_until_ts: what it is sent under.
        more: whether there is more of it.
    """

    peer: Peer
    batch: Batch
    body: bytes = field(repr=False)
    lease_until_ts: int
    more: bool

    @property
    def origin_ids(self) -> frozenset[int]:
        """The numbers of the statements in it."""
        return frozenset(statement.origin_id for statement in self.batch.statements)


def prepare(  # noqa: PLR0917 - a peer, a time and bounds
    tx: Tx, keys: KeyRing, name: str, now_ms: int, limit: int, lease_until_ts: int
) -> Push | None:
    """What is to be pushed to a peer next; None if the peer is not known any more.

    Args:
        tx: the transaction.
        keys: what statements are signed with, and in whose name.
        name: the peer.
        now_ms: the time, in ms.
        limit: how many statements at the most.
        lease_until_ts: what it is sent under.
    """
    state = peer_rows.state(tx, name)
    if state is None:
        return None
    batch = push_rows.batch(tx, keys.server_name, state, now_ms, limit)
    body = push_body(keys, batch.statements)
    return Push(state.peer, batch, body, lease_until_ts, more=len(batch.statements) == limit)


def push_body(keys: KeyRing, statements: Iterable[Statement]) -> bytes:
    """Statements as they are pushed: signed, by number, as JSON."""
    return orjson.dumps({"sgAssocs": signed_statements(keys, statements)})


def signed_statements(keys: KeyRing, statements: Iterable[Statement]) -> dict[str, object]:
    """Statements of ours as JSON objects with our signature, by their numbers in decimal digits."""
    return {str(each.origin_id): keys.sign(each.to_json()) for each in statements}
