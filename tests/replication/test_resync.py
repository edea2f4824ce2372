"""Comparing with a peer, and sending what it lacks; both sides are real, over real mutual TLS."""

import json
import sqlite3
from contextlib import closing

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from replication.listening_peer import ring, start_here, start_there
from replication.mutual import HERE, THERE
from standins.behaviours import answer, close, error
from store_tools import START_MS, address, contents, rows

from sydentish.domain.associations import Association
from sydentish.domain.keys import KeyRing, KeyState, make_key, parse_key
from sydentish.domain.peers import DIGESTS_PATH, PUSH_PATH, STATEMENTS_PATH, Peer
from sydentish.domain.statements import Tombstone
from sydentish.replication.comparing import read_binds, read_digests, read_next
from sydentish.replication.link import Answer
from sydentish.replication.resync import Resync, Resynced
from sydentish.store import associations as association_rows
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.counters import JUMP

pytestmark = pytest.mark.usefixtures("quiet_log")

ANN, BOB = "@ann:hs.example.org", "@bob:hs.example.org"
HASH = "a" * 64


@pytest_twisted.async_yield_fixture
async def here(tmp_path):
    node = await start_here(tmp_path)
    yield node
    await node.stop()


@pytest_twisted.async_yield_fixture
async def there(tmp_path, here, credentials):
    """A peer of ours that knows us, and that we know."""
    node = await start_there(tmp_path, here, credentials(THERE).load())
    yield node
    await node.stop()


@pytest.fixture
def resync(here, make_link):
    async def run(peer, **options):
        options = {"batch_size": 500, "on_progress": lambda _done, _of: None, "keys": here.keys, **options}
        return await Resync(db=here.db, link=make_link(max_bytes=2**20), now_ms=here.now_ms, **options).run(
            peer
        )

    return run


async def bind(node, numbers, mxid=ANN):
    """Binds many addresses in one transaction."""

    def do(tx):
        for number in numbers:
            node.statements.bind(tx, address(number), mxid, node.now_ms())

    await node.db.write(do)


async def same(here, there):
    """Whether both know the same of our statements."""
    bounds = (HERE, 0, 1_000_000, 1)
    return await here.db.read(statement_rows.digests, *bounds) == await there.db.read(
        statement_rows.digests, *bounds
    )


async def state_of(here):
    return await here.db.read(peer_rows.state, THERE)


async def acknowledged(here, until_id):
    """The peer has acknowledged up to a number, as the server would have noted it."""

    def note(tx):
        lease = push_rows.lease(tx, THERE, START_MS, 5000)
        push_rows.acknowledged(tx, THERE, push_rows.Batch((), until_id, moves_on=True), lease, START_MS)

    await here.db.write(note)


# --- between two of ours ----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_where_nothing_is_missing(here, there, resync):
    await bind(here, range(30))
    assert (await resync(there.as_peer())).sent == 30
    assert await resync(there.as_peer()) == Resynced(compared=30)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_without_any_statement_there_is_nothing_to_do(there, resync):
    assert await resync(there.as_peer()) == Resynced()


@pytest_twisted.ensureDeferred
async def test_what_is_lost_there_comes_back(here, there, resync):
    await bind(here, range(2500))
    await resync(there.as_peer())
    lost = [7, 8, 99, 100, 101, 1200, 2400, 2500]

    def lose(tx):
        for origin_id in lost:
            tx.run("DELETE FROM associations WHERE origin_id = ?", (origin_id,))

    await there.db.write(lose)
    assert not await same(here, there)
    assert await resync(there.as_peer(), batch_size=3) == Resynced(compared=2500, sent=len(lost))
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_numbers_far_apart_are_found(here, there, resync):
    for first in (5, 99_999, 100_000, 250_000):
        await here.db.write(lambda tx, n=first: tx.run("UPDATE counters SET value = ?", (n,)) or n)
        await bind(here, [first])
    progress = []
    found = await resync(there.as_peer(), on_progress=lambda done, of: progress.append((done, of)))
    assert found == Resynced(compared=4, sent=4)
    assert progress[-1][0] == progress[-1][1]
    assert progress == sorted(progress)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_where_nobody_knows_any_numbers_none_are_compared(here, there, resync):
    # As after restores; the peer alone still knows of one in between.
    for number in (0, 1, 2, 3):
        await here.db.write(lambda tx, n=number: tx.run("UPDATE counters SET value = ?", (n * JUMP,)) or n)
        await bind(here, [number])
    assert (await resync(there.as_peer())).sent == 4
    for node, numbers in ((here, (1, 2)), (there, (2, 3))):
        for number in numbers:
            await node.db.write(association_rows.delete, address(number))
    progress = []
    found = await resync(there.as_peer(), on_progress=lambda done, of: progress.append((done, of)))
    assert found == Resynced(compared=2, sent=1, foreign=1)
    assert progress == [(JUMP, progress[0][1]), (3 * JUMP, progress[0][1]), (progress[0][1], progress[0][1])]


