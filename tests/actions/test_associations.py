"""Binding and unbinding."""

import os
from dataclasses import dataclass
from itertools import cycle

import orjson
import pytest
import pytest_twisted
from canonicaljson import encode_canonical_json
from fixtures import DAY_MS, SERVER_NAME, public_key_bytes
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from store_tools import START_MS, FailingDatabase, StatementFailed, contents, rows

from sydentish.actions.accounts import NOBODY, Caller, Gate
from sydentish.actions.associations import Associations, Provision, Unbind
from sydentish.actions.messages import TokenRequest
from sydentish.actions.outbox import ONBIND
from sydentish.actions.statements import Statements
from sydentish.actions.validation import Credentials
from sydentish.domain.errors import (
    Forbidden,
    NotYourUser,
    NoValidSession,
    ProofRefused,
    SessionExpired,
    SessionNotValidated,
    UnbindProofFailed,
    UnknownToken,
)
from sydentish.domain.lookup import hash_address
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import outbox as outbox_rows

ALICE, BOB = "@alice:hs.example.org", "@bob:other.example.org"
ADDRESS = Threepid(EMAIL, "alice@example.org")


@pytest_twisted.async_yield_fixture
async def alice(house):
    yield await house.log_in(ALICE)


@pytest_twisted.async_yield_fixture
async def bob(house):
    yield await house.log_in(BOB)


async def bind(house, caller, mxid, address="alice@example.org", secret="s3cret"):
    credentials = await house.prove(caller, address, secret)
    return await house.associations.bind(caller, credentials, mxid)


async def found(house, caller, address=ADDRESS):
    """What a look-up answers, by hash and in the clear."""
    pepper = (await house.lookup.hash_details(caller))["lookup_pepper"]
    hashed = hash_address(address, pepper)
    by_hash = orjson.loads(await house.lookup.lookup(caller, "sha256", pepper, [hashed]))
    plain = f"{address.address} {address.medium}"
    in_clear = orjson.loads(await house.lookup.lookup(caller, "none", pepper, [plain]))
    assert by_hash.get(hashed) == in_clear.get(plain)
    return by_hash.get(hashed)


def verify(signed):
    key = decode_verify_key_bytes("ed25519:0", public_key_bytes())
    verify_signed_json(signed, SERVER_NAME, key)


# --- bind ----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_bind_answers_the_signed_association_and_is_found(house, alice):
    signed = await bind(house, alice, ALICE)
    assert {key: value for key, value in signed.items() if key != "signatures"} == {
        "medium": "email",
        "address": "alice@example.org",
        "mxid": ALICE,
        "ts": START_MS,
        "not_before": START_MS,
        "not_after": START_MS + 100 * 365 * DAY_MS,
    }
    verify(signed)
    assert await found(house, alice) == ALICE
    assert house.woken == 1


@pytest_twisted.ensureDeferred
async def test_what_the_homeserver_will_hear_is_signed_as_a_whole_and_canonical(house, alice):
    signed = await bind(house, alice, ALICE)
    ((kind, destination, key, payload, state, due_ts),) = rows(
        house.path, "SELECT kind, destination, idempotency_key, payload, state, due_ts FROM outbox"
    )
    assert (kind, destination, state, due_ts) == ("onbind", "hs.example.org", "pending", START_MS)
    assert key == f"onbind:{SERVER_NAME}#1"
    told = orjson.loads(payload)
    assert payload.encode() == encode_canonical_json(told)
    verify(told)
    assert told["invites"] == []
    assert told == {**signed, "invites": [], "signatures": told["signatures"]}
    with_more = {**told, "invites": [{}]}
    with pytest.raises(Exception, match="Unable to verify signature"):
        verify(with_more)


@pytest_twisted.ensureDeferred
async def test_the_onbind_goes_to_the_server_of_the_user_with_its_port(house):
    mxid = "@carol:hs.example.org:8448"
    await bind(house, await house.log_in(mxid), mxid)
    assert rows(house.path, "SELECT destination FROM outbox") == [("hs.example.org:8448",)]


@pytest_twisted.ensureDeferred
async def test_a_bind_that_repeats_one_the_homeserver_has_not_heard_of_yet_says_nothing_new(house, alice):
    first, second = await bind(house, alice, ALICE), await bind(house, alice, ALICE)
    assert second == first
    assert len(rows(house.path, "SELECT * FROM outbox")) == 1
    assert rows(house.path, "SELECT origin_id FROM associations") == [(1,)]


