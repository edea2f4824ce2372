"""Every endpoint answers as the specification says, in the good case and in each error case."""

import json
from pathlib import Path

import pytest
import pytest_twisted
import signedjson.key
import signedjson.sign
from fixtures import SERVER_NAME, public_key_bytes
from web.cases import ALICE, BIND, BOUND, CASES, LOOKUP, SUBMIT, TERMS, VALIDATED, make_world
from web.conftest import TERMS as POLICIES
from web.rows import ROWS

from sydentish.domain.accounts import HomeserverPolicy

SPEC = Path(__file__).parents[3] / "shared/spec/data/api/identity"
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
@pytest_twisted.ensureDeferred
async def test_answer(serve, case):
    world = await make_world(serve)
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
    good = {(case.method, case.path) for case in CASES if case.status == 200}
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


@pytest.fixture(scope="session")
def official():
    """The documented answers: (method, path) to status to schema."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if not SPEC.is_dir():
        pytest.skip(f"the specification's files are not at {SPEC}")
    documented = {}
    for file in sorted(SPEC.glob("*.yaml")):
        loaded = yaml.safe_load(file.read_text())
        base = "v2" if loaded["servers"][0]["variables"]["basePath"]["default"].endswith("/v2") else ""
        for path, methods in loaded["paths"].items():
            for method, operation in methods.items():
                found = {
                    str(status): _resolved(yaml, _schema(answer), file.parent)
                    for status, answer in operation["responses"].items()
                }
                documented[method.upper(), (base + path).lstrip("/")] = found
    return documented


def _schema(answer):
    return answer.get("content", {}).get("application/json", {}).get("schema", {})


def _resolved(yaml, schema, folder):
    """The schema with the files that it refers to."""
    if isinstance(schema, list):
        return [_resolved(yaml, item, folder) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = (folder / schema["$ref"]).resolve()
        if not target.exists():  # some of them are relative to the folder above
            target = (folder.parent / schema["$ref"]).resolve()
        return _resolved(yaml, yaml.safe_load(target.read_text()), target.parent)
    return {name: _resolved(yaml, value, folder) for name, value in schema.items()}


TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}


def check(value, schema):
    """Whether a value fits as much of JSON Schema as the official files use."""
    if "type" in schema:
        assert isinstance(value, TYPES[schema["type"]])
    for part in schema.get("allOf", []):
        check(value, part)
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value)
        for name, item in value.items():
            check(item, schema.get("properties", {}).get(name, schema.get("additionalProperties", {})))
    if isinstance(value, list):
        for item in value:
            check(item, schema.get("items", {}))


@every_case
@pytest_twisted.ensureDeferred
async def test_answer_fits_the_official_schema(serve, official, case):
    world = await make_world(serve)
    answer = await case.ask(world)
    path = "v2/pubkey/{keyId}" if case.path.startswith("v2/pubkey/ed25519") else case.path
    answers = official[case.method, path]

    # The files do not list the errors that every endpoint has in common.
    check(answer.json, answers.get(str(answer.status), {"type": "object", "required": ["errcode"]}))
