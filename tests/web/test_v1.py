"""Version 1: no access token, parameters anywhere, each endpoint by its own switch, and who may ask how often."""

import json
from urllib.parse import urlencode

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from web import rows
from web.cases import PUBLIC_KEY
from web.conftest import LIMITS
from web.rows import SAMPLES, V1_ROWS, key, name, path
from web.wire import Wire, request
from web.world import BOUND, make_world

from sydentish.config import V1_ENDPOINTS
from sydentish.domain.ratelimit import Budgets, Rate
from sydentish.web.http import ConnectionLimits, HttpFactory
from sydentish.web.route import Auth, Params

FORM = "Content-Type: application/x-www-form-urlencoded"
MINUTE = 60_000
LOOKUP_ONE, LOOKUP_MANY = "api/v1/lookup", "api/v1/bulk_lookup"
of_v1 = pytest.mark.parametrize("row", [row for _, row in V1_ROWS], ids=name)
reading = pytest.mark.parametrize("row", [row for _, row in V1_ROWS if key(row) in SAMPLES], ids=name)
from_sources = pytest.mark.parametrize(
    "row", [row for _, row in V1_ROWS if row.auth is Auth.SOURCE], ids=name
)
from_trusted = pytest.mark.parametrize(
    "row", [row for _, row in V1_ROWS if row.auth is Auth.TRUSTED_SOURCE], ids=name
)


# --- parameters ----------------------------------------------------------------------------------------


