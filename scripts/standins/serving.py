"""What stand-ins that speak HTTP have in common: they note what comes, and leave no connection behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from standins.certificates import ServerCertificate


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it came: all headers in their order by lower-case name, `body` byte for byte."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for known, value in self.headers if known == name]


def arrival(request: Request) -> Arrival:
    """What came with a request."""
    headers = tuple(
        (name.decode("ascii").lower(), value.decode("latin-1"))
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
    )
    return Arrival(
        request.method.decode("ascii"), request.uri.decode("ascii"), headers, request.content.read()
    )


class Server:
    """Gives every request to one function."""

    def __init__(self, handle: Callable[[Request], None], certificate: ServerCertificate | None) -> None:
        """Listens nowhere yet; without a certificate it is plain HTTP."""
        self._certificate = certificate
        self._connections = _Connections(_QuietSite(_Everything(handle), timeout=None))
        self._port: IListeningPort | None = None

    def start(self, reactor: Any, port: int = 0, interface: str = "127.0.0.1") -> None:  # noqa: ANN401
        """Listens; port 0 means any free one."""
        if self._certificate is None:
            self._port = reactor.listenTCP(port, self._connections, interface=interface)
        else:
            options = self._certificate.options()
            self._port = reactor.listenSSL(port, self._connections, options, interface=interface)

    async def stop(self) -> None:
        """Stops listening, cuts all connections, and waits until they are gone."""
        if self._port is not None:
            await self._port.stopListening()
            self._port = None
        await gatherResults(self._connections.cut())

    async def no_connections(self) -> None:
        """Returns once those who connected have gone, without being cut off."""
        await gatherResults(self._connections.lost.values())

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._port is None:
            raise RuntimeError("the server was not started")
        return self._port.getHost().port


class _Everything(Resource):
    isLeaf = True

    def __init__(self, handle: Callable[[Request], None]) -> None:
        super().__init__()
        self._handle = handle

    def render(self, request: Request) -> int:
        self._handle(request)
        return NOT_DONE_YET


class _QuietSite(Site):
    noisy = False

    def log(self, request: Request) -> None:
        """Logs nothing: tests look for secrets in the log of those who ask, and the URL can hold some."""


class _Connection(ProtocolWrapper):
    def connectionLost(self, reason: Any) -> None:  # noqa: ANN401
        super().connectionLost(reason)
        self.factory.lost.pop(self).callback(None)


class _Connections(WrappingFactory):
    """Knows the open connections."""

    protocol = _Connection
    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.lost: dict[_Connection, Deferred[None]] = {}

    def registerProtocol(self, p: _Connection) -> None:
        super().registerProtocol(p)
        self.lost[p] = Deferred()

    def cut(self) -> list[Deferred[None]]:
        gone = list(self.lost.values())
        for connection in list(self.lost):
            connection.transport.abortConnection()
        return gone
