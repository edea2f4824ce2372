import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import Clock

from sydentish.waiting import Alarm, Recent, SharedWork, cancellable, within


@pytest.fixture
def clock():
    return Clock()


def stubborn(error):
    """A Deferred that answers a cancellation with an error of its own."""
    return Deferred(lambda d: d.errback(error))


async def finished(value):
    return value


async def waiting(deferred):
    return await deferred


@pytest_twisted.ensureDeferred
async def test_cancellable_passes_results_and_errors_on():
    assert await cancellable(succeed(1)) == 1
    with pytest.raises(KeyError):
        await cancellable(fail(KeyError()))


@pytest_twisted.ensureDeferred
async def test_cancellable_says_cancelled_whatever_the_inner_one_says():
    inner = stubborn(KeyError())
    outer = cancellable(inner)
    outer.cancel()
    with pytest.raises(CancelledError):
        await outer
    assert inner.called


@pytest_twisted.ensureDeferred
async def test_within_returns_in_time_and_leaves_nothing_behind(clock):
    assert await within(5, clock, finished(1)) == 1
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_within_cancels_what_takes_too_long(clock):
    inner = stubborn(KeyError())
    result = Deferred.fromCoroutine(within(5, clock, waiting(inner)))
    clock.advance(4.9)
    assert not inner.called
    clock.advance(0.2)
    with pytest.raises(DeferredTimeoutError):
        await result
    assert inner.called


class Work:
    def __init__(self):
        self.started = []

    async def __call__(self):
        self.started.append(Deferred())
        return await self.started[-1]


@pytest_twisted.ensureDeferred
async def test_work_is_shared_while_it_runs_and_done_anew_afterwards():
    shared, work = SharedWork(), Work()
    first = Deferred.fromCoroutine(shared.result("k", work))
    second = Deferred.fromCoroutine(shared.result("k", work))
    other = Deferred.fromCoroutine(shared.result("other", work))
    assert len(work.started) == 2
    work.started[0].callback("result")
    assert (await first, await second, other.called) == ("result", "result", False)
    work.started[1].callback(None)
    third = Deferred.fromCoroutine(shared.result("k", work))
    work.started[2].errback(KeyError())
    with pytest.raises(KeyError):
        await third


@pytest_twisted.ensureDeferred
async def test_work_that_finishes_at_once_is_shared_too():
    shared = SharedWork()
    assert await shared.result("k", lambda: finished(1)) == 1
    assert await shared.result("k", lambda: finished(2)) == 2


@pytest_twisted.ensureDeferred
async def test_one_who_gives_up_does_not_disturb_the_others():
    shared, work = SharedWork(), Work()
    first = Deferred.fromCoroutine(shared.result("k", work))
    second = Deferred.fromCoroutine(shared.result("k", work))
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    work.started[0].callback("result")
    assert await second == "result"


@pytest_twisted.ensureDeferred
async def test_work_that_nobody_waits_for_is_cancelled():
    shared, work = SharedWork(), Work()
    waiters = [Deferred.fromCoroutine(shared.result("k", work)) for _ in range(2)]
    for waiter in waiters:
        waiter.cancel()
        with pytest.raises(CancelledError):
            await waiter
    assert work.started[0].called
    again = Deferred.fromCoroutine(shared.result("k", work))
    work.started[1].callback("new")
    assert await again == "new"


# --- alarms --------------------------------------------------------------------------------------------


@pytest.fixture
def alarm(clock):
    return Alarm(clock)


def ends(alarm, seconds):
    """When a wait has ended, there is something in the list."""
    ended = []
    Deferred.fromCoroutine(alarm.wait(seconds)).addBoth(ended.append)
    return ended


def test_an_alarm_rings_at_its_time(alarm, clock):
    ended = ends(alarm, 5)
    clock.advance(4.9)
    assert not ended
    clock.advance(0.1)
    assert ended == [None]


def test_an_alarm_that_is_rung_leaves_no_timer(alarm, clock):
    ended = ends(alarm, 5)
    alarm.ring()
    assert ended == [None]
    assert not clock.getDelayedCalls()


def test_what_rings_before_the_wait_is_not_lost_until_it_is_set(alarm):
    alarm.ring()
    assert ends(alarm, 5) == ends(alarm, 5) == [None]
    alarm.set()
    assert ends(alarm, 5) == []


def test_a_wait_that_is_cancelled_leaves_no_timer(alarm, clock):
    waiting = Deferred.fromCoroutine(alarm.wait(5))
    ended = []
    waiting.addErrback(ended.append)
    waiting.cancel()
    assert ended[0].check(CancelledError)
    assert not clock.getDelayedCalls()


# --- what many want to know ------------------------------------------------------------------------------


class Oracle:
    """Answers when the test says so."""

    def __init__(self):
        self.asked = []

    async def ask(self):
        answer = Deferred()
        self.asked.append(answer)
        return await answer


@pytest.fixture
def oracle():
    return Oracle()


@pytest.fixture
def recent(oracle, clock):
    return Recent(oracle.ask, clock, keep=10, patience=2)


def asking(recent):
    return Deferred.fromCoroutine(recent.get())


@pytest_twisted.ensureDeferred
async def test_an_answer_is_asked_for_once_and_remembered_for_a_while(oracle, recent, clock):
    first, second = asking(recent), asking(recent)
    assert len(oracle.asked) == 1
    oracle.asked[0].callback(None)
    assert (await first, await second) == (None, None)
    clock.advance(9.9)
    assert await recent.get() is None
    assert len(oracle.asked) == 1
    assert clock.getDelayedCalls() == []
    clock.advance(0.1)
    third = asking(recent)
    oracle.asked[1].callback(3)
    assert await third == 3


@pytest_twisted.ensureDeferred
async def test_an_error_is_remembered_too(oracle, recent, clock):
    first = asking(recent)
    oracle.asked[0].errback(KeyError("gone"))
    for each in (first, asking(recent)):
        with pytest.raises(KeyError):
            await each
    assert len(oracle.asked) == 1
    clock.advance(10)
    later = asking(recent)
    oracle.asked[1].callback(1)
    assert await later == 1


@pytest_twisted.ensureDeferred
async def test_nobody_waits_longer_than_the_patience_and_nothing_piles_up(oracle, recent, clock):
    first = asking(recent)
    clock.advance(1.5)
    second = asking(recent)
    clock.advance(0.5)
    for each in (first, second):
        with pytest.raises(DeferredTimeoutError):
            await each
    for _ in range(100):
        clock.advance(60)
        with pytest.raises(DeferredTimeoutError):
            await recent.get()
    assert len(oracle.asked) == 1
    assert clock.getDelayedCalls() == []
    oracle.asked[0].callback("at last")
    assert await recent.get() == "at last"


@pytest_twisted.ensureDeferred
async def test_an_answer_may_come_at_once(clock):
    async def ask():
        return 1

    recent = Recent(ask, clock, keep=1, patience=1)
    assert [await recent.get(), await recent.get()] == [1, 1]


@pytest_twisted.ensureDeferred
async def test_whoever_gives_up_disturbs_nobody(oracle, recent):
    gone, waiting = asking(recent), asking(recent)
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    oracle.asked[0].callback(1)
    assert await waiting == 1
