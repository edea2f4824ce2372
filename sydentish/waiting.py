"""Waiting with a bound: deadlines, dependable cancellation, alarms, and one wait shared by many."""

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def cancellable(inner: Deferred[T]) -> Deferred[T]:
    """A Deferred for the same result which, when cancelled, always fails with `CancelledError`.

    Some parts of Twisted answer a cancellation with an error of their own (a host name endpoint says that
    the name cannot be found); who waits for them could take that for an answer and go on.
    """
    cancelled = False

    def cancel(_: Deferred[T]) -> None:
        nonlocal cancelled
        cancelled = True
        inner.cancel()

    def succeed(result: T) -> None:
        if not cancelled:
            outer.callback(result)

    def fail(failure: Failure) -> None:
        if not cancelled:
            outer.errback(failure)

    outer: Deferred[T] = Deferred(cancel)
    inner.addCallbacks(succeed, fail)
    return outer


async def within(seconds: float, clock: IReactorTime, work: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of `work`, which is cancelled when it takes longer than `seconds`.

    Raises:
        twisted.internet.defer.TimeoutError: when it took too long, however `work` reacts to that.
    """
    return await cancellable(Deferred.fromCoroutine(work)).addTimeout(seconds, clock)


class Alarm:
    """Waiting for a time, or for somebody who says that there is something to do before it.

    Args:
        clock: what time is waited by.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._rung = False
        self._sleep: Deferred[None] | None = None

    def ring(self) -> None:
        """There is something to do: ends the wait, or the next one before it begins."""
        self._rung = True
        if self._sleep is not None:
            sleep, self._sleep = self._sleep, None
            sleep.callback(None)

    def set(self) -> None:
        """Forgets what has rung: it is looked after now."""
        self._rung = False

    async def wait(self, seconds: float) -> None:
        """Returns after some seconds; at once when it has rung since it was set, or does so now."""
        if self._rung:
            return
        self._sleep = Deferred()
        timer = self._clock.callLater(seconds, self.ring)
        try:
            await self._sleep
        finally:
            if timer.active():
                timer.cancel()


class SharedWork(Generic[K, T]):
    """Does a piece of work once for all who ask for it while it runs.

    Who waits can give up without disturbing the others; when nobody is left, the work is cancelled.
    """

    def __init__(self) -> None:
        self._running: dict[K, Deferred[T]] = {}
        self._waiting: dict[K, list[Deferred[T]]] = {}

    async def result(self, key: K, start: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> T:
        """The result of the work that runs for `key`; `start` begins it when none does."""
        waiter: Deferred[T] = Deferred(lambda gone: self._give_up(key, gone))
        if key in self._running:
            self._waiting[key].append(waiter)
        else:
            self._waiting[key] = [waiter]
            # Work that needs no waiting finishes inside this call, so it is noted before it begins.
            begin: Deferred[None] = Deferred()
            self._running[key] = work = Deferred.fromCoroutine(_after(begin, start))
            work.addBoth(lambda result: self._finish(key, result))
            begin.callback(None)
        return await waiter

    def _finish(self, key: K, result: T | Failure) -> None:
        self._running.pop(key, None)
        _tell_all(self._waiting.pop(key, []), result)

    def _give_up(self, key: K, gone: Deferred[T]) -> None:
        self._waiting[key].remove(gone)
        if not self._waiting[key]:
            del self._waiting[key]
            self._running.pop(key).cancel()


async def _after(begin: Deferred[None], start: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> T:
    await begin
    return await start()


class Recent(Generic[T]):
    """An answer that many want to know and that may be slow to come, or never.

    It is asked for once, remembered for a while, also when it was an error, and not asked for again while it is on its
    way: whoever does not answer is not to find a thousand questions when he wakes up.

    Args:
        ask: asks for it.
        clock: what time is taken by.
        keep: how long it is remembered, in seconds.
        patience: how long after the question anybody waits for it, in seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Coroutine[Deferred[Any], Any, T]],
        clock: IReactorTime,
        *,
        keep: float,
        patience: float,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._keep = keep
        self._patience = patience
        self._asked_at: float | None = None
        self._waiting: list[Deferred[T]] = []
        # In a tuple, since None is an answer, too.
        self._answer: tuple[T | Failure] | None = None
        self._kept_until = 0.0

    async def get(self) -> T:
        """The answer.

        Raises:
            twisted.internet.defer.TimeoutError: it has not come in time.
        """
        waiter: Deferred[T] = Deferred()
        # Before it is asked for, since it may come within that call.
        self._waiting.append(waiter)
        now = self._clock.seconds()
        if self._asked_at is None and self._answer is not None and now < self._kept_until:
            self._tell(self._answer)
        elif self._asked_at is None:
            self._asked_at = now
            Deferred.fromCoroutine(self._ask()).addBoth(self._note)
        try:
            if self._asked_at is not None:
                left = self._asked_at + self._patience - now
                if left <= 0:
                    raise DeferredTimeoutError
                waiter.addTimeout(left, self._clock)
            return await waiter
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _note(self, answer: T | Failure) -> None:
        self._asked_at, self._answer = None, (answer,)
        self._kept_until = self._clock.seconds() + self._keep
        self._tell(self._answer)

    def _tell(self, answer: tuple[T | Failure]) -> None:
        waiting, self._waiting = self._waiting, []
        _tell_all(waiting, *answer)


def _tell_all(waiting: list[Deferred[T]], result: T | Failure) -> None:
    for waiter in waiting:
        if isinstance(result, Failure):
            waiter.errback(result)
        else:
            waiter.callback(result)
