"""The socket side of a listener: connections, what they may cost, and a drain at the end.

Twisted's own `Site` and `Resource` would parse forms, look up children and write an access log; none of that is
wanted here, and leaving it out halves the time of a small request.
"""

from dataclasses import dataclass

from cryptography.x509 import InvalidVersion
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request, datetimeToString
from zope.interface import implementer

from sydentish.domain.certificates import names_in
from sydentish.web.admission import Head
from sydentish.web.dispatch import Dispatcher
from sydentish.web.request import CORS, HttpRequest

_LAST_CHANCE_SECONDS = 1.0
_NO_HEAD = Head("", "", b"")
_BAD_REQUEST = b'{"errcode":"M_UNKNOWN","error":"This is not an HTTP request that can be read"}'


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may cost; None stands for no limit.

    Attributes:
        header_bytes: the size of a request's line and headers.
        receive_seconds: how long a request may take to arrive.
        idle_seconds: how long a connection may be silent.
        connections: how many there may be at a time.
    """

    header_bytes: int
    receive_seconds: float | None
    idle_seconds: float | None
    connections: int | None


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()


def _names_shown(transport: object) -> tuple[str, ...]:
    show = getattr(transport, "getPeerCertificate", None)  # connections without TLS have no such thing
    certificate = show() if show else None
    try:
        return () if certificate is None else names_in(certificate.to_cryptography())
    except (ValueError, InvalidVersion):  # OpenSSL can read what others cannot
        return ()


@implementer(ILogObserver)
def _ignore(_event: LogEvent) -> None:
    pass


class HttpChannel(HTTPChannel):
    """One connection.

    Twisted gives a request its method and path only when the body is complete. They are needed before, to
    refuse a body that nobody may send, and its answer to garbage is to be JSON. So this reads what is private to
    `HTTPChannel` (`_command`, `_path`, `_version`, `_handlingRequest`, `_abortingCall`) and replaces
    `_respondToBadRequestAndDisconnect` and `_log`; tests notice when a new Twisted has other names for them.
    """

    factory: "HttpFactory"
    persistent: bool
    # What it would log is that a silent client, named by its address, was cut off.
    _log = Logger(observer=_ignore)

    def __init__(self, factory: "HttpFactory") -> None:
        super().__init__()
        self.factory = factory
        self.requestFactory = factory.make_request  # type: ignore[assignment]
        self.totalHeadersSize = self.MAX_LENGTH = factory.limits.header_bytes
        self.timeOut = factory.limits.idle_seconds  # type: ignore[assignment]
        self.callLater = factory.clock.callLater  # type: ignore[method-assign,assignment]
        self._deadline: IDelayedCall | None = None
        self._last_chance: IDelayedCall | None = None
        self._expecting = False
        self._certificate_names: tuple[str, ...] | None = None

    @property
    def closing(self) -> bool:
        """Whether the listener is going away, so that this is the connection's last request."""
        return self.factory.draining

    @property
    def peer(self) -> str | None:
        """The address at the other end; None for a unix socket."""
        address = self.getPeer()
        return address.host if isinstance(address, IPv4Address | IPv6Address) else None

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The names in the client's certificate, as TLS has verified it; none if it has shown none."""
        if self._certificate_names is None:
            self._certificate_names = _names_shown(self.transport)
        return self._certificate_names

    def date(self) -> bytes:
        """The time now, as a header has it."""
        return self.factory.date()

    def connectionMade(self) -> None:
        """Starts the time that the first request may take to arrive: whoever connects has something to say."""
        HTTPChannel.connectionMade(self)
        self._expect_request()

    def dataReceived(self, data: bytes) -> None:
        """Starts the time that one request may take to arrive."""
        if not self._expecting and not self._handlingRequest:
            self._expect_request()
        HTTPChannel.dataReceived(self, data)

    def requestDone(self, request: Request) -> None:
        """Called when an answer is written; goes on with the next request, if the client reads its answers.

        Twisted resumes reading here even while answers pile up, and a client that only sends could fill our
        memory with them.
        """
        HTTPChannel.requestDone(self, request)
        if self._waitingForTransport and not self._handlingRequest:
            self._networkProducer.pauseProducing()

    def pause_reading(self) -> None:
        """Reads nothing more until `resume_reading`."""
        self._networkProducer.pauseProducing()

    def resume_reading(self) -> None:
        """Goes on reading."""
        self._networkProducer.resumeProducing()

    def _expect_request(self) -> None:
        self._expecting = True
        seconds = self.factory.limits.receive_seconds
        if seconds is not None:
            self._deadline = self.factory.clock.callLater(seconds, self.forceAbortClient)

    def lineLengthExceeded(self, _line: bytes) -> None:
        """Called when one line alone is larger than the limit of all headers."""
        self._respondToBadRequestAndDisconnect()

    def headerReceived(self, line: bytes) -> bool:
        """Called with each header; whether it can be used."""
        if any(byte in line for byte in b"\0\r\n"):  # RFC 9110, 5.5; older Twisted passes it on
            self._respondToBadRequestAndDisconnect()
            return False
        try:
            return bool(HTTPChannel.headerReceived(self, line))
        except ValueError:  # a Content-Length of more digits than Python reads
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """Lets the request look at its head before its body comes."""
        self.requests[-1].begin(self._command, self._path, self._version)
        HTTPChannel.allHeadersReceived(self)

    def received(self) -> None:
        """The request at hand has arrived."""
        self._expecting = False
        _cancel(self._deadline)
        self._deadline = None

    def drain(self) -> None:
        """Closes the connection now if it is idle, else after the request at hand.

        Whoever has just connected gets a moment: what they ask may be here already, only not read yet.
        """
        if self.requests and not self.requests[-1].startedWriting:
            self.persistent = False
        elif self._expecting and not self.requests:
            self._last_chance = self.factory.clock.callLater(_LAST_CHANCE_SECONDS, self._give_up)
        else:
            self.loseConnection()

    def _give_up(self) -> None:
        if not self.requests:
            self.loseConnection()

    def forceAbortClient(self) -> None:
        """Called when a request took too long to arrive, or the client does not let go."""
        self.received()
        _cancel(self._abortingCall)
        HTTPChannel.forceAbortClient(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the connection is gone."""
        self.received()
        _cancel(self._last_chance)
        HTTPChannel.connectionLost(self, reason)
        self.factory.lost(self)

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self.requests and self.requests[-1].startedWriting:
            self.loseConnection()  # the answer was given before the body turned out to be garbage
            return
        dispatcher = self.factory.dispatcher
        opened = self.requests[-1].opened if self.requests else None
        dispatcher.note(opened or dispatcher.open(_NO_HEAD), 400)
        headers = b"".join(b"%b: %b\r\n" % header for header in CORS)
        self.writeSequence(
            [
                b"HTTP/1.1 400 Bad Request\r\n%bConnection: close\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (headers, len(_BAD_REQUEST), _BAD_REQUEST)
            ]
        )
        self.loseConnection()


class HttpFactory(ServerFactory):
    """Makes the connections of one listener, and lets them end in peace.

    Args:
        dispatcher: answers the requests.
        limits: what a connection may cost.
        clock: what time is taken by.

    Attributes:
        refused: how many connections came when there were too many already.
    """

    noisy = False

    def __init__(self, dispatcher: Dispatcher, limits: ConnectionLimits, clock: IReactorTime) -> None:
        self.dispatcher = dispatcher
        self.limits = limits
        self.clock = clock
        self.draining = False
        self.refused = 0
        self._channels: set[HttpChannel] = set()
        self._drained: list[Deferred[None]] = []
        self._date = (0, b"")

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._channels)

    def buildProtocol(self, _addr: IAddress | None) -> HttpChannel | None:  # type: ignore[override]
        """A connection, unless there are too many."""
        limit = self.limits.connections
        if self.draining:
            return None
        if limit is not None and len(self._channels) >= limit:
            self.refused += 1
            return None
        channel = HttpChannel(self)
        self._channels.add(channel)
        return channel

    def make_request(self, channel: HttpChannel, _queued: int) -> HttpRequest:
        """A request on one of the connections."""
        return HttpRequest(channel, self.dispatcher)

    def log(self, _request: Request) -> None:
        """Twisted offers each request to the factory's access log; the dispatcher has noted it already."""

    def date(self) -> bytes:
        """The time now, as a header has it; made once a second."""
        now = int(self.clock.seconds())
        if self._date[0] != now:
            self._date = (now, datetimeToString(now))
        return self._date[1]

    def lost(self, channel: HttpChannel) -> None:
        """A connection is gone."""
        self._channels.discard(channel)
        if self.draining and not self._channels:
            drained, self._drained = self._drained, []
            for waiting in drained:
                waiting.callback(None)

    def drain(self) -> "Deferred[None]":
        """Closes idle connections at once and the others after their request; fires when all are gone."""
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for channel in list(self._channels):
            channel.drain()
        if not self._channels and self._drained:
            self._drained.remove(drained)
            drained.callback(None)
        return drained

    def abort(self) -> None:
        """Cuts what is left."""
        for channel in list(self._channels):
            channel.forceAbortClient()