@pytest_twisted.ensureDeferred
async def test_a_bind_that_repeats_one_the_homeserver_has_heard_of_is_told_anew(house, alice):
    first = await bind(house, alice, ALICE)
    (lease,) = await house.db.write(outbox_rows.lease, ONBIND, house.now_ms(), 1000, 1, failing=False)
    await house.db.write(outbox_rows.delivered, ONBIND, lease, "POST")
    second = await bind(house, alice, ALICE)
    assert second["ts"] > first["ts"]
    assert len(rows(house.path, "SELECT * FROM outbox")) == 1
    assert rows(house.path, "SELECT origin_id FROM associations") == [(2,)]


@pytest_twisted.ensureDeferred
async def test_two_spellings_of_a_server_name_are_one_destination(house):
    for number, mxid in enumerate(("@a:HS.Example.ORG", "@b:hs.example.org")):
        await bind(house, await house.log_in(mxid), mxid, f"user{number}@example.org", f"secret{number}")
    assert rows(house.path, "SELECT destination FROM outbox_destinations") == [("hs.example.org",)]
    assert set(house.signs.heard) == {"hs.example.org"}


@pytest_twisted.ensureDeferred
async def test_time_only_goes_on_for_an_address_even_when_the_clock_goes_back(house, alice, bob):
    credentials = await house.prove(alice)
    stamps = []
    # Each by the other user: what only repeats the one before says nothing new.
    for step, (caller, mxid) in zip(
        (0, 1000, -5000, -5000, 0, 20_000), cycle([(alice, ALICE), (bob, BOB)]), strict=False
    ):
        house.clock.rightNow += step / 1000
        signed = await house.associations.bind(caller, credentials, mxid)
        assert signed["not_before"] == signed["ts"]
        stamps.append(signed["ts"] - START_MS)
    assert stamps == [0, 1000, 1001, 1002, 1003, 11_000]
    # Another address begins with its own time.
    house.clock.rightNow -= 9
    assert (await bind(house, bob, BOB, "bob@example.org"))["ts"] == START_MS + 2000


@pytest_twisted.ensureDeferred
async def test_the_newest_bind_of_an_address_replaces_the_one_before(house, alice, bob):
    await bind(house, alice, ALICE)
    assert await found(house, bob) == ALICE
    await bind(house, bob, BOB, secret="other")
    assert await found(house, alice) == BOB
    assert rows(house.path, "SELECT mxid FROM associations") == [(BOB,)]
    # What the first homeserver has not heard yet is no longer so.
    assert rows(house.path, "SELECT destination FROM outbox") == [("other.example.org",)]


@pytest_twisted.ensureDeferred
async def test_a_user_has_many_addresses(house, alice):
    addresses = [f"alice{number}@example.org" for number in range(5)]
    for address in addresses:
        await bind(house, alice, ALICE, address)
    assert [await found(house, alice, Threepid(EMAIL, address)) for address in addresses] == [ALICE] * 5


@pytest.mark.parametrize("mxid", [BOB, "@ALICE:hs.example.org", "@alice:HS.example.org", ALICE + " ", ""])
@pytest_twisted.ensureDeferred
async def test_nobody_binds_for_another_user(house, alice, mxid):
    credentials = await house.prove(alice)
    before = contents(house.path)
    with pytest.raises(NotYourUser):
        await house.associations.bind(alice, credentials, mxid)
    with pytest.raises(NotYourUser):  # nor does one learn whether a session exists
        await house.associations.bind(alice, Credentials("unknown", "x"), mxid)
    assert contents(house.path) == before
    assert house.woken == 0


@pytest_twisted.ensureDeferred
async def test_only_a_session_that_has_proved_its_address_binds(house, alice):
    proved = await house.prove(alice)
    request = TokenRequest(Threepid(EMAIL, "new@example.org"), "s", 1, None)
    unproved = Credentials(await house.validation.request_token(alice, request), "s")
    before = contents(house.path)
    for credentials, error in (
        (unproved, SessionNotValidated),
        (Credentials("unknown", "s3cret"), NoValidSession),
        (Credentials(proved.sid, "wrong"), NoValidSession),
    ):
        with pytest.raises(error):
            await house.associations.bind(alice, credentials, ALICE)
    house.advance(DAY_MS + 1)
    with pytest.raises(SessionExpired):
        await house.associations.bind(alice, proved, ALICE)
    assert contents(house.path) == before
    assert house.woken == 0


