import ipaddress
import random

import pytest
import pytest_twisted
from standins.behaviours import EndlessBody, EndlessHeaders, Silence, answer, close, raw
from standins.homeserver import USERINFO
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import DNSLookupError
from twisted.internet.protocol import Factory, Protocol

from sydentish.federation.addresses import AddressPolicy, AddressRefused
from sydentish.federation.agent import Request
from sydentish.federation.discovery import Route, Target
from sydentish.outgoing import AnswerTooLarge, explain

HOST = "hs.example.org"
ASK = Request("GET", USERINFO)
LOOPBACK = AddressPolicy(allowed=(ipaddress.ip_network("127.0.0.0/8"),))
LIMIT = 65_536


def route_to(homeserver, host=None):
    host = host or homeserver.host
    return Route((Target(host, homeserver.port),), host, f"{host}:{homeserver.port}")


@pytest_twisted.ensureDeferred
async def test_what_goes_over_the_wire(make_https, homeserver):
    homeserver.behaviours["/some/path"] = answer(201, b"hello", {"X-Reply": "yes"})
    request = Request("PUT", "/some/path?with=query", b'{"a":1}')
    received = await make_https()(route_to(homeserver), request, LIMIT)
    assert (received.status, received.body) == (201, b"hello")
    assert received.headers.getRawHeaders("X-Reply") == ["yes"]
    (sent,) = homeserver.requests
    assert (sent.method, sent.path, sent.body) == ("PUT", "/some/path?with=query", b'{"a":1}')
    assert sent.headers == {
        "host": homeserver.server_name,
        "user-agent": "Sydentish/0",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "7",
        "connection": "close",
    }


@pytest_twisted.ensureDeferred
async def test_targets_are_tried_in_order(make_https, homeserver, internet):
    internet.names |= {"closed.org": ["1.2.3.9"], "inside.org": ["10.0.0.1"]}
    targets = [
        Target(host, homeserver.port)
        for host in ("closed.org", "inside.org", "absent.org", HOST, "never.org")
    ]
    answered = await make_https()(Route(tuple(targets), HOST, HOST), ASK, LIMIT)
    assert answered.status == 401
    assert [address for address, _ in internet.connected] == ["1.2.3.9", "1.2.3.4"]


@pytest_twisted.ensureDeferred
async def test_the_last_error_is_told_when_no_target_answers(make_https, internet):
    internet.names["closed.org"] = ["1.2.3.9"]
    targets = (Target("absent.org", 1), Target("closed.org", 1))
    with pytest.raises(RefusedError):
        await make_https()(Route(targets, HOST, HOST), ASK, LIMIT)
    with pytest.raises(DNSLookupError):
        await make_https()(Route(targets[:1], HOST, HOST), ASK, LIMIT)


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["10.0.0.1", "192.168.0.1"], ["64:ff9b::7f00:1"]],
)
@pytest_twisted.ensureDeferred
async def test_a_name_that_leads_inside_is_refused(make_https, homeserver, internet, addresses):
    internet.names[HOST] = addresses
    for address in addresses:
        internet.routes[address, homeserver.port] = homeserver.port
    with pytest.raises(AddressRefused):
        await make_https()(route_to(homeserver), ASK, LIMIT)
    assert internet.connected == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"])
@pytest_twisted.ensureDeferred
async def test_a_literal_that_leads_inside_is_refused(make_https, internet, host):
    with pytest.raises(AddressRefused):
        await make_https()(Route((Target(host, 8448),), host, HOST), ASK, LIMIT)
    assert internet.connected == []


