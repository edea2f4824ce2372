"""Invitations as homeservers leave them, and as clients accept them."""

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_twisted
import signedjson.key
import signedjson.sign
from fixtures import INVITES, SERVER_NAME
from unpaddedbase64 import decode_base64
from web.cases import EPHEMERAL, INVITE, SIGN, VALID
from web.rows import ALICE, SAMPLES
from web.wire import PREFIX
from web.world import BOUND, make_world

from sydentish.domain.invites import InviteMail, InvitePolicy
from sydentish.domain.ratelimit import Budgets, Rate

CAROL = "@carol:other.example.org"
V1_SIGN = "api/v1/sign-ed25519"
ASKED = SAMPLES["POST", INVITE]


@pytest_twisted.async_yield_fixture
async def world(serve):
    yield await make_world(serve)


def check_signature(world, signed):
    key = signedjson.key.decode_verify_key_bytes("ed25519:0", decode_base64(world.invitation["public_key"]))
    signedjson.sign.verify_signed_json(signed, SERVER_NAME, key)
    assert {name: signed[name] for name in ("mxid", "sender", "token")} == {
        "mxid": CAROL,
        "sender": ALICE,
        "token": world.invitation["token"],
    }


async def mails(server):
    found = await server.house.db.read(
        lambda tx: tx.rows("SELECT payload FROM outbox WHERE kind = 'invite' ORDER BY outbox_id", ())
    )
    return [InviteMail.from_json(payload) for (payload,) in found]


# --- accepting -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_client_posts_nothing_to_the_url_of_the_mail(world):
    """No body, no Content-Type, no access token; what the client adds is `mxid`."""
    url = urlsplit(world.invitation["sign_url"])
    assert url.path == PREFIX + V1_SIGN
    answer = await world.server.ask("POST", url.path, query=f"{url.query}&mxid=%40carol%3Aother.example.org")

    assert answer.status == 200
    check_signature(world, answer.json)


@pytest.mark.parametrize("path", [SIGN, V1_SIGN])
@pytest_twisted.ensureDeferred
async def test_both_versions_sign_with_the_ephemeral_key(world, path):
    token = world.token if path == SIGN else None
    params = {name: world.invitation[name] for name in ("token", "private_key")} | {"mxid": CAROL}
    answer = await world.server.ask("POST", path, params, token=token)

    assert answer.status == 200
    check_signature(world, answer.json)


@pytest_twisted.ensureDeferred
async def test_what_is_missing_in_the_query_is_named(world):
    answer = await world.server.ask("POST", V1_SIGN, query="token=a")

    assert (answer.status, answer.errcode) == (400, "M_MISSING_PARAMS")
    assert "mxid, private_key" in answer.json["error"]


@pytest_twisted.ensureDeferred
async def test_no_answer_repeats_the_key(world):
    for changes in (
        {"token": "other"},
        {"mxid": "nobody"},
        {"private_key": world.invitation["private_key"][:-3]},
    ):
        params = (
            {name: world.invitation[name] for name in ("token", "private_key")} | {"mxid": CAROL} | changes
        )
        answer = await world.server.ask("POST", V1_SIGN, query=params)
        assert answer.status in (400, 404)
        assert world.invitation["private_key"][:20] not in answer.body.decode()


# --- leaving -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [EPHEMERAL, "api/v1/pubkey/ephemeral/isvalid"])
@pytest_twisted.ensureDeferred
async def test_each_key_is_valid_where_the_answer_says_so_exactly_as_it_was_given(world, path):
    long_term, ephemeral = world.invitation["answer"]["public_keys"]
    for key, valid_at in ((long_term, VALID), (ephemeral, EPHEMERAL)):
        url = urlsplit(key["key_validity_url"])
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"https://id.example.org{PREFIX}{valid_at}"
        answer = await world.server.ask("GET", url.path, query={"public_key": key["public_key"]})
        assert answer.json == {"valid": True}
    older = await world.server.ask("GET", path, query=f"public_key={ephemeral['public_key']}")
    assert older.json == {"valid": True}  # a plus sign that was not encoded


@pytest_twisted.ensureDeferred
async def test_the_mail_knows_what_was_said(world):
    params = ASKED | {
        "room_name": "Fun",
        "sender_display_name": "Alice",
        "brand": "acme",
        "org.matrix.web_client_location": "https://evil.example.org",
    }
    answer = await world.server.ask("POST", INVITE, params, token=world.token)
    mail = (await mails(world.server))[-1]
    query = parse_qs(urlsplit(urlsplit(mail.link).fragment).query)

    assert answer.status == 200
    assert (mail.address, mail.sender, mail.brand) == ("bob@example.org", ALICE, "acme")
    assert mail.link.startswith("https://app.example.org/#/room/")
    assert (query["room_name"], query["inviter_name"]) == (["Fun"], ["Alice"])


@pytest_twisted.ensureDeferred
async def test_at_version_1_nobody_is_the_sender_but_the_rest_holds(world):
    answer = await world.server.ask("POST", "api/v1/store-invite", ASKED | {"sender": CAROL})
    in_use = await world.server.ask("POST", "api/v1/store-invite", ASKED | {"address": BOUND})

    assert answer.status == 200
    assert (await mails(world.server))[-1].sender == CAROL
    assert in_use.json["mxid"] == ALICE


@pytest_twisted.ensureDeferred
async def test_whoever_is_refused_leaves_nothing(world):
    before = await mails(world.server)
    for changes in (
        {"sender": CAROL},
        {"medium": "msisdn"},
        {"address": BOUND},
        {"address": "x"},
        {"room_id": "x"},
    ):
        answer = await world.server.ask("POST", INVITE, ASKED | changes, token=world.token)
        assert answer.status in (400, 403)

    assert await mails(world.server) == before


@pytest_twisted.ensureDeferred
async def test_too_many_invitations_are_429(serve):
    server = await serve(budgets=Budgets(invitations_per_sender=Rate(2, 60_000)))
    token = await server.house.token()
    asked = [
        await server.ask("POST", INVITE, ASKED | {"address": f"u{n}@a.org"}, token=token) for n in range(3)
    ]

    assert [answer.status for answer in asked] == [200, 200, 429]
    assert asked[-1].errcode == "M_LIMIT_EXCEEDED"
    assert asked[-1].headers["retry-after"] == "30"
    assert asked[-1].json["retry_after_ms"] == 30_000


@pytest_twisted.ensureDeferred
async def test_what_the_policy_refuses_is_counted_by_reason(serve):
    policy = InvitePolicy(blocked_homeservers=frozenset({"hs.example.org"}))
    server = await serve(invites=replace(INVITES, policy=policy))
    answer = await server.ask("POST", INVITE, ASKED, token=await server.house.token())

    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert server.house.policy_findings == [("homeserver", "refused")]
