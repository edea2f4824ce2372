"""The dispatcher: handlers that misbehave, paths that are odd, and what is noted."""

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from web.rows import ROWS, path
from web.wire import PREFIX, request

from sydentish.domain.errors import TokenIncorrect
from sydentish.domain.threepids import EMAIL
from sydentish.web import models
from sydentish.web.dispatch import RequestLimits
from sydentish.web.pages import Pages
from sydentish.web.reply import json_reply
from sydentish.web.route import Auth, Params, Route

PUBLIC = {path(row) for row in ROWS}


class BrokenRenderer:
    def page(self, name, brand, variables):
        raise RuntimeError("canary: the template is broken")


BROKEN_PAGES = Pages(BrokenRenderer(), brand="default", server_name="id.example.org")


def route(handler, method="GET", path="it", **options):
    return Route(method, path, handler, models.Nothing, Auth.NONE, **options)


# --- handlers that misbehave ---------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_handler_that_breaks_is_500_with_the_id_that_stands_in_the_log(serve_routes, failures):
    async def broken(_call):
        raise RuntimeError("canary: secret detail")

    server = await serve_routes(route(broken))
    answer = await server.ask("GET", "/it")
    ((message, failure),) = failures
    failures.clear()

    assert (answer.status, answer.errcode) == (500, "M_UNKNOWN")
    assert b"canary" not in answer.body
    assert b"RuntimeError" not in answer.body
    assert "request-17" in answer.json["error"]
    assert "request-17" in message
    assert failure.check(RuntimeError)
    assert server.house.requests.lines[-1]["status"] == 500
    assert server.house.requests.lines[-1]["request_id"] == "request-17"


@pytest_twisted.ensureDeferred
async def test_the_connection_goes_on_after_a_500(serve_routes, failures):
    async def broken(_call):
        raise RuntimeError

    server = await serve_routes(route(broken))
    wire = await server.connect()
    statuses = [(await server.ask("GET", "/it", wire=wire)).status for _ in range(2)]
    failures.clear()

    assert statuses == [500, 500]


@pytest_twisted.ensureDeferred
async def test_a_handler_that_never_ends_is_503_after_the_limit(serve_routes):
    started, cancelled = [], []

    async def endless(_call):
        started.append(None)
        await Deferred(cancelled.append)

    server = await serve_routes(route(endless), limits=RequestLimits(1000, 5000, 20.0))
    wire = await server.connect()
    wire.send(request("GET", "/it"))
    while not started:
        await server.ask("GET", "/")
    server.house.clock.advance(20)
    answer = await wire.answer()

    assert (answer.status, answer.errcode) == (503, "M_UNKNOWN")
    assert answer.headers["retry-after"] == "1"
    assert len(cancelled) == 1
    assert server.house.requests.lines[-1]["seconds"] == 20


@pytest_twisted.ensureDeferred
async def test_there_may_be_no_limit(serve_routes):
    started, waiting = [], Deferred()

    async def slow(_call):
        started.append(None)
        await waiting
        return json_reply({})

    server = await serve_routes(route(slow), limits=RequestLimits(None, None, None))
    wire = await server.connect()
    wire.send(request("GET", "/it", body=b" " * 100_000))
    while not started:
        await server.ask("GET", "/")
    server.house.clock.advance(1_000_000)
    waiting.callback(None)

    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_an_error_whose_page_cannot_be_made_is_json(serve_routes, failures):
    async def refuse(_call):
        raise TokenIncorrect("The token is incorrect")

    server = await serve_routes(route(refuse, page=EMAIL), pages=BROKEN_PAGES)
    answer = await server.ask("GET", "/it")
    assert len(failures) == 1
    failures.clear()

    assert (answer.status, answer.errcode) == (400, "M_TOKEN_INCORRECT")


@pytest_twisted.ensureDeferred
async def test_a_body_too_large_for_a_page_that_cannot_be_made_is_json(serve_routes, failures):
    server = await serve_routes(route(None, "POST", page=EMAIL), pages=BROKEN_PAGES)
    wire = await server.connect()
    wire.send(request("POST", "/it", length=1001))
    answer = await wire.answer()
    assert len(failures) == 1
    failures.clear()

    assert (answer.status, answer.errcode) == (413, "M_TOO_LARGE")


