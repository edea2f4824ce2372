import traceback
from random import Random

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from standins.behaviours import Drip, EndlessBody, Silence, answer, close, raw, redirect
from standins.homeserver import KEYS, USERINFO, WELL_KNOWN
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.names import dns

from sydentish.domain.errors import HomeserverError, HomeserverTimeout
from sydentish.federation.client import Answer, ExchangeFailed
from sydentish.federation.discovery import Discovery
from sydentish.federation.wellknown import WellKnown

HOST = "hs.example.org"
ADDRESS = "1.2.3.4"
TOKEN = "canary-token"


@pytest_twisted.ensureDeferred
async def test_an_answer_with_an_object(make_client, homeserver, clock):
    homeserver.behaviours["/path"] = answer(418, {"errcode": "M_TEAPOT", "a": [1]})
    received = await make_client().request("GET", homeserver.server_name, "/path", {"q": "a b&c=d/é+"})
    assert (received.status, received.body) == (418, {"errcode": "M_TEAPOT", "a": [1]})
    assert received.errcode == "M_TEAPOT"
    assert homeserver.requests[0].path == "/path?q=a+b%26c%3Dd%2F%C3%A9%2B"
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"1", b"NaN", b"\xff", b"[" * 60_000, b'{"a":1', b'{"a":\x00}']
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_no_object_is_none(make_client, homeserver, body):
    homeserver.behaviours["/path"] = answer(200, body)
    received = await make_client().request("GET", homeserver.server_name, "/path")
    assert received == Answer(200, None)


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_an_answer(make_client, homeserver):
    homeserver.behaviours["/path"] = redirect(f"https://{homeserver.server_name}/other")
    assert (await make_client().request("GET", homeserver.server_name, "/path")).status == 302
    assert len(homeserver.requests) == 1


@pytest_twisted.ensureDeferred
async def test_the_bytes_of_the_body_are_sent_as_they_are(make_client, homeserver):
    body = '{"b" : "é", "a":\n1}'.encode()
    await make_client().request("PUT", homeserver.server_name, KEYS, json_body=body)
    assert (homeserver.requests[0].method, homeserver.requests[0].body) == ("PUT", body)


