"""What a client may cost that has no account, or reads no answers."""

import json

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from web.conftest import LIMITS
from web.wire import PREFIX, request

LOOKUP = PREFIX + "v2/lookup"


class Deaf(Protocol):
    """Sends without end and reads nothing, until the other side takes no more."""

    def connectionMade(self):
        self.stuck = Deferred()
        self.sent = 0
        self.transport.stopReading()
        self.transport.registerProducer(self, streaming=False)

    def resumeProducing(self):
        self.sent += 1
        self.transport.write(request("GET", PREFIX + "versions") * 100)

    def stopProducing(self):
        pass


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_no_answers_is_not_read_from(serve):
    """Socket buffers take some; then nothing more is answered, however much there is to read."""
    server = await serve()
    deaf = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", server.port.getHost().port), Deaf())
    asked, answered = 0, -1
    while (now := len(server.house.requests.lines) - asked) != answered:
        answered = now
        for _ in range(20):  # turns of the reactor in which others are answered
            await server.ask("GET", "v2")
        asked += 20
    assert 0 < answered < deaf.sent * 100
    deaf.transport.abortConnection()


@pytest.mark.parametrize("token", ["nobody", None])
@pytest_twisted.ensureDeferred
async def test_a_large_body_of_nobody_is_not_read_to_its_end(serve, token):
    server = await serve(limits=LIMITS)
    wire = await server.connect()
    headers = [f"Authorization: Bearer {token}"] if token else []
    wire.send(request("POST", LOOKUP, headers=headers, length=4999), b"[" * 1100)
    answer = await wire.answer()
    assert answer.status == 401
    assert answer.headers["connection"] == "close"


@pytest_twisted.ensureDeferred
async def test_a_large_body_of_an_account_is_read(serve):
    server = await serve(limits=LIMITS)
    token = await server.house.token()
    body = json.dumps({"algorithm": "sha256", "pepper": "x", "addresses": ["a" * 43] * 60}).encode()
    assert LIMITS.body + 100 < len(body) < LIMITS.large_body
    wire = await server.connect()
    headers = [f"Authorization: Bearer {token}"]
    wire.send(request("POST", LOOKUP, headers=headers, length=len(body)), body[:1100])
    await server.ask("GET", "v2")
    wire.send(body[1100:])
    assert (await wire.answer()).errcode == "M_INVALID_PEPPER"
