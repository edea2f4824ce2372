"""What homeservers are told of when an address is bound, and of the invitations that have waited for it."""

import orjson
import pytest
import pytest_twisted
from canonicaljson import encode_canonical_json
from fixtures import DAY_MS, INVITES, SERVER_NAME, ScriptedDeliverer, public_key_bytes
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import SignatureVerifyException, verify_signed_json
from store_tools import START_MS, FailingDatabase, StatementFailed, Watch, contents, rows

from sydentish.actions.accounts import NOBODY, Gate
from sydentish.actions.associations import Associations, Provision, Unbind
from sydentish.actions.invites import InviteRequest
from sydentish.actions.outbox import ONBIND, OutboxWorker
from sydentish.actions.statements import Statements
from sydentish.domain.delivery import Delivered, NotDelivered
from sydentish.domain.invites import InviteDetails
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import outbox as outbox_rows

CAROL, DAVE = "@carol:hs.example.org", "@dave:other.example.org"
ADDRESS = Threepid(EMAIL, "carol@example.org")
REFUSED, DOWN = NotDelivered("HTTP 403", permanent=True), NotDelivered("timed out", permanent=False)


async def invite(house, count=1, address=ADDRESS):
    """Invitations of one address, each by another user into another room; their tokens."""
    tokens = []
    for number in range(count):
        sender, room_id = f"@user{number}:x{number}.example.org", f"!room{number}:x.example.org"
        request = InviteRequest(address, room_id, sender, InviteDetails(), None, None)
        tokens.append((await house.invites.store(NOBODY, request))["token"])
    return tokens


async def bind(house, mxid=CAROL, address=ADDRESS):
    """Binds, and answers the signed association."""
    credentials = await house.prove(NOBODY, address.address, f"secret{house.random.count}")
    return await house.associations.bind(NOBODY, credentials, mxid)


async def unbind(house, mxid=CAROL, address=ADDRESS):
    credentials = await house.prove(NOBODY, address.address, f"secret{house.random.count}")
    await house.associations.unbind(NOBODY, Unbind(address, mxid, credentials))


def untold(house, state="pending"):
    """The onbind bodies that are still in the outbox, in their order."""
    found = rows(
        house.path,
        "SELECT payload FROM outbox WHERE kind = 'onbind' AND state = ? ORDER BY outbox_id",
        (state,),
    )
    return [orjson.loads(payload) for (payload,) in found]


def tokens_in(bodies):
    return [invite["signed"]["token"] for body in bodies for invite in body["invites"]]


def kept(house):
    """Every invitation that there is, and whether it is on its way."""
    return rows(house.path, "SELECT token, outbox_id IS NOT NULL FROM invitations ORDER BY created_ts, token")


def verify(signed):
    verify_signed_json(signed, SERVER_NAME, decode_verify_key_bytes("ed25519:0", public_key_bytes()))


async def settle(house, *ends):
    """What becomes of the next rows, one after the other: `delivered`, `dead` or `retry`; their tokens."""

    def one(tx, end):
        now_ms = house.now_ms()
        (lease,) = [
            lease
            for failing in (False, True)
            for lease in outbox_rows.lease(tx, ONBIND, now_ms, 1000, 1, failing=failing)
        ][:1]
        if end == "delivered":
            outbox_rows.delivered(tx, ONBIND, lease, "POST")
        elif end == "dead":
            outbox_rows.bury(tx, ONBIND, lease, "HTTP 403", answered=True)
        else:
            outbox_rows.retry(tx, ONBIND, lease, now_ms + 1000, "down", now_ms, 0.0)
        return orjson.loads(lease.delivery.payload)

    return tokens_in([await house.db.write(one, end) for end in ends])


# --- one call for each invitation ----------------------------------------------------------------------


