"""Pushing our own statements to the peers."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import REFUSED, Accepted, Failed, Outcome, Refused, settled
from sydentish.replication.link import Link
from sydentish.replication.preparing import Push, prepare
from sydentish.store import pushes as push_rows
from sydentish.store.database import Database, Tx
from sydentish.waiting import Alarm

_POLL_MS = 5000
"""How long this process waits at the most: another one, or a command, may have changed something."""

_HEARTBEAT_MS = 600_000
"""A peer that has acknowledged nothing for so long is sent an empty push, so that a broken way is noticed."""

_WAKE_INTERVAL_MS = 30_000
"""How often pushes of a peer can wake ours to it."""

_MIN_BATCH = 10
"""A peer that does not take a whole batch in time is sent smaller ones, but none smaller than this."""

_PATIENCE = 20
"""How many times in a row a peer can refuse some of what it is sent, and is sent the rest at once."""

_log = Logger()


class Pusher(Service):
    """Sends each peer what it has not acknowledged yet: in order, one push at a time, whatever becomes of other peers.

    Any number of processes may do so side by side: a peer belongs to the one that leased it, until the lease runs out.

    Args:
        db: the database.
        keys: what statements are signed with when they are sent, and in whose name.
        link: the way to peers.
        clock: what time is waited by.
        batch_size: how many statements go into one push.
        lease_ms: how long a peer belongs to this process, in ms; longer than a push takes.
        now_ms: the time, in ms.
        jitter: a random number between -1 and 1.
        on_push: hears of each push: the peer, how it ended, and how long it took in s. It ends as `accepted`, as `empty`
            if there was nothing in it, as `parked` if some was refused, or as the kind of failure.
    """

    def __init__(
        self,
        *,
        db: Database,
        keys: KeyRing,
        link: Link,
        clock: IReactorTime,
        batch_size: int,
        lease_ms: int,
        now_ms: Callable[[], int],
        jitter: Callable[[], float],
        on_push: Callable[[str, str, float], None],
    ) -> None:
        self._db = db
        self._keys = keys
        self._link = link
        self._clock = clock
        self._batch_size = batch_size
        self._lease_ms = lease_ms
        self._now_ms = now_ms
        self._jitter = jitter
        self._on_push = on_push
        self._in_flight: dict[str, Deferred[bool]] = {}
        self._pushing: set[Deferred[Outcome]] = set()
        # When each peer was last woken by a push of its own; those heard from while something is on its way to them; and
        # those that have failed.
        self._woken: dict[str, int] = {}
        self._heard: set[str] = set()
        self._left_alone: set[str] = set()
        # How many statements go into one push, for peers that did not take as many in time.
        self._sizes: dict[str, int] = {}
        # How many times in a row each peer has refused something of what it was sent.
        self._refusals: Counter[str] = Counter()
        self._heartbeat_ms = _HEARTBEAT_MS
        self._alarm = Alarm(clock)
        self._main: Deferred[None] | None = None

    def startService(self) -> None:
        """Begins to push, with what an earlier process has left."""
        Service.startService(self)
        self._main = Deferred.fromCoroutine(self._run())

    async def stopService(self) -> None:
        """Starts nothing new, and breaks off what is on its way: the peer is sent that again."""
        Service.stopService(self)
        self.wake()
        for pushing in list(self._pushing):
            pushing.cancel()
        working: list[Deferred[Any]] = list(self._in_flight.values())
        await DeferredList([*working, *([self._main] if self._main else [])])

    def wake(self) -> None:
        """There may be something to push."""
        self._alarm.ring()

    def greet(self) -> None:
        """Pushes to every peer, if only nothing: those that have left us alone hear that we are back."""
        self._heartbeat_ms = 0
        self.wake()

    def heard_from(self, server_name: str) -> None:
        """See `SignsOfLife`: a peer that has pushed something can perhaps be reached again."""
        if server_name in self._in_flight:
            self._heard.add(server_name)
        elif self.running and server_name in self._left_alone:
            Deferred.fromCoroutine(self._wake_peer(server_name))

    async def _wake_peer(self, name: str) -> None:
        now_ms = self._now_ms()
        if 0 <= now_ms - self._woken.get(name, 0) < _WAKE_INTERVAL_MS:
            return
        self._woken[name] = now_ms
        try:
            if await self._db.write(push_rows.wake, name):
                self.wake()
        except Exception:  # noqa: BLE001 - it is tried later in any case
            _log.failure("waking a peer failed")

    async def _run(self) -> None:
        while self.running:
            try:
                await self._turn()
            except Exception:  # noqa: BLE001 - nothing may end the loop
                _log.failure("statements cannot be pushed; this is tried again")
                self._alarm.set()
                await self._wait(_POLL_MS)

    async def _turn(self) -> None:
        """Starts with each peer that something is due to, and waits until something may be."""
        self._alarm.set()
        now_ms, heartbeat_ms = self._now_ms(), self._heartbeat_ms
        self._heartbeat_ms = _HEARTBEAT_MS
        try:
            due = await self._db.read(push_rows.due, self._keys.server_name, now_ms, heartbeat_ms)
        except Exception:
            self._heartbeat_ms = min(heartbeat_ms, self._heartbeat_ms)
            raise
        for name in due:
            if name not in self._in_flight and self.running:
                working = self._in_flight[name] = Deferred.fromCoroutine(self._work(name))
                working.addBoth(self._ended, name)
        next_retry, self._left_alone = await self._db.read(_pauses, now_ms)
        await self._wait(_POLL_MS if next_retry is None else min(_POLL_MS, max(1, next_retry - now_ms)))

    def _ended(self, well: object, name: str) -> None:
        self._in_flight.pop(name, None)
        if well is True:
            # What was stated after the last look of that work must not wait.
            self.wake()

    async def _work(self, name: str) -> bool:
        """Pushes to one peer until there is nothing left or it fails; whether nothing of ours has failed."""
        try:
            goes_on = await self._step(name, heartbeat=True)
            while goes_on and self.running:
                goes_on = await self._step(name, heartbeat=False)
        except Exception:  # noqa: BLE001 - the lease runs out, and it is tried again
            _log.failure("pushing to {peer} broke off; it is tried again", peer=name)
            return False
        return True

    async def _step(self, name: str, *, heartbeat: bool) -> bool:
        """One push; whether there may be another one to follow."""
        lease_until_ts = await self._db.write(push_rows.lease, name, self._now_ms(), self._lease_ms)
        if lease_until_ts is None:
            return False
        # Signed in a thread: a batch of signatures takes as long as a hundred requests.
        limit = self._sizes.get(name, self._batch_size)
        push = await self._db.read(prepare, self._keys, name, self._now_ms(), limit, lease_until_ts)
        if (
            push is None
            or not (push.batch.statements or push.batch.moves_on or heartbeat)
            or not self.running
        ):
            await self._db.write(push_rows.release, name, lease_until_ts)
            return False
        if push.batch.moves_on and not push.batch.statements:
            # All of it was superseded, or is parked.
            await self._db.write(push_rows.skip, name, push.batch, lease_until_ts)
            return True
        return await self._send(name, push)

    async def _send(self, name: str, push: Push) -> bool:
        started = self._clock.seconds()
        self._heard.discard(name)
        pushing: Deferred[Outcome] = Deferred.fromCoroutine(self._link.push(push.peer, push.body))
        self._pushing.add(pushing)
        try:
            outcome = await pushing
        except CancelledError:
            if self.running:
                raise
            await self._db.write(push_rows.release, name, push.lease_until_ts)
            return False
        finally:
            self._pushing.discard(pushing)
        return await self._settle(name, push, outcome, self._clock.seconds() - started)

    async def _settle(self, name: str, push: Push, outcome: Outcome, seconds: float) -> bool:
        decided = settled(push.origin_ids, outcome, parked=bool(push.batch.parked_ids))
        now_ms = self._now_ms()
        self._fit(name, decided, len(push.batch.statements))
        if isinstance(decided, Accepted):
            self._refusals[name] = 0
            self._on_push(name, "accepted" if push.batch.statements else "empty", seconds)
            was_failing = await self._db.write(
                push_rows.acknowledged, name, push.batch, push.lease_until_ts, now_ms
            )
            if was_failing:
                _log.info("{peer} takes pushes again", peer=name)
        elif isinstance(decided, Refused):
            self._on_push(name, "parked", seconds)
            await self._park(name, push, decided)
        else:
            self._on_push(name, decided.kind, seconds)
            await self._fail(name, push, decided)
        return isinstance(decided, Accepted) and push.more

    def _fit(self, name: str, outcome: Outcome, pushed: int) -> None:
        """Halves what a peer is sent at once when that was too much for it, and sends a little more while it is not."""
        size = self._sizes.pop(name, self._batch_size)
        kind = outcome.kind if isinstance(outcome, Failed) else None
        if kind in ("timeout", "too_large"):
            size = max(min(_MIN_BATCH, self._batch_size), pushed // 2)
        elif kind == REFUSED:
            size = self._batch_size  # perhaps it has nothing against those that come behind
        elif kind is None:
            size = size * 5 // 4
        if size < self._batch_size:
            self._sizes[name] = size

    async def _park(self, name: str, push: Push, refused: Refused) -> None:
        self._refusals[name] += 1
        await self._db.write(
            push_rows.park,
            name,
            refused.origin_ids,
            refused.reason,
            push.lease_until_ts,
            self._now_ms(),
            self._jitter(),
            rest=self._refusals[name] > _PATIENCE,
        )
        _log.warn(
            "{peer} refuses {number} of {all} statements, and is sent the others: {reason}; see sydentish peers show {peer}",
            peer=name,
            number=len(refused.origin_ids),
            all=len(push.batch.statements),
            reason=refused.reason,
        )

    async def _fail(self, name: str, push: Push, failed: Failed) -> None:
        retry_ts = await self._db.write(
            push_rows.failed, name, failed, push.lease_until_ts, self._now_ms(), self._jitter()
        )
        _log.warn(
            "a push to {peer} failed: {reason}; tried again in {seconds} s",
            peer=name,
            reason=failed.reason,
            seconds=round(max(0, retry_ts - self._now_ms()) / 1000, 1),
        )
        self._left_alone.add(name)
        if name in self._heard:
            await self._wake_peer(name)

    async def _wait(self, ms: int) -> None:
        if self.running:
            await self._alarm.wait(ms / 1000)


def _pauses(tx: Tx, now_ms: int) -> tuple[int | None, set[str]]:
    return push_rows.next_retry(tx, now_ms), push_rows.left_alone(tx, now_ms)
