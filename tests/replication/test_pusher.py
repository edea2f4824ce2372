"""The pusher at work: a real database, real signatures, and peers that do as the test says."""

import threading

import orjson
import pytest
import pytest_twisted
from replication.mesh import (
    CAROL,
    DOWN,
    HOUR,
    LEASE_MS,
    OURS,
    POLL_SECONDS,
    A,
    AnsweringLink,
    B,
    C,
    HeldLink,
    Mesh,
    RefusingDatabase,
    address,
    peer,
)
from store_tools import SECONDS, START_MS, Watch, WatchedDatabase, rows
from twisted.internet.defer import CancelledError

from sydentish.domain.peers import Accepted, Failed, Refused
from sydentish.domain.statements import Tombstone, read_statement
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows

LEASE_SECONDS = LEASE_MS / 1000


@pytest_twisted.async_yield_fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path / "sydentish.db")
    await mesh.add_peers(A)
    yield mesh
    await mesh.close()
    assert mesh.clock.getDelayedCalls() == []


# --- what is pushed, and when --------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_an_earlier_process_left_is_pushed_at_the_start(mesh):
    await mesh.bind(3)
    link = AnsweringLink()
    mesh.start(link)
    await mesh.settled()
    assert link.ids() == [[1, 2, 3]]
    assert mesh.pushes.seen == [(A, "accepted")]
    assert await mesh.acknowledged() == 3


@pytest_twisted.ensureDeferred
async def test_a_push_is_what_peers_read(mesh):
    await mesh.bind(2)
    await mesh.engine.write(mesh.statements.unbind, address(1), CAROL, START_MS)
    link = AnsweringLink()
    mesh.start(link)
    (pushed,) = await link.arrived.count(1)
    assert list(orjson.loads(pushed.body)) == ["sgAssocs"]
    assert pushed.ids == [1, 3]
    found = []
    for number, signed in pushed.statements.items():
        peer(OURS, mesh.keys).check_signature(signed)
        assert set(signed) == {
            *("medium", "address", "mxid", "ts", "not_before", "not_after"),
            "signatures",
        }
        found.append(read_statement(signed, OURS, int(number)))
    bound, unbound = found
    assert (bound.threepid, bound.mxid, bound.ts) == (address(0), CAROL, START_MS)
    assert unbound == Tombstone(address(1), START_MS + 1, OURS, 3)
    assert pushed.statements["3"]["mxid"] is None


@pytest_twisted.ensureDeferred
async def test_what_is_stated_is_pushed_at_once_when_the_pusher_is_woken(mesh):
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    before = len(link.seen)
    await mesh.bind()
    pusher.wake()
    await link.arrived.count(before + 1)
    assert link.ids()[before:] == [[1]]
    assert mesh.clock.seconds() == START_MS / 1000


@pytest_twisted.ensureDeferred
async def test_what_another_process_stated_is_found_within_seconds(mesh):
    link = AnsweringLink()
    mesh.start(link)
    await mesh.settled()
    before = len(link.seen)
    await mesh.bind()
    await mesh.wait(POLL_SECONDS)
    assert link.ids()[before:] == [[1]]


@pytest_twisted.ensureDeferred
async def test_a_long_backlog_goes_in_batches_in_its_order(mesh):
    await mesh.bind(25)
    link = AnsweringLink()
    mesh.start(link, batch_size=10)
    await mesh.settled()
    await mesh.settled()
    assert link.ids() == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26))]
    assert await mesh.acknowledged() == 25
    assert mesh.clock.seconds() == START_MS / 1000


@pytest_twisted.ensureDeferred
async def test_one_push_is_on_its_way_to_a_peer_at_a_time(mesh):
    await mesh.bind(25)
    link = HeldLink()
    pusher = mesh.start(link, batch_size=10)
    for number, first in enumerate([1, 11, 21], start=1):
        arrived = await link.arrived.count(number)
        assert arrived[-1].ids[0] == first
        pusher.wake()
        pusher.greet()
        await mesh.wait(POLL_SECONDS)
        assert link.waiting == [A]
        link.end(Accepted())


@pytest_twisted.ensureDeferred
async def test_what_is_stated_while_a_push_is_on_its_way_follows_right_after_it(mesh):
    await mesh.bind()
    link = HeldLink()
    pusher = mesh.start(link)
    await link.arrived.count(1)
    await mesh.bind(2)
    pusher.wake()
    await mesh.settled()
    assert link.waiting == [A]
    link.end(Accepted())
    arrived = await link.arrived.count(2)
    assert arrived[1].ids == [2, 3]
    assert mesh.clock.seconds() == START_MS / 1000


@pytest_twisted.ensureDeferred
async def test_a_new_peer_is_brought_up_from_the_beginning_while_others_get_what_is_new(mesh):
    await mesh.bind(3)
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    await mesh.add_peers(B)
    await mesh.bind()
    pusher.wake()
    await mesh.settled()
    assert link.ids(A) == [[1, 2, 3], [4]]
    assert link.ids(B) == [[1, 2, 3, 4]]


