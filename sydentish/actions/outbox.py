"""The outbox at work: leases what is due, has it delivered, and stores the verdict."""

from collections.abc import Callable, Iterable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.actions.ports import Deliverer
from sydentish.domain.delivery import Dead, Delivered, NotDelivered, verdict
from sydentish.store import outbox as outbox_rows
from sydentish.store.database import Database, Tx
from sydentish.store.outbox import Lease
from sydentish.waiting import Alarm

ONBIND = "onbind"
"""The kind of rows that tell a homeserver of a bind; their destination is its server name."""

INVITE = "invite"
"""The kind of rows that are invitation mails; their destination is one of a few lanes to the relay."""

KINDS = (ONBIND, INVITE)
"""Every kind of row there is."""

_POLL_MS = 5000
"""How long this process waits at the most: another one may have left something."""

_WAKE_INTERVAL_MS = 30_000
"""How often signs of life can wake one destination."""

_FAR_MS = 1 << 62

_log = Logger()


class OutboxWorker(Service):
    """Delivers the rows of one kind, any number of destinations at a time, one row at a time for each.

    Any number of processes may do so side by side: a row belongs to the one that leased it, until the lease
    runs out.

    Args:
        db: the database.
        kind: which rows.
        deliverer: knows how such a row reaches its destination.
        clock: what time is waited by.
        max_in_flight: how many destinations at a time.
        lease_ms: how long a row belongs to this process, in ms; longer than a delivery takes.
        retry_for_ms: rows older than this are given up, in ms.
        keeps_payload: whether a row that was given up keeps what it says, so that an operator can try it again.
        now_ms: the time, in ms.
        jitter: a random number between -1 and 1.
        on_result: hears of each try: `delivered`, `retry` or `dead`.
    """

    def __init__(
        self,
        *,
        db: Database,
        kind: str,
        deliverer: Deliverer,
        clock: IReactorTime,
        max_in_flight: int,
        lease_ms: int,
        retry_for_ms: int,
        keeps_payload: bool,
        now_ms: Callable[[], int],
        jitter: Callable[[], float],
        on_result: Callable[[str], None],
    ) -> None:
        self._db = db
        self._kind = kind
        self._deliverer = deliverer
        self._max_in_flight = max_in_flight
        self._lease_ms = lease_ms
        self._retry_for_ms = retry_for_ms
        self._keeps_payload = keeps_payload
        self._now_ms = now_ms
        self._jitter = jitter
        self._on_result = on_result
        self._in_flight: set[Deferred[None]] = set()
        self._slow_in_flight = 0
        self._delivering: set[Deferred[Delivered | NotDelivered]] = set()
        # The destinations known to fail, and when each was last woken by a sign of life.
        self._failing: dict[str, int] = {}
        self._alarm = Alarm(clock)
        self._main: Deferred[None] | None = None

    def startService(self) -> None:
        """Begins to deliver, with what an earlier process has left."""
        Service.startService(self)
        self._main = Deferred.fromCoroutine(self._run())

    async def stopService(self) -> None:
        """Takes nothing new, breaks off what is in flight and gives its lease back."""
        Service.stopService(self)
        self.wake()
        for delivering in list(self._delivering):
            delivering.cancel()
        await DeferredList([*self._in_flight, *([self._main] if self._main else [])])

    def wake(self) -> None:
        """There may be something due."""
        self._alarm.ring()

    def heard_from(self, server_name: str) -> None:
        """See `SignsOfLife`. Costs nothing unless the destination is failing, and was not woken just before.

        Anybody with an account can give a sign of life; it must not turn the back-off into a flood.
        """
        now_ms = self._now_ms()
        woken_ts = self._failing.get(server_name)
        if woken_ts is not None and now_ms - woken_ts >= _WAKE_INTERVAL_MS and self.running:
            self._failing[server_name] = now_ms
            Deferred.fromCoroutine(self._wake_destination(server_name))

    async def _wake_destination(self, destination: str) -> None:
        try:
            if await self._db.write(outbox_rows.wake, self._kind, destination, self._now_ms()):
                self.wake()
        except Exception:  # noqa: BLE001 - it is due later in any case
            _log.failure("waking a destination failed")

    async def _run(self) -> None:
        while self.running:
            try:
                await self._turn()
            except Exception:  # noqa: BLE001 - nothing may end the loop
                _log.failure("the outbox cannot work; it tries again")
                await self._wait(_POLL_MS)

    async def _learn_failing(self) -> None:
        """What other processes have seen fail, and have seen come back, counts here, too."""
        failing = await self._db.read(outbox_rows.failing, self._kind)
        self._failing = {destination: self._failing.get(destination, 0) for destination in failing}

    async def _turn(self) -> None:
        """Starts what is due, or waits until something is."""
        self._alarm.set()
        leases = await self._db.write(self._lease)
        if not self.running:
            await self._give_back(leases)
            return
        self._start(leases)
        if len(self._in_flight) >= self._max_in_flight:
            await self._wait(_POLL_MS)  # the first that ends wakes it
        elif not leases:
            await self._learn_failing()
            # What failed and finds no slot is not waited for by the clock: the first that ends wakes this.
            slow = self._slow_free() > 0
            next_due = await self._db.read(outbox_rows.next_due, self._kind, failing=slow)
            await self._wait(min(_POLL_MS, max(0, (next_due or _FAR_MS) - self._now_ms())))

    def _lease(self, tx: Tx) -> list[Lease]:
        """What answers goes first, and leaves at least half of the slots free of what does not."""
        now_ms, free = self._now_ms(), self._max_in_flight - len(self._in_flight)
        leases = outbox_rows.lease(tx, self._kind, now_ms, self._lease_ms, free, failing=False)
        slow = min(free - len(leases), self._slow_free())
        if slow > 0:
            leases += outbox_rows.lease(tx, self._kind, now_ms, self._lease_ms, slow, failing=True)
        return leases

    def _slow_free(self) -> int:
        """How many of the slots for destinations that failed last time are free."""
        return self._max_in_flight // 2 - self._slow_in_flight

    async def _give_back(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            await self._db.write(outbox_rows.release, self._kind, lease)

    def _start(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            delivery = Deferred.fromCoroutine(self._deliver(lease))
            self._in_flight.add(delivery)
            self._slow_in_flight += lease.failing
            delivery.addBoth(self._ended, delivery, lease)

    def _ended(self, _result: object, delivery: "Deferred[None]", lease: Lease) -> None:
        self._in_flight.discard(delivery)
        self._slow_in_flight -= lease.failing
        self.wake()

    async def _deliver(self, lease: Lease) -> None:
        delivering = Deferred.fromCoroutine(self._deliverer.deliver(lease.delivery))
        self._delivering.add(delivering)
        try:
            await self._settle(lease, await delivering)
        except Exception as error:  # noqa: BLE001 - the lease runs out, and it is tried again
            if isinstance(error, CancelledError) and not self.running:
                await self._give_back([lease])
            else:
                _log.failure("a delivery broke off; it is tried again")
        finally:
            self._delivering.discard(delivering)

    async def _settle(self, lease: Lease, result: Delivered | NotDelivered) -> None:
        destination = lease.delivery.destination
        if isinstance(result, Delivered):
            self._failing.pop(destination, None)
            await self._db.write(outbox_rows.delivered, self._kind, lease, result.method)
            self._on_result("delivered")
            return
        outcome = await self._settle_failure(lease, result)
        _log.info(
            "{kind} {outbox_id} was not delivered to {destination}: {reason}; {outcome}",
            kind=self._kind,
            outbox_id=lease.delivery.outbox_id,
            destination=destination,
            reason=result.reason,
            outcome="given up" if outcome == "dead" else "tried again later",
        )
        self._on_result(outcome)

    async def _settle_failure(self, lease: Lease, result: NotDelivered) -> str:
        now_ms = self._now_ms()
        decided = verdict(
            permanent=result.permanent,
            failures=lease.delivery.attempts + 1,
            created_ts=lease.created_ts,
            now_ms=now_ms,
            retry_for_ms=self._retry_for_ms,
            jitter=self._jitter(),
        )
        if isinstance(decided, Dead):
            await self._db.write(
                outbox_rows.bury,
                self._kind,
                lease,
                result.reason,
                now_ms,
                answered=result.permanent,
                keeps_payload=self._keeps_payload,
            )
            return "dead"
        jitter = None if result.destination_is_well else self._jitter()
        if jitter is not None:
            self._failing.setdefault(lease.delivery.destination, 0)
        await self._db.write(
            outbox_rows.retry, self._kind, lease, decided.due_ts, result.reason, now_ms, jitter
        )
        return "retry"

    async def _wait(self, ms: int) -> None:
        if self.running:
            await self._alarm.wait(ms / 1000)
