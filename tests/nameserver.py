"""A DNS server on loopback, over UDP and TCP, that answers as a test says, or not at all."""

from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.task import deferLater
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver

SILENT = "silent"
TRUNCATED = "truncated"


@dataclass
class Reply:
    """What is answered to one question.

    Attributes:
        records: (owner, payload) of the answer section; an owner of None is the name that was asked for.
        code: the response code.
        over_udp: None to answer, or `SILENT` or `TRUNCATED`.
        over_tcp: None to answer, or `SILENT`, or bytes that are sent instead.
        altered: changes the message before it goes out.
    """

    records: list[Any] = field(default_factory=list)
    code: int = dns.OK
    over_udp: str | None = None
    over_tcp: Any = None
    altered: Any = None


def a(*addresses: str) -> Reply:
    return Reply([(None, dns.Record_A(each)) for each in addresses])


def aaaa(*addresses: str) -> Reply:
    return Reply([(None, dns.Record_AAAA(each)) for each in addresses])


def silent() -> Reply:
    return Reply(over_udp=SILENT)


def failing(code: int) -> Reply:
    return Reply(code=code)


def by_tcp(reply: Reply, over_tcp: Any = None) -> Reply:
    """The same, but too long for a datagram."""
    return replace(reply, over_udp=TRUNCATED, over_tcp=over_tcp)


class NameServer(DatagramProtocol):
    """Answers from `zone`, by name and type; what is not in it is `otherwise`.

    Attributes:
        zone: what is answered; (name, type) to `Reply`, or to a list of them, of which the last stays.
        asked: (name, type) of the questions over UDP, in the order in which they came.
        sources: the ports that they came from.
        numbers: the numbers of these messages.
        streams: connections over TCP that are open now.
    """

    noisy = False

    def __init__(self) -> None:
        self.zone: dict[tuple[str, int], Any] = {}
        self.otherwise = failing(dns.ENAME)
        self.asked: list[tuple[str, int]] = []
        self.sources: list[int] = []
        self.numbers: list[int] = []
        self.streams: list[_Stream] = []
        self._watched: list[tuple[list[Any], int, Deferred[None]]] = []
        self._udp: Any = None
        self._tcp: Any = None

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._udp.getHost().port

    def start(self) -> None:
        factory = Factory.forProtocol(lambda: _Stream(self))
        factory.noisy = False
        taken = []
        while self._udp is None:
            self._tcp = reactor.listenTCP(0, factory, interface="127.0.0.1")
            try:
                self._udp = reactor.listenUDP(self._tcp.getHost().port, self, interface="127.0.0.1")
            except CannotListenError:
                # Somebody has that port for datagrams; kept until there is another, which is then not the same.
                taken.append(self._tcp)
        for port in taken:
            port.stopListening()

    async def stop(self) -> None:
        await self._udp.stopListening()
        await self._tcp.stopListening()
        while self.streams:
            await self.streams[0].gone

    async def until_asked(self, times: int) -> None:
        """Waits until so many questions came over UDP, in all."""
        await self._until(self.asked, times)

    async def until_connected(self, times: int) -> None:
        """Waits until so many connections are open."""
        await self._until(self.streams, times)

    async def _until(self, growing: list[Any], length: int) -> None:
        if len(growing) < length:
            heard: Deferred[None] = Deferred()
            self._watched.append((growing, length, heard))
            await heard

    def look_again(self) -> None:
        """Tells those who wait for something that has come."""
        for watched in self._watched[:]:
            growing, length, heard = watched
            if len(growing) >= length:
                self._watched.remove(watched)
                heard.callback(None)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        message = _read(datagram)
        question = _question(message)
        reply = self._reply(question)
        self.asked.append(question)
        self.sources.append(addr[1])
        self.numbers.append(message.id)
        if reply.over_udp != SILENT:
            self.transport.write(_written(message, reply, truncated=reply.over_udp == TRUNCATED), addr)
        self.look_again()

    def reply_over_tcp(self, message: dns.Message) -> Any:
        reply = self._reply(_question(message), take=False)
        if reply.over_tcp is None:
            return _written(message, reply)
        return reply.over_tcp

    def _reply(self, question: tuple[str, int], *, take: bool = True) -> Reply:
        reply = self.zone.get(question, self.otherwise)
        if isinstance(reply, list):
            return reply.pop(0) if take and len(reply) > 1 else reply[0]
        return reply


class _Stream(Int16StringReceiver):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._server.streams.append(self)
        self._server.look_again()

    def stringReceived(self, string: bytes) -> None:
        reply = self._server.reply_over_tcp(_read(string))
        if reply != SILENT:
            self.sendString(reply)

    def connectionLost(self, reason: Any = None) -> None:
        self._server.streams.remove(self)
        self.gone.callback(None)


def open_sockets() -> set[Any]:
    """What the reactor reads from and writes to."""
    return set(reactor.getReaders()) | set(reactor.getWriters())


async def a_moment() -> None:
    """Waits until sockets that were told to close are closed: that takes another turn of the reactor."""
    await deferLater(reactor, 0)
    await deferLater(reactor, 0)


def _read(data: bytes) -> dns.Message:
    message = dns.Message()
    message.fromStr(data)
    return message


def _question(message: dns.Message) -> tuple[str, int]:
    (query,) = message.queries
    return query.name.name.decode("ascii"), query.type


def _written(message: dns.Message, reply: Reply, *, truncated: bool = False) -> bytes:
    answer = dns.Message(message.id, answer=1, recDes=1, recAv=1, rCode=reply.code)
    answer.queries = message.queries
    answer.maxSize = 0
    answer.trunc = int(truncated)
    asked = message.queries[0].name.name
    if not truncated:
        answer.answers = [
            dns.RRHeader(owner or asked, payload.TYPE, ttl=60, payload=payload)
            for owner, payload in reply.records
        ]
    if reply.altered:
        reply.altered(answer)
    written: bytes = answer.toStr()
    return written
