"""Health: whether this server can do what it is there for, as those ask who send it requests or start it anew."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.actions.outbox import KINDS
from sydentish.domain.errors import IdentityError
from sydentish.domain.keys import KeyRing, KeyState
from sydentish.store import figures
from sydentish.store import health as health_rows
from sydentish.store.database import Database, Tx
from sydentish.waiting import Recent

PATIENCE_SECONDS = 1.0
"""How long the database may take."""

_KEEP_SECONDS = 1.0

Checks = Mapping[str, str | None]
"""By the name of each check: why it does not hold, or None if it does."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """What is still good.

    Attributes:
        schema: the number of the schema that this program works with.
        outbox_ms: how long something may be due that nobody tries to deliver, in ms; None for any time.
        free_bytes: how much must be free in the file system of the database; None for nothing.
    """

    schema: int
    outbox_ms: int | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What one transaction has seen."""

    schema: int
    due_since: Mapping[str, int]
    free_bytes: int
    now_ms: int


class Health:
    """Looks after the server itself.

    However many ask, the database is asked once a second at the most, and by one question at a time.

    Args:
        db: the database.
        keys: what is signed with.
        stage: how far the server is: `ready`, or what it does instead.
        free_bytes: how much is free in the file system of the database; may wait for the disk, and raise `OSError`.
        limits: what is still good.
        clock: what time is waited by.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        db: Database,
        keys: KeyRing,
        stage: Callable[[], str],
        free_bytes: Callable[[], int],
        limits: HealthLimits,
        clock: IReactorTime,
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._keys = keys
        self._stage = stage
        self._free_bytes = free_bytes
        self._limits = limits
        self._now_ms = now_ms
        # What was due before could not be delivered before.
        self._began_ms = now_ms()
        # Apart from each other: a disk that is full can still be read.
        self._writing = Recent(self._write, clock, keep=_KEEP_SECONDS, patience=PATIENCE_SECONDS)
        self._reading = Recent(self._read, clock, keep=_KEEP_SECONDS, patience=PATIENCE_SECONDS)
        self._failing: frozenset[str] = frozenset()

    async def checks(self) -> Checks:
        """What must hold for the server to be ready; while it starts or stops, that is all there is to say."""
        stage = self._stage()
        if stage != "ready":
            return {"server": f"the server is {stage}"}
        # At the same time, so that both have their second.
        writing = Deferred.fromCoroutine(self._judge_writing())
        reading = Deferred.fromCoroutine(self._judge())
        checks = {"server": None, "database": await writing, "key": self._judge_key(), **await reading}
        self._tell_changes(checks)
        return checks

    async def _write(self) -> None:
        await self._db.write(health_rows.leave_trace)

    async def _read(self) -> _Found:
        return await self._db.read(self._look, self._now_ms())

    def _look(self, tx: Tx, now_ms: int) -> _Found:
        return _Found(
            schema=figures.schema(tx),
            due_since=health_rows.due_since(tx, KINDS, now_ms),
            # In the thread of the transaction, since disks can be slow.
            free_bytes=self._free_bytes(),
            now_ms=now_ms,
        )

    async def _judge_writing(self) -> str | None:
        try:
            await self._writing.get()
        except Exception as error:  # noqa: BLE001 - whatever it is, that is how it is
            return _reason(error)
        return None

    async def _judge(self) -> Checks:
        try:
            found = await self._reading.get()
        except Exception as error:  # noqa: BLE001 - as above
            return dict.fromkeys(("schema", "outbox", "disk"), _reason(error))
        return {
            "schema": self._judge_schema(found),
            "outbox": self._judge_outbox(found),
            "disk": self._judge_disk(found),
        }

    def _judge_key(self) -> str | None:
        return None if self._keys.active.state is KeyState.ACTIVE else "no active signing key is loaded"

    def _judge_schema(self, found: _Found) -> str | None:
        if found.schema == self._limits.schema:
            return None
        return f"the database has schema {found.schema}, and this program works with {self._limits.schema}"

    def _judge_outbox(self, found: _Found) -> str | None:
        limit_ms = self._limits.outbox_ms
        for kind, since_ts in found.due_since.items():
            waited_ms = found.now_ms - max(since_ts, self._began_ms)
            if limit_ms is not None and waited_ms > limit_ms:
                return (
                    f"a row of the kind {kind} is due for {waited_ms // 1000} s, and nobody tries to deliver it; "
                    f"the limit is {limit_ms // 1000} s"
                )
        return None

    def _judge_disk(self, found: _Found) -> str | None:
        limit = self._limits.free_bytes
        if limit is None or found.free_bytes >= limit:
            return None
        return f"{found.free_bytes} bytes are free where the database is; the limit is {limit}"

    def _tell_changes(self, checks: Checks) -> None:
        """One line when it becomes worse or better, for those who look for the reason later."""
        failing = frozenset(name for name, reason in checks.items() if reason is not None)
        for name in sorted(failing - self._failing):
            _log.warn("not ready: {check}: {reason}", check=name, reason=checks[name])
        if self._failing and not failing:
            _log.info("ready again")
        self._failing = failing


def _reason(error: Exception) -> str:
    if isinstance(error, DeferredTimeoutError):
        return f"the database did not answer within {PATIENCE_SECONDS:g} s"
    return error.message if isinstance(error, IdentityError) else f"it failed: {type(error).__name__}"
