"""The outbox at work."""

import threading

import pytest
import pytest_twisted
from fixtures import DAY_MS, ScriptedDeliverer
from store_tools import SECONDS, START_MS, HeldDeliverer, Watch, WatchedClock, WatchedDatabase, rows
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from sydentish.actions.outbox import ONBIND, OutboxWorker
from sydentish.actions.ports import Delivered, NotDelivered
from sydentish.store import outbox as outbox_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase

DOWN = NotDelivered("timed out", permanent=False)
REFUSED = NotDelivered("HTTP 403", permanent=True)
LEASE_MS = 15_000
A, B, C = "a.example.org", "b.example.org", "c.example.org"


class Post:
    """A database and workers on it, which share a clock."""

    def __init__(self, path):
        migrate_sqlite(path, 5000, START_MS, shipped_steps())
        self.path = path
        self.clock = WatchedClock(START_MS / 1000)
        self.results = Watch()
        self.workers = []
        self.count = 0
        self.open()

    def open(self):
        self.engine = SqliteDatabase(self.path, reactor, readers=1, max_queue=1000, busy_timeout_ms=5000)
        self.engine.startService()
        self.db = WatchedDatabase(self.engine)

    async def add(self, destination=A, *, key=None, created_ts=None):
        self.count += 1
        await self.db.write(
            outbox_rows.add,
            kind=ONBIND,
            destination=destination,
            idempotency_key=key or f"key {self.count}",
            payload=f"payload {self.count}",
            now_ms=self.clock.now_ms() if created_ts is None else created_ts,
        )

    def start(self, deliverer, *, max_in_flight=10, keeps_payload=True):
        worker = OutboxWorker(
            db=self.db,
            kind=ONBIND,
            deliverer=deliverer,
            clock=self.clock,
            max_in_flight=max_in_flight,
            lease_ms=LEASE_MS,
            retry_for_ms=14 * DAY_MS,
            keeps_payload=keeps_payload,
            now_ms=self.clock.now_ms,
            jitter=lambda: 0.0,
            on_result=self.results,
        )
        worker.startService()
        self.workers.append(worker)
        return worker

    async def wait(self, seconds):
        """Lets time pass, in the steps in which the worker looks."""
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 1e-6:
            self.clock.advance(min(left, await self.clock.armed()) or 0.001)
        await self.clock.armed()

    async def close(self):
        for worker in self.workers:
            if worker.running:
                await worker.stopService()
        if self.engine.running:
            await self.engine.stopService()

    async def restart(self):
        await self.close()
        self.open()

    def pending(self):
        return rows(
            self.path, "SELECT attempts, due_ts FROM outbox WHERE state = 'pending' ORDER BY outbox_id"
        )


@pytest_twisted.async_yield_fixture
async def post(tmp_path):
    post = Post(tmp_path / "sydentish.db")
    yield post
    await post.close()
    assert post.clock.getDelayedCalls() == []


def payloads(deliverer):
    return [delivery.payload for delivery in deliverer.seen]


@pytest_twisted.ensureDeferred
async def test_what_an_earlier_process_left_is_delivered_and_then_gone(post):
    await post.add()
    await post.add(B)
    deliverer = ScriptedDeliverer()
    post.start(deliverer)
    assert await post.results.count(2) == ["delivered"] * 2
    assert sorted(payloads(deliverer)) == ["payload 1", "payload 2"]
    assert rows(post.path, "SELECT * FROM outbox") == []


@pytest_twisted.ensureDeferred
async def test_what_is_added_is_delivered_at_once_when_the_worker_is_woken(post):
    deliverer = ScriptedDeliverer()
    worker = post.start(deliverer)
    assert await post.clock.armed() == pytest.approx(5)
    await post.add()
    worker.wake()
    assert await post.results.count(1) == ["delivered"]


@pytest_twisted.ensureDeferred
async def test_what_another_process_added_is_found_within_seconds(post):
    post.start(ScriptedDeliverer())
    await post.clock.armed()
    await post.add()
    await post.wait(5)
    assert await post.results.count(1) == ["delivered"]


