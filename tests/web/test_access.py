"""Who asks, in which form, and which of several mistakes is told of."""

from urllib.parse import urlencode

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from web import rows
from web.cases import BIND, REQUEST, SUBMIT
from web.conftest import TERMS
from web.rows import ALICE, ROWS, SAMPLES, key, name, path
from web.world import make_world

from sydentish.domain.errors import BadJson, InvalidParam, NotJson
from sydentish.web.auth import access_token
from sydentish.web.body import body_params, form_params

FORMS = ["application/x-www-form-urlencoded", "application/x-form-www-urlencoded"]
token_rows = pytest.mark.parametrize("row", [row for row in ROWS if rows.needs_token(row)], ids=name)


# --- the access token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize("blanks", [" ", "   "])
@pytest_twisted.ensureDeferred
async def test_the_scheme_is_case_insensitive(server, alice, scheme, blanks):
    answer = await server.ask("GET", "v2/account", headers=[f"Authorization: {scheme}{blanks}{alice}"])

    assert answer.json == {"user_id": ALICE}


@pytest.mark.parametrize(
    "header",
    [
        'X-Matrix origin="hs.example.org",key="ed25519:0",sig="c2ln",destination="id.example.org"',
        "Basic YTpi",
        "Bearer",
        "Bearer \u00e4",
        "Bearer a b",
        "Bearer \x7f",
        "token",
    ],
)
@pytest_twisted.ensureDeferred
async def test_another_authorization_is_401_even_with_a_token_in_the_query(server, alice, header):
    answer = await server.ask(
        "GET", "v2/account", query={"access_token": alice}, headers=[f"Authorization: {header}"]
    )

    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")


@pytest_twisted.ensureDeferred
async def test_the_query_may_hold_the_token(server, alice):
    answer = await server.ask("GET", "v2/hash_details", query={"access_token": alice})

    assert answer.status == 200
    assert alice not in repr(server.house.requests.lines)


@pytest_twisted.ensureDeferred
async def test_the_token_in_the_query_can_be_switched_off(serve):
    server = await serve(token_in_query=False)
    token = await server.house.token()
    by_query = await server.ask("GET", "v2/hash_details", query={"access_token": token})
    by_header = await server.ask("GET", "v2/hash_details", token=token)

    assert (by_query.status, by_header.status) == (401, 200)


@pytest.mark.parametrize(("header", "query", "status"), [("right", "wrong", 200), ("wrong", "right", 401)])
@pytest_twisted.ensureDeferred
async def test_the_header_wins(server, alice, header, query, status):
    tokens = {"right": alice, "wrong": "wrong"}
    answer = await server.ask(
        "GET", "v2/account", token=tokens[header], query={"access_token": tokens[query]}
    )

    assert answer.status == status


@pytest_twisted.ensureDeferred
async def test_an_empty_token_is_none(server):
    answer = await server.ask("GET", "v2/account", query="access_token=")

    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")


@given(st.binary() | st.none(), st.dictionaries(st.just("access_token"), st.text()), st.booleans())
def test_any_header_gives_a_token_or_none(header, query, allow_query):
    token = access_token(header, query, allow_query=allow_query)

    assert token is None or token
    if header:
        assert (
            token is None or token != query.get("access_token") or token in header.decode("utf-8", "replace")
        )


# --- which mistake is told of --------------------------------------------------------------------------


@token_rows
@pytest_twisted.ensureDeferred
async def test_a_missing_token_wins_over_a_broken_request(server, row):
    for broken in ({"params": {"sid": "?"}}, {"raw": b"{"}, {"query": "%ff"}, {"query": "&".join("a" * 200)}):
        answer = await server.ask(row.method, path(row), **broken)
        assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")


@token_rows
@pytest_twisted.ensureDeferred
async def test_an_unknown_token_wins_over_a_broken_request(server, row):
    for broken in ({"params": {"sid": "?"}}, {"raw": b"{"}, {"query": "%ff"}):
        answer = await server.ask(row.method, path(row), token="wrong", **broken)
        assert answer.status == 401


