"""Invitations: keeping one, and signing for whoever accepts it."""

import json
from base64 import b64encode, urlsafe_b64decode
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import pytest_twisted
from fixtures import BASE_URL, DAY_MS, INVITES, SERVER_NAME
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from store_tools import START_MS, FailingDatabase, StatementFailed, contents, rows
from twisted.logger import formatEvent, globalLogPublisher
from unpaddedbase64 import decode_base64

from sydentish.actions.accounts import NOBODY, Caller, Gate
from sydentish.actions.invites import InviteRequest, Invites
from sydentish.actions.outbox import INVITE
from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import (
    Forbidden,
    InvalidEmail,
    InvalidParam,
    InvitationNotWanted,
    LimitExceeded,
    NotYourUser,
    TermsNotSigned,
    ThreepidInUse,
    UnknownInvitation,
    UnknownToken,
    UnrecognizedMedium,
)
from sydentish.domain.ids import opaque
from sydentish.domain.invite_links import WebClients
from sydentish.domain.invites import InviteDetails, InviteMail, InvitePolicy
from sydentish.domain.ratelimit import Budgets, Rate
from sydentish.domain.terms import Policy, PolicyText, Terms
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import outbox as outbox_rows

ALICE, BOB, CAROL = "@alice:hs.example.org", "@bob:other.example.org", "@carol:c.example.org"
ADDRESS = "carol@example.org"
ROOM = "!room:hs.example.org"
LIFETIME = 90 * DAY_MS


@pytest_twisted.async_yield_fixture
async def alice(house):
    yield await house.log_in(ALICE)


def asking(address=ADDRESS, *, medium=EMAIL, sender=ALICE, details=None, web_client=None, brand=None):
    return InviteRequest(
        Threepid(medium, address), ROOM, sender, details or InviteDetails(), web_client, brand
    )


@dataclass
class Link:
    """What is in the link of a mail."""

    client: str
    room_id: str
    query: dict
    token: str
    private_key: str


def link_of(mail):
    client, _, fragment = mail.link.partition("/#/room/")
    room_id, _, query = fragment.partition("?")
    parameters = parse_qs(query, keep_blank_values=True)
    signing = urlsplit(parameters["signurl"][0])
    assert signing.path == "/_matrix/identity/api/v1/sign-ed25519"
    signed = parse_qs(signing.query)
    return Link(client, unquote(room_id), parameters, signed["token"][0], signed["private_key"][0])


def mails(house):
    """The mails that are still to be sent."""
    found = rows(house.path, "SELECT payload FROM outbox WHERE kind = 'invite' ORDER BY outbox_id")
    return [InviteMail.from_json(payload) for (payload,) in found]


def nothing_stored(house):
    tables = ("invitations", "ephemeral_keys", "outbox", "outbox_destinations")
    return all(rows(house.path, f"SELECT * FROM {table}") == [] for table in tables)


async def sign(house, token, private_key, *, mxid=CAROL, caller=NOBODY):
    return await house.invites.sign(caller, token, mxid, private_key)


async def is_valid(house, public_key):
    return await house.public_keys.is_ephemeral_valid(public_key)


# --- keeping one ---------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_invitation_is_kept_with_its_key_and_its_mail(house, alice):
    answer = await house.invites.store(alice, asking())
    token, public_key = answer["token"], decode_base64(answer["public_keys"][1]["public_key"])
    assert rows(house.path, "SELECT * FROM invitations") == [
        (token, EMAIL, ADDRESS, ROOM, ALICE, START_MS, START_MS + LIFETIME, None)
    ]
    assert rows(house.path, "SELECT public_key, expires_ts, token_hash, sender FROM ephemeral_keys") == [
        (public_key.hex(), START_MS + LIFETIME, hash_secret(token), ALICE)
    ]
    assert rows(house.path, "SELECT kind, state, created_ts, due_ts FROM outbox") == [
        (INVITE, "pending", START_MS, START_MS)
    ]
    assert house.woken == 1
    assert house.policy_findings == []