@pytest_twisted.ensureDeferred
async def test_an_unknown_caller_neither_binds_nor_unbinds(house, alice):
    credentials = await house.prove(alice)
    with pytest.raises(UnknownToken):
        await house.associations.bind(Caller("unknown"), credentials, ALICE)
    with pytest.raises(UnknownToken):
        await house.associations.unbind(Caller("unknown"), Unbind(ADDRESS, ALICE, credentials))
    assert rows(house.path, "SELECT * FROM associations") == []


# --- all or nothing ------------------------------------------------------------------------------------


@dataclass
class Breaking:
    """The associations of a house, whose transactions break at a chosen statement."""

    db: FailingDatabase
    associations: Associations
    woken: list[bool]


@pytest.fixture
def breaking(house):
    db, woken = FailingDatabase(house.db), []
    associations = Associations(
        db=db,
        gate=Gate(db=db, terms=Terms(), now_ms=house.now_ms),
        statements=Statements(keys=house.keys, validity_ms=DAY_MS, random_bytes=os.urandom),
        keys=house.keys,
        session_lifetime_ms=DAY_MS,
        on_outcome=lambda *_: None,
        on_stated=lambda: woken.append(True),
        now_ms=house.now_ms,
    )
    return Breaking(db, associations, woken)


async def break_at_each_statement(house, breaking, deed):
    """How many statements a deed has; checks that nothing remains when any one of them fails."""
    before = contents(house.path)
    while True:
        breaking.db.nth += 1
        try:
            await deed()
        except StatementFailed:
            assert contents(house.path) == before
            assert breaking.woken == []
        else:
            return breaking.db.nth - 1


@pytest_twisted.ensureDeferred
async def test_of_a_bind_that_breaks_nothing_remains(house, alice, breaking):
    credentials = await house.prove(alice)
    house.advance(DAY_MS + 1)  # the access token is touched, too
    credentials = await house.prove(alice)
    await house.db.write(lambda tx: tx.run("UPDATE access_tokens SET last_used_ts = 0"))
    count = await break_at_each_statement(
        house, breaking, lambda: breaking.associations.bind(alice, credentials, ALICE)
    )
    assert count >= 10
    assert breaking.woken == [True]
    assert await found(house, alice) == ALICE
    assert len(rows(house.path, "SELECT * FROM outbox")) == 1


@pytest_twisted.ensureDeferred
async def test_of_an_unbind_that_breaks_nothing_remains(house, alice, breaking):
    await bind(house, alice, ALICE)
    credentials = await house.prove(alice)
    count = await break_at_each_statement(
        house, breaking, lambda: breaking.associations.unbind(alice, Unbind(ADDRESS, ALICE, credentials))
    )
    assert count >= 5
    assert await found(house, alice) is None


# --- unbind --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_unbound_is_gone(house, alice):
    await bind(house, alice, ALICE)
    await bind(house, alice, ALICE, "kept@example.org")
    credentials = await house.prove(alice, client_secret="again")
    await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, credentials))
    assert await found(house, alice) is None
    assert await found(house, alice, Threepid(EMAIL, "kept@example.org")) == ALICE
    assert rows(house.path, "SELECT address FROM associations") == [("kept@example.org",)]
    assert len(rows(house.path, "SELECT * FROM lookup_hashes")) == 1


@pytest_twisted.ensureDeferred
async def test_an_address_can_be_bound_again(house, alice):
    await bind(house, alice, ALICE)
    credentials = await house.prove(alice)
    await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, credentials))
    await house.associations.bind(alice, credentials, ALICE)
    assert await found(house, alice) == ALICE


@pytest_twisted.ensureDeferred
async def test_who_has_the_address_now_frees_it_from_the_one_before(house, alice, bob):
    await bind(house, alice, ALICE)
    credentials = await house.prove(bob, client_secret="recycled")
    await house.associations.unbind(bob, Unbind(ADDRESS, ALICE, credentials))
    assert await found(house, bob) is None


@pytest.mark.parametrize(
    "address", ["alice@example.org", "ALICE@Example.ORG", "Alice@example.org"], ids=["same", "upper", "mixed"]
)
@pytest_twisted.ensureDeferred
async def test_the_address_is_compared_in_its_normal_form(house, alice, address):
    await bind(house, alice, ALICE)
    credentials = await house.prove(alice)
    await house.associations.unbind(alice, Unbind(Threepid(EMAIL, address), ALICE, credentials))
    assert await found(house, alice) is None


