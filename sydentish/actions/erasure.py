"""Erasure: everything that is stored about an address, or about a user, is deleted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sydentish.actions import revoking
from sydentish.actions.foreseeing import foresee
from sydentish.actions.statements import Statements
from sydentish.domain.ids import server_name_of
from sydentish.domain.mentions import Mentions
from sydentish.domain.ratelimit import buckets_of_address, buckets_of_user
from sydentish.domain.threepids import Threepid, spellings
from sydentish.store import accounts as account_rows
from sydentish.store import associations as association_rows
from sydentish.store import budgets as budget_rows
from sydentish.store import invites as invite_rows
from sydentish.store import letters as letter_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import statements as statement_rows
from sydentish.store import terms as terms_rows
from sydentish.store import validation as validation_rows
from sydentish.store.database import Database, Tx

ERASED = (
    *("associations", "associations_of_peers", "sessions", "session_tokens", "invitations", "ephemeral_keys"),
    *("outbox_rows", "accounts", "access_tokens", "accepted_terms", "budgets"),
)
"""What is erased, in words of ours."""

# So many rows of the outbox are read, or invitations deleted, in one transaction.
_BATCH = 200
# Much belongs to one address.
_ADDRESSES = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Erased:
    """What went, and what stays.

    Attributes:
        gone: how many rows of each kind, see `ERASED`; those of peers are among the associations, too.
        waiting: how many addresses still stand here until every peer has acknowledged that they are unbound.
        marks: of how many addresses a keyed hash stays, so that an older statement cannot bring them back.
        homeservers: those of the users that the addresses were bound to.
    """

    gone: Mapping[str, int]
    waiting: int
    marks: int
    homeservers: tuple[str, ...]


class _Tally:
    """What one or more transactions have erased."""

    def __init__(self) -> None:
        self.gone: Counter[str] = Counter()
        self.waiting: set[Threepid] = set()
        self.marks: set[Threepid] = set()
        self.homeservers: set[str] = set()

    def add(self, other: "_Tally") -> None:
        self.gone.update(other.gone)
        self.waiting |= other.waiting
        self.marks |= other.marks
        self.homeservers |= other.homeservers


class _UndoneError(Exception):
    """Ends a transaction of which nothing is to stay."""


# Erases some of something, and tells whether there is more of it.
_Step = Callable[[Tx, _Tally], bool]


class Erasure:
    """Erases by the word of the operator, a little at a time, also while servers use the database.

    What is erased twice, after a failure in between for example, is erased as if it had been once.

    Args:
        db: the database.
        statements: unbinds addresses.
        server_name: our own.
        now_ms: the time, in ms.
        on_progress: hears how much is done, and of how much.
    """

    def __init__(
        self,
        *,
        db: Database,
        statements: Statements,
        server_name: str,
        now_ms: Callable[[], int],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._db = db
        self._statements = statements
        self._server_name = server_name
        self._now_ms = now_ms
        self._on_progress = on_progress

    async def address(self, threepid: Threepid, *, dry_run: bool) -> Erased:
        """Erases all that is stored about an address, in whatever way its domain is written.

        Args:
            threepid: the address, as it would be stored.
            dry_run: only count; nothing is changed.
        """
        threepids = spellings(threepid)
        return await self._erase(None, threepids, _Tally(), dry_run=dry_run)

    async def user(self, mxid: str, *, dry_run: bool) -> Erased:
        """Erases all that is stored about a user, and about every address that is bound to the user; see `address`."""
        # First of all: who is logged out binds nothing meanwhile.
        begun = await self._run([partial(_account, mxid)], undo=dry_run)
        if not dry_run:
            left: list[_Step] = [
                lambda tx, tally: _invitations(tx, invite_rows.tokens_from(tx, mxid, _BATCH), tally),
                partial(_keys, mxid),
            ]
            begun.add(await self._run(left))
        bound = await self._db.read(association_rows.of_user, mxid)
        threepids = [spelling for each in bound for spelling in spellings(each.threepid)]
        return await self._erase(mxid, threepids, begun, dry_run=dry_run)

    async def _erase(
        self, mxid: str | None, threepids: Sequence[Threepid], tally: _Tally, *, dry_run: bool
    ) -> Erased:
        outbox_ids = await self._mentioning(Mentions(threepids, mxid))
        if dry_run:
            tally.gone.update(await foresee(self._db, mxid, threepids, outbox_ids))
        else:
            tally.add(await self._run([partial(_rows, chunk) for chunk in _chunks(outbox_ids, _BATCH)]))
        # None of these finds what another one has left: in a dry run, each is undone by itself.
        tally.add(await self._run(self._alone(mxid, threepids), undo=dry_run))
        if not dry_run:
            tally.add(
                await self._run([partial(_invitations_to, chunk) for chunk in _chunks(threepids, _ADDRESSES)])
            )
        return Erased(
            {kind: tally.gone[kind] for kind in ERASED},
            len(tally.waiting),
            len(tally.marks),
            tuple(sorted(tally.homeservers)),
        )

    async def _mentioning(self, mentions: Mentions) -> list[int]:
        """The rows of the outbox in which somebody is mentioned."""
        found: list[int] = []
        after, done, of = 0, 0, await self._db.read(letter_rows.count)

        def look(tx: Tx, after: int) -> tuple[list[int], int, int]:
            texts = letter_rows.texts_after(tx, after, _BATCH)
            hits = [each.outbox_id for each in texts if mentions.found_in(each.payload, each.last_error)]
            return hits, len(texts), texts[-1].outbox_id if texts else after

        while True:
            hits, number, after = await self._db.read(look, after)
            found += hits
            done += number
            self._on_progress(done, max(of, done))
            if number < _BATCH:
                return found

    async def _run(self, steps: Iterable[_Step], *, undo: bool = False) -> _Tally:
        """Takes each step, and again as long as there is more, each time in a transaction.

        Args:
            steps: those.
            undo: each is taken once, and undone.
        """
        tally = _Tally()
        for step in steps:
            more = True
            while more:
                part = _Tally()
                more = await (self._undone(step, part) if undo else self._db.write(step, part))
                tally.add(part)
        return tally

    async def _undone(self, step: _Step, tally: _Tally) -> bool:
        def take(tx: Tx) -> None:
            step(tx, tally)
            raise _UndoneError

        with suppress(_UndoneError):
            await self._db.write(take)
        return False

    def _alone(self, mxid: str | None, threepids: Sequence[Threepid]) -> Iterator[_Step]:
        """Erases what belongs to one address, or to the user, alone."""
        for chunk in _chunks(threepids, _ADDRESSES):
            yield partial(self._addresses, chunk)
        # Some addresses have a bucket in common.
        buckets = dict.fromkeys(bucket for threepid in threepids for bucket in buckets_of_address(threepid))
        if mxid is not None:
            buckets |= dict.fromkeys(buckets_of_user(mxid))
        for some in _chunks(list(buckets), _BATCH):
            yield partial(_buckets, some)

    def _addresses(self, threepids: Sequence[Threepid], tx: Tx, tally: _Tally) -> bool:
        for threepid in threepids:
            self._address(tx, threepid, tally)
        return False

    def _address(self, tx: Tx, threepid: Threepid, tally: _Tally) -> None:
        known = association_rows.association(tx, threepid)
        if known is not None:
            # Also what a peer has stated: that we say that it is no longer so is the newest statement about it.
            self._statements.unbind(tx, threepid, known.mxid, self._now_ms())
            tally.gone["associations"] += 1
            tally.gone["associations_of_peers"] += known.origin_server != self._server_name
            tally.homeservers.add(server_name_of(known.mxid))
        for sid in validation_rows.sessions_of(tx, threepid):
            tally.gone["session_tokens"] += len(validation_rows.tokens(tx, sid))
            validation_rows.delete_session(tx, sid)
            tally.gone["sessions"] += 1
        if statement_rows.has_tombstone(tx, threepid):
            tally.waiting.add(threepid)
        if statement_rows.newest(tx, threepid) is not None:
            tally.marks.add(threepid)


def _account(mxid: str, tx: Tx, tally: _Tally) -> bool:
    tally.gone["access_tokens"] += account_rows.tokens_of(tx, mxid)
    tally.gone["accepted_terms"] += len(terms_rows.accepted(tx, mxid))
    tally.gone["accounts"] += account_rows.delete_account(tx, mxid)
    return False


def _rows(outbox_ids: Sequence[int], tx: Tx, tally: _Tally) -> bool:
    for outbox_id in outbox_ids:
        _row(tx, outbox_id, tally)
    return False


def _buckets(buckets: Sequence[tuple[str, str]], tx: Tx, tally: _Tally) -> bool:
    tally.gone["budgets"] += budget_rows.forget(tx, buckets)
    return False


def _invitations_to(threepids: Sequence[Threepid], tx: Tx, tally: _Tally) -> bool:
    tokens: list[str] = []
    for threepid in threepids:
        tokens += invite_rows.tokens_of(tx, threepid, _BATCH - len(tokens))
    return _invitations(tx, tokens, tally)


def _invitations(tx: Tx, tokens: Sequence[str], tally: _Tally) -> bool:
    revoked = revoking.delete(tx, tokens, handed_over=True)
    tally.gone["invitations"] += revoked.invitations
    tally.gone["ephemeral_keys"] += revoked.invitations
    tally.gone["outbox_rows"] += revoked.mails
    return len(tokens) >= _BATCH


def _keys(mxid: str, tx: Tx, tally: _Tally) -> bool:
    """Those of invitations that have reached their homeserver."""
    number = invite_rows.delete_keys_from(tx, mxid, _BATCH)
    tally.gone["ephemeral_keys"] += number
    return number >= _BATCH


def _row(tx: Tx, outbox_id: int, tally: _Tally) -> None:
    if letter_rows.letter(tx, outbox_id) is None:
        return
    _invitations(tx, invite_rows.tokens_in(tx, outbox_id), tally)
    outbox_rows.withdraw(tx, outbox_id)
    tally.gone["outbox_rows"] += 1


def _chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
