"""What peers push here: a real database, real signatures, and the statements that follow from it."""

import json
import os

import orjson
import pytest
import pytest_twisted
from fixtures import DAY_MS, RecordingSigns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replication.mesh import (
    CAROL,
    DAVE,
    OURS,
    A,
    B,
    RefusingDatabase,
    WrittenLog,
    address,
    peer,
    ring,
)
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from store_tools import START_MS, InlineDatabase, at_once, contents, rows
from twisted.internet import reactor
from twisted.logger import globalLogPublisher

from sydentish.actions.statements import Statements
from sydentish.domain.associations import Association
from sydentish.domain.errors import Busy, InvalidParam, UnknownPeer, VerificationFailed
from sydentish.domain.peers import MOST_STATEMENTS, Peer
from sydentish.domain.statements import MAX_ORIGIN_ID, Tombstone
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.replication.receiver import Receiver
from sydentish.store import peers as peer_rows
from sydentish.store import statements as statement_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase

FUTURE_MS = 300_000
MOST = 20
PEER_KEYS = ring(A, seed=2)


class Receiving:
    """A receiver on a database of its own, and what it has told of."""

    def __init__(self, path, db):
        self.path = path
        self.db = db
        self.keys = ring(OURS)
        self.signs = RecordingSigns()
        self.taken = 0
        self.told_of = []
        self.counts = []
        self.statements = Statements(keys=self.keys, validity_ms=DAY_MS, random_bytes=os.urandom)
        self.now = START_MS

    def over(self, db):
        """A receiver that has another way to the database."""
        return Receiver(
            db=db,
            keys=self.keys,
            taker=self.statements,
            pusher=self.signs,
            on_taken=self._on_taken,
            on_received=lambda name, counts: self.counts.append((name, dict(counts))),
            max_statements=MOST,
            max_future_ms=FUTURE_MS,
            now_ms=lambda: self.now,
        )

    def _on_taken(self, statements):
        self.taken += 1
        self.told_of += statements

    async def receive(self, statements, name=A):
        await self.over(self.db).receive(name, statements)

    async def refused(self, statements):
        """Why a push is refused, and the ids that are blamed; nothing of it is stored."""
        before, told, counted = contents(self.path), (self.taken, len(self.signs.heard)), len(self.counts)
        with pytest.raises(VerificationFailed) as caught:
            await self.receive(statements)
        assert contents(self.path) == before
        assert (self.taken, len(self.signs.heard)) == told
        assert self.counts[counted:] == [(A, {"refused": len(caught.value.failed_ids)})]
        return caught.value

    def associations(self):
        return rows(
            self.path,
            "SELECT address, mxid, ts, origin_server, origin_id FROM associations ORDER BY origin_id",
        )


def made(path, db):
    receiving = Receiving(path, db)
    return receiving, [
        db.write(peer_rows.add, each, START_MS) for each in (peer(A, PEER_KEYS), peer(B, ring(B, seed=3)))
    ]


@pytest_twisted.async_yield_fixture
async def receiving(tmp_path):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    db = SqliteDatabase(path, reactor, readers=1, max_queue=1000, busy_timeout_ms=5000)
    db.startService()
    receiving, adding = made(path, db)
    for added in adding:
        await added
    yield receiving
    await db.stopService()


@pytest.fixture
def log():
    written = WrittenLog()
    globalLogPublisher.addObserver(written)
    yield written
    globalLogPublisher.removeObserver(written)


def bound(number, mxid=CAROL, ts=START_MS, threepid=None):
    """What a server says of one of its binds."""
    return Association(threepid or address(number), mxid, ts, ts, ts + DAY_MS, A, 0).to_json()


def unbound(number, ts=START_MS):
    return Tombstone(address(number), ts, A, 0).to_json()


def signed(value, keys=PEER_KEYS):
    return keys.sign(value)


def good(*numbers):
    return {str(number): signed(bound(number)) for number in numbers}


