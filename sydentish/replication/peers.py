"""The peers of this server: kept in the database, since a command can add one while the server runs."""

from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from sydentish.domain.errors import UnknownPeer
from sydentish.domain.peers import Peer, recognised
from sydentish.replication.tls import shown_names
from sydentish.store import peers as peer_rows
from sydentish.store.database import Database, Tx
from sydentish.store.peers import PeerState

_RETRY_SECONDS = 5.0

_log = Logger()


class Peers(Service):
    """Knows the peers; implements `PeerDirectory`.

    When it starts, it makes those of the configuration known.

    Args:
        db: the database.
        configured: the peers of the configuration.
        clock: what time is waited by.
        on_known: called once they are known.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        db: Database,
        configured: Sequence[Peer],
        clock: IReactorTime,
        on_known: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._configured = configured
        self._clock = clock
        self._on_known = on_known
        self._now_ms = now_ms
        self._noting: Deferred[None] | None = None

    def startService(self) -> None:
        """Makes the peers of the configuration known."""
        Service.startService(self)
        self._noting = Deferred.fromCoroutine(self._note_all())

    def reconfigure(self, configured: Sequence[Peer]) -> None:
        """Makes those of a changed configuration known, in place of the former ones."""
        self._configured = configured
        if not self.running:
            return
        if self._noting is not None:
            self._noting.cancel()
        self._noting = Deferred.fromCoroutine(self._note_all())

    async def stopService(self) -> None:
        """Notes nothing more."""
        Service.stopService(self)
        if self._noting is not None:
            self._noting.cancel()
            await self._noting

    async def peer_of(self, certificate_names: Sequence[str]) -> str:
        """See `PeerDirectory`."""
        peer = recognised(certificate_names, await self._db.read(peer_rows.in_use))
        if peer is None:
            _log.warn(
                "a server with a certificate for {names} was refused: it is no peer",
                names=shown_names(certificate_names),
            )
            raise UnknownPeer("The certificate is not that of a peer of this server")
        return peer.name

    async def _note_all(self) -> None:
        """Tries until it is done: the database may be busy, and those of the last start are known meanwhile."""
        try:
            while not await self._noted():
                await deferLater(self._clock, _RETRY_SECONDS)
        except CancelledError:
            return
        self._on_known()

    async def _noted(self) -> bool:
        try:
            states = await self._db.write(self._note, self._now_ms())
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - it is tried again
            _log.failure("the peers of the configuration could not be noted; this is tried again")
            return False
        for state in states:
            if not state.in_use:
                _log.warn(
                    "the peer {name} is no longer in the configuration: nothing is exchanged with it, and addresses are "
                    "not erased before it has heard of that; put it back, or forget it: sydentish peers remove {name}",
                    name=state.peer.name,
                )
        return True

    def _note(self, tx: Tx, now_ms: int) -> list[PeerState]:
        peer_rows.configure(tx, self._configured, now_ms)
        return peer_rows.states(tx)