@pytest_twisted.ensureDeferred
async def test_unbinds_and_what_was_bound_again_are_compared_too(here, there, resync):
    await bind(here, range(4))
    await resync(there.as_peer())
    await here.unbind(address(0))
    await here.unbind(address(1))
    await here.bind(address(1), BOB)
    found = await resync(there.as_peer())
    assert (found.compared, found.sent, found.foreign, found.outdated) == (4, 2, 0, 0)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_the_cursor_stays_where_it_is(here, there, resync):
    await bind(here, range(20))
    await acknowledged(here, 12)
    await resync(there.as_peer())
    assert (await state_of(here)).acknowledged_id == 12


@pytest_twisted.ensureDeferred
async def test_what_is_erased_cannot_be_sent(here, there, resync):
    await bind(here, range(3))
    await here.unbind(address(1))
    # It has said so, and then lost it.
    await acknowledged(here, 4)
    found = await resync(there.as_peer())
    assert found == Resynced(compared=3, sent=2, erased=1)


@pytest_twisted.ensureDeferred
async def test_what_lost_to_another_server_there_is_told(here, there, resync):
    await bind(here, range(3))
    newer = Association(address(1), BOB, START_MS + 5, 0, 2**50, "third.example.org", 1)
    await there.take(newer)
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=3, outdated=1)


@pytest_twisted.ensureDeferred
async def test_what_only_the_peer_knows_is_told(here, there, resync):
    await bind(here, range(3))
    for number in (9, 50_000, 100_002):
        await there.take(Association(address(number), BOB, START_MS, 0, 2**50, HERE, number))
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=3, foreign=3)


@pytest_twisted.ensureDeferred
async def test_what_was_parked_and_is_taken_is_parked_no_longer(here, there, resync):
    await bind(here, range(3))
    await here.db.write(push_rows.hold_back, THERE, [1, 3], "once", START_MS)
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=3)
    assert await here.db.read(push_rows.parked, THERE) == []


@pytest_twisted.ensureDeferred
async def test_a_tombstone_that_was_parked_is_erased_once_it_is_taken(here, there, resync):
    await bind(here, [1])
    await resync(there.as_peer())
    await here.unbind(address(1))
    await here.db.write(push_rows.hold_back, THERE, [2], "once", START_MS)
    await acknowledged(here, 2)
    assert await here.db.read(statement_rows.unerased) == 1
    assert (await resync(there.as_peer())).sent == 1
    assert await here.db.read(statement_rows.unerased) == 0


# --- what was unbound behind the peer's back --------------------------------------------------------------


async def miss_unbinds(here, there, numbers):
    """The peer is removed, addresses are unbound, and it is added again; the server has sent it all there is."""
    await here.db.write(peer_rows.remove, THERE)
    for number in numbers:
        assert await here.unbind(address(number))
    await here.knows(there.as_peer())
    last = await here.db.read(statement_rows.last_id, HERE)
    await acknowledged(here, last)
    assert await here.db.read(statement_rows.unerased) == 0


def stands(node, number):
    """Whether an address stands anywhere in the database of a server."""
    return address(number).address in str(contents(node.path))