# --- what is taken -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_signed_is_taken_with_its_signature(receiving):
    push = good(1, 2)
    await receiving.receive(push)
    assert receiving.associations() == [
        (address(number).address, CAROL, START_MS, A, number) for number in (1, 2)
    ]
    for number, (stored,) in enumerate(
        rows(receiving.path, "SELECT signed FROM associations ORDER BY address"), start=1
    ):
        assert json.loads(stored) == push[str(number)]
    assert (receiving.taken, receiving.counts) == (1, [(A, {"new": 2, "known": 0, "unusable": 0})])
    assert [each.threepid for each in receiving.told_of] == [address(1), address(2)]
    assert receiving.signs.heard == [A]
    assert rows(receiving.path, "SELECT last_received_ts FROM peers ORDER BY name") == [
        (START_MS,),
        (None,),
    ]


@pytest_twisted.ensureDeferred
async def test_an_unbind_of_a_peer_deletes_the_address(receiving):
    await receiving.receive(good(1, 2))
    await receiving.receive({"3": signed(unbound(1, START_MS + 1))})
    assert [found[0] for found in receiving.associations()] == [address(2).address]
    everything = str(contents(receiving.path))
    assert address(1).address not in everything


@pytest_twisted.ensureDeferred
async def test_what_is_known_is_acknowledged_again_without_harm(receiving):
    await receiving.receive(good(1, 2))
    await receiving.receive({"3": signed(unbound(2, START_MS + 1))})
    before = contents(receiving.path)
    for push in (good(1, 2), good(2), {"3": signed(unbound(2, START_MS + 1))}, {}):
        await receiving.receive(push)
    assert contents(receiving.path) == before
    assert receiving.taken == 2
    assert receiving.counts[2:] == [(A, {"new": 0, "known": known, "unusable": 0}) for known in (2, 1, 1, 0)]
    assert receiving.signs.heard == [A] * 6


@pytest_twisted.ensureDeferred
async def test_what_is_older_than_what_is_known_changes_nothing(receiving):
    await receiving.receive({"5": signed(bound(1, DAVE, START_MS + 5))})
    await receiving.receive({"4": signed(bound(1, CAROL, START_MS + 4)), "7": signed(bound(7))})
    assert [found[:2] for found in receiving.associations()] == [
        (address(1).address, DAVE),
        (address(7).address, CAROL),
    ]
    assert receiving.counts[1] == (A, {"new": 1, "known": 1, "unusable": 0})


@pytest_twisted.ensureDeferred
async def test_nothing_is_told_when_nothing_was_taken(receiving):
    await receiving.receive({})
    assert (receiving.taken, receiving.signs.heard) == (0, [A])
    assert rows(receiving.path, "SELECT last_received_ts FROM peers WHERE name = ?", (A,)) == [(START_MS,)]


@pytest_twisted.ensureDeferred
async def test_one_of_several_keys_is_enough_and_signatures_of_others_do_no_harm(receiving):
    old, new = ring(A, seed=4, version="old"), ring(A, seed=5, version="new")
    keys = {each.active.key_id: each.active.public_key for each in (old, new)}
    await receiving.db.write(peer_rows.add, Peer(A, "https://a:1", keys, (A,)), START_MS)
    unknown = ring(A, seed=6, version="unknown")
    await receiving.receive(
        {
            "1": signed(bound(1), old),
            "2": signed(bound(2), new),
            "3": signed(signed(bound(3), unknown), new),
            "4": signed(signed(bound(4), ring(B, seed=3)), old),
            "5": {**signed(bound(5), new), "unsigned": {"age": 17.5}},
        }
    )
    assert receiving.counts == [(A, {"new": 5, "known": 0, "unusable": 0})]


@pytest_twisted.ensureDeferred
async def test_whose_a_statement_is_depends_on_the_peer_and_not_on_what_it_says(receiving):
    await receiving.receive({"1": signed({**bound(1), "origin_server": "bank.example.org", "origin_id": 99})})
    assert [found[3:] for found in receiving.associations()] == [(A, 1)]


