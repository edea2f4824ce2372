"""HTTP on real sockets: what clients may do, and what they may not."""

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from web.wire import PREFIX, chunked, request

from sydentish.domain.errors import Busy
from sydentish.web import models
from sydentish.web.reply import json_reply
from sydentish.web.route import Auth, Params, Route

ALIVE = request("GET", PREFIX + "v2")
REGISTER = PREFIX + "v2/account/register"


class Held:
    """A handler that answers when it is told to."""

    def __init__(self):
        self.calls = []
        self.done = []

    async def __call__(self, call):
        waiting = Deferred()
        self.calls.append(waiting)
        await waiting
        self.done.append(call)
        return json_reply({"call": len(self.done)})


def held_route(method="GET", path="held"):
    held = Held()
    return held, Route(method, path, held, models.Nothing, Auth.NONE)


async def echo(call):
    return json_reply({"token": call.params.token})


ECHO = Route("POST", "echo", echo, models.SubmittedToken, Auth.NONE, params=Params.BODY)
ECHOED = b'{"sid": "a", "client_secret": "b", "token": "c"}'


# --- connections ---------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_one_connection_takes_many_requests(server):
    wire = await server.connect()
    for _ in range(3):
        assert (await server.ask("GET", "v2", wire=wire)).status == 200


@pytest_twisted.ensureDeferred
async def test_requests_in_one_piece_are_answered_in_their_order(server):
    wire = await server.connect()
    paths = ["v2", "versions", "nothing", "v2/account", "v2"]
    wire.send(b"".join(request("GET", PREFIX + path) for path in paths))

    assert [(await wire.answer()).status for _ in paths] == [200, 200, 404, 401, 200]


@pytest_twisted.ensureDeferred
async def test_a_request_behind_a_slow_one_waits_its_turn(serve_routes):
    held, route = held_route()
    server = await serve_routes(route, ECHO)
    wire = await server.connect()
    wire.send(request("GET", "/held"), request("POST", "/echo", body=ECHOED), request("GET", "/held"))
    other = await server.ask("POST", "/echo", raw=ECHOED)  # somebody else need not wait
    assert other.json == {"token": "c"}
    assert len(held.calls) == 1
    held.calls[0].callback(None)

    assert (await wire.answer()).json == {"call": 1}
    assert (await wire.answer()).json == {"token": "c"}
    held.calls[1].callback(None)
    assert (await wire.answer()).json == {"call": 2}


@pytest_twisted.ensureDeferred
async def test_close_is_honoured(server):
    wire = await server.connect()
    wire.send(request("GET", PREFIX + "v2", headers=["Connection: close"]), ALIVE)
    answer = await wire.answer()

    assert answer.headers["connection"] == "close"
    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_http_1_0_is_answered_and_closed(server):
    wire = await server.connect()
    wire.send(request("GET", PREFIX + "v2", version="1.0"))
    answer = await wire.answer()

    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_no_more_connections_than_allowed(serve):
    server = await serve(connection={"connections": 2})
    first, second, third = [await server.connect() for _ in range(3)]
    assert await third.ended() == b""
    assert (await server.ask("GET", "v2", wire=second)).status == 200
    first.send(request("GET", PREFIX + "v2", version="1.0"))
    await first.ended()

    assert (await server.ask("GET", "v2")).status == 200


# --- bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        chunked(ECHOED),
        chunked(*(bytes([byte]) for byte in ECHOED)),
        b"%x;name=value\r\n%b\r\n0\r\n\r\n" % (len(ECHOED), ECHOED),
        b"%X\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(ECHOED), ECHOED),
    ],
    ids=["one", "many", "extension", "trailer"],
)
@pytest_twisted.ensureDeferred
async def test_bodies_may_come_in_chunks(serve_routes, body):
    server = await serve_routes(ECHO)
    wire = await server.connect()
    wire.send(request("POST", "/echo", headers=["Transfer-Encoding: chunked"]), body, request("GET", "/"))

    assert (await wire.answer()).json == {"token": "c"}
    assert (await wire.answer()).status == 404


@pytest_twisted.ensureDeferred
async def test_a_body_in_single_bytes_is_read(serve_routes):
    server = await serve_routes(ECHO)
    wire = await server.connect()
    for byte in request("POST", "/echo", body=ECHOED):
        wire.send(bytes([byte]))

    assert (await wire.answer()).json == {"token": "c"}