@pytest.mark.parametrize(("invitations", "calls"), [(0, 1), (1, 1), (2, 2), (7, 7)])
@pytest_twisted.ensureDeferred
async def test_each_invitation_has_a_call_of_its_own_and_there_is_no_other(house, invitations, calls):
    tokens = await invite(house, invitations)
    await invite(house, 1, Threepid(EMAIL, "other@example.org"))
    signed = await bind(house)
    assert "invites" not in signed
    bodies = untold(house)
    assert len(bodies) == calls
    assert [len(body["invites"]) for body in bodies] == ([1] * invitations or [0])
    assert sorted(tokens_in(bodies)) == sorted(tokens)
    association = {key: value for key, value in signed.items() if key != "signatures"}
    for body in bodies:
        rest = {key: value for key, value in body.items() if key not in ("invites", "signatures")}
        assert rest == association
    assert rows(house.path, "SELECT DISTINCT destination FROM outbox WHERE kind = 'onbind'") == [
        ("hs.example.org",)
    ]


@pytest_twisted.ensureDeferred
async def test_the_whole_body_is_signed_and_so_is_what_proves_the_address_to_the_room(house):
    tokens = await invite(house, 3)
    await bind(house)
    payloads = rows(house.path, "SELECT payload FROM outbox WHERE kind = 'onbind' ORDER BY outbox_id")
    for number, (payload,) in enumerate(payloads):
        body = orjson.loads(payload)
        assert payload.encode() == encode_canonical_json(body)
        verify(body)
        (sent,) = body["invites"]
        assert {key: value for key, value in sent.items() if key != "signed"} == {
            "medium": EMAIL,
            "address": ADDRESS.address,
            "mxid": CAROL,
            "room_id": f"!room{number}:x.example.org",
            "sender": f"@user{number}:x{number}.example.org",
            "token": tokens[number],
        }
        verify(sent["signed"])
        assert sent["signed"].keys() == {"mxid", "token", "signatures"}
        assert (sent["signed"]["mxid"], sent["signed"]["token"]) == (CAROL, tokens[number])
        for changed in ({**body, "invites": []}, {**body, "mxid": DAVE}):
            with pytest.raises(SignatureVerifyException):
                verify(changed)
        with pytest.raises(SignatureVerifyException):
            verify({**sent["signed"], "mxid": DAVE})


@pytest_twisted.ensureDeferred
async def test_no_secret_stands_in_the_keys_of_the_outbox(house):
    tokens = await invite(house, 3)
    await bind(house)
    keys = [key for (key,) in rows(house.path, "SELECT idempotency_key FROM outbox")]
    assert len(set(keys)) == 6
    assert not [key for key in keys for token in tokens if token in key]


@pytest_twisted.ensureDeferred
async def test_invitations_are_told_in_the_order_in_which_they_came(house):
    tokens = []
    for _ in range(4):
        tokens += await invite(house)
        house.advance(1)
    await bind(house)
    assert await settle(house, *["delivered"] * 4) == tokens


@pytest_twisted.ensureDeferred
async def test_an_invitation_that_has_expired_is_told_to_nobody(make_house):
    house = await make_house()
    await invite(house)
    house.advance(INVITES.lifetime_ms - 1)
    later = await invite(house)
    house.advance(1)
    await bind(house)
    assert tokens_in(untold(house)) == later


@pytest_twisted.ensureDeferred
async def test_an_invitation_of_another_medium_or_address_waits_on(house):
    await invite(house, 2)
    before = kept(house)
    number = Threepid("msisdn", "447700900001")
    await house.associations.provision([Provision(number, CAROL, bound=True)])
    await bind(house, address=Threepid(EMAIL, "other@example.org"))
    assert tokens_in(untold(house)) == []
    assert kept(house) == before


# --- what becomes of them ------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_invitation_goes_when_its_homeserver_has_it(house):
    first, second, third = await invite(house, 3)
    await bind(house)
    assert kept(house) == [(first, 1), (second, 1), (third, 1)]
    assert await settle(house, "delivered") == [first]
    assert kept(house) == [(second, 1), (third, 1)]
    assert sorted(await settle(house, "delivered", "delivered")) == sorted((second, third))
    assert kept(house) == []
    assert rows(house.path, "SELECT * FROM outbox WHERE kind = 'onbind'") == []


