"""The replication listener as peers meet it: real connections, on which both sides show certificates."""

import json

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from web.mutual_tls import MutualTls
from web.test_replication import DIGESTS, GOOD, PATHS, PEER, PUSH, SIGNED, Replication
from web.wire import PREFIX, Client, chunked, request

from sydentish.domain.errors import UnknownPeer
from sydentish.web.http import ConnectionLimits, HttpFactory

MEBIBYTE = 1024 * 1024
PLENTY = 10 * MEBIBYTE
# More than one piece that a socket gives; far less than what is sent.
LITTLE = 256 * 1024


class HeldPeers:
    """Does not say who it is until it is told to."""

    def __init__(self):
        self.asked = []

    async def peer_of(self, certificate_names):
        waiting = Deferred()
        self.asked.append(waiting)
        return await waiting


@pytest.fixture
def tls(tmp_path):
    folder = tmp_path / "tls"
    folder.mkdir()
    return MutualTls(folder)


@pytest_twisted.async_yield_fixture
async def as_client(tls, listen):
    """Makes clients of a replication listener, each with a certificate for some names."""
    clients = []
    replication = Replication()
    server = await listen(replication.dispatcher, Clock(), tls=tls.server)

    def make(*names, common_name=None):
        client = Client(server.port.getHost().port, tls.client(*names, common_name=common_name))
        clients.append(client)
        client.replication, client.factory = replication, server.factory
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def peer(as_client):
    """A client that is a peer."""
    return as_client("peer.example.org")


@pytest.fixture
def stranger(as_client):
    """A client with a certificate that is nobody's."""
    return as_client("stranger.example.org")


def padded(size):
    """A push of so many bytes."""
    empty = json.dumps({"sgAssocs": {"12": {"padding": ""}}})
    return json.dumps({"sgAssocs": {"12": {"padding": "x" * (size - len(empty))}}}).encode()


# --- whose certificate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_peer_is_answered(peer, path):
    answer = await peer.ask("POST", path, GOOD[path])

    assert answer.status == 200
    assert peer.replication.receiver.calls[0][1] == PEER