@pytest_twisted.ensureDeferred
async def test_what_every_peer_has_acknowledged_is_erased(mesh):
    await mesh.add_peers(B)
    await mesh.bind()
    await mesh.engine.write(mesh.statements.unbind, address(0), CAROL, START_MS)
    link = HeldLink()
    mesh.start(link)
    await link.arrived.count(2)
    link.end(Accepted(), A)
    await mesh.settled()
    assert rows(mesh.path, "SELECT address FROM tombstones") == [(address(0).address,)]
    link.end(Accepted(), B)
    await mesh.settled()
    assert rows(mesh.path, "SELECT address FROM tombstones") == []


# --- what is noted, and what a killed process leaves ---------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_acknowledgement_is_noted_when_it_has_come_and_not_before(mesh):
    await mesh.bind(3)
    link = HeldLink()
    mesh.start(link)
    await link.arrived.count(1)
    assert await mesh.acknowledged() == 0
    assert mesh.leases() == [START_MS + LEASE_MS]
    link.end(Accepted())
    assert await mesh.acknowledged() == 3
    assert (await mesh.state()).last_success_ts == START_MS
    assert mesh.leases() == [0]


@pytest_twisted.ensureDeferred
async def test_what_a_killed_process_had_under_way_is_sent_again_when_its_lease_is_over(mesh):
    await mesh.bind(3)
    # It never hears of what became of its push, as one that was killed.
    killed = HeldLink()
    mesh.start(killed)
    await killed.arrived.count(1)
    link = HeldLink()
    mesh.start(link, db=mesh.open())
    await mesh.wait(LEASE_SECONDS - 0.5)
    assert link.arrived.seen == []
    await mesh.wait(POLL_SECONDS)
    (again,) = await link.arrived.count(1)
    assert again.body == killed.arrived.seen[0].body
    # Whatever the other one would have heard counts no more.
    killed.end(Accepted())
    assert await mesh.acknowledged() == 0
    assert link.waiting == [A]
    link.end(Accepted())
    assert await mesh.acknowledged() == 3
    assert (killed.cancelled, link.cancelled) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_an_acknowledgement_that_cannot_be_noted_means_that_it_is_sent_again(mesh):
    await mesh.bind(3)
    link = HeldLink()
    mesh.start(link)
    await link.arrived.count(1)
    await mesh.settled()
    mesh.db.refuse_writes = 1
    link.end(Accepted())
    assert mesh.db.refuse_writes == 0
    assert await mesh.acknowledged() == 0
    await mesh.wait(LEASE_SECONDS + POLL_SECONDS)
    first, second = link.arrived.seen
    assert first.body == second.body
    link.end(Accepted())
    assert await mesh.acknowledged() == 3


@pytest_twisted.ensureDeferred
async def test_what_starts_over_in_the_middle_of_a_push_begins_with_the_first_again(mesh):
    await mesh.bind(15)
    link = HeldLink()
    mesh.start(link, batch_size=10)
    await link.arrived.count(1)
    link.end(Accepted())
    await link.arrived.count(2)
    await mesh.engine.write(peer_rows.start_over, A, START_MS)
    link.end(Accepted())
    arrived = await link.arrived.count(3)
    assert [pushed.ids[0] for pushed in arrived] == [1, 11, 1]


# --- several peers, and several processes --------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_answer_delays_no_other(mesh):
    await mesh.add_peers(B, C)
    await mesh.bind(25)
    link = HeldLink()
    pusher = mesh.start(link, batch_size=10)
    await link.arrived.count(3)
    for number in range(4, 8):
        link.end(Accepted(), B if number % 2 else C)
        await link.arrived.count(number)
    link.end(Accepted(), B)
    link.end(Accepted(), C)
    assert (await mesh.acknowledged(B), await mesh.acknowledged(C)) == (25, 25)
    await mesh.bind()
    pusher.wake()
    arrived = await link.arrived.count(9)
    assert [pushed.ids for pushed in arrived[7:]] == [[26], [26]]
    assert link.waiting == [A, B, C]
    assert await mesh.acknowledged(A) == 0


@pytest_twisted.ensureDeferred
async def test_a_peer_that_fails_delays_no_other(mesh):
    await mesh.add_peers(B)
    await mesh.bind()
    link = AnsweringLink({A: [DOWN] * 9})
    pusher = mesh.start(link)
    await mesh.settled()
    await mesh.bind()
    pusher.wake()
    await mesh.settled()
    assert link.ids(B) == [[1], [2]]
    assert len(link.ids(A)) == 1