@pytest_twisted.ensureDeferred
async def test_unbinding_what_is_not_bound_is_a_success_and_changes_nothing(house, alice, bob):
    credentials = await house.prove(alice)
    await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, credentials))
    await house.associations.bind(alice, credentials, ALICE)
    before = contents(house.path)
    await house.associations.unbind(alice, Unbind(ADDRESS, BOB, credentials))
    assert contents(house.path) == before
    assert await found(house, bob) == ALICE


@pytest_twisted.ensureDeferred
async def test_a_proof_that_does_not_hold_unbinds_nothing(house, alice):
    await bind(house, alice, ALICE)
    proved = await house.prove(alice)
    request = TokenRequest(ADDRESS, "fresh", 1, None)
    unproved = Credentials(await house.validation.request_token(alice, request), "fresh")
    for credentials, cause in (
        (unproved, SessionNotValidated),
        (Credentials("unknown", "s3cret"), NoValidSession),
        (Credentials("\0 odd", "s3cret"), NoValidSession),
        (Credentials(proved.sid, "wrong"), NoValidSession),
    ):
        with pytest.raises(UnbindProofFailed) as failed:
            await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, credentials))
        assert isinstance(failed.value.cause, cause)
    with pytest.raises(Forbidden):
        await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, None))
    house.advance(DAY_MS + 1)
    with pytest.raises(UnbindProofFailed) as failed:
        await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, proved))
    assert isinstance(failed.value.cause, SessionExpired)
    assert await found(house, alice) == ALICE