@pytest.mark.parametrize(
    ("names", "common_name", "found"),
    [
        (["peer.example.org"], None, ("peer.example.org",)),
        (
            ["a.example.org", "127.0.0.1"],
            "Peer.example.org",
            ("a.example.org", "127.0.0.1", "peer.example.org"),
        ),
        ([], "peer.example.org", ("peer.example.org",)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_all_names_of_the_certificate_are_looked_at(as_client, names, common_name, found):
    client = as_client(*names, common_name=common_name)
    answer = await client.ask("POST", PUSH, GOOD[PUSH])

    assert (answer.status, answer.body) == (200, b'{"success":true}')
    assert set(client.replication.peers.asked) == {found}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("raw", [None, b"{"])
@pytest_twisted.ensureDeferred
async def test_a_stranger_is_403_whatever_is_sent(stranger, path, raw):
    answer = await stranger.ask("POST", path, GOOD[path] if raw is None else None, raw=raw)

    assert (answer.status, answer.errcode) == (403, "M_UNKNOWN_PEER")
    assert stranger.replication.receiver.calls == []


@pytest_twisted.ensureDeferred
async def test_without_a_certificate_nothing_is_answered(as_client):
    wire = await as_client().connect()
    wire.send(request("POST", PREFIX + PUSH, body=b"{}"))

    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_another_authority_is_none(as_client, tls, tmp_path):
    nobody = as_client()
    nobody._endpoint = MutualTls(tmp_path).client("peer.example.org")(nobody._endpoint._wrappedEndpoint)
    wire = await nobody.connect()
    wire.send(request("POST", PREFIX + PUSH, body=b"{}"))

    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_one_connection_takes_many_requests_of_one_peer(peer):
    wire = await peer.connect()
    for path in (*PATHS, *PATHS):
        assert (await peer.ask("POST", path, GOOD[path], wire=wire)).status == 200
    assert {call[1] for call in peer.replication.receiver.calls} == {PEER}


@pytest_twisted.ensureDeferred
async def test_without_tls_nobody_is_a_peer(listen):
    replication = Replication()
    server = await listen(replication.dispatcher, Clock())
    answer = await server.ask("POST", PUSH, GOOD[PUSH])

    assert (answer.status, answer.errcode) == (403, "M_UNKNOWN_PEER")
    assert replication.peers.asked == [()]


@pytest.mark.parametrize("names", [[], ["peer.example.org"]])
@pytest_twisted.ensureDeferred
async def test_a_listener_that_asks_for_no_certificate_sees_none(make_house, listen, tls, names):
    house = await make_house()
    server = await listen(house.dispatcher, house.clock, tls=tls.asks_for_nothing, secure=tls.client(*names))
    wire = await server.connect()
    assert (await server.ask("GET", "v2", wire=wire)).status == 200
    (channel,) = server.factory._channels

    assert channel.certificate_names == ()


class Showing(StringTransport):
    """A connection whose client has shown a certificate that can be used by nobody but OpenSSL."""

    def getPeerCertificate(self):
        return self

    def to_cryptography(self):
        raise ValueError("error parsing asn1 value")


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_cannot_be_read_is_nobodys():
    replication = Replication()
    factory = HttpFactory(replication.dispatcher, ConnectionLimits(16384, 30, 60, None), Clock())
    channel, transport = factory.buildProtocol(None), Showing()
    channel.makeConnection(transport)
    channel.dataReceived(request("POST", PREFIX + PUSH, body=b"{}"))
    channel.forceAbortClient()

    assert transport.value().startswith(b"HTTP/1.1 403 ")
    assert replication.peers.asked == [()]


# --- large bodies --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_large_push_of_a_peer_is_read(peer):
    body = padded(PLENTY)
    answer = await peer.ask("POST", PUSH, raw=body)

    assert (answer.status, answer.json) == (200, {"success": True})
    assert peer.replication.receiver.calls == [("receive", PEER, json.loads(body)["sgAssocs"])]


@pytest_twisted.ensureDeferred
async def test_ten_megabytes_of_a_stranger_are_not_kept(stranger):
    answer = await stranger.ask("POST", PUSH, raw=padded(PLENTY))

    assert (answer.status, answer.errcode) == (403, "M_UNKNOWN_PEER")
    assert answer.headers["connection"] == "close"
    assert stranger.replication.receiver.calls == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["announced", "in chunks"])
@pytest_twisted.ensureDeferred
async def test_nothing_more_is_read_before_it_is_known_who_it_is(listen, tls, path, in_chunks, as_client):
    replication = Replication()
    replication.dispatcher._admission._peers = held = HeldPeers()
    server = await listen(replication.dispatcher, Clock(), tls=tls.server, secure=tls.client("x.example.org"))
    wire = await server.connect()
    body = b" " * PLENTY
    if in_chunks:
        wire.send(request("POST", PREFIX + path, headers=["Transfer-Encoding: chunked"]), chunked(body))
    else:
        wire.send(request("POST", PREFIX + path, body=body))
    other = as_client("peer.example.org")
    while not held.asked:
        await other.ask("GET", "nothing")
    for _ in range(20):  # turns of the reactor in which it could be read
        await other.ask("GET", "nothing")
    (channel,) = server.factory._channels
    assert channel.requests[-1]._received < LITTLE
    assert wire.received == b""
    held.asked[0].errback(UnknownPeer("The certificate is not that of a peer of this server"))
    answer = await wire.answer()

    assert (answer.status, answer.errcode, answer.headers["connection"]) == (403, "M_UNKNOWN_PEER", "close")
    assert channel.requests == [] or not channel.requests[-1]._body
    assert len(held.asked) == 1
    assert replication.receiver.calls == []


SIZES = [(PUSH, 16 * MEBIBYTE), (DIGESTS, 65536)]


@pytest.mark.parametrize(("path", "limit"), SIZES)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["announced", "in chunks"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_413(peer, path, limit, in_chunks):
    wire = await peer.connect()
    await send(wire, path, limit + 1, in_chunks=in_chunks)
    answer = await wire.answer()

    assert (answer.status, answer.errcode, answer.headers["connection"]) == (413, "M_TOO_LARGE", "close")
    assert str(limit) in answer.json["error"]
    assert peer.replication.receiver.calls == []
    assert len(peer.replication.noted) == 1


@pytest.mark.parametrize(("path", "limit"), SIZES)
@pytest.mark.parametrize("in_chunks", [False, True], ids=["announced", "in chunks"])
@pytest_twisted.ensureDeferred
async def test_to_a_stranger_no_limit_is_told(stranger, path, limit, in_chunks):
    wire = await stranger.connect()
    await send(wire, path, limit + 1, in_chunks=in_chunks)
    answer = await wire.answer()

    assert (answer.status, answer.errcode, answer.headers["connection"]) == (403, "M_UNKNOWN_PEER", "close")
    assert len(stranger.replication.noted) == 1


async def send(wire, path, size, *, in_chunks):
    """Sends a body of blanks, or only announces it."""
    if in_chunks:
        wire.send(request("POST", PREFIX + path, headers=["Transfer-Encoding: chunked"]))
        wire.send(chunked(b" " * size))
    else:
        wire.send(request("POST", PREFIX + path, length=size), b" " * 100)


@pytest.mark.parametrize("who", ["peer", "stranger"])
@pytest_twisted.ensureDeferred
async def test_nobody_is_asked_to_go_on_with_a_body_that_is_too_large(as_client, who):
    wire = await as_client(f"{who}.example.org").connect()
    wire.send(request("POST", PREFIX + PUSH, headers=["Expect: 100-continue"], length=17 * MEBIBYTE))

    assert (await wire.answer()).status == (413 if who == "peer" else 403)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_waits_to_be_asked_is_asked(peer):
    wire = await peer.connect()
    body = padded(MEBIBYTE)
    wire.send(request("POST", PREFIX + PUSH, headers=["Expect: 100-continue"], length=len(body)))
    assert (await wire.answer()).status == 100
    wire.send(body)

    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_a_push_in_small_pieces_behind_another(peer):
    wire = await peer.connect()
    for byte in request("POST", PREFIX + PUSH, body=json.dumps(GOOD[PUSH]).encode()) * 2:
        wire.send(bytes([byte]))

    assert [(await wire.answer()).status for _ in range(2)] == [200, 200]
    assert peer.replication.receiver.calls == [("receive", PEER, {"12": SIGNED})] * 2


# --- the end -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_ends_at_once(peer):
    wire = await peer.connect()
    assert (await peer.ask("POST", PUSH, GOOD[PUSH], wire=wire)).status == 200
    await peer.factory.drain()

    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_a_connection_that_has_not_shown_its_certificate_yet_ends_after_a_moment(as_client):
    silent = as_client()
    silent._endpoint = silent._endpoint._wrappedEndpoint  # speaks no TLS
    wire = await silent.connect()
    while not silent.factory._channels:
        await as_client("peer.example.org").ask("GET", "nothing")
    drained = silent.factory.drain()
    silent.factory.clock.advance(1)
    await drained

    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_a_push_at_hand_is_finished_first(peer):
    started, waiting = Deferred(), Deferred()

    async def receive(_peer, _statements):
        started.callback(None)
        await waiting

    peer.replication.receiver.receive = receive
    wire = await peer.connect()
    wire.send(request("POST", PREFIX + PUSH, body=json.dumps(GOOD[PUSH]).encode()))
    await started
    drained = peer.factory.drain()
    assert not drained.called
    waiting.callback(None)
    answer = await wire.answer()
    await drained

    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_a_push_that_still_arrives_is_finished_first(peer):
    body = padded(MEBIBYTE)
    wire = await peer.connect()
    wire.send(request("POST", PREFIX + PUSH, length=len(body)), body[: MEBIBYTE // 2])
    while not peer.replication.peers.asked:
        await peer.ask("GET", "nothing")
    drained = peer.factory.drain()
    assert not drained.called
    wire.send(body[MEBIBYTE // 2 :])
    answer = await wire.answer()
    await drained

    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert len(peer.replication.receiver.calls) == 1