async def wait_for_none(here):
    """Nothing is parked, and no address is kept for a peer."""
    assert await here.db.read(push_rows.parked, THERE) == []
    assert await here.db.read(statement_rows.unerased) == 0


@pytest_twisted.ensureDeferred
async def test_what_was_unbound_while_the_peer_was_removed_is_erased_there(here, there, resync):
    await bind(here, range(1, 4))
    await resync(there.as_peer())
    await miss_unbinds(here, there, [2])
    assert stands(there, 2)
    assert not stands(here, 2)
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=1, gone=1)
    assert not stands(there, 2)
    assert not stands(here, 2)
    await wait_for_none(here)
    assert await same(here, there)
    assert await resync(there.as_peer()) == Resynced(compared=3)


@pytest_twisted.ensureDeferred
async def test_what_was_unbound_after_an_old_backup_is_erased_there_again(here, there, resync, tmp_path):
    await bind(here, range(1, 4))
    await resync(there.as_peer())
    with closing(sqlite3.connect(there.path)) as live, closing(sqlite3.connect(tmp_path / "old.db")) as old:
        live.backup(old)
        await here.unbind(address(2))
        await resync(there.as_peer())
        await acknowledged(here, 4)
        assert not any(stands(node, 2) for node in (here, there))
        old.backup(live)
    assert stands(there, 2)
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=1, gone=1)
    assert not any(stands(node, 2) for node in (here, there))
    await wait_for_none(here)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_an_address_is_kept_until_the_server_has_passed_its_unbind(here, there, resync):
    """A peer that was just added is sent everything anyway."""
    await bind(here, [1])
    await resync(there.as_peer())
    await here.db.write(peer_rows.remove, THERE)
    await here.unbind(address(1))
    await here.knows(there.as_peer())
    assert (await resync(there.as_peer())).gone == 1
    assert not stands(there, 1)
    assert stands(here, 1)
    await acknowledged(here, 2)
    await wait_for_none(here)


@pytest_twisted.ensureDeferred
async def test_many_are_mended_in_batches(here, there, resync):
    await bind(here, range(1, 1301))
    await resync(there.as_peer())
    await miss_unbinds(here, there, range(1, 1251))
    found = await resync(there.as_peer(), batch_size=100)
    assert found == Resynced(compared=1300, sent=1250, gone=1250)
    assert rows(there.path, "SELECT count(*) FROM associations") == [(50,)]
    await wait_for_none(here)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_what_another_peer_has_not_heard_either_is_sent_as_it_is(here, there, resync):
    await bind(here, [1])
    await resync(there.as_peer())
    third = Peer("third.example.org", "https://third.example.org", {}, ("third.example.org",))
    await here.knows(third)
    await here.unbind(address(1))
    await acknowledged(here, 2)
    assert await here.db.read(statement_rows.unerased) == 1
    assert await resync(there.as_peer()) == Resynced(compared=1, sent=1)
    assert not stands(there, 1)
    assert await here.db.read(statement_rows.unerased) == 1


@pytest_twisted.ensureDeferred
async def test_an_unbind_far_behind_its_bind_is_sent_at_once(here, there, resync):
    """Its own number is compared only later; then it is there already."""
    await bind(here, [1, 2])
    await resync(there.as_peer())
    await here.db.write(lambda tx: tx.run("UPDATE counters SET value = 150000"))
    await here.unbind(address(1))
    await here.bind(address(2), BOB)
    found = await resync(there.as_peer())
    assert found == Resynced(compared=2, sent=2, gone=1, superseded=1)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_what_another_server_has_stated_since_is_left_to_it(here, there, resync):
    await bind(here, [1, 2])
    await resync(there.as_peer())
    await here.take(Association(address(1), BOB, START_MS + 5, 0, 2**50, "third.example.org", 1))
    await here.take(Tombstone(address(2), START_MS + 5, "third.example.org", 2))
    before = contents(here.path)
    assert await resync(there.as_peer()) == Resynced(superseded=2)
    assert contents(here.path) == before