@pytest_twisted.ensureDeferred
async def test_two_processes_never_push_to_one_peer_at_the_same_time(mesh):
    await mesh.add_peers(B)
    await mesh.bind(40)
    link = HeldLink()
    mesh.start(link, batch_size=10)
    mesh.start(link, batch_size=10, db=mesh.open())
    for number in range(8):
        await link.arrived.count(min(8, number + 2))
        for pusher in mesh.pushers:
            pusher.wake()
        await mesh.settled()
        assert len(set(link.waiting)) == len(link.waiting)
        link.end(Accepted())
    for name in (A, B):
        assert await mesh.acknowledged(name) == 40
        sent = [number for pushed in link.arrived.seen if pushed.peer == name for number in pushed.ids]
        assert sent == list(range(1, 41))


# --- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", [-1.0, 0.0, 0.5])
@pytest_twisted.ensureDeferred
async def test_the_back_off_doubles_up_to_half_a_minute_with_jitter(mesh, jitter):
    await mesh.bind()
    link = AnsweringLink({A: [DOWN] * 8})
    mesh.start(link, jitter=jitter)
    await mesh.settled()
    for failures, wait in enumerate([1, 2, 4, 8, 16, 30, 30, 30], start=1):
        state = await mesh.state()
        assert (state.failures, state.failing_since_ts) == (failures, START_MS)
        assert state.retry_ts - state.last_failure_ts == wait * (1000 + 100 * jitter)
        assert state.last_failure == DOWN.reason
        assert mesh.leases() == [0]
        await mesh.wait((state.retry_ts - mesh.clock.now_ms()) / 1000 - 0.1)
        assert len(link.seen) == failures
        await mesh.wait(0.2)
    assert mesh.pushes.seen == [(A, "timeout")] * 8 + [(A, "accepted")]
    state = await mesh.state()
    assert (state.failures, state.failing_since_ts, state.retry_ts) == (0, None, 0)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_has_failed_for_an_hour_is_tried_once_an_hour_at_most(mesh):
    await mesh.bind()
    link = AnsweringLink({A: [DOWN] * 20})
    mesh.start(link)
    for _ in range(10):
        await mesh.jump(30)
    await mesh.jump(HOUR)
    for _ in range(3):
        state = await mesh.state()
        assert state.retry_ts - mesh.clock.now_ms() <= HOUR * 1000
        await mesh.jump(HOUR)
    state = await mesh.state()
    assert state.retry_ts - mesh.clock.now_ms() == HOUR * 1000
    tries = len(link.seen)
    await mesh.jump(HOUR - 1)
    assert len(link.seen) == tries
    await mesh.jump(1)
    assert len(link.seen) == tries + 1


@pytest_twisted.ensureDeferred
async def test_another_process_keeps_to_the_back_off(mesh):
    await mesh.bind()
    link = AnsweringLink({A: [DOWN] * 3})
    pusher = mesh.start(link)
    await mesh.settled()
    await mesh.wait(1)
    await mesh.wait(2)
    await pusher.stopService()
    second = AnsweringLink()
    mesh.start(second, db=mesh.open())
    await mesh.wait(3.9)
    assert second.seen == []
    await mesh.wait(0.1)
    assert second.ids() == [[1]]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_slow_is_sent_less_at_once_and_then_more_again(mesh):
    await mesh.bind(300)
    link = AnsweringLink({A: [DOWN] * 5})
    mesh.start(link, batch_size=80)
    for wait in (0, 1, 2, 4, 8):
        await mesh.wait(wait)
    assert [len(ids) for ids in link.ids()] == [80, 40, 20, 10, 10]
    await mesh.wait(16)
    await mesh.settled()
    assert [len(ids) for ids in link.ids()[5:10]] == [10, 12, 15, 18, 22]
    assert max(len(ids) for ids in link.ids()[10:]) > 40
    assert await mesh.acknowledged() == 300


@pytest.mark.parametrize(
    "outcome",
    [Failed("timeout", "no answer in time"), Failed("too_large", "HTTP 413")],
    ids=["slow", "small"],
)
@pytest_twisted.ensureDeferred
async def test_a_peer_that_never_takes_much_at_once_gets_all_the_same_everything(mesh, outcome):
    class Narrow(AnsweringLink):
        """Takes 30 statements at the most."""

        async def push(self, peer, body):
            answer = await super().push(peer, body)
            return outcome if len(orjson.loads(body)["sgAssocs"]) > 30 else answer

    await mesh.bind(150)
    link = Narrow()
    mesh.start(link, batch_size=100)
    for _ in range(20):
        await mesh.jump(HOUR)
    assert await mesh.acknowledged() == 150
    pushed = [len(ids) for ids in link.ids() if ids]
    assert len([size for size in pushed if size > 30]) < len(pushed) / 2


@pytest_twisted.ensureDeferred
async def test_batches_that_are_small_do_not_grow_by_failures(mesh):
    await mesh.bind(9)
    link = AnsweringLink({A: [DOWN] * 2})
    mesh.start(link, batch_size=3)
    for wait in (0, 1, 2):
        await mesh.wait(wait)
    assert [len(ids) for ids in link.ids()] == [3] * 5