@pytest_twisted.ensureDeferred
async def test_who_asks_whether_to_go_on_is_told_so(serve_routes):
    server = await serve_routes(ECHO)
    wire = await server.connect()
    wire.send(request("POST", "/echo", headers=["Expect: 100-continue"], length=len(ECHOED)))
    assert (await wire.answer()).status == 100
    wire.send(ECHOED)

    assert (await wire.answer()).json == {"token": "c"}


@pytest.mark.parametrize(
    ("method", "path", "length", "status"),
    [
        ("POST", "v2/lookup", 10, 401),
        ("POST", "nothing", 10, 404),
        ("PUT", "v2", 10, 405),
        ("POST", "v2/account/register", 65537, 413),
        ("OPTIONS", "v2", 10, 200),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_is_refused_is_not_asked_to_go_on(server, method, path, length, status):
    wire = await server.connect()
    wire.send(request(method, PREFIX + path, headers=["Expect: 100-continue"], length=length))

    assert (await wire.answer()).status == status


@pytest_twisted.ensureDeferred
async def test_what_follows_a_refusal_is_thrown_away_and_never_read_as_a_request(server):
    wire = await server.connect()
    wire.send(request("POST", PREFIX + "v2/lookup", length=len(ALIVE) + 500_000), ALIVE)
    assert (await wire.answer()).status == 401
    wire.send(b" " * 500_000, ALIVE)

    assert await wire.ended() == b""
    assert len(server.house.requests.lines) == 1


@pytest_twisted.ensureDeferred
async def test_a_refused_body_beyond_sixteen_mebibytes_is_cut(server):
    wire = await server.connect()
    wire.send(request("POST", PREFIX + "v2/lookup", length=100_000_000))
    assert (await wire.answer()).status == 401
    for _ in range(17):
        wire.send(b" " * 1024 * 1024)

    assert await wire.ended() == b""


@pytest_twisted.ensureDeferred
async def test_a_large_body_in_chunks_is_refused_as_soon_as_it_is_too_large(server):
    wire = await server.connect()
    wire.send(request("POST", REGISTER, headers=["Transfer-Encoding: chunked"]))
    wire.send(b"%x\r\n" % 65536, b" " * 65536, b"\r\n1\r\n \r\n")

    assert (await wire.answer()).status == 413  # though the body has not ended


@pytest_twisted.ensureDeferred
async def test_a_body_of_exactly_the_limit_is_read(server):
    answer = await server.ask("POST", REGISTER, raw=b"{}" + b" " * 65534)

    assert (answer.status, answer.errcode) == (400, "M_MISSING_PARAMS")


# --- clients that go away ------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_was_asked_is_done_though_the_client_is_gone(serve_routes):
    held, route = held_route()
    server = await serve_routes(route)
    wire = await server.connect()
    wire.send(request("GET", "/held"))
    while not held.calls:
        await server.ask("GET", "/")
    wire.transport.abortConnection()
    await wire.ended()
    await server.ask("GET", "/")  # by now the server knows
    held.calls[0].callback(None)

    assert len(held.done) == 1
    assert server.house.requests.lines[-1]["route"] == "held"
    assert server.house.requests.lines[-1]["status"] == 200


@pytest.mark.parametrize("sent", [b"", b"GE", ALIVE[:-2], request("POST", REGISTER, length=100) + b"{"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(server, sent):
    wire = await server.connect()
    wire.send(sent)
    wire.transport.loseConnection()
    await wire.ended()

    assert (await server.ask("GET", "v2")).status == 200
    assert len(server.house.requests.lines) == 1


@pytest_twisted.ensureDeferred
async def test_busy_says_when_to_come_again(serve_routes):
    async def busy(_call):
        raise Busy("The server has too much to do: try again soon", 2500)

    server = await serve_routes(Route("GET", "busy", busy, models.Nothing, Auth.NONE))
    answer = await server.ask("GET", "/busy")

    assert (answer.status, answer.errcode) == (503, "M_UNKNOWN")
    assert answer.headers["retry-after"] == "3"
    assert answer.json["retry_after_ms"] == 2500
