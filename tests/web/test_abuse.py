"""What a client may cost that has no account, or reads no answers."""

import json

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from web.conftest import LIMITS
from web.wire import PREFIX, chunked, request

from sydentish.domain.errors import UnknownToken
from sydentish.web import models
from sydentish.web.admission import OpenAdmission
from sydentish.web.reply import json_reply
from sydentish.web.route import Auth, Params, Route

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


@pytest.mark.parametrize("in_chunks", [False, True], ids=["announced", "in chunks"])
@pytest_twisted.ensureDeferred
async def test_nobody_is_told_how_large_a_body_may_be(serve, in_chunks):
    server = await serve(limits=LIMITS)
    wire = await server.connect()
    headers = ["Authorization: Bearer nobody"] + (["Transfer-Encoding: chunked"] if in_chunks else [])
    wire.send(request("POST", LOOKUP, headers=headers, length=None if in_chunks else LIMITS.large_body + 1))
    wire.send(chunked(b"[" * (LIMITS.large_body + 1)) if in_chunks else b"[" * 100)
    answer = await wire.answer()

    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert len(server.house.requests.lines) == 1


# --- a caller who is looked at while the rest of the body is there already ------------------------------


class SlowAdmission(OpenAdmission):
    """Lets nobody in until it is told to."""

    def __init__(self):
        self.asked = []

    async def check(self, _route, _caller):
        waiting = Deferred()
        self.asked.append(waiting)
        await waiting


@pytest_twisted.async_yield_fixture
async def slow(serve_routes):
    """A server whose route notes the bodies that reach it."""

    async def note(call):
        server.reached.append(call.params.body)
        return json_reply({})

    admission = SlowAdmission()
    route = Route("POST", "it", note, models.Lines, Auth.SOURCE, params=Params.RAW, large=True)
    server = await serve_routes(route, admission=admission)
    server.reached, server.admission = [], admission
    yield server


async def send_large(server, *, sent=2000):
    wire = await server.connect()
    wire.send(request("POST", "/it", length=2000), b"x" * sent)
    while not server.admission.asked:
        await server.ask("GET", "/nothing")
    return wire


@pytest.mark.parametrize("sent", [2000, 1500])
@pytest_twisted.ensureDeferred
async def test_a_large_body_waits_for_the_answer_and_is_asked_about_once(slow, sent):
    wire = await send_large(slow, sent=sent)
    assert slow.reached == []
    slow.admission.asked[0].callback(None)
    wire.send(b"x" * (2000 - sent))

    assert (await wire.answer()).status == 200
    assert slow.reached == [b"x" * 2000]
    assert len(slow.admission.asked) == 1


@pytest.mark.parametrize("sent", [2000, 1500])
@pytest_twisted.ensureDeferred
async def test_a_large_body_that_may_not_come_reaches_nothing(slow, sent):
    wire = await send_large(slow, sent=sent)
    slow.admission.asked[0].errback(UnknownToken("no"))

    assert (await wire.answer()).status == 401
    assert slow.reached == []


@pytest.mark.parametrize("sent", [2000, 1500])
@pytest_twisted.ensureDeferred
async def test_whoever_goes_while_they_are_looked_at_gets_nothing(slow, sent):
    wire = await send_large(slow, sent=sent)
    wire.transport.abortConnection()
    await wire.ended()
    await slow.ask("GET", "/nothing")
    slow.admission.asked[0].errback(UnknownToken("no"))

    assert slow.reached == []
    assert slow.house.requests.lines[-1]["status"] == 401
