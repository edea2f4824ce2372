import random

import pytest
import pytest_twisted
from nameserver import SILENT, Reply, a, a_moment, by_tcp, failing, open_sockets, silent
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.names import dns
from twisted.names.error import (
    DNSFormatError,
    DNSNameError,
    DNSQueryRefusedError,
    DNSServerError,
    DNSUnknownError,
)

from sydentish.federation.discovery import Discovery, Target
from sydentish.federation.nameservers import NameServers

NAME = "hs.example.org"
A = (NAME, dns.A)


class ClockedReactor:
    """The reactor, with the time of a test."""

    def __init__(self, clock):
        self.listenUDP = reactor.listenUDP
        self.connectTCP = reactor.connectTCP
        self.callLater = clock.callLater
        self.seconds = clock.seconds


@pytest.fixture
def server(start_name_server):
    return start_name_server()


@pytest.fixture
def asking(server, clock):
    """Asks the one server, by the time of the test."""
    return NameServers(reactor=ClockedReactor(clock), servers=[server.address])


async def addresses(resolver, name=NAME, timeouts=(1, 2, 4)):
    answers, _, _ = await resolver.lookupAddress(name, timeouts)
    return [answer.payload.dottedQuad() for answer in answers if answer.type == dns.A]


@pytest_twisted.ensureDeferred
async def test_an_answer(asking, server, clock):
    server.zone[A] = a("192.0.2.1", "192.0.2.2")
    assert await addresses(asking) == ["192.0.2.1", "192.0.2.2"]
    assert await addresses(asking, NAME.upper() + ".") == ["192.0.2.1", "192.0.2.2"]
    assert await addresses(asking, NAME, None) == ["192.0.2.1", "192.0.2.2"]
    assert server.asked == [A] * 3
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (dns.ENAME, DNSNameError),
        (dns.ESERVER, DNSServerError),
        (dns.EREFUSED, DNSQueryRefusedError),
        (dns.EFORMAT, DNSFormatError),
        (11, DNSUnknownError),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_error_is_told_at_once(asking, server, code, error):
    server.zone[A] = failing(code)
    with pytest.raises(error):
        await addresses(asking)
    assert server.asked == [A]


