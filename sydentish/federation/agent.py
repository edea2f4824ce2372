"""HTTPS along a route: one connection per request, nothing followed or remembered, bounded answers."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.interfaces import IHostnameResolver, IStreamClientEndpoint
from twisted.web.http_headers import Headers

from sydentish.federation.addresses import AddressPolicy
from sydentish.federation.discovery import Route
from sydentish.federation.endpoint import RouteEndpoint
from sydentish.federation.tls import TlsOptions
from sydentish.outgoing import exchange


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
        headers = Headers({"User-Agent": [self._user_agent], "Accept": ["application/json"]})
        # Nothing that unpacks to more than it was.
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        headers.setRawHeaders("Host", [route.host_header])
        if request.body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
        response, body = await exchange(
            self._reactor,
            self.endpoint(route),
            max_bytes,
            method=request.method,
            url=f"https://{route.host_header}{request.path}",
            headers=headers,
            body=request.body,
        )
        return RawAnswer(response.code, response.headers, body)

    def endpoint(self, route: Route, tls: TlsOptions | None = None) -> IStreamClientEndpoint:
        """Connects along a route.

        Args:
            route: where to.
            tls: judges certificates instead of what usually does.
        """
        return RouteEndpoint(
            self._reactor,
            route,
            resolver=self._resolver,
            policy=self._policy,
            tls=tls or self._tls,
            connect_limit=self._connect_limit,
        )