@pytest.mark.parametrize(
    "kind", ["unreachable", "certificate", "timeout", "unknown_peer", "status", "answer"]
)
@pytest_twisted.ensureDeferred
async def test_every_failure_is_told_of_by_its_kind(mesh, kind):
    await mesh.bind()
    mesh.start(AnsweringLink({A: [Failed(kind, f"because of {kind}")]}))
    assert await mesh.pushes.count(1) == [(A, kind)]
    await mesh.settled()
    assert (await mesh.state()).last_failure == f"because of {kind}"


@pytest_twisted.ensureDeferred
async def test_how_long_a_push_took_is_told(mesh):
    await mesh.bind()
    link, told = HeldLink(), Watch()
    mesh.start(link, on_push=lambda *push: told(push))
    await link.arrived.count(1)
    await mesh.settled()
    mesh.clock.advance(2.5)
    link.end(Accepted())
    assert await told.count(1) == [(A, "accepted", 2.5)]


@pytest_twisted.ensureDeferred
async def test_a_link_that_breaks_is_tried_again_when_the_lease_is_over(mesh):
    await mesh.add_peers(B)
    await mesh.bind()
    link = AnsweringLink({A: [RuntimeError("bug")]})
    pusher = mesh.start(link)
    await mesh.settled()
    for _ in range(5):
        pusher.wake()
        await mesh.settled()
    assert (len(link.ids(A)), link.ids(B)) == (1, [[1]])
    await mesh.wait(LEASE_SECONDS - 0.5)
    assert len(link.ids(A)) == 1
    await mesh.wait(POLL_SECONDS)
    assert link.ids(A) == [[1], [1]]
    assert await mesh.acknowledged() == 1


@pytest_twisted.ensureDeferred
async def test_a_link_that_gives_up_by_itself_is_not_asked_without_a_pause(mesh):
    await mesh.bind()
    link = AnsweringLink({A: [CancelledError() for _ in range(20)]})
    mesh.start(link)
    await mesh.settled()
    await mesh.settled()
    assert len(link.seen) == 1


# --- signs of life -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_push_of_a_peer_wakes_what_waits_for_it(mesh):
    await mesh.bind()
    link = AnsweringLink({A: [DOWN] * 8})
    pusher = mesh.start(link)
    await mesh.wait(60)
    tries = len(link.seen)
    link.answers.clear()
    pusher.heard_from(A)
    await link.arrived.count(tries + 1)
    assert await mesh.acknowledged() == 1


@pytest_twisted.ensureDeferred
async def test_a_peer_can_wake_its_pushes_only_now_and_then(mesh):
    await mesh.bind()
    link = AnsweringLink({A: [DOWN] * 100})
    pusher = mesh.start(link)
    for _ in range(8):
        await mesh.jump(30)
    # From here on, its back-off is half a minute.
    tries = len(link.seen)
    await mesh.jump(1)
    pusher.heard_from(A)
    await mesh.settled()
    assert len(link.seen) == tries + 1
    for _ in range(28):
        await mesh.jump(1)
        pusher.heard_from(A)
    await mesh.settled()
    assert len(link.seen) == tries + 1
    # The failure after the wake-up still counts as one of a row: that a peer speaks is no proof.
    assert (await mesh.state()).failures == tries + 1


@pytest_twisted.ensureDeferred
async def test_being_heard_from_costs_nothing_while_there_is_nothing_to_wake(mesh):
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    tries, calls = len(link.seen), mesh.db.reads + mesh.db.writes
    for _ in range(100):
        pusher.heard_from(A)
    await mesh.settled()
    assert (len(link.seen), mesh.db.reads + mesh.db.writes) == (tries, calls)


@pytest_twisted.ensureDeferred
async def test_being_heard_from_never_fails(mesh):
    await mesh.bind()
    link = AnsweringLink({A: [DOWN]})
    pusher = mesh.start(link)
    await mesh.settled()
    mesh.db.refuse_writes = 1
    pusher.heard_from(A)
    pusher.heard_from("nobody.example.org")
    await mesh.wait(1)
    assert link.ids() == [[1], [1]]


# --- refusals ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_a_peer_refuses_by_name_is_parked_and_the_rest_is_sent_at_once(mesh):
    await mesh.bind(6)
    link = AnsweringLink(dislikes={A: {2, 5}})
    mesh.start(link)
    await mesh.settled()
    assert link.ids() == [[1, 2, 3, 4, 5, 6], [1, 3, 4, 6]]
    assert mesh.pushes.seen == [(A, "parked"), (A, "accepted")]
    assert await mesh.acknowledged() == 6
    assert await mesh.engine.read(push_rows.parked, A) == [
        (2, "I do not like them"),
        (5, "I do not like them"),
    ]
    assert (await mesh.state()).failures == 0