@pytest.mark.parametrize("name", [b"", b".org", b"a..org", b"x" * 64, b"x." * 127 + b"org"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_name_is_not_asked_for(asking, server, name):
    with pytest.raises(DNSNameError):
        await addresses(asking, name)
    assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_asked_again_and_then_given_up(asking, server, clock):
    server.otherwise = silent()
    looking = Deferred.fromCoroutine(addresses(asking))
    for times, seconds in enumerate([1, 2, 4], 1):
        await server.until_asked(times)
        clock.advance(seconds - 0.1)
        assert not looking.called
        clock.advance(0.1)
    with pytest.raises(DeferredTimeoutError):
        await looking
    assert server.asked == [A] * 3
    assert len(set(server.sources)) == 3
    assert clock.getDelayedCalls() == []


def question_of_another(message):
    message.queries = [dns.Query("other.example.org", dns.A)]


def of_another_type(message):
    message.queries = [dns.Query(NAME, dns.AAAA)]


def with_another_number(message):
    message.id ^= 1


def no_answer(message):
    message.answer = 0


def no_question(message):
    message.queries = []


def only_an_error(message):
    message.queries = []
    message.rCode = dns.ENAME


@pytest.mark.parametrize(
    "forged",
    [question_of_another, of_another_type, with_another_number, no_answer, no_question, only_an_error],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_to_the_question_is_ignored(asking, server, clock, forged):
    server.zone[A] = [Reply(a("192.0.2.66").records, altered=forged), a("192.0.2.1")]
    looking = Deferred.fromCoroutine(addresses(asking))
    await server.until_asked(1)
    await a_moment()
    clock.advance(1)
    assert await looking == ["192.0.2.1"]


class Babbler(DatagramProtocol):
    """Answers with what makes no sense, and then like an honest server."""

    noisy = False

    def datagramReceived(self, datagram, addr):
        chance = random.Random(1)
        for size in range(1, 300, 7):
            self.transport.write(datagram[:2] + chance.randbytes(size), addr)
            self.transport.write(datagram[:size], addr)
        message = dns.Message()
        message.fromStr(datagram)
        message.answer = 1
        message.answers = [dns.RRHeader(NAME, dns.A, ttl=1, payload=dns.Record_A("192.0.2.1"))]
        self.transport.write(message.toStr(), addr)


@pytest_twisted.ensureDeferred
async def test_nonsense_is_ignored(clock):
    port = reactor.listenUDP(0, Babbler(), interface="127.0.0.1")
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[("127.0.0.1", port.getHost().port)])
    assert await addresses(resolver) == ["192.0.2.1"]
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_stranger_is_not_heard(asking, server, clock):
    """A forged answer that is right in everything but where it comes from."""
    server.zone[A] = silent()
    looking = Deferred.fromCoroutine(addresses(asking))
    await server.until_asked(1)
    stranger = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
    forged = dns.Message(server.numbers[0], answer=1)
    forged.queries = [dns.Query(NAME, dns.A)]
    forged.answers = [dns.RRHeader(NAME, dns.A, ttl=1, payload=dns.Record_A("192.0.2.66"))]
    stranger.write(forged.toStr(), ("127.0.0.1", server.sources[0]))
    await a_moment()
    assert not looking.called
    server.zone[A] = a("192.0.2.1")
    clock.advance(1)
    assert await looking == ["192.0.2.1"]
    await stranger.stopListening()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_too_long_comes_over_tcp(asking, server, clock):
    many = [f"192.0.2.{i}" for i in range(200)]
    server.zone[A] = by_tcp(a(*many))
    assert await addresses(asking) == many
    await a_moment()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_an_error_over_tcp(asking, server):
    server.zone[A] = by_tcp(failing(dns.ENAME))
    with pytest.raises(DNSNameError):
        await addresses(asking)


@pytest.mark.parametrize(
    "instead", [b"", b"nonsense", b"\0" * 12, bytes(9000)], ids=["empty", "short", "zeros", "long"]
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_over_tcp_is_an_error(asking, server, instead):
    server.zone[A] = by_tcp(a("192.0.2.1"), over_tcp=instead)
    with pytest.raises((ConnectionAborted, ConnectionDone, ConnectionLost)):
        await addresses(asking)


@pytest_twisted.ensureDeferred
async def test_more_than_anybody_needs_is_not_read(asking, server):
    server.zone[A] = by_tcp(a(*(f"192.0.{i // 256}.{i % 256}" for i in range(600))))
    with pytest.raises((ConnectionAborted, ConnectionDone, ConnectionLost)):
        await addresses(asking)


@pytest_twisted.ensureDeferred
async def test_silence_over_tcp_is_given_up(asking, server, clock):
    server.zone[A] = [by_tcp(a("192.0.2.1"), over_tcp=SILENT)]
    looking = Deferred.fromCoroutine(addresses(asking, timeouts=(1,)))
    await server.until_connected(1)
    (stream,) = server.streams
    clock.advance(4)
    with pytest.raises(DeferredTimeoutError):
        await looking
    await stream.gone
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_giving_up_closes_the_connection(asking, server, clock):
    server.zone[A] = by_tcp(a("192.0.2.1"), over_tcp=SILENT)
    before = open_sockets()
    looking = Deferred.fromCoroutine(addresses(asking))
    await server.until_connected(1)
    (stream,) = server.streams
    looking.cancel()
    with pytest.raises(CancelledError):
        await looking
    await stream.gone
    await a_moment()
    assert open_sockets() == before
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_giving_up_while_it_connects(server, clock):
    view = ClockedReactor(clock)
    nowhere = MemoryReactor()
    view.connectTCP = nowhere.connectTCP
    resolver = NameServers(reactor=view, servers=[server.address])
    server.zone[A] = by_tcp(a("192.0.2.1"))
    looking = Deferred.fromCoroutine(addresses(resolver))
    while not nowhere.connectors:
        await a_moment()
    looking.cancel()
    with pytest.raises(CancelledError):
        await looking
    assert nowhere.connectors[0].stoppedConnecting
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_giving_up_is_not_taken_for_an_answer(asking, server, clock):
    server.otherwise = silent()
    looking = Deferred.fromCoroutine(addresses(asking))
    await server.until_asked(1)
    looking.cancel()
    with pytest.raises(CancelledError):
        await looking
    assert clock.getDelayedCalls() == []
    # And nothing is kept of it.
    server.zone[A] = a("192.0.2.1")
    assert await addresses(asking) == ["192.0.2.1"]


@pytest.mark.parametrize("trouble", ["SERVFAIL", "REFUSED", "nobody listens", "no way"])
@pytest_twisted.ensureDeferred
async def test_a_server_in_trouble_is_followed_by_the_next(start_name_server, clock, trouble):
    first, second = start_name_server(), start_name_server()
    second.zone[A] = a("192.0.2.1")
    first.zone[A] = failing(dns.ESERVER if trouble == "SERVFAIL" else dns.EREFUSED)
    address = first.address
    if trouble == "nobody listens":
        address = ("127.0.0.1", 1)
    elif trouble == "no way":
        address = ("255.255.255.255", 53)
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[address, second.address])
    assert await addresses(resolver) == ["192.0.2.1"]
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_followed_by_the_next(start_name_server, clock):
    first, second = start_name_server(), start_name_server()
    first.otherwise = silent()
    second.zone[A] = a("192.0.2.1")
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[first.address, second.address])
    looking = Deferred.fromCoroutine(addresses(resolver))
    await first.until_asked(1)
    clock.advance(1)
    assert await looking == ["192.0.2.1"]


@pytest_twisted.ensureDeferred
async def test_that_there_is_no_such_name_is_final(start_name_server, clock):
    first, second = start_name_server(), start_name_server()
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[first.address, second.address])
    with pytest.raises(DNSNameError):
        await addresses(resolver)
    assert (first.asked, second.asked) == ([A], [])


