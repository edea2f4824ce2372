"""HTTPS along a route: one connection per request, nothing followed or remembered, bounded answers."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IHostnameResolver, IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from sydentish.federation.addresses import AddressPolicy
from sydentish.federation.discovery import Route
from sydentish.federation.endpoint import AnswerTooLarge, EndpointLimits, RouteEndpoint
from sydentish.federation.tls import TlsOptions
from sydentish.federation.waiting import cancellable

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


@implementer(IAgent)
class RouteAgent:
    """An agent that connects through one endpoint, whatever the URI says, and never twice."""

    def __init__(self, reactor: Any, endpoint: IStreamClientEndpoint) -> None:  # noqa: ANN401 - several interfaces at once
        self._agent = Agent.usingEndpointFactory(reactor, _Always(endpoint))

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See `IAgent`."""
        response: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return response


@implementer(IAgentEndpointFactory)
class _Always:
    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002 - the interface's
        return self._endpoint


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
            resolver: resolves host names; should not be one that others wait for, since a homeserver chooses how
                long its name takes.
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
        # A body in chunks of one byte is six times its size; more is nobody's honest answer.
        limits = EndpointLimits(self._connect_limit, _MAX_HEAD + 6 * max_bytes)
        endpoint = RouteEndpoint(
            self._reactor,
            route,
            resolver=self._resolver,
            policy=self._policy,
            tls=self._tls,
            limits=limits,
        )
        agent = RouteAgent(self._reactor, endpoint)
        try:
            response = await cancellable(self._send(agent, route, request))
            body = await _collect(response, max_bytes)
        finally:
            endpoint.abort()
        return RawAnswer(response.code, response.headers, body)

    def _send(self, agent: IAgent, route: Route, request: Request) -> Deferred[IResponse]:
        headers = Headers({"User-Agent": [self._user_agent], "Accept": ["application/json"]})
        # Nothing that unpacks to more than it was.
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        headers.setRawHeaders("Host", [route.host_header])
        producer = None
        if request.body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
            producer = _Body(request.body)
        uri = f"https://{route.host_header}{request.path}".encode("ascii")
        return agent.request(request.method.encode("ascii"), uri, headers, producer)


@implementer(IBodyProducer)
class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing to pause: all was written at once."""

    resumeProducing = stopProducing = pauseProducing


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