async def fails(client, name, reason):
    with pytest.raises(ExchangeFailed) as failed:
        await client.attempt("GET", name, USERINFO, {"access_token": TOKEN})
    assert reason in failed.value.reason
    assert TOKEN not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    "name", ["closed.example.org:443", "absent.example.org:443", "inside.example.org:443"]
)
@pytest_twisted.ensureDeferred
async def test_whoever_asks_learns_nothing_of_the_network(make_client, internet, name):
    """Anybody may name any server: what is wrong with it is for the operator's log."""
    internet.names |= {"closed.example.org": ["1.2.3.9"], "inside.example.org": ["127.0.0.1"]}
    with pytest.raises(HomeserverError) as raised:
        await make_client().request("GET", name, USERINFO, {"access_token": TOKEN})
    assert raised.value.message == (
        "The homeserver cannot be reached, or does not answer as a homeserver does"
    )
    assert TOKEN not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (close, "no usable answer"),
        (raw(b"220 smtp"), "no usable answer"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}"), "no usable answer"),
        (answer(200, b" " * 65_537), "the answer is too large"),
        (EndlessBody(), "the answer is too large"),
        (EndlessBody({"Content-Length": "9999999999"}), "the answer is too large"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_used_is_an_error(make_client, homeserver, behaviour, reason):
    homeserver.behaviours[USERINFO] = behaviour
    await fails(make_client(), homeserver.server_name, reason)


@pytest.mark.parametrize("header", ["Transfer-Encoding", "Content-Encoding"])
@pytest_twisted.ensureDeferred
async def test_what_is_packed_is_not_unpacked(make_client, homeserver, header):
    homeserver.behaviours[USERINFO] = answer(200, b"\x1f\x8b\x08", {header: "gzip"})
    try:
        assert (await make_client().attempt("GET", homeserver.server_name, USERINFO)).body is None
    except ExchangeFailed as failed:
        assert failed.reason == "no usable answer"  # noqa: PT017 - either will do


@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_cannot_be_reached(make_client, internet):
    internet.names |= {HOST: [ADDRESS], "inside.org": ["127.0.0.1"]}
    client = make_client()
    await fails(client, HOST, "connection refused")
    await fails(client, "absent.org", "its name cannot be resolved")
    await fails(client, "inside.org", "may be connected to")
    await fails(client, "127.0.0.1", "may be connected to")
    await fails(client, "not a name", "its name is not a server name")


@pytest_twisted.ensureDeferred
async def test_a_smaller_limit(make_client, homeserver):
    homeserver.behaviours[USERINFO] = answer(200, b" " * 11)
    await fails(make_client(max_bytes=10), homeserver.server_name, "too large")


@pytest_twisted.ensureDeferred
async def test_silence_ends_at_the_deadline_and_the_connection_with_it(make_client, homeserver, clock):
    silence = homeserver.behaviours[USERINFO] = Silence()
    await times_out(make_client(), homeserver.server_name, clock, silence.asked)
    await silence.gone


@pytest_twisted.ensureDeferred
async def test_a_drip_ends_at_the_deadline_and_the_connection_with_it(make_client, homeserver, clock):
    drip = homeserver.behaviours[USERINFO] = Drip(reactor)
    await times_out(make_client(), homeserver.server_name, clock, drip.flowing)
    await drip.gone


async def times_out(client, name, clock, ready):
    asking = Deferred.fromCoroutine(client.request("GET", name, USERINFO))
    await ready
    clock.advance(9.9)
    assert not asking.called
    clock.advance(0.2)
    with pytest.raises(HomeserverTimeout, match=r"^The homeserver "):
        await asking
    assert clock.getDelayedCalls() == []


class Mute(Protocol):
    """Takes a connection, and does not even answer to TLS."""

    def connectionMade(self):
        self.factory.connected.callback(None)

    def connectionLost(self, reason):
        self.factory.lost.callback(None)


@pytest_twisted.ensureDeferred
async def test_the_deadline_covers_the_tls_handshake(make_client, internet, clock):
    factory = Factory.forProtocol(Mute)
    factory.connected, factory.lost = Deferred(), Deferred()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    internet.names[HOST] = [ADDRESS]
    internet.routes[ADDRESS, 8448] = port.getHost().port
    await times_out(make_client(), HOST, clock, factory.connected)
    await factory.lost
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_deadline_covers_resolving_the_name(make_client, internet, clock):
    asked = Deferred()
    internet.resolveHostName = lambda receiver, *_: asked.callback(receiver)
    await times_out(make_client(), "slow.org:443", clock, asked)


class SlowRoutes:
    def __init__(self):
        self.asked = Deferred()

    async def route(self, server_name):
        self.asked.callback(None)
        await Deferred()


@pytest_twisted.ensureDeferred
async def test_the_deadline_covers_discovery(make_client, clock):
    slow = SlowRoutes()
    client = make_client(routes=slow)
    await times_out(client, HOST, clock, slow.asked)


@pytest_twisted.ensureDeferred
async def test_who_asks_can_give_up(make_client, homeserver):
    silence = homeserver.behaviours[USERINFO] = Silence()
    asking = Deferred.fromCoroutine(make_client().request("GET", homeserver.server_name, USERINFO))
    await silence.asked
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await silence.gone


@pytest_twisted.ensureDeferred
async def test_a_connection_that_takes_too_long_is_a_timeout_too(make_client):
    async def exchange(route, request, max_bytes):
        raise ConnectTimeoutError

    with pytest.raises(HomeserverTimeout):
        await make_client(exchange).request("GET", "a.org:1", "/")


@pytest.fixture
def make_whole(make_https, make_client, srv, clock):
    """A client with everything that it has in production."""

    def make():
        https = make_https()
        well_known = WellKnown(clock=clock, exchange=https, time_limit=5)
        routes = Discovery(clock=clock, resolver=srv, well_known=well_known, random=Random(1), dns_limit=3)
        return make_client(https, routes)

    return make


@pytest_twisted.ensureDeferred
async def test_the_whole_way_by_well_known_and_srv(make_whole, start_homeserver, authority, srv, internet):
    front = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    back = start_homeserver(authority.issue("b.org"), "target.org", "1.2.3.5", port=8000)
    front.behaviours[WELL_KNOWN] = answer(200, {"m.server": "b.org"})
    srv.records["_matrix-fed._tcp.b.org"] = [
        dns.Record_SRV(2, 0, 8000, "target.org"),
        dns.Record_SRV(1, 0, 8000, "closed.org"),
    ]
    internet.names["closed.org"] = ["1.2.3.9"]
    client = make_whole()
    assert (await client.request("GET", "A.org", KEYS)).status == 200
    assert back.requests[0].headers["host"] == "b.org"
    await client.request("GET", "a.org", KEYS)
    assert (len(front.requests), len(back.requests)) == (1, 2)


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "[::1]:443", "[::ffff:7f00:1]", "inside.org:443", "inside.org"]
)
@pytest_twisted.ensureDeferred
async def test_a_delegation_into_the_own_network_is_refused(
    make_whole, start_homeserver, authority, internet, inside
):
    front = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    front.behaviours[WELL_KNOWN] = answer(200, {"m.server": inside})
    internet.names["inside.org"] = ["10.0.0.1", "::ffff:192.168.0.1"]
    await fails(make_whole(), "a.org", "may be connected to")
    assert internet.connected == [("1.2.3.4", 443)]


@pytest_twisted.ensureDeferred
async def test_a_service_record_into_the_own_network_is_refused(make_whole, srv, internet):
    srv.records["_matrix-fed._tcp.a.org"] = [dns.Record_SRV(1, 0, 22, "127.0.0.1")]
    await fails(make_whole(), "a.org", "may be connected to")
    assert internet.connected == []


@given(st.text())
def test_only_what_looks_like_an_errcode_is_one(text):
    errcode = Answer(400, {"errcode": text}).errcode
    assert errcode is None or (errcode == text and errcode.isascii() and " " not in errcode)


@pytest.mark.parametrize(
    "body", [None, {}, {"errcode": 1}, {"errcode": "M A"}, {"errcode": ""}, {"errcode": "M\n"}]
)
def test_what_is_no_errcode(body):
    assert Answer(400, body).errcode is None


def test_no_body_is_in_a_repr():
    assert "@alice" not in repr(Answer(200, {"sub": "@alice:example.org"}))
