"""What answers requests."""

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IStreamServerEndpoint

from sydentish.actions.accounts import Gate
from sydentish.actions.budgets import SourceBudget
from sydentish.actions.ports import HomeserverProofs, PeerDirectory, PushReceiver
from sydentish.config import Config
from sydentish.domain.ratelimit import Budgets
from sydentish.lifecycle import Listener
from sydentish.logs import LogFile, RequestRecorder, shows_requests
from sydentish.metrics import Metrics
from sydentish.parts.deeds import Deeds
from sydentish.parts.endpoints import Endpoints
from sydentish.parts.handlers import (
    internal_handlers,
    public_handlers,
    replication_handlers,
)
from sydentish.parts.people import make_pages
from sydentish.parts.world import World
from sydentish.senders.render import Templates
from sydentish.store.database import Database
from sydentish.web.admission import (
    Admission,
    InternalAdmission,
    OpenAdmission,
    PeerAdmission,
    PublicAdmission,
)
from sydentish.web.connections import Connections
from sydentish.web.dispatch import Dispatcher, RequestLimits, RequestLog
from sydentish.web.handlers.health import HealthHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.http import ConnectionLimits, HttpFactory
from sydentish.web.pages import Pages
from sydentish.web.route import Route
from sydentish.web.routes import (
    IDENTITY_PREFIX,
    internal_routes,
    metrics_routes,
    public_routes,
    replication_routes,
)
from sydentish.web.sources import Sources

_DRAIN_SHARE = 0.75
OPERATORS_CONNECTIONS = 50
"""How many connections a listener holds that is for the operator's own programs, or for peers."""

PEERS_CONNECTIONS = 500
"""How many a listener for peers holds: who has no certificate can hold one until it times out."""


def request_recorder(config: Config, log: LogFile, metrics: Metrics) -> RequestRecorder:
    """What hears of every answer."""
    return RequestRecorder(log, metrics, lines=shows_requests(config.log.level))


def public_admission(
    config: Config,
    world: World,
    *,
    budgets: Budgets,
    db: Database,
    gate: Gate,
    proofs: HomeserverProofs,
) -> PublicAdmission:
    """What the public listener asks of callers."""
    options = config.http
    return PublicAdmission(
        gate=gate,
        sources=Sources(options.trusted_proxies, options.v1_trusted_networks),
        budget=SourceBudget(db=db, budgets=budgets, now_ms=world.now_ms),
        proofs=proofs,
        token_in_query=options.access_token_in_query,
    )


class Web:
    """Makes listeners; what all of them share is given once.

    Args:
        config: sizes and times.
        world: sockets and time.
        log: hears of every answer.
        connections: how many connections each public listener holds; None for any number.

    Attributes:
        endpoints: where the listeners that were made listen.
        connections: how many connections they have.
    """

    def __init__(self, config: Config, world: World, log: RequestLog, connections: int | None) -> None:
        self._config = config
        self._options = config.http
        self._most_connections = connections
        self._world = world
        self._log = log
        self.endpoints = Endpoints(world.reactor, world.sockets)
        self.connections = Connections()

    def public(self, deeds: Deeds, admission: Admission, templates: Templates) -> list[Listener]:
        """The listeners of the public API.

        Raises:
            ListenerProblem: an endpoint string cannot be used; so do the others.
        """
        pages = make_pages(self._config, templates)
        routes = public_routes(public_handlers(self._config, deeds, pages), self._options.v1_endpoints)
        dispatcher = self._dispatcher(routes, IDENTITY_PREFIX, admission, self._request_limits(), pages)
        return self._listeners("public", self._options.listeners, dispatcher, self._most_connections)

    def internal(self, deeds: Deeds) -> list[Listener]:
        """The listeners of the internal API; its bulk call takes the time that it takes."""
        token = self._options.internal_token
        admission = InternalAdmission(None if token is None else token.reveal())
        limits = RequestLimits(
            body=self._options.body_limit, large_body=self._options.internal_body_limit, answer_seconds=None
        )
        dispatcher = self._dispatcher(
            internal_routes(internal_handlers(deeds)), IDENTITY_PREFIX, admission, limits
        )
        return self._listeners(
            "internal", self._options.internal_listeners, dispatcher, OPERATORS_CONNECTIONS, local_only=True
        )

    def replication(
        self,
        receiver: PushReceiver,
        peers: PeerDirectory,
        secure: Callable[[IStreamServerEndpoint], IStreamServerEndpoint],
    ) -> list[Listener]:
        """The listeners for peers.

        Args:
            receiver: takes what they push.
            peers: knows them by their certificates.
            secure: puts TLS around an endpoint, which asks for such a certificate.
        """
        options = self._config.replication
        limits = RequestLimits(
            body=self._options.body_limit,
            large_body=options.body_limit,
            answer_seconds=_seconds(self._options.request_timeout),
        )
        dispatcher = self._dispatcher(
            replication_routes(replication_handlers(receiver)), IDENTITY_PREFIX, PeerAdmission(peers), limits
        )
        return self._listeners("replication", options.listeners, dispatcher, PEERS_CONNECTIONS, secure)

    def metrics(self, metrics: MetricsHandlers, health: HealthHandlers) -> list[Listener]:
        """The listeners for those who watch the server: metrics, and health."""
        routes = metrics_routes(metrics, health)
        dispatcher = self._dispatcher(routes, "/", OpenAdmission(), self._request_limits())
        return self._listeners("metrics", self._options.metrics_listeners, dispatcher, OPERATORS_CONNECTIONS)

    def _dispatcher(
        self,
        routes: Sequence[Route],
        prefix: str,
        admission: Admission,
        limits: RequestLimits,
        pages: Pages | None = None,
    ) -> Dispatcher:
        return Dispatcher(
            routes=routes,
            prefix=prefix,
            admission=admission,
            pages=pages,
            limits=limits,
            clock=self._world.reactor,
            new_request_id=lambda: self._world.random_bytes(8).hex(),
            log=self._log,
        )

    def _listeners(
        self,
        kind: str,
        where: Sequence[str],
        dispatcher: Dispatcher,
        connections: int | None,
        secure: Callable[[IStreamServerEndpoint], IStreamServerEndpoint] = lambda endpoint: endpoint,
        *,
        local_only: bool = False,
    ) -> list[Listener]:
        made = []
        for description, endpoint in [self.endpoints.make(each, local_only=local_only) for each in where]:
            factory = HttpFactory(dispatcher, self._connection_limits(connections), self._world.reactor)
            self.connections.watch(kind, factory)
            # The rest of the time is for the outbox and the queue of the database.
            drain_seconds = self._options.stop_timeout / 1000 * _DRAIN_SHARE
            made.append(
                Listener(
                    description,
                    secure(endpoint),
                    factory,
                    clock=self._world.reactor,
                    drain_seconds=drain_seconds,
                )
            )
        return made

    def _request_limits(self) -> RequestLimits:
        return RequestLimits(
            body=self._options.body_limit,
            large_body=self._options.lookup_body_limit,
            answer_seconds=_seconds(self._options.request_timeout),
        )

    def _connection_limits(self, connections: int | None) -> ConnectionLimits:
        return ConnectionLimits(
            header_bytes=self._options.header_limit,
            receive_seconds=_seconds(self._options.receive_timeout),
            idle_seconds=_seconds(self._options.idle_timeout),
            connections=connections,
        )


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