@pytest_twisted.ensureDeferred
async def test_what_is_parked_holds_nothing_up_that_comes_later(mesh):
    await mesh.bind(30)
    link = AnsweringLink(dislikes={A: {1, 12, 13, 30}})
    pusher = mesh.start(link, batch_size=10)
    await mesh.settled()
    await mesh.settled()
    await mesh.bind(2)
    pusher.wake()
    await mesh.settled()
    assert await mesh.acknowledged() == 32
    assert await mesh.parked() == [1, 12, 13, 30]
    taken = {number for ids in link.ids() if not set(ids) & {1, 12, 13, 30} for number in ids}
    assert taken == set(range(1, 33)) - {1, 12, 13, 30}


@pytest_twisted.ensureDeferred
async def test_a_peer_that_refuses_everything_is_failing_and_nothing_is_parked(mesh):
    await mesh.bind(3)
    link = AnsweringLink(dislikes={A: {1, 2, 3}})
    mesh.start(link)
    await mesh.settled()
    assert mesh.pushes.seen == [(A, "refused")]
    state = await mesh.state()
    assert (state.failures, state.last_failure, state.acknowledged_id) == (1, "I do not like them", 0)
    assert await mesh.parked() == []
    link.dislikes.clear()
    await mesh.wait(1)
    assert await mesh.acknowledged() == 3


@pytest.mark.parametrize("named", [(), (17, 18)], ids=["none", "others"])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_refuses_what_it_was_not_sent_is_failing(mesh, named):
    await mesh.bind(3)
    mesh.start(AnsweringLink({A: [Refused(frozenset(named), "no")]}))
    assert await mesh.pushes.count(1) == [(A, "refused")]
    assert await mesh.parked() == []
    assert (await mesh.state()).failures == 1


@pytest_twisted.ensureDeferred
async def test_what_is_parked_is_tried_again_and_unparked_when_it_is_taken(mesh):
    await mesh.bind(4)
    link = AnsweringLink(dislikes={A: {2, 3}})
    mesh.start(link)
    await mesh.settled()
    assert [2, 3] not in link.ids()
    link.dislikes.clear()
    await mesh.jump(POLL_SECONDS)
    assert link.ids()[-1] == [2, 3]
    assert await mesh.parked() == []
    assert await mesh.acknowledged() == 4


@pytest_twisted.ensureDeferred
async def test_what_is_refused_again_stays_parked_and_is_tried_less_and_less_often(mesh):
    await mesh.bind(4)
    link = AnsweringLink(dislikes={A: {2, 3}})
    mesh.start(link)
    await mesh.settled()
    link.dislikes[A] = {3}
    await mesh.jump(POLL_SECONDS)
    # That which is taken by now goes without the other.
    assert [ids for ids in link.ids()[2:] if ids] == [[2, 3], [2]]
    assert await mesh.parked() == [3]
    tries = len(link.ids())
    for _ in range(400):
        await mesh.jump(60)
    again = len([ids for ids in link.ids()[tries:] if ids])
    assert 55 < again < 80, "each time it is looked at during an hour, and then each hour"
    assert (await mesh.state()).failures == 0
    assert await mesh.parked() == [3]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_refuses_one_after_the_other_is_left_alone_in_between(mesh):
    class Picky(AnsweringLink):
        """Takes nothing but what is pushed alone."""

        async def push(self, peer, body):
            await super().push(peer, body)
            numbers = sorted(map(int, orjson.loads(body)["sgAssocs"]))
            return Refused(frozenset(numbers[:1]), "no") if len(numbers) > 1 else Accepted()

    await mesh.bind(100)
    link = Picky()
    mesh.start(link)
    for _ in range(4):
        await mesh.settled()
    assert len(link.ids()) < 30
    assert (await mesh.state()).failures == 0
    for _ in range(100):
        await mesh.jump(2)
    assert await mesh.acknowledged() == 100


@pytest_twisted.ensureDeferred
async def test_what_was_superseded_while_it_was_parked_is_forgotten_without_a_push(mesh):
    await mesh.bind(4)
    link = AnsweringLink(dislikes={A: {2}})
    mesh.start(link)
    await mesh.settled()
    await mesh.outdate(1)
    await mesh.jump(HOUR)
    assert all(2 not in ids for ids in link.ids()[1:])
    assert await mesh.parked() == []


@pytest_twisted.ensureDeferred
async def test_a_batch_of_which_all_is_parked_moves_on_without_a_push(mesh):
    await mesh.bind(3)
    link = HeldLink()
    mesh.start(link, batch_size=2)
    await link.arrived.count(1)
    # The other one of the batch is superseded while the peer refuses the first.
    await mesh.outdate(1)
    link.end(Refused(frozenset([1]), "no"))
    arrived = await link.arrived.count(2)
    link.end(Accepted())
    assert [pushed.ids for pushed in arrived] == [[1, 2], [3]]
    assert await mesh.acknowledged() == 3
    assert await mesh.parked() == [1]