@pytest_twisted.ensureDeferred
async def test_what_fails_is_tried_again_after_its_back_off(post):
    await post.add()
    deliverer = ScriptedDeliverer({A: [DOWN, DOWN, DOWN]})
    post.start(deliverer)
    for number, wait in enumerate([1, 2, 4], start=1):
        await post.results.count(number)
        assert post.pending() == [(number, post.clock.now_ms() + wait * 1000)]
        assert await post.clock.armed() == pytest.approx(wait)
        post.clock.advance(wait)
    assert await post.results.count(4) == ["retry", "retry", "retry", "delivered"]
    assert [delivery.attempts for delivery in deliverer.seen] == [0, 1, 2, 3]


@pytest_twisted.ensureDeferred
async def test_the_back_off_survives_a_restart(post):
    await post.add()
    deliverer = ScriptedDeliverer({A: [DOWN, DOWN]})
    post.start(deliverer)
    await post.results.count(1)
    await post.wait(1)
    await post.results.count(2)
    await post.restart()
    post.start(deliverer)
    assert await post.clock.armed() == pytest.approx(2)
    assert len(deliverer.seen) == 2
    post.clock.advance(2)
    assert (await post.results.count(3))[-1] == "delivered"
    assert deliverer.seen[-1].attempts == 2


@pytest_twisted.ensureDeferred
async def test_what_is_refused_for_good_is_dead_at_once_and_stays_listed(post):
    await post.add()
    await post.add()
    deliverer = ScriptedDeliverer({A: [REFUSED]})
    post.start(deliverer)
    assert await post.results.count(2) == ["dead", "delivered"]
    assert rows(post.path, "SELECT state, last_error, payload FROM outbox") == [
        ("dead", "HTTP 403", "payload 1")
    ]


@pytest.mark.parametrize(("age", "result"), [(14 * DAY_MS - 1, "retry"), (14 * DAY_MS, "dead")])
@pytest_twisted.ensureDeferred
async def test_what_has_become_too_old_is_dead(post, age, result):
    await post.add(created_ts=START_MS - age)
    post.start(ScriptedDeliverer({A: [DOWN]}))
    assert await post.results.count(1) == [result]


@pytest_twisted.ensureDeferred
async def test_one_thing_is_in_flight_for_a_destination_and_others_are_not_held_up(post):
    for destination in (A, A, A, B, C):
        await post.add(destination)
    deliverer = HeldDeliverer()
    post.start(deliverer)
    arrived = await deliverer.arrived.count(3)
    assert sorted(delivery.destination for delivery in arrived) == [A, B, C]
    deliverer.end(Delivered(), B)
    deliverer.end(Delivered(), C)
    await post.results.count(2)
    await post.clock.armed()
    assert [delivery.payload for delivery, _ in deliverer.held] == ["payload 1"]
    for number in (4, 5):
        deliverer.end(Delivered(), A)
        arrived = await deliverer.arrived.count(number)
    deliverer.end(Delivered(), A)
    await post.results.count(5)
    assert [d.payload for d in arrived if d.destination == A] == ["payload 1", "payload 2", "payload 3"]


@pytest_twisted.ensureDeferred
async def test_two_workers_share_the_work(post):
    for destination in (A, A, B, B):
        await post.add(destination)
    deliverer = HeldDeliverer()
    post.start(deliverer)
    post.start(deliverer)
    assert {delivery.destination for delivery in await deliverer.arrived.count(2)} == {A, B}
    await post.clock.armed()
    assert len(deliverer.held) == 2
    for number in range(4):
        await deliverer.arrived.count(number + 1)
        deliverer.end(Delivered())
        await post.results.count(number + 1)
        for worker in post.workers:
            worker.wake()
    assert sorted(delivery.outbox_id for delivery in deliverer.arrived.seen) == [1, 2, 3, 4]


