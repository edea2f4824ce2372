"""What peers are still to be asked for, after a backup was restored."""

from dataclasses import dataclass

from sydentish.domain.peers import Peer
from sydentish.store.database import Tx
from sydentish.store.peers import in_use
from sydentish.store.statements import last_id


@dataclass(frozen=True, slots=True)
class Pending:
    """A peer that is to be asked.

    Attributes:
        peer: who it is.
        own_id: the highest number of a statement of ours that was in the backup.
        peers_id: the highest of a statement of the peer's.
    """

    peer: Peer
    own_id: int
    peers_id: int


def note(tx: Tx, own_id: int) -> None:
    """All peers are to be asked for what was stated after what is known now.

    Where an earlier backup was not made up for, what was missing then is asked for, too.

    Args:
        tx: the transaction.
        own_id: the highest number that a statement of ours had.
    """
    for peer in in_use(tx):
        tx.run(
            """
            INSERT INTO recalls (peer, own_id, peers_id) VALUES (?, ?, ?) ON CONFLICT (peer) DO NOTHING
            """,
            (peer.name, own_id, last_id(tx, peer.name)),
        )


def pending(tx: Tx) -> list[Pending]:
    """Whom to ask for what, by name; peers that are left alone are not asked."""
    asked = {peer: ids for peer, *ids in tx.rows("SELECT peer, own_id, peers_id FROM recalls")}
    return [Pending(peer, *asked[peer.name]) for peer in in_use(tx) if peer.name in asked]


def done(tx: Tx) -> None:
    """All there is was asked for."""
    tx.run("DELETE FROM recalls")
