"""What is noted when an address is bound or unbound, here or at a peer, and what homeservers are told of it."""

import os
from contextlib import closing

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
from sydentish.domain.associations import Association
from sydentish.domain.delivery import Delivered, NotDelivered
from sydentish.domain.invites import InviteDetails
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.peers import Failed, Peer
from sydentish.domain.statements import MAX_ORIGIN_ID, Order, Tombstone
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import outbox as outbox_rows
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.sqlite import connect

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
            outbox_rows.bury(tx, ONBIND, lease, "HTTP 403", now_ms, answered=True)
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


# --- what peers have stated ----------------------------------------------------------------------------

PEER = "peer.example.org"
PEER_KEYS = KeyRing(PEER, parse_key(make_key("0", b"p" * 32)))


def stated(mxid=CAROL, address=ADDRESS, *, ts=START_MS + 1000, number=1, server=PEER):
    """What a peer says: that the address belongs to a user, or to nobody."""
    if mxid is None:
        return Tombstone(address, ts, server, number)
    return Association(address, mxid, ts, ts, ts + DAY_MS, server, number)


def statements_of(house):
    return Statements(keys=house.keys, validity_ms=DAY_MS, random_bytes=os.urandom)


async def hear(house, statement):
    """Takes a statement of a peer; whether it was news."""
    signed = encode_canonical_json(PEER_KEYS.sign(statement.to_json())).decode()
    return await house.db.write(statements_of(house).take, statement, signed, house.now_ms())


async def newest(house, address=ADDRESS):
    return await house.db.read(statement_rows.newest, address)


@pytest.mark.parametrize("invitations", [1, 2, 5])
@pytest_twisted.ensureDeferred
async def test_a_bind_at_a_peer_wakes_the_invitations_that_wait_here(house, invitations):
    tokens = await invite(house, invitations)
    await invite(house, 1, Threepid(EMAIL, "other@example.org"))
    statement = stated()
    assert await hear(house, statement)
    bodies = untold(house)
    assert tokens_in(bodies) == tokens
    assert len(bodies) == invitations
    for body in bodies:
        rest = {key: value for key, value in body.items() if key not in ("invites", "signatures")}
        assert rest == statement.to_json()
        # It is we who tell, and who have asked the address to join.
        assert body["signatures"].keys() == {SERVER_NAME}
        verify(body)
        (sent,) = body["invites"]
        verify(sent["signed"])
        assert sent["signed"]["mxid"] == CAROL
    assert rows(house.path, "SELECT DISTINCT destination FROM outbox WHERE kind = 'onbind'") == [
        ("hs.example.org",)
    ]
    assert kept(house)[: len(tokens)] == [(token, 1) for token in tokens]
    assert await settle(house, *["delivered"] * invitations) == tokens


@pytest_twisted.ensureDeferred
async def test_of_a_bind_at_a_peer_that_nothing_waits_for_nobody_is_told_here(house):
    await invite(house, 2, Threepid(EMAIL, "other@example.org"))
    before = rows(house.path, "SELECT * FROM outbox")
    assert await hear(house, stated())
    assert rows(house.path, "SELECT * FROM outbox") == before
    assert await newest(house) == Order(START_MS + 1000, PEER, 1)


@pytest_twisted.ensureDeferred
async def test_an_invitation_that_has_expired_is_not_told_because_of_a_peer(house):
    await invite(house, 2)
    house.advance(INVITES.lifetime_ms)
    await hear(house, stated())
    assert untold(house) == []


@pytest_twisted.ensureDeferred
async def test_what_is_known_already_or_older_changes_nothing(house):
    await invite(house, 2)
    await hear(house, stated())
    before = contents(house.path)
    for old in (
        stated(),
        stated(DAVE, ts=START_MS),
        stated(None, number=0),
        stated(DAVE, server="a.example.org", number=9),
    ):
        assert not await hear(house, old)
        assert contents(house.path) == before