@pytest_twisted.ensureDeferred
async def test_nobody_listens_anywhere(clock):
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[("127.0.0.1", 1)])
    looking = [Deferred.fromCoroutine(addresses(resolver, f"{i}.org")) for i in range(5)]
    outcomes = await DeferredList(looking, consumeErrors=True)
    assert [failure.type for _, failure in outcomes] == [RefusedError] * 5
    await a_moment()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_no_socket_can_be_opened(server, clock):
    view = ClockedReactor(clock)

    def listen(*arguments, **options):
        raise CannotListenError("", 0, OSError(24, "Too many open files"))

    view.listenUDP = listen
    with pytest.raises(CannotListenError):
        await addresses(NameServers(reactor=view, servers=[server.address]))


@pytest_twisted.ensureDeferred
async def test_the_same_question_is_asked_once(asking, server, clock):
    server.zone[A] = [silent(), a("192.0.2.1")]
    looking = [Deferred.fromCoroutine(addresses(asking)) for _ in range(10)]
    await server.until_asked(1)
    first = looking.pop(0)
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    clock.advance(1)
    assert await gatherResults(looking) == [["192.0.2.1"]] * 9
    assert server.asked == [A] * 2


@pytest_twisted.ensureDeferred
async def test_many_questions_share_few_sockets_and_none_stays_long(asking, server):
    server.otherwise = silent()
    waiting = []
    for number in range(640):
        waiting.append(Deferred.fromCoroutine(addresses(asking, f"{number}.org")))
        # More at once than the socket of the server can hold would be lost.
        await server.until_asked(number + 1)
    assert len(set(server.sources)) == 10
    for each in waiting:
        each.cancel()
    assert not any(good for good, _ in await DeferredList(waiting, consumeErrors=True))
    # One after the other, each has a port of its own that is closed after it.
    server.zone[A] = a("192.0.2.1")
    for _ in range(3):
        await addresses(asking)
    assert len(set(server.sources[640:])) > 1


@pytest_twisted.ensureDeferred
async def test_over_ipv6(clock):
    port = reactor.listenUDP(0, Babbler(), interface="::1")
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[("::1", port.getHost().port)])
    assert await addresses(resolver) == ["192.0.2.1"]
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_services(asking, server, clock):
    class NoDelegations:
        async def delegated(self, host):
            return None

    server.zone[f"_matrix-fed._tcp.{NAME}", dns.SRV] = Reply([(None, dns.Record_SRV(0, 0, 7, "t.org"))])
    discovery = Discovery(
        clock=clock, resolver=asking, well_known=NoDelegations(), random=random.Random(1), dns_limit=3
    )
    assert (await discovery.route(NAME)).targets == (Target("t.org", 7),)


@pytest_twisted.ensureDeferred
async def test_the_servers_of_the_system_are_asked_without_others():
    clock = Clock()
    resolver = NameServers(reactor=ClockedReactor(clock), servers=[])
    assert resolver.resolv == "/etc/resolv.conf"
    assert all(port == 53 for _, port in resolver.dynServers)
