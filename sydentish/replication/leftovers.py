"""Binds of ours that a peer still has, though nothing of them is left here.

It has missed what came later: it was removed when an address was unbound, and added again, or was set back to an old
copy of its database. What was unbound is erased here, so that only the peer can tell of which address it should hear.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sydentish.domain.associations import Association
from sydentish.domain.keys import KeyRing
from sydentish.domain.signatures import check_signed_by
from sydentish.domain.statements import Order, Tombstone, order_of, read_statement
from sydentish.replication.comparing import Digests
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Tx

_STILL_BOUND = "it still has what was unbound since, and is sent that again"
_RETRY_MS = 60_000


@dataclass(slots=True)
class Leftovers:
    """What has become of them here.

    Attributes:
        unbound: those whose addresses were unbound here: the number of each, and that of the unbind.
        outdated: those of whose addresses something newer is known, that the peer is sent by whoever has stated it.
    """

    unbound: dict[int, int] = field(default_factory=dict)
    outdated: set[int] = field(default_factory=set)


def ours_among(
    told: Mapping[int, Mapping[str, object]], digests: Digests, keys: KeyRing
) -> list[Association]:
    """Those of the JSON objects of a peer that we have signed, and that it has told the digests of.

    Args:
        told: what it has answered, by number.
        digests: of one number each.
        keys: what we sign with, or have signed with.
    """
    found = []
    for origin_id, value in told.items():
        try:
            check_signed_by(value, keys.server_name, keys.public_key)
            statement = read_statement(value, keys.server_name, origin_id)
        except ValueError:
            continue
        # Its number is not signed; so it is at least the one that the peer has under that number.
        if isinstance(statement, Association) and digests.get(origin_id - 1) == statement_rows.digest_of(
            statement
        ):
            found.append(statement)
    return found


def bring_back(tx: Tx, peer: str, leftovers: Iterable[Association], now_ms: int) -> Leftovers:
    """Looks up what has become of each; an unbind whose address was erased is sent to the peer again.

    Such addresses stand here again until the peer has taken that, as with every unbind: a server that runs sends it, too.

    Args:
        tx: the transaction.
        peer: who has them.
        leftovers: what it has, signed by us.
        now_ms: the time, in ms.
    """
    found = Leftovers()
    if peer_rows.state(tx, peer) is None:
        return found
    for bind in leftovers:
        newest = statement_rows.newest(tx, bind.threepid)
        if newest is None or newest <= order_of(bind):
            # Nothing is known here of why it should be wrong: this database was set back.
            continue
        if _is_unbind_of_ours(tx, bind, newest):
            found.unbound[bind.origin_id] = newest.origin_id
        else:
            found.outdated.add(bind.origin_id)
    push_rows.hold_back(tx, peer, sorted(set(found.unbound.values())), _STILL_BOUND, now_ms + _RETRY_MS)
    return found


def _is_unbind_of_ours(tx: Tx, bind: Association, newest: Order) -> bool:
    """Whether an address was unbound by us; our tombstone is there then."""
    us = bind.origin_server
    if newest.origin_server != us:
        return False
    known = statement_rows.own_statement(tx, us, newest.origin_id)
    if known is None:
        statement_rows.add_tombstone(tx, Tombstone(bind.threepid, newest.ts, us, newest.origin_id))
    return not isinstance(known, Association)