@pytest_twisted.ensureDeferred
async def test_only_the_permitted_ones_of_several_addresses_are_used(make_https, homeserver, internet):
    internet.names[HOST] = ["127.0.0.1", "1.2.3.4"]
    assert (await make_https()(route_to(homeserver), ASK, LIMIT)).status == 401
    assert [address for address, _ in internet.connected] == ["1.2.3.4"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest_twisted.ensureDeferred
async def test_with_the_reactors_own_resolver(make_https, start_homeserver, authority, host):
    homeserver = start_homeserver(authority.issue("127.0.0.1", "localhost"), host)
    with pytest.raises(AddressRefused):
        await make_https(over=reactor)(route_to(homeserver), ASK, LIMIT)
    assert homeserver.requests == []
    answered = await make_https(policy=LOOPBACK, over=reactor)(route_to(homeserver), ASK, LIMIT)
    assert answered.status == 401


@pytest.mark.parametrize(
    "endless",
    [EndlessBody(), EndlessBody({"Content-Length": "60000"}), EndlessBody({"Content-Length": str(10**12)}), EndlessHeaders()],
    ids=["chunked", "length too small", "length too large", "headers"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_what_never_ends_is_dropped_early(make_https, homeserver, endless):
    homeserver.behaviours[USERINFO] = endless
    if endless._headers.get("Content-Length") == "60000":
        # What is longer than it said ends where it said.
        assert len((await make_https()(route_to(homeserver), ASK, LIMIT)).body) == 60_000
    else:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - Twisted wraps it while headers come
            await make_https()(route_to(homeserver), ASK, LIMIT)
        assert explain(raised.value) == "the answer is too large"
    await endless.gone
    # The rest of it is what the sockets of both sides hold.
    assert endless.sent < 16 * 1024 * 1024


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("framing", ["length", "chunks of one byte", "until closed"])
@pytest_twisted.ensureDeferred
async def test_the_limit_is_exact(make_https, homeserver, size, framing):
    homeserver.behaviours[USERINFO] = framed(size, framing)
    asking = make_https()(route_to(homeserver), ASK, LIMIT)
    if size > LIMIT:
        with pytest.raises(AnswerTooLarge):
            await asking
    else:
        assert (await asking).body == b"x" * size


def framed(size, framing):
    if framing == "length":
        return answer(200, b"x" * size)
    if framing == "until closed":
        return raw(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * size)
    return raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * size + b"0\r\n\r\n")


@pytest.mark.parametrize(
    "behaviour",
    [
        close,
        raw(b""),
        raw(b"220 smtp.example.org ESMTP\r\n"),
        raw(b"HTTP/1.1 OK\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000),
        raw(random.Random(1).randbytes(5000)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_http_or_breaks_off_is_an_error(make_https, homeserver, behaviour):
    homeserver.behaviours[USERINFO] = behaviour
    with pytest.raises(Exception) as raised:  # noqa: PT011 - Twisted's choice
        await make_https()(route_to(homeserver), ASK, LIMIT)
    assert explain(raised.value) == "no usable answer"


class Chatter(Protocol):
    def connectionMade(self):
        self.transport.write(b"220 this is no TLS\r\n")


@pytest_twisted.ensureDeferred
async def test_what_is_no_tls_is_an_error(make_https, internet):
    port = reactor.listenTCP(0, Factory.forProtocol(Chatter), interface="127.0.0.1")
    internet.names[HOST] = ["1.2.3.4"]
    internet.routes["1.2.3.4", 443] = port.getHost().port
    with pytest.raises(Exception) as raised:  # noqa: PT011 - OpenSSL's choice
        await make_https()(Route((Target(HOST, 443),), HOST, HOST), ASK, LIMIT)
    assert explain(raised.value) == "TLS failed"
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_giving_up_closes_the_connection(make_https, homeserver):
    silence = homeserver.behaviours[USERINFO] = Silence()
    asking = Deferred.fromCoroutine(make_https()(route_to(homeserver), ASK, LIMIT))
    await silence.asked
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await silence.gone


@pytest_twisted.ensureDeferred
async def test_giving_up_while_a_name_is_being_resolved(make_https, internet):
    resolving = []
    internet.resolveHostName = lambda *arguments: resolving.append(arguments)
    route = Route((Target(HOST, 443), Target("next.org", 443)), HOST, HOST)
    asking = Deferred.fromCoroutine(make_https()(route, ASK, LIMIT))
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    assert len(resolving) == 1, "the next target must not be tried"
    resolving[0][0].resolutionComplete()


def test_no_secret_is_in_a_repr():
    assert "secret" not in repr(Request("GET", "/path?access_token=secret", b"secret"))