@pytest_twisted.ensureDeferred
async def test_one_row_that_always_fails_does_not_hold_up_the_others_of_its_destination(post):
    for _ in range(3):
        await post.add()
    deliverer = ScriptedDeliverer({A: [DOWN]})
    post.start(deliverer)
    await post.results.count(1)
    deliverer.answers[A] = [Delivered(), Delivered(), DOWN]
    await post.wait(1)
    assert await post.results.count(4) == ["retry", "delivered", "delivered", "retry"]
    assert payloads(deliverer) == ["payload 1", "payload 2", "payload 3", "payload 1"]


@pytest_twisted.ensureDeferred
async def test_what_a_dead_process_had_leased_is_delivered_when_the_lease_is_over(post):
    await post.add()
    await post.db.write(outbox_rows.lease, ONBIND, START_MS, LEASE_MS, 10, failing=False)
    deliverer = ScriptedDeliverer()
    post.start(deliverer)
    await post.wait(LEASE_MS / 1000 - 0.5)
    assert deliverer.seen == []
    await post.wait(0.5)
    assert await post.results.count(1) == ["delivered"]


@pytest_twisted.ensureDeferred
async def test_stopping_breaks_off_what_is_in_flight_and_gives_it_back(post):
    await post.add()
    await post.add(B)
    deliverer = HeldDeliverer()
    worker = post.start(deliverer)
    await deliverer.arrived.count(2)
    await worker.stopService()
    assert deliverer.cancelled == 2
    assert post.clock.getDelayedCalls() == []
    assert post.results.seen == []
    assert post.pending() == [(0, START_MS), (0, START_MS)]
    assert rows(post.path, "SELECT lease_until_ts FROM outbox_destinations") == [(0,), (0,)]
    post.start(ScriptedDeliverer())
    assert await post.results.count(2) == ["delivered"] * 2


@pytest_twisted.ensureDeferred
async def test_what_is_leased_while_it_stops_is_given_back(post):
    await post.add()
    deliverer = ScriptedDeliverer()
    inside, go = threading.Event(), threading.Event()
    leasing = Watch()

    class Slow(WatchedDatabase):
        def write(self, fn, *args, **kwargs):
            reply = super().write(fn, *args, **kwargs)
            leasing(fn)
            return reply

    post.db = Slow(post.engine)

    def hold(_tx):
        inside.set()
        assert go.wait(SECONDS)

    held = post.engine.write(hold)
    assert inside.wait(SECONDS)
    worker = post.start(deliverer)
    assert [fn.__name__ for fn in await leasing.count(1)] == ["_lease"]
    stopped = worker.stopService()
    go.set()
    await held
    await stopped
    assert deliverer.seen == []
    assert rows(post.path, "SELECT lease_until_ts FROM outbox_destinations") == [(0,)]


@pytest_twisted.ensureDeferred
async def test_stopping_a_worker_that_waits_leaves_nothing_behind(post):
    worker = post.start(ScriptedDeliverer())
    await post.clock.armed()
    await worker.stopService()
    assert post.clock.getDelayedCalls() == []
    worker.wake()
    worker.heard_from(A)
    assert post.db.writes == 1


@pytest.mark.parametrize("error", [RuntimeError("bug"), CancelledError()])
@pytest_twisted.ensureDeferred
async def test_a_deliverer_that_raises_is_asked_again_when_the_lease_is_over(post, error):
    await post.add()
    await post.add(B)
    deliverer = HeldDeliverer()
    post.start(deliverer)
    await deliverer.arrived.count(2)
    deliverer.end(error, A)
    deliverer.end(Delivered(), B)
    assert await post.results.count(1) == ["delivered"]
    await post.wait(LEASE_MS / 1000 - 0.5)
    assert deliverer.held == []
    await post.wait(0.5)
    await deliverer.arrived.count(3)
    deliverer.end(Delivered(), A)
    await post.results.count(2)