@pytest_twisted.ensureDeferred
async def test_the_answer_is_what_the_homeserver_puts_into_the_room(house, alice):
    answer = await house.invites.store(alice, asking())
    long_term = house.keys.active.public_key
    validity = f"{BASE_URL}/_matrix/identity/v2/pubkey"
    assert answer.keys() == {"token", "display_name", "public_key", "public_keys"}
    assert answer["display_name"] == "car...@exa..."
    assert answer["public_key"] == long_term
    assert answer["public_keys"][0] == {"public_key": long_term, "key_validity_url": f"{validity}/isvalid"}
    assert answer["public_keys"][1]["key_validity_url"] == f"{validity}/ephemeral/isvalid"
    assert opaque("token", answer["token"])
    assert await is_valid(house, answer["public_keys"][1]["public_key"])


@pytest_twisted.ensureDeferred
async def test_every_invitation_has_a_token_and_a_key_of_its_own(house, alice):
    answers = [await house.invites.store(alice, asking()) for _ in range(3)]
    assert len({answer["token"] for answer in answers}) == 3
    assert len({answer["public_keys"][1]["public_key"] for answer in answers}) == 3
    assert len(mails(house)) == 3
    assert [link_of(mail).token for mail in mails(house)] == [answer["token"] for answer in answers]


@pytest_twisted.ensureDeferred
async def test_the_mail_says_what_the_request_said_and_has_the_key_that_accepts(house, alice):
    details = InviteDetails(room_name="Tea", sender_display_name="Alice", room_avatar_url="mxc://x.org/a")
    answer = await house.invites.store(alice, asking(details=details, brand="acme"))
    (mail,) = mails(house)
    assert (mail.address, mail.sender, mail.details) == (ADDRESS, ALICE, details)
    assert mail.brand == "acme"
    link = link_of(mail)
    assert (link.client, link.room_id, link.token) == ("https://app.example.org", ROOM, answer["token"])
    assert link.query["signurl"][0].startswith(f"{BASE_URL}/")
    assert link.query["email"] == [ADDRESS]
    assert link.query["room_name"] == ["Tea"]
    assert await sign(house, link.token, link.private_key)


@pytest_twisted.ensureDeferred
async def test_the_private_key_stands_in_the_mail_that_waits_and_nowhere_else(house, alice):
    await house.invites.store(alice, asking())
    (mail,) = mails(house)
    secret = link_of(mail).private_key
    kept = contents(house.path)
    assert secret in repr(kept.pop("outbox"))
    assert secret not in repr(kept)
    assert urlsafe_b64decode(secret + "=").hex() not in repr(kept)
    # What other rows and the metrics name of it does not tell of the invitation.
    ((key, destination),) = rows(house.path, "SELECT idempotency_key, destination FROM outbox")
    token = rows(house.path, "SELECT token FROM invitations")[0][0]
    for text in (key, destination):
        assert token not in text
        assert "carol" not in text


@pytest.mark.parametrize("keeps", ["delivered", "buried"])
@pytest_twisted.ensureDeferred
async def test_the_private_key_is_gone_when_the_mail_is_delivered_or_given_up(house, alice, keeps):
    await house.invites.store(alice, asking())
    secret = link_of(mails(house)[0]).private_key

    def end(tx):
        (lease,) = outbox_rows.lease(tx, INVITE, START_MS, 1000, 1, failing=False)
        if keeps == "delivered":
            outbox_rows.delivered(tx, INVITE, lease, None)
        else:
            outbox_rows.bury(tx, INVITE, lease, "550", START_MS, answered=True, keeps_payload=False)

    await house.db.write(end)
    assert secret not in repr(contents(house.path))
    # The invitation itself waits on, whatever becomes of its mail.
    assert rows(house.path, "SELECT outbox_id FROM invitations") == [(None,)]


@pytest_twisted.ensureDeferred
async def test_mails_take_few_lanes_and_those_of_an_address_always_the_same(house, alice):
    for number in range(60):
        await house.invites.store(alice, asking(f"user{number % 30}@example.org"))
    lanes = dict.fromkeys(f"user{number}@example.org" for number in range(30))
    for destination, payload in rows(house.path, "SELECT destination, payload FROM outbox"):
        address = json.loads(payload)["address"]
        assert lanes[address] in (None, destination)
        lanes[address] = destination
    assert 4 < len(set(lanes.values())) <= 16