@pytest_twisted.ensureDeferred
async def test_a_good_page_that_cannot_be_made_is_500(serve_routes, failures):
    async def validated(_call):
        return BROKEN_PAGES.validated(EMAIL)

    server = await serve_routes(route(validated, page=EMAIL), pages=BROKEN_PAGES)
    answer = await server.ask("GET", "/it")
    assert len(failures) == 1
    failures.clear()

    assert answer.status == 500
    assert b"canary" not in answer.body


# --- paths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        "/",
        "//",
        "/_matrix/identity",
        "/_matrix/identity/",
        "/_matrix//identity/v2",
        "//_matrix/identity/v2",
        "/_matrix/identity/v2/",
        "/_matrix/identity//v2",
        "/_matrix/identity/V2",
        "/_MATRIX/identity/v2",
        "/_matrix/identity/%76%32",
        "/_matrix/identity%2Fv2",
        "/_matrix/identity/v2%2Faccount",
        "/_matrix/identity/v2/../v2",
        "/_matrix/identity/v2/%2e%2e/v2",
        "/_matrix/identity/v2/./account",
        "/_matrix/identity/v2/account/",
        "/_matrix/identity/v2/account%00",
        "/_matrix/identity/v2/account;x",
        "/_matrix/identity/v2/pubkey",
        "/_matrix/identity/v1/pubkey/ed25519:0",
        "/_matrix/identity/internal/bind",
        "/_matrix/identity/pages",
        "/metrics",
        "/favicon.ico",
        "*",
        "\x80",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
@pytest_twisted.ensureDeferred
async def test_an_odd_path_never_reaches_a_route(server, method, odd):
    wire = await server.connect()
    wire.send(request(method, odd))
    answer = await wire.answer()

    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")
    assert server.house.requests.lines[-1]["route"] == "unmatched"


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "ephemeral",
        "isvalid/",
        "is%76alid",
        "%69svalid?public_key=x",
        "ephemeral%2Fisvalid",
        "ephemeral//isvalid",
        "ed25519:0/",
        "/ed25519:0",
        "ed25519%253A0",
        "ED25519:0",
        "%2e%2e",
        "../account",
        "..%2Faccount",
        "%00",
        "%ff",
        "%",
        "%zz",
        "\xa0",
        "a" * 10_000,
        "nothing?key_id=ed25519:0",
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_odd_key_is_not_found(server, odd):
    answer = await server.ask("GET", f"v2/pubkey/{odd}")

    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert server.house.requests.lines[-1]["route"] == "v2/pubkey/{key_id}"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["v2", "/", "%2F", "..", "%2e", "account", "terms", "pubkey", ";", "%00", "pages"])
    )
)
@pytest_twisted.ensureDeferred
async def test_only_the_exact_path_of_a_row_reaches_it(server, parts):
    asked = "".join(parts)
    answer = await server.ask("GET", PREFIX + asked)

    if asked not in PUBLIC and not asked.startswith("v2/pubkey/"):
        assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")


# --- what is noted -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_each_request_is_noted_once_with_nothing_that_the_caller_chose(server):
    await server.ask("GET", "v2/account", query={"access_token": "canary"})
    await server.ask("GET", "v2/pubkey/canary")
    await server.ask("GET", "canary")
    await server.ask("CANARY", "v2")
    await server.ask("POST", "v2/terms", {"canary": "canary"}, token="canary")
    lines = server.house.requests.lines

    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "v2/account", 401),
        ("GET", "v2/pubkey/{key_id}", 404),
        ("GET", "unmatched", 404),
        ("OTHER", "unmatched", 405),
        ("POST", "v2/terms", 401),
    ]
    assert "canary" not in repr(lines).lower()


@pytest_twisted.ensureDeferred
async def test_a_route_without_a_gate_reads_its_body(serve_routes):
    async def answer(call):
        return json_reply({"sid": call.params.sid})

    server = await serve_routes(
        Route("POST", "it", answer, models.SubmittedToken, Auth.NONE, params=Params.BODY)
    )

    assert (await server.ask("POST", "/it", {})).errcode == "M_MISSING_PARAMS"
