"""What the database knows of how the server fares, for its metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from sydentish.actions.outbox import KINDS
from sydentish.store import health as health_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import progress
from sydentish.store.database import Database, Tx
from sydentish.store.progress import PeerReport
from sydentish.waiting import Recent

# Several may ask at once, and what is counted costs some milliseconds when there is much of it.
_KEEP_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is found beside the database.

    Attributes:
        sizes: of its files, in bytes.
        free: how much may still be written there, in bytes.
        key_since: when the active signing key was written, in s since 1970; None if nobody knows.
    """

    sizes: Mapping[str, int]
    free: int
    key_since: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found.

    Attributes:
        now_ms: when, in ms.
        outbox: kind, state, number of rows, and the time of the oldest, in ms.
        due_since: by kind, since when the oldest row is due that nobody tries to deliver, in ms.
        peers: how far behind each is that is in use.
        pepper_since_ms: since when the pepper is given out, in ms; None before the first one.
        around: what was found beside the database.
    """

    now_ms: int
    outbox: Sequence[tuple[str, str, int, int]]
    due_since: Mapping[str, int]
    peers: Sequence[PeerReport]
    pepper_since_ms: int | None
    around: Surroundings


class Survey:
    """Looks around in one short transaction, every few seconds at the most.

    Args:
        db: the database.
        server_name: our own.
        look_around: looks beside it; may wait for the disk.
        clock: what time is waited by.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        db: Database,
        server_name: str,
        look_around: Callable[[], Surroundings],
        clock: IReactorTime,
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._look_around = look_around
        self._now_ms = now_ms
        self._recent = Recent(self._ask, clock, keep=_KEEP_SECONDS, patience=_PATIENCE_SECONDS)

    async def seen(self) -> Seen:
        """What there was a few seconds ago, or is now.

        Raises:
            Busy, TimeoutError: the database does not tell now.
        """
        return await self._recent.get()

    async def _ask(self) -> Seen:
        return await self._db.read(self._look, self._now_ms())

    def _look(self, tx: Tx, now_ms: int) -> Seen:
        return Seen(
            now_ms=now_ms,
            outbox=outbox_rows.counts(tx),
            due_since=health_rows.due_since(tx, KINDS, now_ms),
            peers=[each for each in progress.report(tx, self._server_name) if each.state.in_use],
            pepper_since_ms=lookup_rows.current_since(tx),
            around=self._look_around(),
        )
