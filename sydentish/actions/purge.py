"""The purge: what was kept long enough is deleted, a little at a time.

What it deletes is gone for good, and a clock that is ahead makes everything old. So where much time seems to have passed
since its last round, it says so, and leaves an operator an hour to look at the clock.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.actions.revoking import expire
from sydentish.domain.accounts import TOUCH_AFTER_MS
from sydentish.store import accounts as account_rows
from sydentish.store import budgets as budget_rows
from sydentish.store import counters
from sydentish.store import invites as invite_rows
from sydentish.store import letters as letter_rows
from sydentish.store import validation as validation_rows
from sydentish.store.database import Database, Tx
from sydentish.waiting import Alarm

FIRST_SECONDS = 10.0
"""How long after the start it begins; until then there is enough to do."""

INTERVAL_SECONDS = 300.0
"""How long it rests between two rounds."""

BATCH = 200
"""So few rows in one transaction that whoever writes meanwhile hardly waits."""

AHEAD_MS = 24 * 3600 * 1000
"""So much later than the last round, the time is not believed at once."""

BEHIND_MS = 3600 * 1000
"""Nor is it so much earlier."""

HELD_ROUNDS = 12
"""So many rounds it waits then: an hour."""

# What homeservers are asked by at first: nothing is gained by remembering that it works.
_USUAL_METHODS = ("POST",)

_log = Logger()

Position = tuple[Any, ...]
"""Where a walk through rows goes on."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes when.

    Attributes:
        what: a word for it.
        keep_ms: how long it is kept, in ms.
        batch: deletes some of what is older than a time: gets the transaction, the time in ms, where it is to go on
            (None to begin), and how many rows it may look at; gives how many it has deleted, and where to go on (None
            when there is no more).
    """

    what: str
    keep_ms: int
    batch: Callable[[Tx, int, Position | None, int], tuple[int, Position | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long things are kept, in ms; None for ever.

    Attributes:
        sessions: validation sessions, after their last change.
        dead_letters: what could not be delivered, after it was given up.
        access_tokens: access tokens, after their last use.
        accounts: accounts without access tokens, after their user was last seen.
    """

    sessions: int
    dead_letters: int | None
    access_tokens: int | None
    accounts: int | None


def rules(times: Times) -> list[Rule]:
    """All that goes some time."""
    # The use of an access token is noted once a day: what was noted may have happened again up to a day later.
    tokens, accounts = (
        None if time is None else time + TOUCH_AFTER_MS for time in (times.access_tokens, times.accounts)
    )
    kept: list[tuple[str, int | None, Any]] = [
        ("sessions", times.sessions, _all_older(validation_rows.purge)),
        ("access_tokens", tokens, _all_older(account_rows.purge_tokens)),
        ("accounts", accounts, account_rows.purge_idle),
        ("invitations", 0, _all_older(lambda tx, now_ms, limit: expire(tx, now_ms, limit).invitations)),
        ("ephemeral_keys", 0, _all_older(invite_rows.delete_expired_keys)),
        ("budgets", 0, _all_older(budget_rows.purge)),
        ("dead_letters", times.dead_letters, _all_older(letter_rows.purge_dead)),
        ("destinations", 0, _idle_destinations),
    ]
    return [Rule(what, keep_ms, batch) for what, keep_ms, batch in kept if keep_ms is not None]


def _all_older(
    purge: Callable[[Tx, int, int], int],
) -> Callable[[Tx, int, Position | None, int], tuple[int, Position | None]]:
    """Of what goes whenever it is old enough, the next batch begins where this one did."""

    def batch(tx: Tx, before_ts: int, _after: Position | None, limit: int) -> tuple[int, Position | None]:
        gone = purge(tx, before_ts, limit)
        return gone, () if gone >= limit else None

    return batch


def _idle_destinations(
    tx: Tx, now_ms: int, after: Position | None, limit: int
) -> tuple[int, Position | None]:
    position = None if after is None else (after[0], after[1])
    return letter_rows.purge_destinations(tx, now_ms, position, limit, _USUAL_METHODS)


def _is_odd(now_ms: int, last_ms: int) -> bool:
    return not last_ms - BEHIND_MS <= now_ms <= last_ms + AHEAD_MS


