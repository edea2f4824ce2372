"""Every endpoint answers as the specification says, in the good case and in each error case."""

import json

import pytest
import pytest_twisted
import signedjson.key
import signedjson.sign
from fixtures import SERVER_NAME, public_key_bytes
from jsonschema import Draft202012Validator
from web import official
from web.cases import BIND, CASES, LOG_OUT, LOOKUP, SUBMIT, TERMS, UNBIND, VALIDATED
from web.cases_v1 import LOOKUP_MANY, LOOKUP_ONE, V1_CASES
from web.conftest import TERMS as POLICIES
from web.rows import ALICE, ROWS
from web.wire import PREFIX
from web.world import BOUND, make_world

from sydentish.domain.accounts import HomeserverPolicy

every_case = pytest.mark.parametrize("case", [*CASES, *V1_CASES], ids=str)


@every_case
@pytest_twisted.ensureDeferred
async def test_answer(serve, case):
    world = await make_world(serve, **case.options)
    answer = await case.ask(world)

    assert answer.status == case.status
    if case.errcode is not None:
        assert answer.errcode == case.errcode
        assert set(answer.json) >= {"errcode", "error"}
    elif callable(case.answer):
        assert case.answer(answer.json, world)
    else:
        assert answer.json == case.answer


def test_every_row_has_a_good_case_but_the_pages():
    good = {(case.method, case.path) for case in [*CASES, *V1_CASES] if case.status == 200}
    rows = {(row.method, row.path.replace("{key_id}", "ed25519:0")) for row in ROWS if not row.page}
    assert rows <= good


