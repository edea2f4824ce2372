"""The replication listener as the configuration makes it."""

import json

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from web.mutual_tls import MutualTls
from web.test_replication import CHECK, DIGESTS, GOOD, PATHS, PEER, KnownPeers, RecordingReceiver
from web.wire import PREFIX, Wire, request

from sydentish.config import load
from sydentish.parts.answering import PEERS_CONNECTIONS, Web
from sydentish.parts.world import make_world

CONFIGURATION = """
[general]
server_name = example.org
public_base_url = https://id.example.org
[http]
body_limit = 2K
[replication]
listeners = {listeners}
body_limit = 8K
certificate_file = {folder}/server.pem
ca_file = {folder}/ca.pem
"""


class Requests:
    def answered(self, **line):
        pass


class Secured:
    """An endpoint with TLS around it."""

    def __init__(self, endpoint, context):
        self._endpoint, self._context = endpoint, context

    def listen(self, factory):
        return self._endpoint.listen(
            TLSMemoryBIOFactory(self._context, isClient=False, wrappedFactory=factory)
        )


@pytest.fixture
def tls(tmp_path):
    return MutualTls(tmp_path)


@pytest_twisted.async_yield_fixture
async def listening(tmp_path, tls):
    """Makes the listeners of a configuration; all end with the test."""
    made = []

    async def listen(listeners):
        conf = tmp_path / "sydentish.conf"
        conf.write_text(CONFIGURATION.format(folder=tmp_path, listeners=listeners))
        conf.chmod(0o600)
        web = Web(load(conf, {}), make_world(reactor), Requests(), None)
        receiver = RecordingReceiver()
        found = web.replication(receiver, KnownPeers(), lambda endpoint: Secured(endpoint, tls.server))
        for listener in found:
            listener.startService()
            made.append(listener)
            await listener.listening
        return receiver, found

    yield listen
    for listener in made:
        await listener.stopService()


async def ask(tls, socket, path, *, body=b"", length=None, name="peer.example.org"):
    endpoint = tls.client(name)(UNIXClientEndpoint(reactor, str(socket)))
    wire = await connectProtocol(endpoint, Wire())
    wire.send(request("POST", PREFIX + path, body=body, length=length))
    answer = await wire.answer()
    wire.transport.loseConnection()
    await wire.ended()
    return answer


@pytest_twisted.ensureDeferred
async def test_each_listener_speaks_mutual_tls_with_peers(listening, tls, tmp_path):
    sockets = [tmp_path / "one.sock", tmp_path / "two.sock"]
    receiver, _ = await listening("\n  ".join(f"unix:{socket}" for socket in sockets))
    for socket in sockets:
        for path in PATHS:
            assert (await ask(tls, socket, path, body=json.dumps(GOOD[path]).encode())).status == 200
        assert (await ask(tls, socket, "v2")).status == 404
        assert (await ask(tls, socket, PATHS[0], name="stranger.example.org")).errcode == "M_UNKNOWN_PEER"

    deeds = ("receive", "check", "digests", "statements", "recall", "log", "unbound")
    assert [call[:2] for call in receiver.calls] == [(deed, PEER) for _ in sockets for deed in deeds]


@pytest_twisted.ensureDeferred
async def test_without_tls_nothing_is_answered(listening, tmp_path):
    await listening(f"unix:{tmp_path}/one.sock")
    wire = await connectProtocol(UNIXClientEndpoint(reactor, str(tmp_path / "one.sock")), Wire())
    wire.send(request("POST", PREFIX + CHECK, body=b"{}"))

    assert b"HTTP" not in await wire.ended()


@pytest_twisted.ensureDeferred
async def test_only_pushes_may_be_as_large_as_pushes_may_be(listening, tls, tmp_path):
    socket = tmp_path / "one.sock"
    await listening(f"unix:{socket}")
    push = b'{"sgAssocs": {}}'.ljust(8192)
    statuses = [
        (await ask(tls, socket, PATHS[0], body=push)).status,
        (await ask(tls, socket, PATHS[0], length=8193)).status,
        (await ask(tls, socket, CHECK, body=b"{}".ljust(2048))).status,
        (await ask(tls, socket, CHECK, length=2049)).status,
        (await ask(tls, socket, DIGESTS, length=2049)).status,
    ]

    assert statuses == [200, 413, 200, 413, 413]


@pytest_twisted.ensureDeferred
async def test_there_are_only_so_many_connections(listening, tmp_path):
    _, (listener,) = await listening(f"unix:{tmp_path}/one.sock")

    assert listener._factory.limits.connections == PEERS_CONNECTIONS


@pytest_twisted.ensureDeferred
async def test_without_a_listener_nobody_listens(listening):
    assert (await listening(""))[1] == []
