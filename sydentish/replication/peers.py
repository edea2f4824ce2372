"""The peers of this server: kept in the database, since a command can add one while the server runs."""

from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sydentish.domain.errors import UnknownPeer
from sydentish.domain.peers import Peer, recognised
from sydentish.store import peers as peer_rows
from sydentish.store.database import Database, Tx
from sydentish.store.peers import PeerState

_log = Logger()


class Peers(Service):
    """Knows the peers; implements `PeerDirectory`.

    When it starts, it makes those of the configuration known.

    Args:
        db: the database.
        configured: the peers of the configuration.
        on_known: called once they are known.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        db: Database,
        configured: Sequence[Peer],
        on_known: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._configured = configured
        self._on_known = on_known
        self._now_ms = now_ms

    def startService(self) -> None:
        """Makes the peers of the configuration known."""
        Service.startService(self)
        Deferred.fromCoroutine(self._configure())

    async def peer_of(self, certificate_names: Sequence[str]) -> str:
        """See `PeerDirectory`."""
        peer = recognised(certificate_names, await self._db.read(peer_rows.in_use))
        if peer is None:
            shown = ", ".join(certificate_names) or "nobody"
            _log.warn("a server with a certificate for {names} was refused: it is no peer", names=shown)
            raise UnknownPeer("The certificate is not that of a peer of this server")
        return peer.name

    async def _configure(self) -> None:
        try:
            states = await self._db.write(self._note, self._now_ms())
        except Exception:  # noqa: BLE001 - those of the last start are known
            _log.failure("the peers of the configuration could not be noted")
            return
        self._on_known()
        for state in states:
            if not state.in_use:
                _log.warn(
                    "the peer {name} is no longer in the configuration: nothing is exchanged with it, and addresses are "
                    "not erased before it has heard of that; put it back, or forget it: sydentish peers remove {name}",
                    name=state.peer.name,
                )

    def _note(self, tx: Tx, now_ms: int) -> list[PeerState]:
        peer_rows.configure(tx, self._configured, now_ms)
        return peer_rows.states(tx)