@pytest.mark.parametrize(
    "threepid",
    [
        Threepid(EMAIL, "bob@example.org"),
        Threepid("msisdn", "alice@example.org"),
        Threepid("EMAIL", "alice@example.org"),
        Threepid(EMAIL, "no address"),
        Threepid(EMAIL, ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_session_proves_its_own_address_only(house, alice, threepid):
    await bind(house, alice, ALICE, "alice@example.org")
    await bind(house, alice, ALICE, "bob@example.org")
    credentials = await house.prove(alice, client_secret="again")
    before = contents(house.path)
    with pytest.raises(Forbidden):
        await house.associations.unbind(alice, Unbind(threepid, ALICE, credentials))
    assert contents(house.path) == before


# --- who needs no access token (v1) --------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_who_needs_no_token_binds_and_unbinds_for_anybody_with_a_session(house, alice):
    credentials = await house.prove(NOBODY)
    signed = await house.associations.bind(NOBODY, credentials, BOB)
    assert signed["mxid"] == BOB
    verify(signed)
    assert await found(house, alice) == BOB
    await house.associations.unbind(NOBODY, Unbind(ADDRESS, BOB, credentials))
    assert await found(house, alice) is None


@pytest_twisted.ensureDeferred
async def test_who_needs_no_token_needs_a_proof_all_the_same(house, alice):
    await bind(house, alice, ALICE)
    before = contents(house.path)
    with pytest.raises(NoValidSession):
        await house.associations.bind(NOBODY, Credentials("unknown", "s3cret"), BOB)
    with pytest.raises(UnbindProofFailed):
        await house.associations.unbind(NOBODY, Unbind(ADDRESS, ALICE, Credentials("unknown", "s3cret")))
    with pytest.raises(Forbidden):
        await house.associations.unbind(NOBODY, Unbind(ADDRESS, ALICE, None))
    assert contents(house.path) == before


# --- unbind by the homeserver --------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_homeserver_unbinds_an_address_of_its_user(house, alice):
    await bind(house, alice, ALICE)
    await bind(house, alice, ALICE, "kept@example.org")
    await house.associations.unbind_for_homeserver("hs.example.org", Unbind(ADDRESS, ALICE, None))
    assert await found(house, alice) is None
    assert await found(house, alice, Threepid(EMAIL, "kept@example.org")) == ALICE
    # What was bound is not told of any more.
    assert [
        orjson.loads(payload)["address"] for (payload,) in rows(house.path, "SELECT payload FROM outbox")
    ] == ["kept@example.org"]


@pytest.mark.parametrize(
    ("origin", "mxid"),
    [
        ("example.org", "@alice:hs.example.org"),
        ("evil-hs.example.org", "@alice:hs.example.org"),
        ("hs.example.org", "@alice:evil-hs.example.org"),
        ("hs.example.org", "@alice:evil.org:hs.example.org"),
        ("hs.example.org", "@alice:hs.example.org:8448"),
        ("hs.example.org:8448", "@alice:hs.example.org"),
        ("hs.example.org", "@alice:hs.example.org."),
        ("hs.example.org", "@alice:org"),
        ("hs.example.org", "alice:hs.example.org"),
        ("hs.example.org", "@alice"),
        ("hs.example.org", "@:"),
        ("hs.example.org", ":hs.example.org"),
        ("hs.example.org", "hs.example.org"),
        ("hs.example.org", "@alice:hs.example.org\n"),
        ("hs.example.org", "@alice\0:hs.example.org"),
        ("hs.example.org", "@alice: hs.example.org"),
        ("hs.example.org", "@" + "a" * 300 + ":hs.example.org"),
        ("hs.example.org", "@\ud800:hs.example.org"),
        ("hs.example.org", ""),
        ("", ""),
        ("", "@alice:"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_homeserver_speaks_for_users_of_another(house, alice, origin, mxid):
    await bind(house, alice, ALICE)
    before = contents(house.path)
    with pytest.raises(ProofRefused) as refused:
        await house.associations.unbind_for_homeserver(origin, Unbind(ADDRESS, mxid, None))
    assert "alice" not in refused.value.message
    assert contents(house.path) == before


@pytest.mark.parametrize("spelling", ["@alice:hs.example.org", "@alice:HS.Example.org"])
@pytest_twisted.ensureDeferred
async def test_the_case_of_a_server_name_does_not_matter_to_whom_it_belongs(house, spelling):
    caller = await house.log_in(spelling)
    await bind(house, caller, spelling)
    await house.associations.unbind_for_homeserver("hs.example.org", Unbind(ADDRESS, spelling, None))
    assert await found(house, caller) is None


@pytest.mark.parametrize(
    "threepid",
    [
        Threepid(EMAIL, "nobody@example.org"),
        Threepid(EMAIL, "bob@example.org"),
        Threepid(MSISDN, "447700900001"),
        Threepid(EMAIL, "no address"),
        Threepid(EMAIL, ""),
        Threepid(EMAIL, "\ud800@\0"),
        Threepid(MSISDN, "+"),
        Threepid(MSISDN, "alice@example.org"),
        Threepid("", ""),
        Threepid("EMAIL", "alice@example.org"),
        Threepid("im.vector.odd", "alice@example.org"),
        Threepid(EMAIL, "x" * 100_000),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_bound_to_that_user_is_a_success_and_stays_as_it_is(house, alice, bob, threepid):
    await bind(house, alice, ALICE)
    await bind(house, bob, BOB, "bob@example.org", "other")
    before = contents(house.path)
    await house.associations.unbind_for_homeserver("hs.example.org", Unbind(threepid, ALICE, None))
    assert contents(house.path) == before


@pytest.mark.parametrize(
    ("medium", "stored", "given"),
    [
        (EMAIL, "alice@example.org", "ALICE@Example.ORG"),
        (MSISDN, "447700900001", "447700900001"),
        (MSISDN, "447700900001", "+447700900001"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_homeserver_may_write_an_address_as_its_user_did(house, medium, stored, given):
    await house.associations.provision([Provision(Threepid(medium, stored), ALICE, bound=True)])
    await house.associations.unbind_for_homeserver(
        "hs.example.org", Unbind(Threepid(medium, given), ALICE, None)
    )
    assert rows(house.path, "SELECT * FROM associations") == []


@pytest_twisted.ensureDeferred
async def test_a_homeserver_proves_no_session_and_needs_none(house, alice):
    await bind(house, alice, ALICE)
    named = Unbind(ADDRESS, ALICE, Credentials("unknown", "x"))
    await house.associations.unbind_for_homeserver("hs.example.org", named)
    assert await found(house, alice) is None


# --- by the word of the operator -----------------------------------------------------------------------


def wanted(number, mxid=ALICE, *, bound=True):
    return Provision(Threepid(EMAIL, f"user{number}@example.org"), mxid, bound)


@pytest_twisted.ensureDeferred
async def test_what_is_provisioned_is_bound_found_and_told(house, alice):
    await house.associations.provision([wanted(1), wanted(2, BOB)])
    assert await found(house, alice, wanted(1).threepid) == ALICE
    assert await found(house, alice, wanted(2).threepid) == BOB
    told = [orjson.loads(payload) for (payload,) in rows(house.path, "SELECT payload FROM outbox ORDER BY 1")]
    assert {(body["mxid"], body["address"]) for body in told} == {
        (ALICE, "user1@example.org"),
        (BOB, "user2@example.org"),
    }
    for body in told:
        verify(body)
    assert house.woken == 1


@pytest_twisted.ensureDeferred
async def test_a_script_that_says_the_same_every_night_is_told_once(house):
    await house.associations.provision([wanted(1), wanted(2)])
    before = contents(house.path)
    house.advance(DAY_MS)
    await house.associations.provision([wanted(1), wanted(2)])
    assert contents(house.path) == before
    # Also when the homeserver has heard of it.
    await house.db.write(lambda tx: tx.run("DELETE FROM outbox"))
    await house.associations.provision([wanted(1), wanted(2)])
    assert rows(house.path, "SELECT * FROM outbox") == []
    await house.associations.provision([wanted(1, BOB), wanted(2)])
    assert len(rows(house.path, "SELECT * FROM outbox")) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_provisioned_takes_an_address_from_the_one_before_and_frees_it(house, alice):
    await bind(house, alice, ALICE)
    await house.associations.provision([Provision(ADDRESS, BOB, bound=True)])
    assert await found(house, alice) == BOB
    await house.associations.provision([Provision(ADDRESS, ALICE, bound=False)])
    assert await found(house, alice) == BOB
    await house.associations.provision([Provision(ADDRESS, BOB, bound=False)])
    assert await found(house, alice) is None
    await house.associations.provision([Provision(ADDRESS, BOB, bound=False)])


@pytest_twisted.ensureDeferred
async def test_what_is_provisioned_is_done_in_its_order(house, alice):
    await house.associations.provision(
        [wanted(1, ALICE), wanted(1, BOB), wanted(1, ALICE, bound=False), wanted(2), wanted(2, bound=False)]
    )
    assert await found(house, alice, wanted(1).threepid) == BOB
    assert await found(house, alice, wanted(2).threepid) is None
    assert rows(house.path, "SELECT destination FROM outbox") == [("other.example.org",)]


@pytest_twisted.ensureDeferred
async def test_what_is_provisioned_is_done_as_a_whole_or_not_at_all(house, breaking):
    await house.associations.provision([wanted(1, BOB), wanted(9, BOB)])
    bulk = [*map(wanted, range(5)), wanted(9, BOB, bound=False)]
    count = await break_at_each_statement(house, breaking, lambda: breaking.associations.provision(bulk))
    assert count > 40
    assert breaking.woken == [True]
    bound = dict(rows(house.path, "SELECT address, mxid FROM associations"))
    assert bound == {f"user{number}@example.org": ALICE for number in range(5)}


@pytest_twisted.ensureDeferred
async def test_nothing_to_provision_changes_nothing(house):
    before = contents(house.path)
    await house.associations.provision([])
    assert contents(house.path) == before


@pytest_twisted.ensureDeferred
async def test_thousands_are_provisioned_at_a_time(house, alice):
    await house.associations.provision([wanted(number, f"@user{number}:x.org") for number in range(2000)])
    assert rows(house.path, "SELECT count(*) FROM associations") == [(2000,)]
    assert await found(house, alice, wanted(1999).threepid) == "@user1999:x.org"


# --- what the operator is told -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_each_change_is_told_with_who_has_made_it(house, alice):
    await bind(house, alice, ALICE)
    credentials = await house.prove(alice, "alice@example.org", "another secret")
    for _ in range(2):
        await house.associations.unbind(alice, Unbind(ADDRESS, ALICE, credentials))
    assert house.changes == [("api", "bound", EMAIL), ("api", "unbound", EMAIL)]
    house.changes.clear()
    number = Threepid(MSISDN, "447700900000")
    for bound in (True, True, False, False):
        await house.associations.provision([Provision(number, ALICE, bound=bound)])
    assert house.changes == [("internal", "bound", MSISDN), ("internal", "unbound", MSISDN)]
    house.changes.clear()
    await bind(house, alice, ALICE, secret="a third secret")
    for _ in range(2):
        await house.associations.unbind_for_homeserver("hs.example.org", Unbind(ADDRESS, ALICE, None))
    assert house.changes == [("api", "bound", EMAIL), ("api", "unbound", EMAIL)]