def _begin(tx: Tx, now_ms: int, *, believed: bool) -> int | None:
    """Notes that a round begins; unless the time is odd and not believed: then gives that of the last round."""
    # A database that has seen none is new: nothing in it is old.
    last_ms = counters.value(tx, counters.PURGE) or now_ms
    if _is_odd(now_ms, last_ms) and not believed:
        return last_ms
    counters.set_to(tx, counters.PURGE, now_ms)
    return None


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Purge(Service):
    """Deletes what was kept long enough: soon after the start, then every few minutes.

    When the time is far from that of the last round, which any process has begun, nothing is deleted for an hour: the
    clock may be wrong.

    Any number of processes may do so side by side: each batch is one transaction that looks for itself what is old.

    Args:
        db: the database.
        rules: what goes when.
        clock: what time is waited by.
        now_ms: the time, in ms.
        on_purged: hears of each batch: what it was, and how many rows of it.
        batch: how many rows one transaction looks at.
    """

    def __init__(
        self,
        *,
        db: Database,
        rules: Sequence[Rule],
        clock: IReactorTime,
        now_ms: Callable[[], int],
        on_purged: Callable[[str, int], None],
        batch: int = BATCH,
    ) -> None:
        self._db = db
        self._rules = rules
        self._now_ms = now_ms
        self._on_purged = on_purged
        self._size = batch
        self._alarm = Alarm(clock)
        self._main: Deferred[None] | None = None
        # How many rounds it has waited with a time that is odd, and that time.
        self._held = 0
        self._held_ms = 0

    def startService(self) -> None:
        """Begins to wait for the first round."""
        Service.startService(self)
        self._main = Deferred.fromCoroutine(self._run())

    async def stopService(self) -> None:
        """Ends after the batch at hand."""
        Service.stopService(self)
        self._alarm.ring()
        if self._main is not None:
            await self._main

    async def _run(self) -> None:
        seconds = FIRST_SECONDS
        while self.running:
            await self._alarm.wait(seconds)
            self._alarm.set()
            if self.running:
                await self.turn()
            seconds = INTERVAL_SECONDS

    async def turn(self) -> None:
        """Deletes all that is due, a batch of each kind in turn, so that much of one holds no other up."""
        if not await self._may_begin():
            return
        gone: Counter[str] = Counter()
        due: list[tuple[Rule, Position | None]] = [(rule, None) for rule in self._rules]
        while due and self.running:
            due = [
                (rule, position)
                for rule, after in due
                if (position := await self._batch(rule, after, gone)) is not None
            ]
        if gone:
            told = ", ".join(f"{what} {number}" for what, number in gone.items())
            _log.info("purged: {told}", told=told)

    async def _may_begin(self) -> bool:
        """Notes that a round begins, if the time can be believed; else, or if it cannot be noted, none does now."""
        now_ms = self._now_ms()
        if self._held and _is_odd(now_ms, self._held_ms):
            # It has changed again while it was waited.
            self._held = 0
        try:
            last_ms = await self._db.write(_begin, now_ms, believed=self._held >= HELD_ROUNDS)
        except Exception:  # noqa: BLE001 - nothing may end the loop
            if self.running:
                _log.failure("a purge cannot be noted; it is tried again")
            return False
        if last_ms is None:
            self._held = 0
            return True
        if not self._held:
            self._warn(now_ms, last_ms)
        self._held += 1
        self._held_ms = now_ms
        return False

    def _warn(self, now_ms: int, last_ms: int) -> None:
        _log.warn(
            "the purge waits an hour: its last round was at {last}, and now it seems to be {now}. Look whether the clock is "
            "right: if it is ahead, what is deleted then is lost ({what}). If the server was off since, or a backup was "
            "restored, there is nothing to do",
            last=_date(last_ms),
            now=_date(now_ms),
            what=", ".join(rule.what for rule in self._rules),
        )

    async def _batch(self, rule: Rule, after: Position | None, gone_so_far: Counter[str]) -> Position | None:
        """Deletes some of one kind; where to go on, None when that was all, or cannot be done now."""
        if not self.running:
            return None
        before_ts = self._now_ms() - rule.keep_ms
        try:
            gone, position = await self._db.write(rule.batch, before_ts, after, self._size)
        except Exception:  # noqa: BLE001 - nothing may end the loop
            if self.running:
                _log.failure("purging {what} failed; it is tried again", what=rule.what)
            return None
        if gone:
            gone_so_far[rule.what] += gone
            self._on_purged(rule.what, gone)
        return position