@pytest_twisted.ensureDeferred
async def test_what_is_parked_last_of_all_moves_on_without_a_push(mesh):
    await mesh.bind(2)
    link = HeldLink()
    mesh.start(link)
    await link.arrived.count(1)
    await mesh.outdate(1)
    link.end(Refused(frozenset([1]), "no"))
    assert await mesh.acknowledged() == 1
    assert await mesh.parked() == [1]
    assert [pushed.ids for pushed in link.arrived.seen if pushed.ids] == [[1, 2]]


@pytest_twisted.ensureDeferred
async def test_what_moves_on_without_a_push_is_no_success_of_the_peer(mesh):
    await mesh.bind(4)
    link = AnsweringLink({A: [Refused(frozenset([1, 2]), "no"), *[DOWN] * 9]})
    mesh.start(link)
    await mesh.settled()
    for number in (2, 3):
        await mesh.outdate(number)
    await mesh.wait(1)
    assert [ids for ids in link.ids() if ids][:2] == [[1, 2, 3, 4], [3, 4]]
    state = await mesh.state()
    assert state.failures > 0
    assert state.last_success_ts is None


@pytest_twisted.ensureDeferred
async def test_failures_do_not_make_batches_so_small_that_refused_statements_stop_the_rest(mesh):
    await mesh.bind(30)
    refused = set(range(1, 11))
    link = AnsweringLink({A: [DOWN] * 4}, {A: refused})
    mesh.start(link)
    for _ in range(24):
        await mesh.jump(HOUR)
    assert await mesh.acknowledged() == 30
    assert set(await mesh.parked()) == refused


@pytest_twisted.ensureDeferred
async def test_what_was_superseded_is_not_sent(mesh):
    await mesh.bind(3)
    await mesh.rebind(0)
    await mesh.rebind(1)
    link = AnsweringLink()
    mesh.start(link)
    await mesh.settled()
    assert link.ids() == [[3, 4, 5]]
    assert await mesh.acknowledged() == 5


@pytest_twisted.ensureDeferred
async def test_while_something_is_parked_its_address_is_not_erased(mesh):
    await mesh.bind(2)
    await mesh.engine.write(mesh.statements.unbind, address(0), CAROL, START_MS)
    link = AnsweringLink(dislikes={A: {3}})
    mesh.start(link)
    assert await mesh.acknowledged() == 3
    assert rows(mesh.path, "SELECT origin_id FROM tombstones") == [(3,)]
    link.dislikes.clear()
    await mesh.jump(HOUR)
    assert rows(mesh.path, "SELECT origin_id FROM tombstones") == []


# --- greetings and heartbeats --------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_greeting_reaches_every_peer_with_what_there_is_if_only_nothing(mesh):
    await mesh.add_peers(B)
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    # One that was never pushed to is due in any case.
    assert sorted(pushed.peer for pushed in link.seen) == [A, B]
    pusher.greet()
    arrived = await link.arrived.count(4)
    assert sorted((pushed.peer, pushed.body) for pushed in arrived[2:]) == [
        (A, b'{"sgAssocs":{}}'),
        (B, b'{"sgAssocs":{}}'),
    ]
    await mesh.settled()
    assert len(link.seen) == 4


@pytest_twisted.ensureDeferred
async def test_a_greeting_before_the_start_is_not_lost(mesh):
    link = AnsweringLink()
    first = mesh.start(link)
    await mesh.settled()
    await first.stopService()
    second = mesh.start(link)
    second.greet()
    await mesh.settled()
    assert link.ids() == [[], []]


@pytest_twisted.ensureDeferred
async def test_a_greeting_is_not_lost_when_the_database_is_busy(mesh):
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    mesh.db.refuse_reads = 1
    pusher.greet()
    await mesh.wait(2 * POLL_SECONDS)
    assert link.ids() == [[], []]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_has_acknowledged_nothing_for_ten_minutes_is_sent_an_empty_push(mesh):
    link = AnsweringLink({A: [Accepted(), DOWN]})
    mesh.start(link)
    await mesh.settled()
    await mesh.jump(599)
    assert link.ids() == [[]]
    await mesh.jump(POLL_SECONDS)
    assert link.ids() == [[], []]
    assert (await mesh.state()).failures == 1
    await mesh.wait(1)
    assert link.ids() == [[], [], []]
    assert (await mesh.state()).last_success_ts == mesh.clock.now_ms()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_gets_statements_gets_no_heartbeats(mesh):
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    await mesh.jump(300)
    await mesh.bind()
    pusher.wake()
    await mesh.jump(300)
    await mesh.jump(299)
    assert link.ids() == [[], [1]]


