"""Health of a real server, from its start to its end."""

import json
import signal

import pytest_twisted
import treq
from daemons import SECONDS
from e2e.mesh import eventually
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

HALF = (
    b"POST /_matrix/identity/v2/lookup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
)


class Half(Protocol):
    """Sends half a request."""

    received = b""

    def dataReceived(self, data):
        self.received += data


async def health(daemon, which):
    response = await treq.get(
        f"http://127.0.0.1:{daemon.metrics_port}/health/{which}", timeout=SECONDS, persistent=False
    )
    return response.code, json.loads(await response.content())


@pytest_twisted.ensureDeferred
async def test_a_server_is_ready_until_it_drains_and_tells_so_until_it_ends(town):
    status, answer = await health(town.daemon, "ready")
    assert (status, answer["ready"]) == (200, True)
    await town.register()
    connection = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", town.daemon.port), Half())
    connection.transport.write(HALF % town.daemon.token.encode())

    async def is_connected():
        return 'sydentish_http_connections{listener="public"} 1.0' in await town.daemon.metrics()

    await eventually(is_connected, "the server has the connection")
    process = town.daemon.process
    process.transport.signalProcess("TERM")

    async def drains():
        status, answer = await health(town.daemon, "ready")
        return status == 503 and answer

    answer = await eventually(drains, "the server stops")
    assert answer == {
        "ready": False,
        "checks": {"server": {"ok": False, "reason": "the server is stopping"}},
    }
    assert await health(town.daemon, "live") == (200, {"live": True})
    assert 'sydentish_health_check{check="server"} 0.0' in await town.daemon.metrics()
    connection.transport.write(b"}")
    assert await process.ended.addTimeout(SECONDS, reactor) == 0
    assert connection.received.startswith(b"HTTP/1.1 400 ")
    town.daemon.process = None


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_too_small_makes_it_not_ready(town):
    await town.daemon.end(signal.SIGTERM)
    config = town.daemon.config
    config.write_text(config.read_text() + "[health]\nmin_free_space = 1000000000M\n")
    await town.daemon.start()
    status, answer = await health(town.daemon, "ready")
    assert (status, answer["ready"]) == (503, False)
    reason = answer["checks"].pop("disk")["reason"]
    assert reason.endswith(f"the limit is {10**9 * 1024**2}")
    assert all(check == {"ok": True} for check in answer["checks"].values())
    assert (await health(town.daemon, "live"))[0] == 200
    assert (await town.daemon.ask("GET", "/v2"))[0] == 200
