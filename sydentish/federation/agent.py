"""HTTPS along a route: one connection per request, nothing followed or remembered, bounded answers."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from sydentish.federation.addresses import AddressPolicy
from sydentish.federation.discovery import Route
from sydentish.federation.endpoint import RouteEndpoint
from sydentish.federation.tls import TlsOptions
from sydentish.outgoing import AnswerTooLarge, OneConnection, WholeBody
from sydentish.waiting import cancellable

# What status line and headers may take; real homeservers send less than 1 KiB.
_MAX_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        method: the HTTP method.
        path: path and query, encoded; not shown in a repr, since a query can hold a token.
        body: a JSON text, or None.
    """

    method: str
    path: str = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What was answered."""

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


class Exchange(Protocol):
    """Sends one request along a route."""

    async def __call__(self, route: Route, request: Request, max_bytes: int) -> RawAnswer:
        """The answer, with a body of at most `max_bytes` bytes; whatever goes wrong is an exception."""


class Https:
    """The real `Exchange`: no proxy, no cookies, no redirects followed, nothing kept open."""

    def __init__(
        self,
        *,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        resolver: IHostnameResolver,
        policy: AddressPolicy,
        tls: TlsOptions,
        connect_limit: float,
        user_agent: str,
    ) -> None:
        """Takes what it uses.

        Args:
            reactor: connects and keeps the time.
            resolver: resolves host names; its resolutions are cancelled when they take too long, since a homeserver
                chooses how long its name takes.
            policy: which addresses may be connected to.
            tls: from `tls_options`.
            connect_limit: seconds that resolving and connecting to one target may take.
            user_agent: the value of `User-Agent`.
        """
        self._reactor = reactor
        self._resolver = resolver
        self._policy = policy
        self._tls = tls
        self._connect_limit = connect_limit
        self._user_agent = user_agent

    async def __call__(self, route: Route, request: Request, max_bytes: int) -> RawAnswer:
        """Sends `request` along `route`.

        When it returns or raises, its connection is closed.

        Raises:
            AddressRefused: no address of the last target is permitted.
            AnswerTooLarge: headers or body are larger than allowed.
            Exception: whatever Twisted, OpenSSL and service_identity raise when a connection fails.
        """
        endpoint = RouteEndpoint(
            self._reactor,
            route,
            resolver=self._resolver,
            policy=self._policy,
            tls=self._tls,
            connect_limit=self._connect_limit,
        )
        # A body in chunks of one byte is six times its size; more is nobody's honest answer.
        connection = OneConnection(endpoint, _MAX_HEAD + 6 * max_bytes)
        agent = Agent.usingEndpointFactory(self._reactor, connection)
        try:
            response = await cancellable(self._send(agent, route, request))
            body = await _collect(response, max_bytes)
        finally:
            connection.abort()
        return RawAnswer(response.code, response.headers, body)

    def _send(self, agent: IAgent, route: Route, request: Request) -> Deferred[IResponse]:
        headers = Headers({"User-Agent": [self._user_agent], "Accept": ["application/json"]})
        # Nothing that unpacks to more than it was.
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        headers.setRawHeaders("Host", [route.host_header])
        producer = None
        if request.body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
            producer = WholeBody(request.body)
        uri = f"https://{route.host_header}{request.path}".encode("ascii")
        response: Deferred[IResponse] = agent.request(request.method.encode("ascii"), uri, headers, producer)
        return response


def _collect(response: IResponse, max_bytes: int) -> Deferred[bytes]:
    if isinstance(response.length, int) and response.length > max_bytes:
        return fail(AnswerTooLarge())
    collector = _Collector(max_bytes)
    response.deliverBody(collector)
    return cancellable(collector.result)


class _Collector(TwistedProtocol):
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._body = bytearray()
        self.result: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._max_bytes and not self.result.called:
            self.result.errback(AnswerTooLarge())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.result.called:
            return
        # PotentialDataLoss: neither length nor chunks, as HTTP/1.0 has it; the JSON shows whether it is whole.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.result.callback(bytes(self._body))
        else:
            self.result.errback(reason)