def as_text(params):
    """As a form or a query has them: objects and lists are JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}


def ways(params):
    """All ways to send parameters."""
    form = {"raw": urlencode(as_text(params)).encode(), "headers": [FORM]}
    first, *others = params
    split = {"query": as_text({first: params[first]}), "params": {other: params[other] for other in others}}
    return {"json": {"params": params}, "form": form, "query": {"query": as_text(params)}, "split": split}


@reading
@pytest_twisted.ensureDeferred
async def test_parameters_may_stand_anywhere(server, row):
    if row.params is not Params.ANYWHERE:  # keys have theirs in the query, as in version 2
        return
    params = SAMPLES[key(row)]
    answers = {how: await server.ask(row.method, path(row), **sent) for how, sent in ways(params).items()}

    for how, answer in answers.items():
        assert answer.status != 400 or row.page, how
        assert answer.status == answers["json"].status


@reading
@pytest_twisted.ensureDeferred
async def test_what_is_missing_everywhere_is_named(server, row):
    missing = rows.required(row)[0]
    params = {name: value for name, value in SAMPLES[key(row)].items() if name != missing}
    answer = await server.ask(row.method, path(row), query=as_text(params))

    assert answer.status == 400
    if row.page is None:
        assert answer.errcode == "M_MISSING_PARAMS"
        assert missing in answer.json["error"]


@pytest.mark.parametrize("how", ["json", "form", "query", "split"])
@pytest_twisted.ensureDeferred
async def test_unbind_by_a_session_however_it_is_sent(serve, how):
    world = await make_world(serve)
    params = {
        "threepid": {"medium": "email", "address": BOUND},
        "mxid": rows.ALICE,
        **world.session("bound"),
    }
    answer = await world.server.ask("POST", "api/v1/3pid/unbind", **ways(params)[how])
    found = await world.server.ask("GET", LOOKUP_ONE, query={"medium": "email", "address": BOUND})

    assert (answer.status, answer.json, found.json) == (200, {}, {})


@pytest.mark.parametrize("how", ["json", "form", "query"])
@pytest_twisted.ensureDeferred
async def test_bulk_lookup_however_it_is_sent(serve, how):
    world = await make_world(serve)
    answer = await world.server.ask("POST", LOOKUP_MANY, **ways({"threepids": [["email", BOUND]]})[how])

    assert answer.json == {"threepids": [["email", BOUND, rows.ALICE]]}


@pytest_twisted.ensureDeferred
async def test_the_body_wins_over_the_query(serve):
    world = await make_world(serve)
    sent = {"params": world.session("sms pending") | {"token": world.code}, "query": {"token": "wrong"}}

    assert (await world.server.ask("POST", "api/v1/validate/msisdn/submitToken", **sent)).status == 200


@pytest_twisted.ensureDeferred
async def test_a_form_and_a_query_that_cannot_be_read_are_400(server):
    for sent in ({"query": "sid=%ff"}, {"raw": b"sid=%ff", "headers": [FORM]}, {"raw": b"{"}):
        answer = await server.ask("POST", "api/v1/validate/email/submitToken", **sent)
        assert answer.status == 400


# --- what homeservers and clients do -------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_telephone_is_validated_for_a_homeserver(server):
    asked = {"client_secret": "s3cret", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
    answer = await server.ask("POST", "api/v1/validate/msisdn/requestToken", asked)
    session = {"sid": answer.json["sid"], "client_secret": "s3cret"}
    submitted = session | {"token": server.house.codes.last_code()}
    validated = "api/v1/3pid/getValidated3pid"
    before = await server.ask("GET", validated, query=session)
    done = await server.ask("POST", "api/v1/validate/msisdn/submitToken", submitted)
    after = await server.ask("GET", validated, query=session)

    assert answer.json | session == answer.json | {"client_secret": "s3cret"}
    assert {**answer.json, "sid": ""} == {
        "sid": "",
        "success": True,
        "msisdn": "447700900001",
        "intl_fmt": "+44 7700 900001",
    }
    assert (before.status, before.errcode) == (400, "M_SESSION_NOT_VALIDATED")
    assert done.json == {"success": True}
    assert after.json == {
        "medium": "msisdn",
        "address": "447700900001",
        "validated_at": server.house.now_ms(),
    }


@pytest_twisted.ensureDeferred
async def test_the_status_and_the_keys_are_those_of_version_2(server):
    assert (await server.ask("GET", "api/v1")).json == {}
    assert (await server.ask("GET", "api/v1/pubkey/ed25519:0")).json == {"public_key": PUBLIC_KEY}
    valid = await server.ask("GET", "api/v1/pubkey/isvalid", query={"public_key": PUBLIC_KEY})
    assert valid.json == {"valid": True}


@pytest_twisted.ensureDeferred
async def test_an_invitation_for_a_bound_address_names_its_user(serve):
    world = await make_world(serve)
    for start, token in (("v2/", world.token), ("api/v1/", None)):
        params = SAMPLES["POST", "v2/store-invite"] | {"address": BOUND}
        answer = await world.server.ask("POST", start + "store-invite", params, token=token)
        assert (answer.status, answer.errcode, answer.json["mxid"]) == (400, "M_THREEPID_IN_USE", rows.ALICE)


# --- switches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", V1_ENDPOINTS)
@pytest_twisted.ensureDeferred
async def test_each_endpoint_is_switched_off_alone(serve, word):
    server = await serve(v1_endpoints=[other for other in V1_ENDPOINTS if other != word])
    for of_word, row in V1_ROWS:
        answer = await server.ask(row.method, path(row))
        other_method = any(
            (other.path, other_word) == (row.path, other_word) and other_word != word
            for other_word, other in V1_ROWS
        )
        if of_word == word:
            assert answer.status == (405 if other_method else 404)
            if row.method != "HEAD":
                assert answer.errcode == "M_UNRECOGNIZED"
        else:
            assert answer.status not in (404, 405) or "pubkey" in row.path


@of_v1
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
@pytest_twisted.ensureDeferred
async def test_all_of_it_is_switched_off_at_once(serve, row, method):
    server = await serve(v1_endpoints=())
    answer = await server.ask(method, path(row))

    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")
    assert (await server.ask("GET", "v2")).status == 200


def test_every_row_has_a_switch_and_every_switch_a_row():
    assert {word for word, _ in V1_ROWS} == set(V1_ENDPOINTS)


# --- trusted networks ----------------------------------------------------------------------------------


@from_trusted
@pytest_twisted.ensureDeferred
async def test_other_networks_are_forbidden_before_the_body(serve, row):
    server = await serve(trusted=["192.0.2.0/24"])
    wire = await server.connect()
    wire.send(request(row.method, rows_path(row), length=500))
    answer = await wire.answer()

    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert server.house.codes.sent == []


@from_trusted
@pytest.mark.parametrize(
    ("client", "status"),
    [("192.0.2.7", 400), ("203.0.113.9", 403), ("192.0.2.7, 203.0.113.9", 403), ("x", 403)],
)
@pytest_twisted.ensureDeferred
async def test_behind_a_proxy_it_is_the_client_that_is_trusted_or_not(serve, row, client, status):
    server = await serve(trusted=["192.0.2.0/24", "127.0.0.1"], proxies=["127.0.0.1"])
    answer = await server.ask(row.method, path(row), headers=[f"X-Forwarded-For: {client}"])

    assert answer.status == status


@from_trusted
@pytest_twisted.ensureDeferred
async def test_a_proxy_that_is_not_known_makes_nobody_trusted(serve, row):
    server = await serve(trusted=["127.0.0.1", "192.0.2.0/24"])
    answer = await server.ask(row.method, path(row), headers=["X-Forwarded-For: 192.0.2.7"])

    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "header",
    ["Via: 1.1 proxy", "Forwarded: for=192.0.2.7", "X-Real-IP: 192.0.2.7", "X-Forwarded-Proto: https"],
)
@pytest.mark.parametrize("proxies", [[], ["127.0.0.1"]])
@pytest_twisted.ensureDeferred
async def test_a_proxy_that_does_not_say_for_whom_makes_nobody_trusted(serve, header, proxies):
    """Most of all a proxy on this machine, whose operator has forgotten to tell us of it."""
    server = await serve(trusted=["127.0.0.1"], proxies=proxies)
    path_ = "api/v1/3pid/getValidated3pid"
    told = await server.ask("GET", path_, query=rows.SESSION, headers=[header])
    itself = await server.ask("GET", path_, query=rows.SESSION)

    assert (told.status, told.errcode) == (403, "M_FORBIDDEN")
    assert itself.status == 404


@pytest.mark.parametrize(("trusted", "status"), [(["unix"], 200), (["127.0.0.1"], 403)])
@pytest_twisted.ensureDeferred
async def test_a_homeserver_on_a_unix_socket(make_house, tmp_path, trusted, status):
    house = await make_house(trusted=trusted)
    limits = ConnectionLimits(header_bytes=16384, receive_seconds=30, idle_seconds=60, connections=None)
    factory = HttpFactory(house.dispatcher, limits, house.clock)
    port = reactor.listenUNIX(str(tmp_path / "socket"), factory)
    wire = await connectProtocol(UNIXClientEndpoint(reactor, str(tmp_path / "socket")), Wire())
    body = json.dumps(SAMPLES["POST", "v2/validate/msisdn/requestToken"]).encode()
    wire.send(request("POST", "/_matrix/identity/api/v1/validate/msisdn/requestToken", body=body))
    answer = await wire.answer()
    wire.transport.loseConnection()
    await wire.ended()
    await port.stopListening()

    assert answer.status == status


def rows_path(row):
    return "/_matrix/identity/" + path(row)


# --- the budget by source ------------------------------------------------------------------------------

THREE = Budgets(v1_requests_per_source=Rate(3, MINUTE))
AWAY = {"trusted": ["192.0.2.0/24"], "budgets": THREE}


async def ask_sample(server, row, **options):
    return await server.ask(
        row.method, path(row), **rows.request_of(row, SAMPLES.get(key(row), {})), **options
    )


@from_sources
@pytest_twisted.ensureDeferred
async def test_too_many_requests_from_one_source_are_429(serve, row):
    server = await serve(**AWAY)
    statuses = [(await ask_sample(server, row)).status for _ in range(3)]
    answer = await ask_sample(server, row)

    assert 429 not in statuses
    assert answer.status == 429
    assert server.house.requests.refusals == ["v1_requests_per_source"]
    assert answer.headers["retry-after"] == "20"
    if row.page is None:
        assert answer.errcode == "M_LIMIT_EXCEEDED"
        assert answer.json["retry_after_ms"] == 20_000
    else:
        assert b"too many tries" in answer.body


@pytest_twisted.ensureDeferred
async def test_more_comes_with_time(serve):
    server = await serve(**AWAY)
    for _ in range(4):
        answer = await server.ask("GET", LOOKUP_ONE)
    server.house.advance(answer.json["retry_after_ms"])

    assert (await server.ask("GET", LOOKUP_ONE)).status == 400
    assert (await server.ask("GET", LOOKUP_ONE)).status == 429


@pytest_twisted.ensureDeferred
async def test_what_comes_to_nothing_is_counted(serve):
    """Who guesses, and who sends nonsense, is counted as everybody is."""
    server = await serve(**AWAY)
    submit = "api/v1/validate/email/submitToken"
    statuses = [
        (await server.ask("POST", submit, SAMPLES["POST", submit])).status,
        (await server.ask("POST", submit, raw=b"{")).status,
        (await server.ask("POST", submit, query="%ff")).status,
        (await server.ask("POST", submit, SAMPLES["POST", submit])).status,
    ]

    assert statuses == [404, 400, 400, 429]


@pytest_twisted.ensureDeferred
async def test_all_endpoints_share_the_budget_and_a_refusal_changes_nothing(serve):
    world = await make_world(serve, **AWAY)
    server = world.server
    for path_ in (LOOKUP_ONE, LOOKUP_ONE, "api/v1/validate/email/submitToken"):
        await server.ask("GET", path_)
    refused = await server.ask(
        "POST", "api/v1/validate/email/submitToken", world.session("pending") | {"token": world.mail_token}
    )
    state = await server.ask(
        "GET", "v2/3pid/getValidated3pid", query=world.session("pending"), token=world.token
    )

    assert refused.status == 429
    assert state.errcode == "M_SESSION_NOT_VALIDATED"


@pytest.mark.parametrize(
    "path_", ["api/v1", "api/v1/pubkey/ed25519:0", "api/v1/pubkey/isvalid?public_key=a", "v2", "versions"]
)
@pytest_twisted.ensureDeferred
async def test_what_costs_nothing_is_not_counted(serve, path_):
    server = await serve(**AWAY)
    statuses = {(await server.ask("GET", path_)).status for _ in range(5)}

    assert statuses == {200}


@pytest_twisted.ensureDeferred
async def test_looking_by_head_and_preflights_are_not_counted(serve):
    server = await serve(**AWAY)
    for _ in range(5):
        assert (await server.ask("HEAD", "api/v1/validate/email/submitToken")).status == 200
        assert (await server.ask("OPTIONS", LOOKUP_ONE)).status == 200

    assert (await server.ask("GET", LOOKUP_ONE)).status == 400


@pytest_twisted.ensureDeferred
async def test_trusted_networks_are_not_counted(serve):
    server = await serve(budgets=THREE)
    statuses = {(await server.ask("GET", LOOKUP_ONE)).status for _ in range(5)}

    assert statuses == {400}


@pytest_twisted.ensureDeferred
async def test_authenticated_calls_are_never_counted(serve):
    server = await serve(**AWAY)
    token = await server.house.token()
    for _ in range(5):
        assert (await server.ask("GET", "v2/hash_details", token=token)).status == 200
        assert (await server.ask("POST", "v2/lookup", {}, token=token)).status == 400
        assert (await server.ask("POST", "v2/3pid/bind", {})).status == 401

    assert (await server.ask("GET", LOOKUP_ONE)).status == 400


@pytest_twisted.ensureDeferred
async def test_an_access_token_at_version_1_changes_nothing(serve):
    server = await serve(**AWAY)
    token = await server.house.token()
    statuses = [(await server.ask("GET", LOOKUP_ONE, token=token)).status for _ in range(4)]

    assert statuses == [400, 400, 400, 429]


@pytest_twisted.ensureDeferred
async def test_behind_a_proxy_each_client_has_its_own_budget(serve):
    server = await serve(proxies=["127.0.0.1"], **AWAY)

    async def status(client):
        return (await server.ask("GET", LOOKUP_ONE, headers=[f"X-Forwarded-For: {client}"])).status

    assert [await status("203.0.113.9") for _ in range(4)] == [400, 400, 400, 429]
    assert await status("203.0.113.10") == 400
    assert await status("1.2.3.4, 203.0.113.9") == 429
    assert [await status(f"2001:db8::{n}") for n in range(4)] == [400, 400, 400, 429]
    assert await status("2001:db8:0:1::1") == 400
    assert [await status("192.0.2.1") for _ in range(4)] == [400] * 4


@pytest_twisted.ensureDeferred
async def test_the_header_does_not_help_without_a_proxy(serve):
    server = await serve(**AWAY)
    statuses = [
        (await server.ask("GET", LOOKUP_ONE, headers=[f"X-Forwarded-For: 203.0.113.{n}"])).status
        for n in range(4)
    ]

    assert statuses == [400, 400, 400, 429]


@pytest_twisted.ensureDeferred
async def test_a_large_request_is_counted_once(serve):
    server = await serve(limits=LIMITS, **AWAY)
    body = json.dumps({"threepids": [["email", "nobody@example.org"]] * 60}).encode()
    assert LIMITS.body < len(body) < LIMITS.large_body
    statuses = [(await server.ask("POST", LOOKUP_MANY, raw=body)).status for _ in range(4)]

    assert statuses == [200, 200, 200, 429]


@pytest_twisted.ensureDeferred
async def test_a_large_request_that_is_too_much_is_not_read_to_its_end(serve):
    server = await serve(limits=LIMITS, **AWAY)
    for _ in range(3):
        await server.ask("GET", LOOKUP_ONE)
    wire = await server.connect()
    wire.send(request("POST", "/_matrix/identity/" + LOOKUP_MANY, length=4999), b"[" * 1100)
    answer = await wire.answer()

    assert (answer.status, answer.headers["connection"]) == (429, "close")


@pytest_twisted.ensureDeferred
async def test_the_budget_is_there_after_a_restart_of_the_listener(serve, make_house, listen):
    """It is stored: another listener over the same database knows of it."""
    server = await serve(**AWAY)
    for _ in range(3):
        await server.ask("GET", LOOKUP_ONE)
    other = await listen(server.house.dispatcher, server.house.clock)

    assert (await other.ask("GET", LOOKUP_ONE)).status == 429