@pytest_twisted.ensureDeferred
async def test_an_old_pepper_is_answered_with_what_is_needed_to_try_again(serve):
    world = await make_world(serve)
    asked = {"algorithm": "sha256", "pepper": "old", "addresses": []}
    answer = await world.server.ask("POST", LOOKUP, asked, token=world.token)

    assert set(answer.json) == {"errcode", "error", "algorithm", "lookup_pepper"}
    assert (answer.json["algorithm"], answer.json["lookup_pepper"]) == ("sha256", world.pepper)


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [("POST", SUBMIT, {"token": "any"}), ("POST", BIND, {"mxid": ALICE}), ("GET", VALIDATED, {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest_twisted.ensureDeferred
async def test_an_unknown_sid_and_a_wrong_secret_get_the_same_bytes(serve, method, path, more):
    world = await make_world(serve)
    answers = []
    for state in ("unknown", "other secret"):
        params = world.session(state) | more
        where = {"query": params} if method == "GET" else {"params": params}
        answers.append(await world.server.ask(method, path, token=world.token, **where))

    assert answers[0] == answers[1]
    assert answers[0].status == 404


@pytest_twisted.ensureDeferred
async def test_the_bound_association_is_signed_with_the_published_key(serve):
    world = await make_world(serve)
    params = world.session("proved") | {"mxid": ALICE}
    signed = (await world.server.ask("POST", BIND, params, token=world.token)).json
    key = signedjson.key.decode_verify_key_bytes("ed25519:0", public_key_bytes())

    signedjson.sign.verify_signed_json(signed, SERVER_NAME, key)
    assert signed["not_before"] == signed["ts"] <= world.server.house.now_ms() < signed["not_after"]


@pytest_twisted.ensureDeferred
async def test_an_address_that_was_asked_for_twice_is_one_key_of_the_answer(serve):
    world = await make_world(serve)
    found = world.address_hash(BOUND)
    asked = {"algorithm": "sha256", "pepper": world.pepper, "addresses": [found, found]}
    answer = await world.server.ask("POST", LOOKUP, asked, token=world.token)

    assert json.loads(answer.body, object_pairs_hook=list) == [("mappings", [(found, ALICE)])]


@pytest_twisted.ensureDeferred
async def test_ten_thousand_addresses_are_answered(serve):
    world = await make_world(serve)
    addresses = [world.address_hash(f"user{n}@example.org") for n in range(9999)] + [
        world.address_hash(BOUND)
    ]
    asked = {"algorithm": "sha256", "pepper": world.pepper, "addresses": addresses}
    answer = await world.server.ask("POST", LOOKUP, asked, token=world.token)

    assert answer.json == {"mappings": {addresses[-1]: ALICE}}


@pytest_twisted.ensureDeferred
async def test_lookups_in_the_clear_can_be_switched_off(serve):
    world = await make_world(serve, allow_none=False)
    details = await world.server.ask("GET", "v2/hash_details", token=world.token)
    asked = {"algorithm": "none", "pepper": world.pepper, "addresses": []}
    answer = await world.server.ask("POST", LOOKUP, asked, token=world.token)

    assert details.json["algorithms"] == ["sha256"]
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_users_of_a_refused_homeserver_cannot_register(serve):
    server = await serve(policy=HomeserverPolicy(deny=frozenset({"hs.example.org"})))
    asked = {
        "access_token": "x",
        "token_type": "Bearer",
        "matrix_server_name": "HS.example.org",
        "expires_in": 1,
    }
    answer = await server.ask("POST", "v2/account/register", asked)

    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert server.house.verifier.asked == []


@pytest_twisted.ensureDeferred
async def test_logging_out_ends_the_token(serve):
    world = await make_world(serve)
    await world.server.ask("POST", "v2/account/logout", token=world.token)
    account = await world.server.ask("GET", "v2/account", token=world.token)
    again = await world.server.ask("POST", "v2/account/logout", token=world.token)

    assert (account.status, account.errcode) == (401, "M_UNAUTHORIZED")
    assert (again.status, again.errcode) == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_terms_are_accepted_one_by_one_and_in_any_language(serve):
    server = await serve(terms=POLICIES)
    token = await server.house.token()
    offered = (await server.ask("GET", TERMS)).json["policies"]
    assert offered["terms_of_service"] == {
        "version": "2.0",
        "en": {"name": "Terms of Service", "url": "https://example.org/terms-2.0-en.html"},
        "fr": {"name": "Conditions", "url": "https://example.org/terms-2.0-fr.html"},
    }
    statuses = []
    for url in (offered["terms_of_service"]["fr"]["url"], offered["privacy"]["en"]["url"]):
        accepted = await server.ask("POST", TERMS, {"user_accepts": [url]}, token=token)
        assert (accepted.status, accepted.json) == (200, {})
        statuses.append((await server.ask("GET", "v2/account", token=token)).status)

    assert statuses == [403, 200]


# --- the official files --------------------------------------------------------------------------------

official_only = pytest.mark.skipif(not official.is_there(), reason=official.MISSING)
# Some answers of unbind say that there is no unbind at all; and whoever does not accept the terms may leave.
NEVER_ANSWERED = {(UNBIND, "400"), (UNBIND, "404"), (UNBIND, "501"), (LOG_OUT, "403")}


def documented(method, path):
    """The answers that the files have for a path of ours; those of version 1 are those of their twins."""
    path = path.replace("api/v1", "v2", 1)
    path = "v2/pubkey/{keyId}" if path.startswith("v2/pubkey/ed25519") else path
    return official.document()["paths"][PREFIX + path][method.lower()]["responses"]


@official_only
@pytest.mark.parametrize(
    "case",
    [case for case in [*CASES, *V1_CASES] if case.path not in (LOOKUP_ONE, LOOKUP_MANY, "api/v1")],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_answer_fits_the_official_schema(serve, case):
    world = await make_world(serve, **case.options)
    answer = await case.ask(world)
    documented_answer = documented(case.method, case.path).get(str(answer.status))

    # The files do not list the errors that every endpoint has in common.
    if documented_answer is None:
        assert answer.status in (400, 401, 403, 404, 429, 502, 504)
        documented_answer = {}
    schema = official.schema_of(documented_answer) or {"type": "object"}
    Draft202012Validator(schema).validate(answer.json)


@official_only
def test_every_documented_endpoint_is_there():
    ours = {(row.method, row.path.replace("{key_id}", "{keyId}")) for row in ROWS}

    assert {(method, path.removeprefix(PREFIX)) for method, path, _ in official.operations()} <= ours


@official_only
def test_every_documented_answer_and_error_code_has_a_case():
    known = {
        (
            case.method,
            case.path.replace("ed25519:0", "{keyId}").replace("ed25519:1", "{keyId}"),
            str(case.status),
            code,
        )
        for case in CASES
        for code in (case.errcode, None)
    }
    pages = {(row.method, row.path) for row in ROWS if row.page}  # they have tests of their own
    missing = [
        (method, path, status, code)
        for method, path, operation in official.operations()
        for status, answer in operation["responses"].items()
        for code in official.errcodes_of(answer) or {None}
        if (method, path.removeprefix(PREFIX)) not in pages
        and (path.removeprefix(PREFIX), status) not in NEVER_ANSWERED
        and (method, path.removeprefix(PREFIX), status, code) not in known
    ]

    assert missing == []