@pytest.mark.parametrize(
    ("requested", "client"),
    [
        (None, "https://app.example.org"),
        ("https://allowed.example", "https://allowed.example"),
        ("https://allowed.example/", "https://allowed.example"),
        ("https://evil.example", "https://app.example.org"),
        ("javascript:alert(1)", "https://app.example.org"),
        ("", "https://app.example.org"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_link_opens_a_web_client_that_is_allowed(make_house, requested, client):
    clients = WebClients("https://app.example.org", frozenset({"https://allowed.example"}))
    house = await make_house(invites=replace(INVITES, web_clients=clients))
    await house.invites.store(NOBODY, asking(web_client=requested))
    assert link_of(mails(house)[0]).client == client


@pytest_twisted.ensureDeferred
async def test_the_address_is_kept_in_its_normal_form(house, alice):
    await house.invites.store(alice, asking("CAROL@Example.ORG"))
    assert rows(house.path, "SELECT address FROM invitations") == [(ADDRESS,)]
    assert mails(house)[0].address == ADDRESS


@pytest.mark.parametrize(
    ("shown", "display_name"), [(0, "...@..."), (1, "c...@e..."), (5, "carol"[:4] + "...@examp...")]
)
@pytest_twisted.ensureDeferred
async def test_the_room_sees_a_part_of_the_address_and_never_the_whole(make_house, shown, display_name):
    house = await make_house(invites=replace(INVITES, shown=shown))
    assert (await house.invites.store(NOBODY, asking()))["display_name"] == display_name


# --- all or nothing ------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_of_an_invitation_that_breaks_nothing_remains(house, alice):
    db, woken = FailingDatabase(house.db), []
    invites = Invites(
        gate=Gate(db=db, terms=Terms(), now_ms=house.now_ms),
        keys=house.keys,
        options=INVITES,
        budgets=Budgets(invitations_per_sender=Rate(5, DAY_MS)),
        on_stored=lambda: woken.append(True),
        on_policy=lambda *_: None,
        now_ms=house.now_ms,
        random_bytes=house.random,
    )
    before = contents(house.path)
    while True:
        db.nth += 1
        try:
            await invites.store(alice, asking())
        except StatementFailed:
            assert contents(house.path) == before
            assert woken == []
        else:
            break
    assert db.nth >= 8
    assert woken == [True]
    assert len(mails(house)) == len(rows(house.path, "SELECT * FROM invitations")) == 1


# --- who and what is refused ---------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_bound_address_is_in_use_and_its_user_is_told(house, alice):
    carol = await house.log_in(CAROL)
    await house.associations.bind(carol, await house.prove(carol, ADDRESS), CAROL)
    before, woken = contents(house.path), house.woken
    for address in (ADDRESS, "Carol@EXAMPLE.org"):
        with pytest.raises(ThreepidInUse) as in_use:
            await house.invites.store(alice, asking(address))
        assert in_use.value.mxid == CAROL
    assert contents(house.path) == before
    assert house.woken == woken


@pytest.mark.parametrize("sender", [BOB, "@ALICE:hs.example.org", "@alice:HS.example.org"])
@pytest_twisted.ensureDeferred
async def test_nobody_with_an_account_invites_for_another_user(house, alice, sender):
    with pytest.raises(NotYourUser):
        await house.invites.store(alice, asking(sender=sender))
    assert nothing_stored(house)


@pytest_twisted.ensureDeferred
async def test_who_needs_no_token_invites_for_anybody(house):
    for sender in (ALICE, BOB):
        await house.invites.store(NOBODY, asking(sender=sender))
    assert rows(house.path, "SELECT sender FROM invitations ORDER BY sender") == [(ALICE,), (BOB,)]


@pytest.mark.parametrize("medium", [MSISDN, "EMAIL", "", "im.vector", "\0"])
@pytest_twisted.ensureDeferred
async def test_only_mails_are_sent(house, alice, medium):
    with pytest.raises(UnrecognizedMedium):
        await house.invites.store(alice, asking(medium=medium))
    assert nothing_stored(house)


@pytest.mark.parametrize(
    "address", ["", "carol", "a@b@c", "carol@example.org\r\nBcc: x@y.z", "<c@d.e>", "\ud800@x.y"]
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_address_is_refused(house, alice, address):
    with pytest.raises(InvalidEmail):
        await house.invites.store(alice, asking(address))
    assert nothing_stored(house)


@pytest_twisted.ensureDeferred
async def test_who_may_not_ask_invites_nobody_and_learns_just_that(make_house):
    terms = Terms((Policy("privacy", "1", (PolicyText("en", "Privacy", "https://x/en"),)),))
    house = await make_house(terms=terms, invites=replace(INVITES, enabled=False))
    caller = await house.log_in(ALICE)
    for who, error in ((Caller("unknown"), UnknownToken), (caller, TermsNotSigned)):
        for request in (asking(), asking(sender=BOB), asking("no address"), asking(medium="odd")):
            with pytest.raises(error):
                await house.invites.store(who, request)
        for private_key in ("no key", b64encode(bytes(32)).decode()):
            with pytest.raises(error):
                await sign(house, "token", private_key, caller=who)
    assert nothing_stored(house)


@pytest_twisted.ensureDeferred
async def test_invitations_can_be_switched_off(make_house):
    house = await make_house(invites=replace(INVITES, enabled=False))
    with pytest.raises(Forbidden):
        await house.invites.store(await house.log_in(ALICE), asking())
    assert nothing_stored(house)
    assert house.woken == 0


# --- policy --------------------------------------------------------------------------------------------

POLICIES = [
    (InvitePolicy(blocked_rooms=frozenset({ROOM})), InviteDetails(), "room"),
    (InvitePolicy(blocked_homeservers=frozenset({"hs.example.org"})), InviteDetails(), "homeserver"),
    (InvitePolicy(blocked_homeservers=frozenset({"*.example.org"})), InviteDetails(), "homeserver"),
    (InvitePolicy(blocked_words=("casino",)), InviteDetails(room_name="CASINO night"), "word"),
]


@pytest.mark.parametrize(("policy", "details", "reason"), POLICIES)
@pytest_twisted.ensureDeferred
async def test_what_is_not_wanted_is_refused_and_counted(make_house, policy, details, reason):
    house = await make_house(invites=replace(INVITES, policy=policy))
    caller = await house.log_in(ALICE)
    for who in (caller, NOBODY):
        with pytest.raises(InvitationNotWanted) as refused:
            await house.invites.store(who, asking(details=details))
        # Who sends such invitations does not learn what gave them away.
        assert reason not in refused.value.message
    assert house.policy_findings == [(reason, "refused")] * 2
    assert nothing_stored(house)
    assert house.woken == 0


@pytest.mark.parametrize(("policy", "details", "reason"), POLICIES)
@pytest_twisted.ensureDeferred
async def test_a_dry_run_only_counts(make_house, policy, details, reason):
    house = await make_house(invites=replace(INVITES, policy=policy, dry_run=True))
    await house.invites.store(NOBODY, asking(details=details))
    assert house.policy_findings == [(reason, "counted")]
    assert len(mails(house)) == 1


@pytest.mark.parametrize(("dry_run", "outcome"), [(False, "refused"), (True, "counted")])
@pytest_twisted.ensureDeferred
async def test_the_operator_is_told_which_entry_did_it_and_nothing_of_the_invitation(
    make_house, dry_run, outcome
):
    policy = InvitePolicy(blocked_words=("casino",))
    house = await make_house(invites=replace(INVITES, policy=policy, dry_run=dry_run))
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        with suppress(InvitationNotWanted):
            await house.invites.store(NOBODY, asking(details=InviteDetails(room_name="Casino canary")))
    finally:
        globalLogPublisher.removeObserver(events.append)
    (told,) = [
        formatEvent(event) for event in events if event.get("log_namespace") == "sydentish.actions.invites"
    ]
    assert "casino" in told
    assert outcome in told
    for secret in (ADDRESS, ALICE, ROOM, "canary"):
        assert secret not in told


@pytest.mark.parametrize("dry_run", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_is_refused_for_another_reason_is_no_finding(make_house, dry_run):
    policy = InvitePolicy(blocked_rooms=frozenset({ROOM}))
    house = await make_house(
        invites=replace(INVITES, policy=policy, dry_run=dry_run),
        budgets=Budgets(invitations_per_sender=Rate(1, DAY_MS)),
    )
    caller = await house.log_in(ALICE)
    for who, request, error in (
        (Caller("unknown"), asking(), UnknownToken),
        (caller, asking(sender=BOB), NotYourUser),
        (caller, asking("no address"), InvalidEmail),
        (caller, asking(medium="odd"), UnrecognizedMedium),
    ):
        with pytest.raises(error):
            await house.invites.store(who, request)
    if dry_run:
        await house.invites.store(caller, asking())
        house.policy_findings.clear()
        with pytest.raises(LimitExceeded):
            await house.invites.store(caller, asking())
    assert house.policy_findings == []


@pytest_twisted.ensureDeferred
async def test_where_no_invitations_are_taken_the_policy_finds_nothing(make_house):
    policy = InvitePolicy(blocked_rooms=frozenset({ROOM}))
    house = await make_house(invites=replace(INVITES, enabled=False, policy=policy))
    with pytest.raises(Forbidden):
        await house.invites.store(NOBODY, asking())
    assert house.policy_findings == []


# --- signing -------------------------------------------------------------------------------------------


async def stored(house, caller=NOBODY, **how):
    """The answer to an invitation, and the link of its mail."""
    answer = await house.invites.store(caller, asking(**how))
    return answer, link_of(mails(house)[-1])


@pytest_twisted.ensureDeferred
async def test_whoever_has_the_link_has_their_user_signed_for(house, alice):
    answer, link = await stored(house, alice)
    signed = await sign(house, link.token, link.private_key)
    assert {key: value for key, value in signed.items() if key != "signatures"} == {
        "mxid": CAROL,
        "sender": ALICE,
        "token": answer["token"],
    }
    key = decode_verify_key_bytes("ed25519:0", decode_base64(answer["public_keys"][1]["public_key"]))
    verify_signed_json(signed, SERVER_NAME, key)
    # With an account, too, and for any user.
    assert (await sign(house, link.token, link.private_key, mxid=BOB, caller=alice))["mxid"] == BOB


@pytest_twisted.ensureDeferred
async def test_the_key_of_another_invitation_signs_nothing(house):
    (_, first), (_, second) = await stored(house), await stored(house, sender=BOB)
    for token, key in (
        (first.token, second.private_key),
        (second.token, first.private_key),
        (first.token, b64encode(bytes(32)).decode()),
        (first.token, "no key"),
        (first.token, ""),
        (first.token, first.private_key[:-4]),
    ):
        with pytest.raises(InvalidParam, match="private_key"):
            await sign(house, token, key)
    assert (await sign(house, second.token, second.private_key))["sender"] == BOB


@pytest.mark.parametrize("token", ["unknown", "", "\0", "\ud800", "x" * 10_000])
@pytest_twisted.ensureDeferred
async def test_an_unknown_invitation_signs_nothing(house, token):
    _, link = await stored(house)
    with pytest.raises(UnknownInvitation):
        await sign(house, token, link.private_key)


@pytest_twisted.ensureDeferred
async def test_an_invitation_and_its_key_end_with_their_time(make_house):
    house = await make_house(invites=replace(INVITES, lifetime_ms=1000))
    answer, link = await stored(house)
    public_key = answer["public_keys"][1]["public_key"]
    house.advance(999)
    assert await is_valid(house, public_key)
    await sign(house, link.token, link.private_key)
    house.advance(1)
    assert not await is_valid(house, public_key)
    with pytest.raises(UnknownInvitation):
        await sign(house, link.token, link.private_key)
    # Also the wrong key tells nothing of it any more.
    with pytest.raises(UnknownInvitation):
        await sign(house, link.token, b64encode(bytes(32)).decode())
    carol = await house.log_in(CAROL)
    await house.associations.bind(carol, await house.prove(carol, ADDRESS), CAROL)
    ((payload,),) = rows(house.path, "SELECT payload FROM outbox WHERE kind = 'onbind'")
    assert json.loads(payload)["invites"] == []


@pytest_twisted.ensureDeferred
async def test_the_link_works_also_after_the_homeserver_was_told(house):
    answer, link = await stored(house)
    carol = await house.log_in(CAROL)
    await house.associations.bind(carol, await house.prove(carol, ADDRESS), CAROL)

    def deliver(tx):
        (lease,) = outbox_rows.lease(tx, "onbind", START_MS, 1000, 1, failing=False)
        outbox_rows.delivered(tx, "onbind", lease, "POST")

    await house.db.write(deliver)
    assert rows(house.path, "SELECT * FROM invitations") == []
    house.advance(LIFETIME - 1)
    assert await is_valid(house, answer["public_keys"][1]["public_key"])
    await sign(house, link.token, link.private_key)
    house.advance(1)
    with pytest.raises(UnknownInvitation):
        await sign(house, link.token, link.private_key)


def test_secrets_are_not_in_what_is_printed():
    assert "canary" not in repr(asking(details=InviteDetails(guest_access_token="canary")))