@pytest_twisted.ensureDeferred
async def test_a_clock_that_was_set_back_keeps_nothing_from_being_pushed(mesh):
    await mesh.bind()
    mesh.start(AnsweringLink({A: [Accepted(), DOWN]}))
    await mesh.settled()
    await mesh.bind()
    year = 365 * 24 * 3_600_000
    await mesh.engine.write(
        lambda tx: tx.run(
            "UPDATE peers SET retry_ts = ?, lease_until_ts = ?, last_success_ts = ?",
            (START_MS + year,) * 3,
        )
    )
    await mesh.wait(POLL_SECONDS + 1)
    assert await mesh.acknowledged() == 2


# --- peers that get nothing ----------------------------------------------------------------------------


async def pause(mesh):
    await mesh.engine.write(peer_rows.pause, A, paused=True)


async def forget(mesh):
    await mesh.engine.write(lambda tx: tx.run("UPDATE peers SET source = 'gone' WHERE name = ?", (A,)))


async def remove(mesh):
    await mesh.engine.write(peer_rows.remove, A)


LEAVINGS = pytest.mark.parametrize("leave", [pause, forget, remove])


@LEAVINGS
@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_left_alone_gets_nothing(mesh, leave):
    await mesh.add_peers(B)
    await leave(mesh)
    await mesh.bind()
    link = AnsweringLink()
    pusher = mesh.start(link)
    await mesh.settled()
    pusher.greet()
    pusher.heard_from(A)
    await mesh.jump(601)
    await mesh.jump(HOUR)
    assert link.ids(A) == []
    assert link.ids(B)[0] == [1]


@LEAVINGS
@pytest.mark.parametrize("outcome", [Accepted(), DOWN, Refused(frozenset([1]), "no")])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_left_alone_in_the_middle_of_catching_up_gets_nothing_more(mesh, leave, outcome):
    await mesh.bind(25)
    link = HeldLink()
    pusher = mesh.start(link, batch_size=10)
    await link.arrived.count(1)
    await leave(mesh)
    link.end(outcome)
    await mesh.settled()
    pusher.wake()
    await mesh.jump(HOUR + 1)
    assert len(link.arrived.seen) == 1
    state = await mesh.state()
    assert state is None or state.acknowledged_id == (10 if outcome == Accepted() else 0)
    assert rows(mesh.path, "SELECT * FROM parked_statements WHERE peer NOT IN (SELECT name FROM peers)") == []


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_resumed_goes_on_where_it_was(mesh):
    await mesh.bind(25)
    link = HeldLink()
    mesh.start(link, batch_size=10)
    await link.arrived.count(1)
    await pause(mesh)
    link.end(DOWN)
    await mesh.jump(HOUR)
    await mesh.engine.write(peer_rows.pause, A, paused=False)
    await mesh.wait(POLL_SECONDS)
    arrived = await link.arrived.count(2)
    assert arrived[1].ids == list(range(1, 11))


@pytest_twisted.ensureDeferred
async def test_a_peer_that_was_removed_and_added_in_the_middle_of_a_push_begins_anew(mesh):
    await mesh.bind(3)
    link = HeldLink()
    mesh.start(link)
    await link.arrived.count(1)
    await remove(mesh)
    await mesh.add_peers(A)
    link.end(Accepted())
    arrived = await link.arrived.count(2)
    assert arrived[1].ids == [1, 2, 3]
    assert await mesh.acknowledged() == 0


# --- stopping ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_stopping_breaks_off_what_is_on_its_way_and_gives_the_peers_back(mesh):
    await mesh.add_peers(B)
    await mesh.bind(25)
    link = HeldLink()
    pusher = mesh.start(link, batch_size=10)
    await link.arrived.count(2)
    await pusher.stopService()
    assert (link.cancelled, link.held) == (2, [])
    assert mesh.clock.getDelayedCalls() == []
    assert mesh.pushes.seen == []
    assert mesh.leases() == [0, 0]
    second = AnsweringLink()
    mesh.start(second)
    await second.arrived.count(2)
    assert await mesh.acknowledged() == 25


@pytest_twisted.ensureDeferred
async def test_a_pusher_that_waits_stops_at_once_and_then_does_nothing_more(mesh):
    pusher = mesh.start(AnsweringLink({A: [DOWN]}))
    await mesh.settled()
    await pusher.stopService()
    assert mesh.clock.getDelayedCalls() == []
    calls = mesh.db.reads + mesh.db.writes
    pusher.wake()
    pusher.greet()
    pusher.heard_from(A)
    await mesh.settled()
    assert mesh.db.reads + mesh.db.writes == calls


@pytest_twisted.ensureDeferred
async def test_a_pusher_that_never_started_stops(mesh):
    pusher = mesh.start(AnsweringLink())
    await pusher.stopService()
    await pusher.stopService()