@pytest_twisted.ensureDeferred
async def test_a_verdict_that_cannot_be_stored_means_that_it_is_delivered_again(post):
    await post.add()
    deliverer = HeldDeliverer()
    post.start(deliverer)
    await deliverer.arrived.count(1)
    await post.clock.armed()
    post.db.refuse_writes = 2  # the verdict, and the next look
    deliverer.end(Delivered())
    assert post.db.refuse_writes == 0
    assert post.results.seen == []
    await post.wait(LEASE_MS / 1000)
    first, second = await deliverer.arrived.count(2)
    assert first == second
    deliverer.end(Delivered())
    assert await post.results.count(1) == ["delivered"]
    assert post.pending() == []


@pytest.mark.parametrize("refused", ["refuse_reads", "refuse_writes"])
@pytest_twisted.ensureDeferred
async def test_a_database_that_is_busy_at_first_does_not_end_the_work(post, refused):
    await post.add()
    setattr(post.db, refused, 3)
    post.start(ScriptedDeliverer())
    await post.wait(15)
    assert await post.results.count(1) == ["delivered"]


@pytest_twisted.ensureDeferred
async def test_while_all_hands_are_full_it_waits_for_one_to_be_free(post):
    for destination in (A, B, C):
        await post.add(destination)
    deliverer = HeldDeliverer()
    post.start(deliverer, max_in_flight=1)
    for number in range(3):
        await deliverer.arrived.count(number + 1)
        assert len(deliverer.held) == 1
        # Something is due, and yet it does not look again and again.
        assert await post.clock.armed() == pytest.approx(5)
        deliverer.end(Delivered())
    await post.results.count(3)


# --- signs of life -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_wakes_what_waits_for_a_destination(post):
    await post.add()
    await post.add()
    deliverer = ScriptedDeliverer({A: [DOWN] * 12})
    worker = post.start(deliverer)
    await post.results.count(1)
    await post.wait(100)
    tries = len(deliverer.seen)
    deliverer.answers.clear()
    worker.heard_from(A)
    results = await post.results.count(tries + 2)
    assert results[tries:] == ["delivered", "delivered"]


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_wakes_what_an_earlier_process_could_not_deliver(post):
    await post.add()
    deliverer = ScriptedDeliverer({A: [DOWN]})
    post.start(deliverer)
    await post.results.count(1)
    await post.restart()
    worker = post.start(deliverer)
    await post.clock.armed()
    worker.heard_from(A)
    assert await post.results.count(2) == ["retry", "delivered"]


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_of_others_costs_nothing(post):
    await post.add()
    worker = post.start(ScriptedDeliverer({A: [DOWN]}))
    await post.results.count(1)
    await post.clock.armed()
    before = (post.db.reads, post.db.writes)
    for server_name in (B, "", "x" * 10_000):
        worker.heard_from(server_name)
    assert (post.db.reads, post.db.writes) == before


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_that_cannot_be_stored_never_fails(post):
    await post.add()
    worker = post.start(ScriptedDeliverer({A: [DOWN]}))
    await post.results.count(1)
    await post.clock.armed()
    post.db.refuse_writes = 1
    worker.heard_from(A)
    await post.wait(1)
    assert await post.results.count(2) == ["retry", "delivered"]


@pytest_twisted.ensureDeferred
async def test_what_worked_is_told_to_the_deliverer_the_next_time(post):
    deliverer = ScriptedDeliverer({A: [Delivered("PUT"), DOWN, Delivered("POST")]})
    for _ in range(4):
        await post.add()
    post.start(deliverer)
    await post.results.count(2)
    await post.wait(1)
    await post.results.count(5)
    assert [delivery.method for delivery in deliverer.seen] == [None, "PUT", "PUT", "POST", "POST"]