@pytest_twisted.ensureDeferred
async def test_what_a_homeserver_refuses_holds_nothing_up_and_is_not_told_again(house):
    first, second, third = await invite(house, 3)
    await bind(house)
    assert await settle(house, "dead", "delivered", "delivered") == [first, second, third]
    assert kept(house) == [(first, 1)]
    assert tokens_in(untold(house, "dead")) == [first]
    # Neither a bind that repeats the one before, nor one of somebody else, brings it back.
    for mxid in (CAROL, DAVE, CAROL):
        await bind(house, mxid)
        assert tokens_in(untold(house)) == []
        assert len(untold(house)) == 1
    await unbind(house)
    await bind(house)
    assert tokens_in(untold(house)) == []
    assert tokens_in(untold(house, "dead")) == [first]
    # An operator drops the dead letter, and the invitation with it.
    await house.db.write(lambda tx: outbox_rows.withdraw(tx, tx.row("SELECT outbox_id FROM invitations")[0]))
    assert kept(house) == []


@pytest_twisted.ensureDeferred
async def test_an_unbind_leaves_the_address_in_no_dead_letter(house):
    await invite(house, 2)
    await bind(house)
    assert await settle(house, "dead", "dead")
    await unbind(house)
    assert untold(house, "dead") == []
    for kind, table in (("onbind", "outbox"), (None, "invitations"), (None, "associations")):
        where = "" if kind is None else f" WHERE kind = '{kind}'"
        assert rows(house.path, f"SELECT * FROM {table}{where}") == []


@pytest_twisted.ensureDeferred
async def test_the_outbox_at_work_tells_one_after_the_other_whatever_is_refused(house):
    tokens = await invite(house, 5)
    await bind(house)
    deliverer = ScriptedDeliverer({"hs.example.org": [Delivered("POST"), REFUSED, DOWN, REFUSED]})
    results = Watch()
    worker = OutboxWorker(
        db=house.db,
        kind=ONBIND,
        deliverer=deliverer,
        clock=house.clock,
        max_in_flight=10,
        lease_ms=15_000,
        retry_for_ms=14 * DAY_MS,
        keeps_payload=True,
        now_ms=house.now_ms,
        jitter=lambda: 0.0,
        on_result=results,
    )
    worker.startService()
    await results.count(3)
    # Nothing else is due, but the clock goes on.
    for _ in range(10):
        house.advance(1000)
        await house.db.write(lambda _tx: None)
        await house.db.read(lambda _tx: None)
    assert await results.count(6) == ["delivered", "dead", "retry", "dead", "delivered", "delivered"]
    await worker.stopService()
    seen = [orjson.loads(delivery.payload) for delivery in deliverer.seen]
    assert tokens_in(seen) == [*tokens, tokens[2]]
    assert [token for token, _ in kept(house)] == sorted([tokens[1], tokens[3]])


# --- bound anew, or no more, before they were told -----------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_bind_that_repeats_an_untold_one_says_nothing_new(house):
    await invite(house, 2)
    first = await bind(house)
    before = (untold(house), kept(house))
    house.advance(1000)
    assert await bind(house) == first
    assert (untold(house), kept(house)) == before
    # Not even when a part of it was told.
    await settle(house, "delivered")
    before = (untold(house), kept(house))
    assert await bind(house) == first
    assert (untold(house), kept(house)) == before


@pytest_twisted.ensureDeferred
async def test_a_bind_that_repeats_one_that_was_told_is_told_without_invitations(house):
    await invite(house, 2)
    first = await bind(house)
    await settle(house, "delivered", "delivered")
    second = await bind(house)
    assert second["ts"] > first["ts"]
    (body,) = untold(house)
    assert (body["ts"], body["invites"]) == (second["ts"], [])


@pytest_twisted.ensureDeferred
async def test_an_unbind_takes_back_what_was_not_told(house):
    first, second, third = await invite(house, 3)
    await bind(house)
    assert await settle(house, "delivered", "retry") == [first, second]
    await unbind(house)
    assert untold(house) == []
    assert kept(house) == [(second, 0), (third, 0)]
    # Whoever binds it next has them.
    house.advance(10_000)
    signed = await bind(house, DAVE)
    bodies = untold(house)
    assert tokens_in(bodies) == [second, third]
    for body in bodies:
        assert (body["mxid"], body["ts"]) == (DAVE, signed["ts"])
        assert body["invites"][0]["signed"]["mxid"] == DAVE
        verify(body)
    assert rows(house.path, "SELECT DISTINCT destination FROM outbox WHERE kind = 'onbind'") == [
        ("other.example.org",)
    ]