@pytest_twisted.ensureDeferred
async def test_the_highest_and_the_lowest_number_are_numbers(receiving):
    await receiving.receive({"0": signed(bound(1)), str(MAX_ORIGIN_ID): signed(bound(2))})
    assert [found[4] for found in receiving.associations()] == [0, MAX_ORIGIN_ID]


# --- what is refused -----------------------------------------------------------------------------------


def tampered(number):
    return {**signed(bound(number)), "mxid": DAVE}


def without(field):
    value = bound(9)
    del value[field]
    return value


BAD = {
    "nothing": None,
    "a text": "associated",
    "a list": [1],
    "an empty object": {},
    "no signature": bound(9),
    "signatures that are none": {**bound(9), "signatures": "all of them"},
    "a signature that is none": {**bound(9), "signatures": {A: {"ed25519:0": 17}}},
    "an empty signature": {**bound(9), "signatures": {A: {"ed25519:0": ""}}},
    "a wrong signature": tampered(9),
    "the key of somebody else": signed(bound(9), ring(A, seed=7)),
    "an unknown key ID": signed(bound(9), ring(A, seed=2, version="1")),
    "the signature of another peer": signed(bound(9), ring(B, seed=3)),
    "our own signature": signed(bound(9), ring(OURS)),
    "no address": signed(without("address")),
    "no time": signed(without("ts")),
    "no medium": signed(without("medium")),
    "no end": signed(without("not_after")),
    "a time before 1970": signed({**bound(9), "ts": -1}),
    "a time that is a text": signed({**bound(9), "ts": str(START_MS)}),
    "a time that is true": signed({**bound(9), "ts": True}),
    "a user that is a number": signed({**bound(9), "mxid": 17}),
    "an address that is a list": signed({**bound(9), "address": ["a@b.example"]}),
    "a fraction": {**signed(bound(9)), "ts": 1.5},
    "a number beyond all": {**signed(bound(9)), "more": 2**60},
    "dated too far ahead": signed(bound(9, ts=START_MS + FUTURE_MS + 1)),
    "an unbind dated too far ahead": signed(unbound(9, ts=START_MS + FUTURE_MS + 1)),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest_twisted.ensureDeferred
async def test_one_bad_association_refuses_all_and_is_named(receiving, bad):
    error = await receiving.refused({**good(1, 2), "9": bad, **good(11)})
    assert error.failed_ids == ("9",)
    assert "1 of 4 statements" in error.message
    # The rest is taken when it comes without.
    await receiving.receive(good(1, 2, 11))
    assert receiving.counts[1:] == [(A, {"new": 3, "known": 0, "unusable": 0})]


@pytest.mark.parametrize(
    "number",
    ["", "x", "-1", "+1", "01", "1.0", " 1", "1\n", "1e3", "\u0661", str(MAX_ORIGIN_ID + 1), "9" * 5000],
)
@pytest_twisted.ensureDeferred
async def test_what_has_no_proper_number_is_refused_by_what_it_has(receiving, number):
    error = await receiving.refused({**good(1), number: signed(bound(2))})
    # What is longer than a number can be is told by its beginning.
    assert error.failed_ids == (number[:20],)


@pytest_twisted.ensureDeferred
async def test_all_that_are_bad_are_named_and_no_others(receiving):
    push = {
        **good(1, 2),
        "3": tampered(3),
        "4": signed(bound(4), ring(B, seed=3)),
        "5": signed({**bound(5), "medium": "pigeon"}),
        "x": signed(bound(6)),
        **good(7),
        "8": signed(bound(8, ts=START_MS + 10 * FUTURE_MS)),
    }
    assert (await receiving.refused(push)).failed_ids == ("3", "4", "x", "8")


@given(st.lists(st.sampled_from(["good", "bad", "unusable"]), min_size=1, max_size=MOST))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_or_nothing_whatever_the_mixture(tmp_path_factory, kinds):
    path = tmp_path_factory.mktemp("mixture") / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    receiving, _ = made(path, InlineDatabase(path))
    values = {
        "good": lambda number: signed(bound(number)),
        "bad": tampered,
        "unusable": lambda number: signed({**bound(number), "mxid": "carol"}),
    }
    push = {str(number): values[kind](number) for number, kind in enumerate(kinds, start=1)}
    numbers = {
        kind: [number for number, each in enumerate(kinds, start=1) if each == kind] for kind in values
    }
    if numbers["bad"]:
        error = at_once(receiving.refused(push))
        assert error.failed_ids == tuple(map(str, numbers["bad"]))
    else:
        at_once(receiving.receive(push))
        assert sorted(found[4] for found in receiving.associations()) == numbers["good"]
        ((_, counts),) = receiving.counts
        assert counts == {"new": len(numbers["good"]), "known": 0, "unusable": len(numbers["unusable"])}
    receiving.db.connection.close()


@pytest.mark.parametrize("ahead", [0, 1000, FUTURE_MS])
@pytest_twisted.ensureDeferred
async def test_what_is_dated_ahead_within_the_bound_is_taken(receiving, ahead):
    await receiving.receive({"1": signed(bound(1, ts=START_MS + ahead))})
    assert receiving.associations()[0][2] == START_MS + ahead


@pytest_twisted.ensureDeferred
async def test_what_was_dated_too_far_ahead_is_taken_when_its_time_comes(receiving):
    push = {"1": signed(bound(1, ts=START_MS + FUTURE_MS + 1))}
    assert "in the future: compare the clocks" in (await receiving.refused(push)).message
    receiving.now += 1
    await receiving.receive(push)
    assert len(receiving.associations()) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_nested_without_end_is_refused_as_what_it_is(receiving):
    deep = []
    for _ in range(900):
        deep = [deep]
    assert (await receiving.refused({"1": {**bound(1), "x": deep}, **good(2)})).failed_ids == ("1",)


@pytest.mark.parametrize("where", ["unsigned", "signatures"])
@pytest_twisted.ensureDeferred
async def test_what_is_nested_without_end_where_nothing_is_signed_breaks_nothing(receiving, where):
    # About what the reader of bodies lets through.
    deep = orjson.loads('{"x":' * 1000 + "1" + "}" * 1000)
    value = signed(bound(1))
    await receiving.receive({**good(2), "1": {**value, where: {**value.get(where, {}), "x": deep}}})
    assert receiving.counts == [(A, {"new": 2, "known": 0, "unusable": 0})]


@pytest.mark.parametrize(("size", "unusable"), [(3000, 0), (4000, 1)])
@pytest_twisted.ensureDeferred
async def test_more_than_a_statement_is_not_kept(receiving, size, unusable):
    await receiving.receive({"1": signed({**bound(1), "note": "x" * size})})
    assert receiving.counts == [(A, {"new": 1 - unusable, "known": 0, "unusable": unusable})]
    assert len(receiving.associations()) == 1 - unusable


@pytest_twisted.ensureDeferred
async def test_of_what_is_outdated_within_a_push_nobody_is_told(receiving):
    def rebound(number, ts):
        return signed(bound(1, ts=ts) | {"mxid": f"@user{number}:hs{number}.example.org"})

    push = {str(number): rebound(number, START_MS - abs(number - 7)) for number in range(1, 20)}
    await receiving.receive(push)
    assert [found[1:] for found in receiving.associations()] == [
        ("@user7:hs7.example.org", START_MS, A, 7),
    ]
    assert receiving.counts == [(A, {"new": 1, "known": 18, "unusable": 0})]


@pytest.mark.parametrize("count", [MOST, MOST + 1])
@pytest_twisted.ensureDeferred
async def test_a_push_has_a_bound(receiving, count):
    push = good(*range(count))
    if count <= MOST:
        await receiving.receive(push)
        return
    before = contents(receiving.path)
    with pytest.raises(InvalidParam, match=f"sgAssocs: must be at most {MOST}"):
        await receiving.receive(push)
    assert contents(receiving.path) == before
    assert (receiving.taken, receiving.counts, receiving.signs.heard) == (0, [], [])


# --- what is of no use ---------------------------------------------------------------------------------


USELESS = {
    "another medium": {**bound(9), "medium": "pigeon"},
    "no address that there can be": {**bound(9), "address": "nobody"},
    "no number that there can be": {**bound(9), "medium": "msisdn", "address": "+44 7700 900123"},
    "no user": {**bound(9), "mxid": "carol"},
    "an empty user": {**bound(9), "mxid": ""},
}


@pytest.mark.parametrize("useless", USELESS.values(), ids=USELESS)
@pytest_twisted.ensureDeferred
async def test_what_is_of_no_use_here_is_passed_over_and_counted(receiving, useless):
    await receiving.receive({**good(1), "9": signed(useless), **good(11)})
    assert [found[4] for found in receiving.associations()] == [1, 11]
    assert receiving.counts == [(A, {"new": 2, "known": 0, "unusable": 1})]
    assert receiving.taken == 1


@pytest_twisted.ensureDeferred
async def test_what_is_of_no_use_must_be_signed_all_the_same(receiving):
    push = {"1": {**signed(bound(1)), "medium": "pigeon"}, **good(2)}
    assert (await receiving.refused(push)).failed_ids == ("1",)


@pytest_twisted.ensureDeferred
async def test_addresses_that_we_would_not_send_a_mail_to_are_taken(receiving):
    odd = Threepid(EMAIL, "ÄRMEL (at home)@local host")
    number = Threepid(MSISDN, "12")
    await receiving.receive({"1": signed(bound(1, threepid=odd)), "2": signed(bound(2, threepid=number))})
    assert [found[0] for found in receiving.associations()] == ["ärmel (at home)@local host", "12"]


# --- peers that are none any more, and a database that is busy -----------------------------------------


async def remove(receiving):
    await receiving.db.write(peer_rows.remove, A)


async def forget(receiving):
    await receiving.db.write(lambda tx: tx.run("UPDATE peers SET source = 'gone' WHERE name = ?", (A,)))


@pytest.mark.parametrize("leave", [remove, forget])
@pytest.mark.parametrize("push", [{}, good(1), {"1": None}], ids=["nothing", "good", "bad"])
@pytest_twisted.ensureDeferred
async def test_of_a_server_that_is_no_peer_any_more_nothing_is_taken(receiving, leave, push):
    await leave(receiving)
    before = contents(receiving.path)
    with pytest.raises(UnknownPeer):
        await receiving.receive(push)
    assert contents(receiving.path) == before
    assert (receiving.taken, receiving.counts, receiving.signs.heard) == (0, [], [])


@pytest.mark.parametrize("leave", [remove, forget])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_removed_while_its_push_is_checked_is_none(receiving, leave):
    class Between:
        """Has the peer removed between the check and the taking."""

        read = receiving.db.read

        async def write(self, *args):
            await leave(receiving)
            return await receiving.db.write(*args)

    with pytest.raises(UnknownPeer):
        await receiving.over(Between()).receive(A, good(1))
    assert receiving.associations() == []


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_paused_may_still_push(receiving):
    await receiving.db.write(peer_rows.pause, A, paused=True)
    await receiving.receive(good(1))
    assert receiving.taken == 1


@pytest.mark.parametrize("number", [1, 2])
@pytest_twisted.ensureDeferred
async def test_a_database_that_is_busy_is_told_of_and_nothing_is_taken(receiving, number):
    before = contents(receiving.path)
    for skip in (0, 1):
        # It may say so at once or later.
        db = RefusingDatabase(receiving.db, lambda call, skip=skip: call == number + skip)
        for _ in range(skip):
            await db.read(lambda _tx: None)
        with pytest.raises(Busy):
            await receiving.over(db).receive(A, good(1))
    assert contents(receiving.path) == before
    assert (receiving.taken, receiving.counts, receiving.signs.heard) == (0, [], [])
    await receiving.receive(good(1))
    assert receiving.taken == 1


# --- greetings -----------------------------------------------------------------------------------------


def greeting(keys=PEER_KEYS, **more):
    return keys.sign({"server_name": A, "ts": START_MS, **more})


async def answered(receiving, value, name=A):
    """What a greeting is answered with; the answer is signed by us."""
    answer = await receiving.over(receiving.db).check(name, value)
    public_key = bytes(receiving.keys.active.signing_key.verify_key)
    verify_signed_json(answer, OURS, decode_verify_key_bytes("ed25519:0", public_key))
    assert list(answer["signatures"]) == [OURS]
    return {key: value for key, value in answer.items() if key != "signatures"}


@pytest_twisted.ensureDeferred
async def test_a_greeting_is_answered_with_what_we_make_of_the_peer(receiving):
    assert await answered(receiving, greeting()) == {
        "server_name": OURS,
        "peer": A,
        "signature": "valid",
        "ts": START_MS,
        "max_future_ms": FUTURE_MS,
    }


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        ({}, f"is not signed by {A}"),
        (greeting(ring(B, seed=3)), f"is not signed by {A}"),
        (
            greeting(ring(A, seed=2, version="1")),
            f"is signed by {A} with none of the keys that are known of it",
        ),
        (greeting(ring(A, seed=9)), f"has a wrong signature of {A}"),
        ({**greeting(), "ts": START_MS + 1}, f"has a wrong signature of {A}"),
        ({**greeting(), "ts": 1.5}, "a number is not a whole one"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_greeting_with_a_bad_signature_is_answered_with_what_is_wrong(receiving, value, signature):
    assert (await answered(receiving, value))["signature"] == signature


@pytest_twisted.ensureDeferred
async def test_a_greeting_changes_nothing(receiving):
    before = contents(receiving.path)
    await answered(receiving, greeting())
    assert contents(receiving.path) == before


@pytest.mark.parametrize("leave", [remove, forget])
@pytest_twisted.ensureDeferred
async def test_who_is_no_peer_any_more_is_not_greeted(receiving, leave):
    await leave(receiving)
    with pytest.raises(UnknownPeer):
        await receiving.over(receiving.db).check(A, greeting())


@pytest_twisted.ensureDeferred
async def test_a_greeting_that_the_database_is_too_busy_for_is_told_so(receiving):
    db = RefusingDatabase(receiving.db, lambda _call: True)
    for _ in range(2):
        with pytest.raises(Busy):
            await receiving.over(db).check(A, greeting())


# --- digests -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_digests_tell_what_is_known_of_the_peer_that_asks(receiving):
    receiver = receiving.over(receiving.db)
    await receiving.receive(good(1, 2, 12))
    await receiving.receive({"13": signed(unbound(12, START_MS + 1))})
    keys = ring(B, seed=3)
    await receiving.receive({"4": signed(bound(40), keys)}, B)
    found = await receiver.digests(A, 0, 20, 10)
    expected = await receiving.db.read(statement_rows.digests, A, 0, 20, 10)
    told = {str(start): list(digest) for start, digest in expected.items()}
    assert found == {"digests": told, "next": None}
    assert (await receiver.digests(A, 0, 1, 10))["next"] == "2"
    assert {start: count for start, (count, _) in found["digests"].items()} == {"0": 2, "10": 1}
    assert list((await receiver.digests(B, 0, 20, 20))["digests"]) == ["0"]
    assert await receiver.digests(A, 20, 30, 10) == {"digests": {}, "next": None}


@pytest.mark.parametrize(
    ("after", "until", "size", "field"),
    [
        (0, 100_001, 1000, "until"),
        (0, MAX_ORIGIN_ID, MAX_ORIGIN_ID, "until"),
        (5, 100_006, 1000, "until"),
        (0, 1001, 1, "size"),
        (0, 100_000, 99, "size"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_digests_have_bounds(receiving, after, until, size, field):
    with pytest.raises(InvalidParam) as caught:
        await receiving.over(receiving.db).digests(A, after, until, size)
    assert caught.value.name == field


@pytest.mark.parametrize(
    ("after", "until", "size"),
    [(0, 100_000, 100), (0, 1000, 1), (MAX_ORIGIN_ID - 100_000, MAX_ORIGIN_ID, MAX_ORIGIN_ID)],
)
@pytest_twisted.ensureDeferred
async def test_digests_within_the_bounds_are_answered(receiving, after, until, size):
    assert await receiving.over(receiving.db).digests(A, after, until, size) == {"digests": {}, "next": None}


@pytest_twisted.ensureDeferred
async def test_digests_that_the_database_is_too_busy_for_are_told_so(receiving):
    db = RefusingDatabase(receiving.db, lambda _call: True)
    with pytest.raises(Busy):
        await receiving.over(db).digests(A, 0, 10, 10)


# --- statements ----------------------------------------------------------------------------------------


async def told(receiving, *numbers, name=A):
    answer = await receiving.over(receiving.db).statements(name, numbers)
    assert list(answer) == ["sgAssocs"]
    return answer["sgAssocs"]


@pytest_twisted.ensureDeferred
async def test_a_peer_is_told_its_own_binds_as_it_has_signed_them(receiving):
    push = {"1": {**signed(bound(1)), "unsigned": {"age": 17}}, **good(2, 12), str(MAX_ORIGIN_ID): bound(5)}
    push[str(MAX_ORIGIN_ID)] = signed({**push[str(MAX_ORIGIN_ID)], "more": "é"})
    await receiving.receive(push)
    del push["1"]["unsigned"]
    assert await told(receiving, 1, 2, 12, 13, MAX_ORIGIN_ID) == push
    assert await told(receiving, 2, 3) == {"2": push["2"]}
    assert await told(receiving) == {}


@pytest_twisted.ensureDeferred
async def test_nobody_is_told_what_others_have_stated(receiving):
    theirs, ours = ring(B, seed=3), Threepid(EMAIL, "ours@example.org")
    await receiving.receive({"1": signed(bound(1), theirs), "3": signed(bound(3), theirs)}, B)
    await receiving.receive({"2": signed(bound(2))})
    await receiving.db.write(receiving.statements.bind, ours, DAVE, START_MS)
    assert list(await told(receiving, *range(20))) == ["2"]
    assert list(await told(receiving, *range(20), name=B)) == ["1", "3"]


@pytest_twisted.ensureDeferred
async def test_what_is_bound_no_longer_is_not_told(receiving):
    await receiving.receive(good(1, 2, 3))
    await receiving.receive(
        {"4": signed(unbound(1, START_MS + 1)), "5": signed(bound(2, DAVE, START_MS + 1))}
    )
    assert list(await told(receiving, *range(20))) == ["3", "5"]


@pytest_twisted.ensureDeferred
async def test_of_a_number_that_was_used_twice_the_newer_one_is_told(receiving):
    await receiving.receive({"1": signed(bound(1, ts=START_MS + 1))})
    await receiving.receive({"1": signed(bound(2))})
    assert (await told(receiving, 1))["1"]["address"] == address(1).address


@pytest_twisted.ensureDeferred
async def test_what_is_endless_is_not_told(receiving):
    await receiving.receive({"1": signed({**bound(1), "x": "x" * 5000}), **good(2)})
    assert list(await told(receiving, 1, 2)) == ["2"]


@pytest_twisted.ensureDeferred
async def test_no_more_are_told_at_once_than_may_be_asked_for(receiving):
    assert await told(receiving, *range(MOST_STATEMENTS)) == {}
    with pytest.raises(InvalidParam, match=f"ids: must be at most {MOST_STATEMENTS}"):
        await told(receiving, *range(MOST_STATEMENTS + 1))


@pytest.mark.parametrize("leave", [remove, forget])
@pytest_twisted.ensureDeferred
async def test_who_is_no_peer_any_more_is_told_nothing(receiving, leave):
    await receiving.receive(good(1))
    await leave(receiving)
    with pytest.raises(UnknownPeer):
        await told(receiving, 1)


@pytest_twisted.ensureDeferred
async def test_statements_that_the_database_is_too_busy_for_are_told_so(receiving):
    db = RefusingDatabase(receiving.db, lambda _call: True)
    with pytest.raises(Busy):
        await receiving.over(db).statements(A, [1])


# --- the log -------------------------------------------------------------------------------------------


CANARY = "canary@secret.example.org"
CANARY_NUMBER = "447700900123"
CANARY_USER = "@canary:secret.example.org"


def canaries():
    """Pushes that are refused or passed over, each with a canary somewhere."""
    value = {**bound(9), "address": CANARY, "mxid": CANARY_USER}
    phone = {**value, "medium": MSISDN, "address": CANARY_NUMBER}
    yield from (value, phone)
    for field in ("address", "mxid", "medium", "ts", "not_before"):
        for wrong in (CANARY, [CANARY], {CANARY: CANARY}, f"{CANARY} {CANARY}", f"@{CANARY}", "", 1.5):
            yield signed({**value, field: wrong}) if wrong != 1.5 else {**signed(value), field: wrong}
    yield signed({**value, "ts": START_MS + 2 * FUTURE_MS})
    yield signed({**phone, "address": f"+{CANARY_NUMBER}"})
    yield signed({**value, "mxid": f"{CANARY_USER}/{CANARY}"})
    yield {**value, "signatures": {CANARY: {CANARY: CANARY}}}
    yield {**value, "signatures": {A: {CANARY: CANARY}}}
    yield {**value, "signatures": {A: {"ed25519:0": CANARY}}}


@pytest_twisted.ensureDeferred
async def test_no_address_stands_in_the_log_or_in_an_answer(receiving, log):
    answers = []
    for number, value in enumerate(canaries()):
        for push in ({"1": value}, {CANARY: value}, {f"{number}": value, **good(17)}):
            try:
                await receiving.receive(push)
            except VerificationFailed as error:
                answers.append(error.message)
    # Not only does the log take it out: nobody tells it.
    told = [event["log_format"].format(**event) for event in log.events]
    assert len(told) > 20
    for text in (log.text, *told, *answers):
        assert "canary" not in text
        assert CANARY_NUMBER not in text


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_of_a_statement_stands_in_the_log(shared, log, medium, place, user):
    log.events.clear()
    value = {**bound(9), "medium": medium, "address": f"{place}canary", "mxid": f"{user}canary"}
    answers = []
    for push in ({"1": signed_or_not(value)}, {f"{place}canary": value}):
        try:
            at_once(shared.receive(push))
        except VerificationFailed as error:
            answers.append(error.message)
    assert all("canary" not in answer for answer in answers)
    assert all("canary" not in event["log_format"].format(**event) for event in log.events)


def signed_or_not(value):
    try:
        return signed(value)
    except UnicodeEncodeError:
        return value


@pytest.fixture
def shared(tmp_path):
    """For many examples: without threads."""
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    receiving, _ = made(path, InlineDatabase(path))
    yield receiving
    receiving.db.connection.close()


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_logged_once_whatever_the_push_holds(receiving, log):
    await receiving.refused({str(number): None for number in range(MOST)})
    (event,) = [each for each in log.events if "was refused" in each["log_format"]]
    assert (event["peer"], event["failed"], event["pushed"], event["number"]) == (A, MOST, MOST, "0")


@pytest_twisted.ensureDeferred
async def test_a_number_that_is_endless_does_not_fill_the_log(receiving, log):
    error = await receiving.refused({"9" * 100_000: None})
    assert len(error.message) < 1000
    assert len(log.text) < 1000
