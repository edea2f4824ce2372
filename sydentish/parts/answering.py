"""What answers requests."""

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from sydentish.actions.accounts import Gate
from sydentish.actions.outbox import KINDS
from sydentish.actions.validation import Validation
from sydentish.config import Config
from sydentish.lifecycle import Listener, ListenerProblem
from sydentish.metrics import Metrics
from sydentish.parts.world import World
from sydentish.store import outbox as outbox_rows
from sydentish.store.database import Database
from sydentish.web.dispatch import Dispatcher, RequestLimits, RequestLog
from sydentish.web.handlers.validation import ValidationPages
from sydentish.web.http import ConnectionLimits, HttpFactory
from sydentish.web.pages import Pages
from sydentish.web.route import Route
from sydentish.web.routes import (
    CONFIRM_EMAIL,
    PUBLIC_PREFIX,
)

_DRAIN_SHARE = 0.75


def validation_pages(config: Config, validation: Validation, pages: Pages) -> ValidationPages:
    """Where the link of a validation mail leads."""
    return ValidationPages(
        validation,
        pages,
        confirm=config.validation.confirm_links,
        confirm_action=f"{config.general.public_base_url}{PUBLIC_PREFIX}{CONFIRM_EMAIL}",
    )


def metrics_renderer(world: World, db: Database, metrics: Metrics) -> Callable[[], Awaitable[bytes]]:
    """Brings the figures up to date, and writes them."""

    async def render() -> bytes:
        metrics.set_outbox(KINDS, await db.read(outbox_rows.counts), world.now_ms())
        return metrics.render()

    return render


class Web:
    """Makes listeners; what all of them share is given once.

    Args:
        config: sizes and times.
        world: sockets and time.
        log: hears of every answer.
        connections: how many connections each listener holds; None for any number.
    """

    def __init__(self, config: Config, world: World, log: RequestLog, connections: int | None) -> None:
        self._options = config.http
        self._connections = connections
        self._world = world
        self._log = log

    def listeners(
        self,
        where: Sequence[str],
        routes: Sequence[Route],
        prefix: str,
        gate: Gate | None = None,
        pages: Pages | None = None,
    ) -> list[Listener]:
        """A listener for each endpoint string, all with the same routes.

        Raises:
            ListenerProblem: an endpoint string cannot be used.
        """
        dispatcher = Dispatcher(
            routes=routes,
            prefix=prefix,
            gate=gate,
            pages=pages,
            limits=self._request_limits(),
            token_in_query=self._options.access_token_in_query,
            clock=self._world.reactor,
            new_request_id=lambda: self._world.random_bytes(8).hex(),
            log=self._log,
        )
        return [
            Listener(
                description,
                self._endpoint(description),
                HttpFactory(dispatcher, self._connection_limits(), self._world.reactor),
                clock=self._world.reactor,
                # The rest of the time is for the outbox and the queue of the database.
                drain_seconds=self._options.stop_timeout / 1000 * _DRAIN_SHARE,
            )
            for description in where
        ]

    def _endpoint(self, description: str) -> IStreamServerEndpoint:
        try:
            endpoint: IStreamServerEndpoint = serverFromString(self._world.reactor, description)
        except Exception as error:  # whatever Twisted, its plugins and OpenSSL find wrong with it
            raise ListenerProblem(f"{description}: cannot be used: {error}") from error
        return endpoint

    def _request_limits(self) -> RequestLimits:
        return RequestLimits(
            body=self._options.body_limit,
            large_body=self._options.lookup_body_limit,
            answer_seconds=_seconds(self._options.request_timeout),
        )

    def _connection_limits(self) -> ConnectionLimits:
        return ConnectionLimits(
            header_bytes=self._options.header_limit,
            receive_seconds=_seconds(self._options.receive_timeout),
            idle_seconds=_seconds(self._options.idle_timeout),
            connections=self._connections,
        )


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