@pytest_twisted.ensureDeferred
async def test_a_bind_of_another_user_takes_over_what_was_not_told(house):
    tokens = await invite(house, 2)
    await bind(house)
    await bind(house, DAVE)
    bodies = untold(house)
    assert tokens_in(bodies) == tokens
    assert {body["mxid"] for body in bodies} == {DAVE}
    assert kept(house) == [(token, 1) for token in tokens]
    assert await settle(house, "delivered", "delivered") == tokens
    assert kept(house) == []


@pytest_twisted.ensureDeferred
async def test_an_unbind_of_somebody_else_takes_nothing_back(house):
    await invite(house, 2)
    await bind(house)
    before = contents(house.path)
    await house.associations.provision([Provision(ADDRESS, DAVE, bound=False)])
    assert contents(house.path) == before


@pytest_twisted.ensureDeferred
async def test_an_invitation_that_expires_on_its_way_does_not_wait_again(house):
    await invite(house)
    await bind(house)
    house.advance(INVITES.lifetime_ms)
    await bind(house, DAVE)
    assert tokens_in(untold(house)) == []
    assert len(untold(house)) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_on_its_way_when_it_is_withdrawn_ends_well_either_way(house):
    (token,) = await invite(house)
    await bind(house)

    def take(tx):
        return outbox_rows.lease(tx, ONBIND, house.now_ms(), 15_000, 1, failing=False)[0]

    flying = await house.db.write(take)
    await unbind(house)
    assert kept(house) == [(token, 0)]
    # The homeserver took it all the same: then it has heard of it twice, which is better than never.
    await house.db.write(outbox_rows.delivered, ONBIND, flying, "POST")
    assert kept(house) == [(token, 0)]
    await bind(house, DAVE)
    assert await settle(house, "delivered") == [token]
    assert kept(house) == []


@pytest_twisted.ensureDeferred
async def test_what_stands_for_one_address_is_not_withdrawn_with_another(house):
    addresses = [Threepid(EMAIL, f"user{number}@example.org") for number in range(12)]
    for address in addresses:
        await invite(house, 1, address)
        await bind(house, CAROL, address)
    # The first statement has the number 1, with which those of others begin, too.
    await unbind(house, CAROL, addresses[0])
    assert [body["address"] for body in untold(house)] == [each.address for each in addresses[1:]]


@pytest_twisted.ensureDeferred
async def test_invitations_that_were_waiting_for_a_bound_address_go_with_its_next_bind(house):
    # As it happens when a statement comes from elsewhere, while an invitation is stored here.
    await bind(house)
    await settle(house, "delivered")
    await house.db.write(lambda tx: tx.run("UPDATE associations SET address = 'moved'"))
    tokens = await invite(house, 2)
    await house.db.write(lambda tx: tx.run("UPDATE associations SET address = ?", (ADDRESS.address,)))
    signed = await bind(house)
    assert signed["ts"] > START_MS
    assert tokens_in(untold(house)) == tokens


# --- all or nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["bind", "take over", "unbind"])
@pytest_twisted.ensureDeferred
async def test_of_a_statement_that_breaks_nothing_remains(house, deed):
    tokens = await invite(house, 2)
    mxid = DAVE if deed == "take over" else CAROL
    if deed != "bind":
        await bind(house)
    credentials = await house.prove(NOBODY, ADDRESS.address, "another secret")
    db = FailingDatabase(house.db)
    associations = Associations(
        db=db,
        gate=Gate(db=db, terms=Terms(), now_ms=house.now_ms),
        statements=Statements(keys=house.keys, validity_ms=DAY_MS),
        keys=house.keys,
        session_lifetime_ms=DAY_MS,
        wake_outbox=lambda: None,
        now_ms=house.now_ms,
    )
    before = contents(house.path)
    while True:
        db.nth += 1
        try:
            if deed == "unbind":
                await associations.unbind(NOBODY, Unbind(ADDRESS, mxid, credentials))
            else:
                await associations.bind(NOBODY, credentials, mxid)
        except StatementFailed:
            assert contents(house.path) == before
        else:
            break
    assert db.nth > 10
    assert tokens_in(untold(house)) == ([] if deed == "unbind" else tokens)
    assert kept(house) == [(token, int(deed != "unbind")) for token in tokens]
