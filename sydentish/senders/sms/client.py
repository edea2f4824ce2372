"""HTTP to a gateway: one connection for each request, nothing followed or remembered, answers bounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from sydentish.outgoing import NOT_ACCEPTED, TIMED_OUT, TOO_LARGE, OneConnection, WholeBody, explain
from sydentish.senders.relay import relay_tls
from sydentish.senders.sms.gateway import GatewayError
from sydentish.waiting import within

_MAX_BODY = 64 * 1024
# Status line and headers, and what chunks cost; more is nobody's honest answer.
_MAX_BYTES = 4 * _MAX_BODY
_PORTS = {"http": 80, "https": 443}
_TOO_MANY_REQUESTS = 429
_REQUEST_TIMEOUT = 408
_SERVER_ERRORS = range(500, 600)


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """What is asked; nothing of it is to be logged.

    Attributes:
        method: the HTTP method.
        url: encoded; on the host that the client is for.
        headers: those of this request, `Content-Type` among them where there is a body.
        body: or None.
    """

    method: str
    url: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """What was answered.

    Attributes:
        status: the HTTP status.
        body: the first 64 KiB of the body, or less where it broke off; empty where it was not asked for.
    """

    status: int
    body: bytes = field(default=b"", repr=False)

    @property
    def temporary(self) -> bool:
        """Whether a refusal by this status may be over soon."""
        return self.status in {_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS} or self.status in _SERVER_ERRORS


class GatewayClient:
    """Asks one gateway; redirects are answers, not followed, since they would take credentials elsewhere."""

    def __init__(
        self,
        *,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        clock: IReactorTime,
        url: str,
        username: str | None = None,
        password: str = "",
        ca_file: Path | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            reactor: opens connections and resolves names.
            clock: measures the limits.
            url: any URL on the gateway: its scheme, host and port count.
            username: for Basic authentication (RFC 7617), or None for none.
            password: to go with it.
            ca_file: certificates (PEM) of the authorities to trust instead of those of the system.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds no certificate, the URL is not one of http or https, or the user name
                cannot be used.
        """
        if username is not None and (":" in username or not username.isprintable()):
            raise ValueError("username: must have no colon and no control characters")
        self._reactor = reactor
        self._clock = clock
        self._login = None if username is None else (username, password)
        scheme, self._host, self._port = _parts(url)
        self._tls = relay_tls(self._host, ca_file) if scheme == "https" else None

    async def ask(
        self, request: GatewayRequest, time_limit: float, wants_body: Callable[[int], bool]
    ) -> GatewayAnswer:
        """Sends one request. When this returns or raises, its connection is closed.

        Args:
            request: what is sent.
            time_limit: seconds for everything.
            wants_body: whether the body counts, given the status. Where it does not, it is not waited for: an
                SMS that was taken is not sent again for the sake of it.

        Raises:
            GatewayError: no usable answer came within the limit.
        """
        try:
            return await within(time_limit, self._clock, self._ask(request, wants_body))
        except DeferredTimeoutError:
            raise GatewayError("no answer within the time limit", temporary=True, timed_out=True) from None

    async def _ask(self, request: GatewayRequest, wants_body: Callable[[int], bool]) -> GatewayAnswer:
        connection = OneConnection(self._endpoint(), _MAX_BYTES)
        client = HTTPClient(Agent.usingEndpointFactory(self._reactor, connection))
        try:
            response = await client.request(
                request.method,
                request.url,
                headers=_headers(request),
                data=None if request.body is None else WholeBody(request.body),
                auth=self._login,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            body = await _beginning(response) if wants_body(response.code) else b""
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the network, OpenSSL and HTTP fail in many ways
            # Without its cause: that may show the URL, and with it number, text and credentials.
            reason = explain(error)
            temporary = reason not in {NOT_ACCEPTED, TOO_LARGE}
            raise GatewayError(reason, temporary=temporary, timed_out=reason == TIMED_OUT) from None
        finally:
            connection.abort()
        return GatewayAnswer(response.code, body)

    def _endpoint(self) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(self._reactor, self._host, self._port)
        return endpoint if self._tls is None else wrapClientTLS(self._tls, endpoint)


def base(url: str) -> str:
    """A URL that a path is put after.

    Raises:
        ValueError: it has a query.
    """
    if "?" in url:
        raise ValueError("base_url: must have no query")
    return url.rstrip("/")


def _parts(url: str) -> tuple[str, str, int]:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the URL must have everything encoded but ASCII letters, digits and signs")
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        raise ValueError("the URL must begin with https:// or http://, and a port is 1 to 65535") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("the URL must begin with https:// or http:// and a host")
    if "@" in parts.netloc or "#" in url:
        raise ValueError(
            "the URL must have no user name or password, which have options of their own, and no #"
        )
    return parts.scheme, parts.hostname, port


def _headers(request: GatewayRequest) -> Headers:
    headers = Headers()
    for name, value in request.headers:
        headers.addRawHeader(name, value)
    return headers


def _beginning(response: IResponse) -> Deferred[bytes]:
    collector = _Beginning()
    response.deliverBody(collector)
    return collector.result


class _Beginning(Protocol):
    """Takes the beginning of a body, however it ends: what is there is judged."""

    def __init__(self) -> None:
        self._body = bytearray()
        self.result: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._body += data[: _MAX_BODY - len(self._body)]
        if len(self._body) == _MAX_BODY:
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - the interface's
        self._end()

    def _end(self) -> None:
        if not self.result.called:
            self.result.callback(bytes(self._body))