@pytest_twisted.ensureDeferred
async def test_a_server_that_was_set_back_itself_unbinds_nothing(here, there, resync):
    """It knows an unbind, or another user, of an address that the peer knows a newer statement of."""
    await bind(here, [1, 2, 3])
    await here.unbind(address(1))
    with closing(sqlite3.connect(here.path)) as live, closing(sqlite3.connect(":memory:")) as old:
        live.backup(old)
        here.now_ms.ms += 1000
        await here.bind(address(1), BOB)
        await here.bind(address(2), BOB)
        await here.bind(address(9), BOB)
        there.now_ms.ms += 1000
        await resync(there.as_peer())
        old.backup(live)
    assert (await resync(there.as_peer())).foreign == 3
    assert rows(there.path, "SELECT count(*) FROM associations WHERE mxid = ?", (BOB,)) == [(3,)]
    assert await here.db.read(push_rows.parked, THERE) == []


@pytest.mark.parametrize(("state", "gone"), [(KeyState.RETIRED, 1), (KeyState.REVOKED, 0)])
@pytest_twisted.ensureDeferred
async def test_what_an_earlier_key_has_signed_is_ours_unless_that_was_revoked(
    here, there, resync, state, gone
):
    await bind(here, [1])
    await resync(there.as_peer())
    active = parse_key(make_key("new", b"n" * 32))
    earlier = parse_key(make_key("0", bytes([1] * 32)), state)
    keys = KeyRing(HERE, active, (earlier,))
    assert earlier.public_key == here.keys.active.public_key
    both = {key.key_id: key.public_key for key in (active, earlier)}
    await there.knows(Peer(HERE, "https://here.example.org", both, (HERE,)))
    await miss_unbinds(here, there, [1])
    found = await resync(there.as_peer(), keys=keys)
    assert (found.gone, found.foreign) == (gone, 1 - gone)
    assert stands(there, 1) is not bool(gone)


@pytest_twisted.ensureDeferred
async def test_an_unbind_that_is_refused_waits_and_goes_later(here, there, resync):
    await bind(here, [1, 2])
    await resync(there.as_peer())
    here.now_ms.ms += 3_600_000
    await miss_unbinds(here, there, [1, 2])
    found = await resync(there.as_peer())
    assert (found.failure, found.gone, found.foreign, found.erased, found.refused.keys()) == (
        None,
        0,
        0,
        0,
        {3, 4},
    )
    assert all("is dated 3600 s in the future" in each for each in found.refused.values())
    assert dict(await here.db.read(push_rows.parked, THERE)) == found.refused
    assert await here.db.read(statement_rows.unerased) == 2
    there.now_ms.ms = here.now_ms.ms
    assert await resync(there.as_peer()) == Resynced(compared=2, sent=2)
    await wait_for_none(here)
    assert await same(here, there)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_peer_with_a_slow_clock_refuses_what_is_new(here, there, resync):
    await bind(here, [1, 2])
    here.now_ms.ms += 3_600_000
    await bind(here, [3])
    found = await resync(there.as_peer())
    (reason,) = found.refused.values()
    assert "is dated 3600 s in the future" in reason
    assert (found.sent, found.refused.keys(), found.failure) == (2, {3}, None)
    assert await here.db.read(push_rows.parked, THERE) == [(3, reason)]
    # Once more, it is refused alone, and that is still no failure.
    again = await resync(there.as_peer())
    assert (again.sent, again.refused.keys(), again.failure) == (0, {3}, None)


@pytest_twisted.ensureDeferred
async def test_who_refuses_everything_has_something_against_us(here, there, resync):
    await bind(here, range(5))
    found = await resync(there.as_peer(), keys=ring(HERE, 9))
    assert (found.sent, found.refused) == (0, {})
    assert f"has a wrong signature of {HERE}" in found.failure
    assert await here.db.read(push_rows.parked, THERE) == []


@pytest_twisted.ensureDeferred
async def test_who_does_not_know_us_is_told(here, there, resync):
    await bind(here, [1])
    await there.db.write(peer_rows.remove, HERE)
    found = await resync(there.as_peer())
    assert found.failure == "it was asked what it knows, and answers HTTP 403 M_UNKNOWN_PEER"