@pytest.mark.parametrize("bound_here", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_unbind_at_a_peer_takes_back_what_was_not_told(house, bound_here):
    first, second, third = await invite(house, 3)
    if bound_here:
        await bind(house)
    else:
        await hear(house, stated())
    assert await settle(house, "delivered") == [first]
    assert await hear(house, stated(None, ts=START_MS + 2000, number=2))
    assert untold(house) == []
    assert kept(house) == [(second, 0), (third, 0)]
    # Whoever binds it next has them, wherever that is.
    assert await hear(house, stated(DAVE, ts=START_MS + 3000, number=3))
    assert tokens_in(untold(house)) == [second, third]
    assert {(body["mxid"], body["ts"]) for body in untold(house)} == {(DAVE, START_MS + 3000)}


@pytest_twisted.ensureDeferred
async def test_an_unbind_at_a_peer_leaves_the_address_in_no_dead_letter(house):
    await invite(house, 2)
    await bind(house)
    assert await settle(house, "dead", "dead")
    await hear(house, stated(None))
    for state in ("dead", "pending"):
        assert untold(house, state) == []
    assert kept(house) == []


@pytest.mark.parametrize("bound_here", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_bind_of_another_user_at_a_peer_takes_over_what_was_not_told(house, bound_here):
    tokens = await invite(house, 2)
    if bound_here:
        await bind(house)
    else:
        await hear(house, stated())
    assert await hear(house, stated(DAVE, ts=START_MS + 2000, number=2))
    bodies = untold(house)
    assert tokens_in(bodies) == tokens
    assert {body["mxid"] for body in bodies} == {DAVE}
    # Refused invitations stay where they are.
    await settle(house, "dead")
    await hear(house, stated(CAROL, ts=START_MS + 3000, number=3))
    assert tokens_in(untold(house)) == tokens[1:]
    assert tokens_in(untold(house, "dead")) == tokens[:1]


@pytest_twisted.ensureDeferred
async def test_what_a_peer_binds_anew_is_no_longer_told_of_the_bind_here(house):
    await bind(house)
    assert len(untold(house)) == 1
    # The homeserver hears of that one from the peer.
    await hear(house, stated())
    assert untold(house) == []


@pytest_twisted.ensureDeferred
async def test_a_peer_may_use_a_number_twice(house):
    # Set back to a copy of its database, it goes on from there.
    tokens = await invite(house, 2)
    other = Threepid(EMAIL, "other@example.org")
    tokens += await invite(house, 1, other)
    assert await hear(house, stated(number=7))
    assert await hear(house, stated(address=other, number=7, ts=START_MS + 1001))
    assert tokens_in(untold(house)) == tokens
    assert await hear(house, stated(DAVE, number=7, ts=START_MS + 1002))
    assert tokens_in(untold(house)) == [tokens[2], *tokens[:2]]
    assert await hear(house, stated(None, number=7, ts=START_MS + 1003))
    assert tokens_in(untold(house)) == tokens[2:]


@pytest_twisted.ensureDeferred
async def test_what_stands_for_one_number_of_a_peer_is_not_withdrawn_with_another(house):
    addresses = [Threepid(EMAIL, f"user{number}@example.org") for number in range(12)]
    for number, address in enumerate(addresses, 1):
        await invite(house, 1, address)
        await hear(house, stated(address=address, number=number))
    await hear(house, stated(None, addresses[0], ts=START_MS + 2000, number=13))
    assert [body["address"] for body in untold(house)] == [each.address for each in addresses[1:]]
    # A statement of ours with the number 2 is another one than that of the peer.
    await bind(house, DAVE, Threepid(EMAIL, "mine@example.org"))
    await hear(house, stated(None, addresses[1], ts=START_MS + 2000, number=14))
    assert [body["address"] for body in untold(house)][-1] == "mine@example.org"


@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_bound_is_bound_and_unbound_here_with_statements_of_ours(house):
    await hear(house, stated(ts=START_MS + 5000, number=9))
    signed = await bind(house)
    assert signed["ts"] == START_MS + 5001
    assert await newest(house) == Order(START_MS + 5001, SERVER_NAME, 1)
    assert rows(house.path, "SELECT signed FROM associations") == [(None,)]
    assert len(untold(house)) == 1
    await hear(house, stated(DAVE, ts=START_MS + 6000, number=10))
    await unbind(house, DAVE)
    assert await newest(house) == Order(START_MS + 6001, SERVER_NAME, 2)


@pytest_twisted.ensureDeferred
async def test_a_bind_that_repeats_what_is_being_told_because_of_a_peer_says_nothing_new(house):
    await invite(house, 2)
    await hear(house, stated())
    before = (untold(house), kept(house))
    signed = await bind(house)
    assert (signed["ts"], signed["mxid"]) == (START_MS + 1000, CAROL)
    assert (untold(house), kept(house)) == before


# --- times and numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by_peer", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_new_statement_is_newer_than_one_whose_address_is_erased(house, by_peer):
    await bind(house)
    if by_peer:
        await hear(house, stated(None, ts=START_MS + 9000))
    else:
        house.advance(8999)
        await unbind(house)
        assert (await newest(house)).ts == START_MS + 8999
    erased = await newest(house)
    house.clock.rightNow -= 3600
    signed = await bind(house, DAVE)
    assert signed["ts"] == signed["not_before"] == erased.ts + 1
    assert await newest(house) == Order(erased.ts + 1, SERVER_NAME, 3 - int(by_peer))
    assert rows(house.path, "SELECT * FROM erased_addresses") == []


@pytest_twisted.ensureDeferred
async def test_numbers_go_up_with_each_statement_and_never_back(house):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    numbers = []

    async def note():
        numbers.append((await newest(house)).origin_id)

    for _ in range(3):
        await bind(house)
        await note()
        await unbind(house)
        await note()
    # What says nothing new uses no number up, nor does what fails.
    await unbind(house)
    db = FailingDatabase(house.db)
    for db.nth in range(3, 12):
        with pytest.raises(StatementFailed):
            await db.write(statements_of(house).bind, ADDRESS, CAROL, START_MS)
    await bind(house)
    await note()
    assert numbers == [1, 2, 3, 4, 5, 6, 7]


@pytest_twisted.ensureDeferred
async def test_what_is_stated_is_what_peers_are_sent(house):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    other = Threepid(MSISDN, "447700900001")
    signed = await bind(house)
    await house.associations.provision(
        [Provision(other, DAVE, bound=True), Provision(other, DAVE, bound=False)]
    )
    await hear(house, stated(address=Threepid(EMAIL, "theirs@example.org")))

    async def log():
        return await house.db.read(statement_rows.log_between, SERVER_NAME, 0, MAX_ORIGIN_ID, 100)

    first, second = await log()
    assert first.to_json() == {key: value for key, value in signed.items() if key != "signatures"}
    assert second == Tombstone(other, START_MS + 1, SERVER_NAME, 3)
    # What a newer statement of somebody else has superseded is not sent any more.
    await hear(house, stated(DAVE))
    await hear(house, stated(DAVE, other))
    assert await log() == []


# --- erased means erased -------------------------------------------------------------------------------

SECRET = Threepid(EMAIL, "a-rare-name@nowhere-else.example.org")


def tables_with(house, threepid=SECRET):
    """The tables in which an address stands."""
    return {table for table, found in contents(house.path).items() if threepid.address in repr(found)}


def bytes_of(house):
    """All that is in the file, and beside it."""
    with closing(connect(house.path, 5000)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    return b"".join(file.read_bytes() for file in house.path.parent.iterdir() if file.is_file())


async def bound_and_unbound(house, mxid=CAROL):
    for bound in (True, False):
        await house.associations.provision([Provision(SECRET, mxid, bound=bound)])


async def answer(house, name=PEER, until_id=None):
    """The peer has taken all there is, or all up to a number."""

    def take(tx):
        batch = push_rows.batch(tx, SERVER_NAME, peer_rows.state(tx, name), house.now_ms(), 100)
        if until_id is not None:
            batch = push_rows.Batch([], until_id, moves_on=True)
        lease = push_rows.lease(tx, name, house.now_ms(), 1000)
        push_rows.acknowledged(tx, name, batch, lease, house.now_ms())

    await house.db.write(take)


@pytest.mark.parametrize("by_peer", [True, False])
@pytest_twisted.ensureDeferred
async def test_without_peers_an_unbind_leaves_the_address_nowhere(house, by_peer):
    await house.associations.provision([Provision(SECRET, CAROL, bound=True)])
    assert tables_with(house) == {"associations", "outbox"}
    assert SECRET.address.encode() in bytes_of(house)
    if by_peer:
        await hear(house, stated(None, SECRET))
    else:
        await house.associations.provision([Provision(SECRET, CAROL, bound=False)])
    assert tables_with(house) == set()
    assert SECRET.address.encode() not in bytes_of(house)
    assert len(rows(house.path, "SELECT * FROM erased_addresses")) == 1


@pytest_twisted.ensureDeferred
async def test_what_a_peer_had_bound_leaves_nothing_either(house):
    await invite(house, 1, SECRET)
    await hear(house, stated(address=SECRET))
    assert tables_with(house) == {"associations", "outbox", "invitations"}
    # The invitation and its mail are not those of the association.
    await settle(house, "delivered")
    await house.db.write(lambda tx: tx.run("DELETE FROM outbox WHERE kind <> 'onbind'"))
    await hear(house, stated(None, SECRET, ts=START_MS + 2000, number=2))
    assert tables_with(house) == set()
    assert SECRET.address.encode() not in bytes_of(house)


@pytest_twisted.ensureDeferred
async def test_with_peers_the_address_is_kept_for_them_and_no_longer(house):
    names = ["quick", "paused", "failing", "gone"]
    peers = [Peer(name, "https://x", {}, ()) for name in names]
    await house.db.write(peer_rows.configure, peers, START_MS)
    await bound_and_unbound(house)
    await house.db.write(peer_rows.pause, "paused", paused=True)
    lease = await house.db.write(push_rows.lease, "failing", START_MS, 1000)
    await house.db.write(push_rows.failed, "failing", Failed("unreachable", "down"), lease, START_MS, 0.0)
    await house.db.write(peer_rows.configure, peers[:-1], START_MS)
    for name in names:
        assert tables_with(house) == {"tombstones"}
        if name == "quick":
            await answer(house, name)
        else:
            assert await house.db.write(peer_rows.remove, name)
    assert tables_with(house) == set()
    assert SECRET.address.encode() not in bytes_of(house)


@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_refused_is_kept_for_it(house):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    await bound_and_unbound(house)
    lease = await house.db.write(push_rows.lease, PEER, START_MS, 1000)
    await house.db.write(push_rows.park, PEER, [2], "odd", lease, START_MS, 0.0)
    await answer(house)
    assert tables_with(house) == {"tombstones"}
    house.advance(5000)
    await answer(house)
    assert tables_with(house) == set()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_states_what_is_outdated_is_sent_what_it_had_acknowledged(house):
    # As it does when it was set back to a copy of its database. Of one unbind, another one tells nothing.
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    other = Threepid(EMAIL, "other@example.org")
    await bind(house, CAROL)
    await bind(house, CAROL, other)
    await unbind(house, CAROL, other)
    await answer(house)

    async def waiting():
        return await house.db.read(push_rows.parked, PEER)

    for outdated in (stated(None, other, ts=1), stated(None, ts=START_MS + 9_000_000)):
        await hear(house, outdated)
        assert await waiting() == []
    await bind(house, CAROL)
    await answer(house)
    await hear(house, stated(None, ts=2))
    assert [number for number, _ in await waiting()] == [4]
    await hear(house, stated(DAVE, other, ts=3))
    assert [number for number, _ in await waiting()] == [3, 4]


@pytest.mark.parametrize("by_peer", [True, False])
@pytest.mark.parametrize("mxid", [CAROL, DAVE])
@pytest_twisted.ensureDeferred
async def test_a_newer_bind_drops_what_peers_have_not_heard_yet(house, by_peer, mxid):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    await bound_and_unbound(house)
    if by_peer:
        await hear(house, stated(mxid, SECRET))
    else:
        await house.associations.provision([Provision(SECRET, mxid, bound=True)])
    assert "tombstones" not in tables_with(house)
    assert rows(house.path, "SELECT * FROM erased_addresses") == []
    # So does a newer unbind of a peer, which tells the others itself.
    await house.associations.provision([Provision(SECRET, mxid, bound=False)])
    assert tables_with(house) == {"tombstones"}
    await hear(house, stated(None, SECRET, ts=START_MS + 9000, number=2))
    assert tables_with(house) == set()


@pytest_twisted.ensureDeferred
async def test_unbinding_again_and_again_leaves_one_tombstone(house):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    for mxid in (CAROL, DAVE, CAROL):
        await bound_and_unbound(house, mxid)
    assert rows(house.path, "SELECT origin_id, ts FROM tombstones") == [(6, START_MS + 5)]
    await answer(house, until_id=5)
    assert tables_with(house) == {"tombstones"}
    await answer(house)
    assert tables_with(house) == set()


# --- all or nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["bind", "take over", "unbind"])
@pytest_twisted.ensureDeferred
async def test_of_a_statement_that_breaks_nothing_remains(house, deed):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    tokens = await invite(house, 2)
    mxid = DAVE if deed == "take over" else CAROL
    if deed != "bind":
        await bind(house)
    credentials = await house.prove(NOBODY, ADDRESS.address, "another secret")
    db = FailingDatabase(house.db)
    associations = Associations(
        db=db,
        gate=Gate(db=db, terms=Terms(), now_ms=house.now_ms),
        statements=Statements(keys=house.keys, validity_ms=DAY_MS, random_bytes=os.urandom),
        keys=house.keys,
        session_lifetime_ms=DAY_MS,
        on_outcome=lambda *_: None,
        on_stated=lambda: None,
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


@pytest.mark.parametrize("deed", ["bind", "take over", "unbind"])
@pytest_twisted.ensureDeferred
async def test_of_a_peers_statement_that_breaks_nothing_remains(house, deed):
    await house.db.write(peer_rows.add, Peer(PEER, "https://x", {}, ()), START_MS)
    tokens = await invite(house, 2)
    if deed == "bind":
        await bound_and_unbound(house)
    else:
        await bind(house)
    statement = stated(None if deed == "unbind" else DAVE)
    signed = encode_canonical_json(PEER_KEYS.sign(statement.to_json())).decode()
    db = FailingDatabase(house.db)
    before = contents(house.path)
    while True:
        db.nth += 1
        try:
            await db.write(statements_of(house).take, statement, signed, house.now_ms())
        except StatementFailed:
            assert contents(house.path) == before
        else:
            break
    assert db.nth > 10
    assert tokens_in(untold(house)) == ([] if deed == "unbind" else tokens)
    assert kept(house) == [(token, int(deed != "unbind")) for token in tokens]