@pytest_twisted.ensureDeferred
async def test_destinations_that_do_not_answer_take_half_of_the_slots_at_most(post):
    silent = [f"silent{number}.example.org" for number in range(4)]
    for destination in silent:
        await post.add(destination)
    deliverer = ScriptedDeliverer(answers={destination: [DOWN] for destination in silent})
    post.start(deliverer, max_in_flight=4)
    assert await post.results.count(4) == ["retry"] * 4
    held = deliverer.hold = Deferred()
    await post.wait(1)
    assert sorted(delivery.destination for delivery in deliverer.seen[4:]) == silent[:2]
    # The other two are due and find no slot, and yet it does not look again and again.
    assert await post.clock.armed() == pytest.approx(5)
    await post.add(A)
    await post.wait(5)
    assert [delivery.destination for delivery in deliverer.seen[6:]] == [A]
    held.callback(None)


@pytest_twisted.ensureDeferred
async def test_signs_of_life_cannot_turn_the_back_off_into_a_flood(post):
    await post.add(A)
    deliverer = ScriptedDeliverer(answers={A: [DOWN] * 50})
    worker = post.start(deliverer)
    await post.results.count(1)
    for _ in range(100):
        worker.heard_from(A)
        await post.wait(0.05)
    # One at once, and what the back-off has in five seconds.
    assert len(deliverer.seen) <= 5


# --- what an operator can try again --------------------------------------------------------------------


@pytest.mark.parametrize(("keeps", "payload"), [(True, "payload 1"), (False, "")])
@pytest.mark.parametrize(("result", "age"), [(REFUSED, 0), (DOWN, 14 * DAY_MS)], ids=["refused", "too old"])
@pytest_twisted.ensureDeferred
async def test_what_was_given_up_keeps_what_it_says_only_where_it_may(post, keeps, payload, result, age):
    await post.add(created_ts=START_MS - age)
    post.start(ScriptedDeliverer({A: [result]}), keeps_payload=keeps)
    assert await post.results.count(1) == ["dead"]
    assert rows(post.path, "SELECT state, payload FROM outbox") == [("dead", payload)]


@pytest_twisted.ensureDeferred
async def test_what_will_be_tried_again_keeps_what_it_says(post):
    await post.add()
    post.start(ScriptedDeliverer({A: [DOWN]}), keeps_payload=False)
    assert await post.results.count(1) == ["retry"]
    assert rows(post.path, "SELECT state, payload FROM outbox") == [("pending", "payload 1")]


@pytest.mark.parametrize("result", [Delivered(), DOWN, REFUSED])
@pytest_twisted.ensureDeferred
async def test_what_is_withdrawn_on_its_way_ends_well_and_the_next_one_goes(post, result):
    await post.add(key="withdrawn")
    await post.add()
    deliverer = HeldDeliverer()
    post.start(deliverer)
    await deliverer.arrived.count(1)

    def withdraw(tx):
        for number in outbox_rows.rows_of(tx, "withdrawn"):
            outbox_rows.withdraw(tx, number)

    await post.db.write(withdraw)
    deliverer.end(result)
    await post.results.count(1)
    await post.wait(2)
    arrived = await deliverer.arrived.count(2)
    assert [delivery.payload for delivery in arrived] == ["payload 1", "payload 2"]
    deliverer.end(Delivered())
    assert (await post.results.count(2))[-1] == "delivered"
    assert rows(post.path, "SELECT * FROM outbox") == []


@pytest_twisted.ensureDeferred
async def test_what_a_destination_will_not_have_now_holds_nothing_else_up(post):
    for _ in range(3):
        await post.add()
    later = NotDelivered("450 greylisted", permanent=False, destination_is_well=True)
    deliverer = ScriptedDeliverer({A: [later]})
    worker = post.start(deliverer)
    # All at once, without a moment's wait, and a sign of life has nothing to wake.
    assert await post.results.count(3) == ["retry", "delivered", "delivered"]
    await post.clock.armed()
    writes = post.db.writes
    worker.heard_from(A)
    assert post.db.writes == writes
    await post.wait(1)
    assert (await post.results.count(4))[-1] == "delivered"
    assert payloads(deliverer) == ["payload 1", "payload 2", "payload 3", "payload 1"]