# --- other peers ------------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def other(start_peer, here):
    """A peer of another making, that we know."""
    server = await start_peer()
    await here.knows(server.peer())
    await bind(here, range(3))
    yield server


def answers(digests, push=None, statements=None):
    def respond(request):
        behaviours = {DIGESTS_PATH: digests, PUSH_PATH: push, STATEMENTS_PATH: statements}
        behaviours[request.uri.decode()](request)

    return respond


@pytest_twisted.ensureDeferred
async def test_a_sydent_is_sent_everything_again(here, other, resync):
    await acknowledged(here, 3)
    other.behaviour = answers(answer(404, b"<html>No Such Resource</html>"))
    here.now_ms.ms += 1000
    assert await resync(other.peer()) == Resynced(starts_over=True)
    state = await state_of(here)
    assert (state.acknowledged_id, state.since_ts) == (0, START_MS + 1000)


@pytest.mark.parametrize(
    ("digests", "failure"),
    [
        (error(404, "M_UNRECOGNIZED"), "it was asked what it knows, and answers HTTP 404 M_UNRECOGNIZED"),
        (answer(500), "it was asked what it knows, and answers HTTP 500"),
        (close, "it closed the connection before it had answered"),
        (
            answer(200, b"rubbish"),
            "it was asked what it knows, and its answer makes no sense: there are no digests",
        ),
        (
            answer(200, {"digests": {"5": [1, HASH]}}),
            "it was asked what it knows, and its answer makes no sense",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_answers_rubbish_is_sent_nothing(here, other, resync, digests, failure):
    other.behaviour = answers(digests)
    found = await resync(other.peer())
    assert found.failure.startswith(failure)
    assert [sent.target for sent in other.arrivals] == [DIGESTS_PATH]
    assert (await state_of(here)).acknowledged_id == 0


@pytest_twisted.ensureDeferred
async def test_a_push_that_fails_ends_it(other, resync):
    other.behaviour = answers(answer(200, {"digests": {}}), answer(503))
    found = await resync(other.peer())
    assert (found.failure, found.sent) == ("HTTP 503", 0)


@pytest_twisted.ensureDeferred
async def test_who_refuses_one_after_the_other_is_sent_the_rest(here, other, resync):
    def refuse(request):
        request.content.seek(0)
        told = json.loads(request.content.read())["sgAssocs"]
        refused = [each for each in ("2", "3") if each in told][:1]
        failed = {"errcode": "M_VERIFICATION_FAILED", "error": "no", "failed_ids": refused}
        (answer(400, failed) if refused else answer(200, {"success": True}))(request)

    def respond(request):
        (refuse if request.uri.decode() == PUSH_PATH else answer(200, {"digests": {}}))(request)

    other.behaviour = respond
    found = await resync(other.peer())
    assert (found.sent, found.refused) == (1, {2: "no", 3: "no"})
    assert [number for number, _ in await here.db.read(push_rows.parked, THERE)] == [2, 3]


@pytest_twisted.async_yield_fixture
async def holder(start_peer, here):
    """A peer that claims to have the first bind of ours, which we have erased since with another one."""
    server = await start_peer()
    first, second = await here.bind(address(1)), await here.bind(address(2))
    await here.unbind(address(1))
    await here.unbind(address(2))
    await here.knows(server.peer())
    await acknowledged(here, 4)

    def digests(request):
        request.content.seek(0)
        asked = json.loads(request.content.read())
        told = list(statement_rows.digest_of(first)) if asked["size"] == 1 else [1, HASH]
        answer(200, {"digests": {} if asked["after"] else {"0": told}})(request)

    server.digests, server.first, server.second = digests, first.to_json(), second.to_json()
    yield server


OURS = ring(HERE, 1)


@pytest_twisted.ensureDeferred
async def test_an_older_version_cannot_be_asked_for_its_binds(here, holder, resync):
    holder.behaviour = answers(holder.digests, statements=error(404, "M_UNRECOGNIZED"))
    before = contents(here.path)
    assert await resync(holder.peer()) == Resynced(compared=2, erased=2, foreign=1)
    assert contents(here.path) == before


@pytest_twisted.ensureDeferred
async def test_a_bind_is_asked_for_by_its_number(here, holder, resync):
    told = {"sgAssocs": {"1": OURS.sign(holder.first)}}
    holder.behaviour = answers(holder.digests, answer(200, {"success": True}), answer(200, told))
    found = await resync(holder.peer())
    # It says that it takes the unbind, but keeps the bind.
    assert found == Resynced(compared=2, sent=1, erased=1, foreign=1)
    asked = [json.loads(sent.body) for sent in holder.arrivals if sent.target == STATEMENTS_PATH]
    assert asked == [{"ids": ["1"]}]
    (push,) = [json.loads(sent.body) for sent in holder.arrivals if sent.target == PUSH_PATH]
    assert [(number, each["mxid"], each["address"]) for number, each in push["sgAssocs"].items()] == [
        ("3", None, address(1).address)
    ]
    await wait_for_none(here)


@pytest.mark.parametrize("push", [answer(503), close, answer(200, b"rubbish")])
@pytest_twisted.ensureDeferred
async def test_an_unbind_that_cannot_be_pushed_is_kept_for_the_server_to_push(here, holder, resync, push):
    told = {"sgAssocs": {"1": OURS.sign(holder.first)}}
    holder.behaviour = answers(holder.digests, push, answer(200, told))
    assert (await resync(holder.peer())).failure is not None
    assert [number for number, _ in await here.db.read(push_rows.parked, THERE)] == [3]
    # Nobody's acknowledgement of anything else erases it.
    await acknowledged(here, 4)
    state = await state_of(here)
    due = await here.db.read(push_rows.batch, HERE, state, START_MS + 600_000, 500)
    assert [(each.origin_id, each.threepid) for each in due.statements] == [(3, address(1))]


@pytest_twisted.ensureDeferred
async def test_for_a_peer_that_was_removed_meanwhile_nothing_is_kept(here, holder, resync):
    told = {"sgAssocs": {"1": OURS.sign(holder.first)}}
    holder.behaviour = answers(holder.digests, answer(200, {"success": True}), answer(200, told))
    await here.db.write(peer_rows.remove, THERE)
    before = contents(here.path)
    assert (await resync(holder.peer())).foreign == 1
    assert contents(here.path) == before


NONSENSE = "it was asked what it knows, and its answer makes no sense"


def unbound(value):
    return {**value, "mxid": None, "not_before": None, "not_after": None}


@pytest.mark.parametrize(
    ("told", "failure"),
    [
        (lambda _: {}, None),
        (lambda peer: {"1": peer.first}, None),
        (lambda _: {"1": {}}, None),
        (lambda peer: {"1": ring(HERE, 9).sign(peer.first)}, None),
        (lambda peer: {"1": ring(HERE, 1, "9").sign(peer.first)}, None),
        (lambda peer: {"1": ring(THERE, 1).sign(peer.first)}, None),
        (lambda peer: {"1": {**OURS.sign(peer.first), "mxid": BOB}}, None),
        (lambda peer: {"1": OURS.sign({**peer.first, "ts": START_MS - 1})}, None),
        (lambda peer: {"1": OURS.sign(peer.second | {"mxid": BOB})}, None),
        (lambda peer: {"1": OURS.sign(unbound(peer.first))}, None),
        (lambda peer: {"1": OURS.sign({**peer.first, "medium": "pigeon"})}, None),
        (lambda _: {"1": OURS.sign({"server_name": HERE, "ts": START_MS})}, None),
        (lambda peer: {"1": {**peer.first, "signatures": {HERE: {"ed25519:0": "x" * 500_000}}}}, None),
        (lambda peer: {"1": {**OURS.sign(peer.first), "x": json.loads("[" * 500 + "]" * 500)}}, None),
        (lambda peer: {"1": {**OURS.sign(peer.first), "x": 1.5}}, None),
        (lambda peer: {"1": {**OURS.sign(peer.first), "signatures": [HERE]}}, None),
        (lambda peer: {"2": OURS.sign(peer.second)}, f"{NONSENSE}: it has statements that were not asked"),
        (lambda peer: {"1": OURS.sign(peer.first), "9": OURS.sign(peer.second)}, f"{NONSENSE}: it has"),
        (lambda peer: {"01": OURS.sign(peer.first)}, f"{NONSENSE}: it has"),
        *(
            (lambda _, each=each: {"1": each}, f"{NONSENSE}: a statement is none")
            for each in (None, 17, "x", [])
        ),
        *(
            (lambda _, each=each: each, f"{NONSENSE}: there are no statements")
            for each in (None, 17, "1", [])
        ),
        (lambda peer: {"1": {**OURS.sign(peer.first), "x": "x" * 2**20}}, "the answer is too large"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_changes_for_a_peer_that_makes_things_up(here, holder, resync, told, failure):
    body = {"sgAssocs": told(holder)}
    holder.behaviour = answers(holder.digests, answer(200, {"success": True}), answer(200, body))
    before = contents(here.path)
    found = await resync(holder.peer())
    assert contents(here.path) == before
    assert PUSH_PATH not in [sent.target for sent in holder.arrivals]
    if failure is None:
        assert found == Resynced(compared=2, erased=2, foreign=1)
    else:
        assert found.failure.startswith(failure)


@pytest.mark.parametrize("behaviour", [answer(500), answer(404, b"<html>"), close, answer(200, b"[]")])
@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_for_its_binds_is_told(here, holder, resync, behaviour):
    holder.behaviour = answers(holder.digests, statements=behaviour)
    before = contents(here.path)
    assert (await resync(holder.peer())).failure is not None
    assert contents(here.path) == before


# --- what is answered -------------------------------------------------------------------------------------


def test_digests_are_read():
    told = Answer(200, {"digests": {"100": [2, HASH], "300": [100, HASH]}})
    assert read_digests(told, 100, 400, 100) == {100: (2, HASH), 300: (100, HASH)}
    # Numbers that were used twice count twice.
    twice = Answer(200, {"digests": {"7": [2, HASH]}})
    assert read_digests(twice, 7, 8, 1) == {7: (2, HASH)}


@pytest.mark.parametrize(
    "digests",
    [
        None,
        [],
        {"0": [1, HASH]},
        {"400": [1, HASH]},
        {"150": [1, HASH]},
        {"0100": [1, HASH]},
        {"x": [1, HASH]},
        {"100": [0, HASH]},
        {"100": [100_001, HASH]},
        {"100": [True, HASH]},
        {"100": [1.0, HASH]},
        {"100": [1]},
        {"100": [1, HASH, 1]},
        {"100": {"0": 1, "1": HASH}},
        {"100": [1, HASH.upper()]},
        {"100": [1, HASH + "\n"]},
        {"100": [1, None]},
        {str(start): [1, HASH] for start in range(100, 100_300, 100)},
    ],
)
def test_what_was_not_asked_for_is_refused(digests):
    with pytest.raises(ValueError, match="digest"):
        read_digests(Answer(200, {"digests": digests}), 100, 400, 100)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HASH),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["100", "200"]), inner),
)


@given(JSON)
def test_whatever_is_answered_is_read_or_refused(digests):
    try:
        found = read_digests(Answer(200, {"digests": digests}), 100, 400, 100)
    except ValueError:
        return
    assert set(found) <= {100, 200, 300}


@given(JSON | st.integers().map(str))
def test_where_a_peer_goes_on_is_read_or_refused(told):
    try:
        following = read_next(Answer(200, {"digests": {}, "next": told}), 400)
    except ValueError:
        return
    assert following is None if told is None else following == int(told) > 400


def test_who_does_not_tell_where_it_goes_on_is_asked_for_what_follows():
    assert read_next(Answer(200, {"digests": {}}), 400) == 401


@given(JSON)
def test_whatever_is_answered_as_binds_is_read_or_refused(told):
    try:
        found = read_binds(Answer(200, {"sgAssocs": told}), [100, 200])
    except ValueError:
        return
    assert set(found) <= {100, 200}
    assert all(isinstance(each, dict) for each in found.values())
