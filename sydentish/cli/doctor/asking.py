"""Asking a server over HTTP, and seeing all of its answer, whoever answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import urlsplit

import orjson
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.web.http_headers import Headers

from sydentish.cli.printing import shown
from sydentish.federation.tls import tls_options
from sydentish.outgoing import exchange, explain
from sydentish.parts.world import World
from sydentish.waiting import within

ORIGIN = "https://client.example.org"
"""The web page that asks, as far as servers can tell."""

SECONDS = 10.0
"""How long one answer may take."""

_PORTS = {"http": 80, "https": 443}
_MAX_BYTES = 256 * 1024
_LONGEST_TOLD = 100


class NoAnswer(Exception):
    """No usable answer came.

    Attributes:
        reason: why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered.

    Attributes:
        status: the HTTP status.
        headers: all of them.
        body: all of it.
        sent_ms: when it was asked, by our clock, in ms.
        received_ms: when the answer was there.
    """

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    sent_ms: int
    received_ms: int

    @property
    def json(self) -> Mapping[str, object] | None:
        """The JSON object in it, if it is one."""
        return json_object(self.body)

    def all(self, name: str) -> list[str]:
        """The values of a header, each as it came."""
        return [value.decode("latin-1") for value in self.headers.getRawHeaders(name.encode(), [])]

    @property
    def told(self) -> str:
        """What it is, in a few words."""
        if self.json is not None:
            code = self.json.get("errcode")
            return f"HTTP {self.status} {quoted(code)}" if isinstance(code, str) else f"HTTP {self.status}"
        return f"HTTP {self.status} with {'a page for people' if self.is_page else 'no JSON'}"

    @property
    def is_page(self) -> bool:
        """Whether it is something for people to read."""
        return "text/html" in "".join(self.all("Content-Type")).lower() or self.body.lstrip().startswith(b"<")

    def is_error(self, status: int, errcode: str) -> bool:
        """Whether it is a certain Matrix error."""
        return self.status == status and (self.json or {}).get("errcode") == errcode


class Asker:
    """Asks one server, by a connection for each request. Redirects are answers, and certificates looked at elsewhere.

    Args:
        world: time and sockets.
        base_url: what every path is put after.
        endpoint: connects, instead of to the host of the URL.
        seconds: how long one answer may take.
    """

    def __init__(
        self,
        world: World,
        base_url: str,
        endpoint: IStreamClientEndpoint | None = None,
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._world = world
        self._seconds = seconds
        self._base_url = base_url
        self._endpoint = endpoint or _endpoint_of(world, base_url)

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Asks once.

        Args:
            method: the HTTP method.
            path: encoded, with its query.
            headers: in addition to those that are always sent.
            body: a JSON text, or None.

        Raises:
            NoAnswer: there is no usable answer.
        """
        sent = Headers({"User-Agent": [f"Sydentish/{version('sydentish')}"], "Origin": [ORIGIN]})
        if body is not None:
            sent.setRawHeaders("Content-Type", ["application/json"])
        for name, value in (headers or {}).items():
            sent.setRawHeaders(name, [value])
        begun = self._world.now_ms()
        asking = exchange(
            self._world.reactor,
            self._endpoint,
            _MAX_BYTES,
            method=method,
            url=f"{self._base_url}{path}",
            headers=sent,
            body=body,
        )
        try:
            response, content = await within(self._seconds, self._world.reactor, asking)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the network and HTTP fail in many ways
            raise NoAnswer(explain(error)) from None
        return Answer(response.code, response.headers, content, begun, self._world.now_ms())


def json_object(body: bytes) -> Mapping[str, object] | None:
    """The JSON object that somebody has answered with, if it is one."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def endpoint_to(
    world: World, host: str, port: int, tls: IOpenSSLClientConnectionCreator | None
) -> IStreamClientEndpoint:
    """Connects to a host.

    Args:
        world: time and sockets.
        host: its name or IP address.
        port: its port.
        tls: how TLS is spoken there; None without it.
    """
    plain = HostnameEndpoint(world.reactor, host, port, SECONDS)
    return plain if tls is None else wrapClientTLS(tls, plain)


def any_certificate(host: str) -> IOpenSSLClientConnectionCreator:
    """TLS with a host, whatever certificate it has."""
    return tls_options(None, verify=False)(host)


def _endpoint_of(world: World, url: str) -> IStreamClientEndpoint:
    scheme, host, port = parts_of(url)
    return endpoint_to(world, host, port, None if scheme == "http" else any_certificate(host))


def parts_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def quoted(text: str) -> str:
    """What somebody else says, fit for a terminal, and not too much of it."""
    return shown(text[:_LONGEST_TOLD])
