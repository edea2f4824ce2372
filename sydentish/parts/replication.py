"""The exchange of statements with peers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint

from sydentish.actions.ports import PushReceiver, StatementTaker
from sydentish.config import Config
from sydentish.domain.certificates import shortcomings
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import MOST_RECALLED
from sydentish.domain.statements import Statement, Tombstone
from sydentish.lifecycle import Listener
from sydentish.metrics import Metrics
from sydentish.parts.answering import Web
from sydentish.parts.world import World
from sydentish.replication.credentials import TlsProblem, read_certificate
from sydentish.replication.link import PeerLink
from sydentish.replication.peers import Peers
from sydentish.replication.pusher import Pusher
from sydentish.replication.recall import Recall, Taker
from sydentish.replication.receiver import Receiver
from sydentish.replication.resync import Resync
from sydentish.replication.tls import PeerTls, TlsEndpoint
from sydentish.replication.trial import Trial
from sydentish.store.database import Database

# How much longer a lease lasts than the push that it is for.
_LEASE_MARGIN_MS = 5000
_CONNECT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """What exchanges statements with peers.

    Attributes:
        pusher: sends them ours.
        receiver: takes theirs.
        secure: puts TLS in front of where the server listens for them.
        tls: our certificate, and whom we trust; may change while the server runs.
    """

    pusher: Pusher
    receiver: PushReceiver
    secure: Callable[[IStreamServerEndpoint], IStreamServerEndpoint]
    tls: PeerTls


@dataclass(frozen=True, slots=True)
class Replication:
    """The peers, and where a certificate is configured, the exchange with them."""

    peers: Peers
    exchange: Exchange | None

    @property
    def services(self) -> list[Any]:
        """What runs, in the order in which it starts."""
        return [self.peers] if self.exchange is None else [self.peers, self.exchange.pusher]

    def listeners(self, web: Web) -> list[Listener]:
        """Where the server listens for peers.

        Raises:
            ListenerProblem: an endpoint string cannot be used.
        """
        if self.exchange is None:
            return []
        return web.replication(self.exchange.receiver, self.peers, self.exchange.secure)

    def certificate_expires(self) -> float | None:
        """When the certificate expires that peers are shown, in s since 1970; None if they are shown none."""
        return None if self.exchange is None else self.exchange.tls.not_after_ms / 1000

    def wake(self) -> None:
        """Something may have been stated."""
        if self.exchange is not None:
            self.exchange.pusher.wake()


def make_replication(
    config: Config,
    world: World,
    *,
    db: Database,
    keys: KeyRing,
    statements: StatementTaker,
    on_taken: Callable[[], None],
    metrics: Metrics,
) -> Replication:
    """The parts that exchange statements with peers.

    Raises:
        TlsProblem: a certificate or key cannot be used.
    """
    options = config.replication
    tls = peer_tls(config)
    if tls is None:
        return Replication(_peers(config, world, db, lambda: None), None)
    pusher = Pusher(
        db=db,
        keys=keys,
        link=peer_link(config, world, tls),
        clock=world.reactor,
        batch_size=options.batch_size,
        lease_ms=options.timeout + _LEASE_MARGIN_MS,
        now_ms=world.now_ms,
        jitter=world.jitter,
        on_push=lambda peer, outcome, seconds: _note_push(metrics, peer, outcome, seconds),
    )
    receiver = Receiver(
        db=db,
        keys=keys,
        taker=statements,
        pusher=pusher,
        on_taken=lambda stated: _note_taken(metrics, stated, on_taken),
        on_received=lambda peer, counts: _note_received(metrics, peer, counts),
        max_statements=options.max_statements,
        max_future_ms=options.max_future,
        now_ms=world.now_ms,
    )
    exchange = _exchange(world, pusher, receiver, tls)
    return Replication(_peers(config, world, db, pusher.greet), exchange)


def _exchange(world: World, pusher: Pusher, receiver: Receiver, tls: PeerTls) -> Exchange:
    def secure(endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        return TlsEndpoint(endpoint, tls, world.reactor)

    return Exchange(pusher, receiver, secure, tls)


def _peers(config: Config, world: World, db: Database, on_known: Callable[[], None]) -> Peers:
    return Peers(db=db, configured=config.peers, clock=world.reactor, on_known=on_known, now_ms=world.now_ms)


def peer_tls(config: Config) -> PeerTls | None:
    """What we show to peers and ask of them; None where no certificate is configured.

    Raises:
        TlsProblem: a certificate or key cannot be used.
    """
    options = config.replication
    if options.certificate_file is None or options.ca_file is None:
        return None
    return PeerTls.load(options.certificate_file, options.key_file, options.ca_file)


def certificate_warnings(config: Config, now_ms: int) -> list[str]:
    """What is wrong with our certificate although the server starts with it.

    Args:
        config: what the operator has chosen.
        now_ms: the time, in ms.
    """
    path = config.replication.certificate_file
    try:
        found = [] if path is None else shortcomings(read_certificate(path), now_ms)
    except TlsProblem:  # is told of where the server would need it
        found = []
    return [str(config.places.problem("replication", "certificate_file", each)) for each in found]


def peer_link(config: Config, world: World, tls: PeerTls) -> PeerLink:
    """The way to peers."""
    return PeerLink(
        reactor=world.reactor,
        tls=tls,
        time_limit=config.replication.timeout / 1000,
        connect_limit=_CONNECT_SECONDS,
        max_bytes=_MAX_ANSWER_BYTES,
        user_agent=f"Sydentish/{version('sydentish')}",
    )


def make_trial(config: Config, world: World, *, keys: KeyRing, tls: PeerTls) -> Trial:
    """What tries peers."""
    return Trial(
        link=peer_link(config, world, tls),
        tls=tls,
        keys=keys,
        clock=world.reactor,
        time_limit=config.replication.timeout / 1000,
        max_future_ms=config.replication.max_future,
        now_ms=world.now_ms,
    )


def make_resync(
    config: Config,
    world: World,
    *,
    db: Database,
    keys: KeyRing,
    tls: PeerTls,
    on_progress: Callable[[int, int], None],
) -> Resync:
    """What compares with peers, and sends what they lack."""
    return Resync(
        db=db,
        keys=keys,
        link=peer_link(config, world, tls),
        batch_size=config.replication.batch_size,
        now_ms=world.now_ms,
        on_progress=on_progress,
    )


def make_recall(
    config: Config,
    world: World,
    *,
    db: Database,
    keys: KeyRing,
    tls: PeerTls,
    statements: Taker,
    all_addresses: bool,
    on_progress: Callable[[int, int], None],
) -> Recall:
    """What asks peers back after a backup was restored; see there."""
    receiver = Receiver(
        db=db,
        keys=keys,
        taker=statements,
        pusher=_Nobody(),
        on_taken=lambda _taken: None,
        on_received=lambda _peer, _counts: None,
        max_statements=MOST_RECALLED,
        max_future_ms=config.replication.max_future,
        now_ms=world.now_ms,
    )
    return Recall(
        db=db,
        keys=keys,
        link=peer_link(config, world, tls),
        taker=statements,
        receiver=receiver,
        max_future_ms=config.replication.max_future,
        now_ms=world.now_ms,
        all_addresses=all_addresses,
        on_progress=on_progress,
    )


class _Nobody:
    """Where no server runs, nobody waits for signs of life."""

    def heard_from(self, server_name: str) -> None:
        """See `SignsOfLife`."""


def _note_push(metrics: Metrics, peer: str, outcome: str, seconds: float) -> None:
    metrics.replication_pushes.labels(peer, outcome).inc()
    if outcome == "accepted":
        metrics.replication_push_seconds.labels(peer).observe(seconds)


def _note_taken(metrics: Metrics, statements: Sequence[Statement], on_taken: Callable[[], None]) -> None:
    on_taken()
    for each in statements:
        counter = metrics.bindings_removed if isinstance(each, Tombstone) else metrics.bindings_made
        counter.labels(each.threepid.medium, "peer").inc()


def _note_received(metrics: Metrics, peer: str, counts: Mapping[str, int]) -> None:
    for outcome, number in counts.items():
        metrics.replication_received.labels(peer, outcome).inc(number)
