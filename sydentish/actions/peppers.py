"""The look-up pepper: made at the first start, and replaced from time to time while the server answers."""

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sydentish.domain.accounts import opaque_token
from sydentish.domain.lookup import PEPPER_BYTES
from sydentish.domain.threepids import Threepid
from sydentish.store import associations as association_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store.database import Database, Tx

_CHECK_SECONDS = 60.0
_BATCH = 500

_log = Logger()


class PepperRotation(Service):
    """Replaces the pepper when it has become old, and cleans up behind it.

    The new pepper's hashes are made in small batches while the old one is still given out; from the moment
    that the new pepper is in the table, every bind writes its hash, too. So nothing is missing when they
    change places. A rotation that was cut short begins again at the first address; writing a hash twice does
    no harm, and neither do two processes that rotate at once.

    Args:
        db: the database.
        clock: what time is waited by.
        interval_ms: how old a pepper becomes, in ms; None keeps it for ever.
        grace_ms: how long a pepper is accepted after its replacement, in ms.
        now_ms: the time, in ms.
        random_bytes: so many random bytes.
    """

    def __init__(
        self,
        *,
        db: Database,
        clock: IReactorTime,
        interval_ms: int | None,
        grace_ms: int,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._interval_ms = interval_ms
        self._grace_ms = grace_ms
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._turn_safely()))
        self._loop.clock = clock
        self._turning: Deferred[LoopingCall] | None = None
        self._stopping = False

    def startService(self) -> None:
        """Makes the first pepper, then looks once a minute whether there is something to do."""
        Service.startService(self)
        Deferred.fromCoroutine(self._first_safely())
        self._turning = self._loop.start(_CHECK_SECONDS, now=False)

    async def stopService(self) -> None:
        """Ends after the batch at hand."""
        Service.stopService(self)
        self._stopping = True
        if self._loop.running and self._turning is not None:
            self._loop.stop()
            await self._turning

    async def ensure_pepper(self) -> None:
        """Makes the first pepper of a new database, with the hashes of what may have been bound before it."""
        await self._rotate(None)

    async def adopt(self, pepper: str, batch: int = _BATCH) -> bool:
        """Gives out a pepper that another program has given out for this server; whether it was not known here.

        Args:
            pepper: the pepper.
            batch: how many hashes are made in one transaction.
        """
        making = await self._db.read(lookup_rows.pepper_in_making)
        if making is not None:
            await self._rehash(*making)
        pepper_id = await self._db.write(_adopt, pepper, self._now_ms())
        if pepper_id is not None:
            await self._rehash(pepper_id, pepper, batch)
        return pepper_id is not None

    async def turn(self) -> None:
        """Does what is due: rotates when the pepper is old, then removes what has had its grace time."""
        await self._rotate(self._interval_ms)
        await self._drop_old()

    async def _first_safely(self) -> None:
        try:
            await self.ensure_pepper()
        except Exception:  # noqa: BLE001 - every turn tries it again
            if self._stopping:
                return
            _log.failure("making the first pepper failed; it is tried again")

    async def _turn_safely(self) -> None:
        try:
            await self.turn()
        except Exception:  # noqa: BLE001 - the next turn tries again
            if self._stopping:
                return
            _log.failure("replacing the pepper failed; it is tried again")

    async def _rotate(self, interval_ms: int | None) -> None:
        making = await self._db.write(_begin, self._new_pepper(), interval_ms, self._now_ms())
        if making is not None:
            await self._rehash(*making)

    async def _rehash(self, pepper_id: int, pepper: str, batch: int = _BATCH) -> None:
        position: Threepid | None = None
        while not self._stopping:
            position = await self._db.write(_rehash_batch, pepper_id, pepper, position, batch)
            if position is None:
                await self._give_out(pepper_id)
                return

    async def _drop_old(self) -> None:
        dropped = _BATCH
        while dropped == _BATCH and not self._stopping:
            dropped = await self._db.write(lookup_rows.drop_hashes, self._now_ms() - self._grace_ms, _BATCH)

    async def _give_out(self, pepper_id: int) -> None:
        if await self._db.write(lookup_rows.make_current, pepper_id, self._now_ms()):
            _log.info("there is a new look-up pepper")

    def _new_pepper(self) -> str:
        return opaque_token(self._random_bytes(PEPPER_BYTES))


def _begin(tx: Tx, new_pepper: str, interval_ms: int | None, now_ms: int) -> tuple[int, str] | None:
    """The pepper whose hashes are to be made now, if any: the first one, or one in the place of an old one."""
    making = lookup_rows.pepper_in_making(tx)
    if making is not None:
        return making
    since = lookup_rows.current_since(tx)
    if since is not None and (interval_ms is None or now_ms - since < interval_ms):
        return None
    return lookup_rows.add_pepper(tx, new_pepper, now_ms), new_pepper


def _adopt(tx: Tx, pepper: str, now_ms: int) -> int | None:
    return None if lookup_rows.is_known(tx, pepper) else lookup_rows.add_pepper(tx, pepper, now_ms)


def _rehash_batch(
    tx: Tx, pepper_id: int, pepper: str, position: Threepid | None, limit: int
) -> Threepid | None:
    """Hashes the next addresses behind `position`; where it ended, or None when there are no more."""
    batch = association_rows.after(tx, position, limit)
    for each in batch:
        lookup_rows.put_hash(tx, pepper_id, pepper, each.threepid, each.mxid)
    return batch[-1].threepid if batch else None