@pytest.mark.parametrize("row", [row for row in ROWS if rows.needs_terms(row)], ids=name)
@pytest_twisted.ensureDeferred
async def test_unsigned_terms_win_over_a_broken_request(serve, row):
    server = await serve(terms=TERMS)
    token = await server.house.token()
    for broken in ({"params": {"sid": "?"}}, {"raw": b"{"}, {"query": "%ff"}):
        answer = await server.ask(row.method, path(row), token=token, **broken)
        assert (answer.status, answer.errcode) == (403, "M_TERMS_NOT_SIGNED")


@token_rows
@pytest_twisted.ensureDeferred
async def test_a_query_that_does_not_matter_is_not_read(server, row):
    if row.params is rows.Params.QUERY and key(row) in SAMPLES:
        return
    params = SAMPLES.get(key(row))
    without = await server.ask(row.method, path(row), params, token=await server.house.token())
    with_query = await server.ask(
        row.method, path(row), params, token=await server.house.token(), query="%ff"
    )

    assert with_query.status == without.status


@pytest_twisted.ensureDeferred
async def test_another_user_wins_over_an_unknown_session(serve):
    world = await make_world(serve)
    params = world.session("unknown") | {"mxid": "@bob:hs.example.org"}
    answer = await world.server.ask("POST", BIND, params, token=world.token)

    assert (answer.status, answer.errcode) == (403, "M_UNAUTHORIZED")


# --- forms ---------------------------------------------------------------------------------------------


async def ask_form(world, content_type, path, params):
    return await world.server.ask(
        "POST",
        path,
        raw=urlencode(params).encode(),
        token=world.token,
        headers=[f"Content-Type: {content_type}"],
    )


@pytest.mark.parametrize("parameter", ["", "; charset=utf-8", " ;a=b"])
@pytest.mark.parametrize("content_type", [*FORMS, FORMS[0].upper()])
@pytest_twisted.ensureDeferred
async def test_the_main_job_by_forms(serve, content_type, parameter):
    world = await make_world(serve)
    kind = content_type + parameter
    asked = {"client_secret": "f0rm", "email": "form@example.org", "send_attempt": 1}
    sid = (await ask_form(world, kind, REQUEST, asked)).json["sid"]
    session = {"sid": sid, "client_secret": "f0rm"}
    token = world.server.house.sender.last_token()

    assert (await ask_form(world, kind, SUBMIT, session | {"token": token})).json == {"success": True}
    assert (await ask_form(world, kind, BIND, session | {"mxid": ALICE})).json[
        "address"
    ] == "form@example.org"


@pytest.mark.parametrize("content_type", FORMS)
@pytest_twisted.ensureDeferred
async def test_a_form_is_judged_as_json_is(serve, content_type):
    world = await make_world(serve)
    missing = await ask_form(world, content_type, SUBMIT, {"sid": "a"})
    broken = await world.server.ask(
        "POST", SUBMIT, raw=b"sid=%ff", token=world.token, headers=[f"Content-Type: {content_type}"]
    )

    assert (missing.status, missing.errcode) == (400, "M_MISSING_PARAMS")
    assert "client_secret, token" in missing.json["error"]
    assert (broken.status, broken.errcode) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "text/plain", "", "application/octet-stream"]
)
@pytest_twisted.ensureDeferred
async def test_everything_else_is_json(serve, content_type):
    world = await make_world(serve)
    headers = [] if content_type is None else [f"Content-Type: {content_type}"]
    params = world.session("pending") | {"token": world.mail_token}
    answer = await world.server.ask("POST", SUBMIT, params, token=world.token, headers=headers)

    assert answer.json == {"success": True}


FIELDS = st.dictionaries(st.text(min_size=1), st.text(), max_size=100)


@given(FIELDS)
def test_a_form_gives_back_what_was_encoded(fields):
    assert form_params(urlencode(fields).encode(), "body") == fields


@given(st.binary(), st.sampled_from([*FORMS, "application/json", "", ";", "\xff"]))
def test_any_body_is_read_or_refused_by_name(body, content_type):
    try:
        params = body_params(body, content_type.encode("latin-1"))
    except (NotJson, BadJson, InvalidParam):
        return
    assert isinstance(params, dict)


@pytest.mark.parametrize("encoded", [b"a=%ff", b"a=\xff", b"a=%ed%a0%80", b"a=1" + b"&a=1" * 100])
def test_a_query_that_cannot_be_read_is_refused(encoded):
    with pytest.raises(InvalidParam, match="query"):
        form_params(encoded, "query")