@pytest_twisted.ensureDeferred
async def test_a_pusher_that_stops_when_it_is_catching_up_leaves_the_rest(mesh):
    await mesh.bind(25)
    link = HeldLink()
    pusher = mesh.start(link, batch_size=10)
    await link.arrived.count(1)
    link.end(Accepted())
    await pusher.stopService()
    assert link.held == []
    assert mesh.leases() == [0]
    assert await mesh.acknowledged() in {0, 10}


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_by_a_pusher_that_stops_before_it_could(mesh, call):
    await mesh.bind()
    go, asked = threading.Event(), Watch()
    held = []

    class Slow(WatchedDatabase):
        """Its call of that number has to wait until the test lets it go."""

        def write(self, fn, *args, **kwargs):
            return self._noted(self._db.write, super().write, fn, *args, **kwargs)

        def read(self, fn, *args, **kwargs):
            return self._noted(self._db.read, super().read, fn, *args, **kwargs)

        def _noted(self, occupy, ask, fn, *args, **kwargs):
            if self.reads + self.writes + 1 == call:
                held.append(occupy(lambda _tx: go.wait(SECONDS)))
            reply = ask(fn, *args, **kwargs)
            asked(fn)
            return reply

    link = AnsweringLink()
    pusher = mesh.start(link, db=Slow(mesh.engine))
    await asked.count(call)
    stopped = pusher.stopService()
    go.set()
    await stopped
    assert link.seen == []
    assert mesh.leases() == [0]
    for reply in held:
        await reply


# --- a database that is busy ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 11))
@pytest_twisted.ensureDeferred
async def test_a_database_that_is_busy_in_one_step_only_delays(mesh, number):
    await mesh.bind(15)
    link = AnsweringLink()
    mesh.start(link, batch_size=10, db=RefusingDatabase(mesh.engine, lambda call: call == number))
    await mesh.wait(LEASE_SECONDS + 2 * POLL_SECONDS)
    assert await mesh.acknowledged() == 15
    assert [ids for ids in link.ids() if ids][-1] == list(range(11, 16))


@pytest.mark.parametrize("number", range(3, 9))
@pytest_twisted.ensureDeferred
async def test_a_database_that_is_busy_while_a_failure_is_noted_only_delays(mesh, number):
    await mesh.bind(4)
    link = AnsweringLink({A: [DOWN, Refused(frozenset([1]), "no")]})
    mesh.start(link, db=RefusingDatabase(mesh.engine, lambda call: call == number))
    await mesh.wait(LEASE_SECONDS + 3 * POLL_SECONDS)
    assert await mesh.acknowledged() == 4


@pytest.mark.parametrize("number", range(1, 9))
@pytest_twisted.ensureDeferred
async def test_a_database_that_stays_busy_is_asked_now_and_then(mesh, number):
    await mesh.add_peers(B, C)
    await mesh.bind(15)
    link = AnsweringLink()
    db = RefusingDatabase(mesh.engine, lambda call: call >= number)
    mesh.start(link, batch_size=10, db=db)
    await mesh.settled()
    before, polls = db.calls, 12
    await mesh.wait(polls * POLL_SECONDS)
    assert db.calls - before <= 2 * polls
    db.busy_at = lambda _call: False
    await mesh.wait(LEASE_SECONDS + POLL_SECONDS)
    for name in (A, B, C):
        assert await mesh.acknowledged(name) == 15


@pytest_twisted.ensureDeferred
async def test_a_database_to_which_nothing_can_be_written_is_not_written_to_again_and_again(mesh):
    await mesh.add_peers(B)
    await mesh.bind(15)
    link = AnsweringLink()
    pusher = mesh.start(link, batch_size=10)
    mesh.db.refuse_writes = 1000
    await mesh.settled()
    polls = 12
    for _ in range(polls):
        await mesh.wait(POLL_SECONDS)
        pusher.heard_from(A)
    assert 1000 - mesh.db.refuse_writes <= 2 * (polls + 2) + 3
    assert link.seen == [] or len(link.seen) <= 2
    mesh.db.refuse_writes = 0
    await mesh.wait(LEASE_SECONDS + POLL_SECONDS)
    assert (await mesh.acknowledged(A), await mesh.acknowledged(B)) == (15, 15)


@pytest_twisted.ensureDeferred
async def test_while_there_is_nothing_to_do_the_database_has_rest(mesh):
    await mesh.add_peers(B, C)
    await mesh.bind(3)
    await pause(mesh)
    link = AnsweringLink({B: [DOWN] * 100})
    mesh.start(link)
    await mesh.wait(60)
    before, tries = mesh.db.reads + mesh.db.writes, len(link.seen)
    await mesh.wait(60)
    # Two reads each time that it looks; three calls more, and a look, for each of the pushes that fail.
    looks, pushed = 60 / POLL_SECONDS, len(link.seen) - tries
    assert pushed <= 2
    assert mesh.db.reads + mesh.db.writes - before <= 2 * (looks + 1) + (3 + 2 + 2) * pushed
