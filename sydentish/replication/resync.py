"""Comparing what a peer knows of our statements with what we know of them, and sending what is missing there."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import orjson

from sydentish.domain.associations import Association
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import (
    DIGESTS_PATH,
    MOST_DIGESTS,
    MOST_IDS,
    STATEMENTS_PATH,
    Accepted,
    Failed,
    Outcome,
    Peer,
    Refused,
    settled,
)
from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.replication.comparing import Digests, read_binds, read_digests, read_next
from sydentish.replication.leftovers import Leftovers, bring_back, ours_among
from sydentish.replication.link import Answer, LinkFailed, PeerLink, is_answer_of_sydent
from sydentish.replication.preparing import push_body
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database, Tx

T = TypeVar("T")

_SIZE = MOST_IDS // MOST_DIGESTS
_PARKED_MS = 3_600_000
# Fewer than may be asked for: even the longest of ours must fit into an answer.
_BINDS_AT_ONCE = 500


@dataclass(slots=True)
class Resynced:
    """What has come of it.

    Attributes:
        compared: how many of our statements were compared.
        sent: how many were sent again, and taken.
        refused: those that the peer refuses by name, and what it says of them.
        erased: how many it does not have, and cannot be sent since their addresses are erased.
        outdated: how many it took, but does not keep, since it knows newer ones of other servers.
        gone: how many it still had although they were unbound and erased here, and that it now has no longer.
        superseded: how many it has although newer ones are known here, which it is sent by whoever has stated them.
        foreign: how many others it has of which nothing is known here.
        starts_over: whether it cannot be compared since it seems to be a Sydent, so that everything is pushed to it again.
        failure: why it ended early, or None.
    """

    compared: int = 0
    sent: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    erased: int = 0
    outdated: int = 0
    gone: int = 0
    superseded: int = 0
    foreign: int = 0
    starts_over: bool = False
    failure: str | None = None


class ResyncFailed(Exception):
    """The peer cannot be compared with, or sent anything; the message says why."""


class _CannotCompare(Exception):
    """The peer does not know digests: it seems to be a Sydent."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    sent: frozenset[int]
    body: bytes = field(repr=False)


class Resync:
    """Compares and sends; also while a server pushes to the same peer, since nothing is taken twice.

    Args:
        db: the database.
        keys: what statements are signed with, and in whose name.
        link: the way to the peer.
        batch_size: how many statements go into one push.
        now_ms: the time, in ms.
        on_progress: hears how many numbers are done, and of how many.
    """

    def __init__(
        self,
        *,
        db: Database,
        keys: KeyRing,
        link: PeerLink,
        batch_size: int,
        now_ms: Callable[[], int],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._db = db
        self._keys = keys
        self._link = link
        self._batch_size = batch_size
        self._now_ms = now_ms
        self._on_progress = on_progress

    async def run(self, peer: Peer) -> Resynced:
        """Compares all there is; whatever goes wrong is told in what it returns."""
        found = Resynced()
        try:
            await self._run(peer, found)
        except _CannotCompare:
            await self._db.write(peer_rows.start_over, peer.name, self._now_ms())
            found.starts_over = True
        except ResyncFailed as failed:
            found.failure = str(failed)
        return found

    async def _run(self, peer: Peer, found: Resynced) -> None:
        # A little further than ours: that the peer has more shows that our database was set back.
        last = await self._db.read(statement_rows.last_id, self._keys.server_name)
        end = min(last + MOST_IDS, MAX_ORIGIN_ID)
        after = 0
        while after < end:
            until = min(after + MOST_IDS, end)
            following = [
                await self._range(peer, after, until, found),
                *await self._db.read(statement_rows.ids_after, self._keys.server_name, until, 1),
            ]
            # Numbers jump far with each restore; where nobody knows any, there is nothing to be compared.
            after = min((each - 1 for each in following if each is not None), default=end)
            self._on_progress(min(after, end), end)

    async def _range(self, peer: Peer, after: int, until: int, found: Resynced) -> int | None:
        """Compares the statements behind one number and up to another, and sends what is missing.

        Returns:
            The number of the next one that the peer knows.
        """
        answer = await self._digests(peer, after, until, _SIZE)
        theirs = _read(answer, lambda: read_digests(answer, after, until, _SIZE))
        following = _read(answer, lambda: read_next(answer, until))
        ours = await self._db.read(statement_rows.digests, self._keys.server_name, after, until, _SIZE)
        found.compared += sum(count for count, _ in ours.values())
        differing = sorted(start for start in {*ours, *theirs} if ours.get(start) != theirs.get(start))
        for first, last in _spans(differing):
            # Where the peer has nothing at all, there is nothing to be asked either; unless it was sent unbinds just now.
            empty = not found.gone and not any(first <= start <= last for start in theirs)
            await self._narrow(peer, first, min(last + _SIZE, until), found, empty=empty)
        return following

    async def _narrow(self, peer: Peer, after: int, until: int, found: Resynced, *, empty: bool) -> None:
        """Compares one by one."""
        ours, theirs = await self._both(peer, after, until, 1, empty=empty)
        missing = [start + 1 for start, digest in sorted(ours.items()) if theirs.get(start) != digest]
        taken = await self._send_all(peer, missing, found)
        if taken:
            ours, theirs = await self._both(peer, after, until, 1)
            found.outdated += sum(ours.get(each - 1) != theirs.get(each - 1) for each in taken)
        left = {start: digest for start, digest in theirs.items() if start not in ours}
        if left:
            taken |= await self._clear_away(peer, after, until, left, found)
        found.erased += len(set(missing) - taken - found.refused.keys())

    async def _clear_away(
        self, peer: Peer, after: int, until: int, left: Digests, found: Resynced
    ) -> set[int]:
        """Sends the unbinds of what only the peer knows; which of them it has taken."""
        ids = sorted(start + 1 for start in left)
        leftovers = Leftovers()
        for at in range(0, len(ids), _BINDS_AT_ONCE):
            told = await self._binds(peer, ids[at : at + _BINDS_AT_ONCE])
            # In a thread, and not in the one that writes, as in the server.
            ours = await self._db.read(self._ours_among, told, left)
            if ours:
                became = await self._db.write(bring_back, peer.name, ours, self._now_ms())
                leftovers.unbound |= became.unbound
                leftovers.outdated |= became.outdated
        unbound = leftovers.unbound
        taken = await self._send_all(peer, sorted(set(unbound.values())), found)
        still = {start + 1 for start in await self._theirs(peer, after, until, 1)} if unbound else set(ids)
        gone = unbound.keys() - still
        refused = {bind for bind, unbind in unbound.items() if unbind in found.refused}
        found.gone += len(gone)
        found.superseded += len(leftovers.outdated)
        found.foreign += len(set(ids) - gone - refused - leftovers.outdated)
        return taken

    def _ours_among(
        self, _tx: Tx, told: Mapping[int, Mapping[str, object]], left: Digests
    ) -> list[Association]:
        return ours_among(told, left, self._keys)

    async def _send_all(self, peer: Peer, origin_ids: Sequence[int], found: Resynced) -> set[int]:
        """Sends them in batches; which of them the peer has taken."""
        taken: set[int] = set()
        if origin_ids:
            parked = {origin_id for origin_id, _ in await self._db.read(push_rows.parked, peer.name)}
            for again in (False, True):
                # Those that were refused before go for themselves: that they are refused again is no news.
                ids = [each for each in origin_ids if (each in parked) is again]
                for at in range(0, len(ids), self._batch_size):
                    taken |= await self._send(peer, ids[at : at + self._batch_size], found, parked=again)
        return taken

    async def _send(
        self, peer: Peer, origin_ids: Sequence[int], found: Resynced, *, parked: bool
    ) -> frozenset[int]:
        """Pushes statements, without those that the peer refuses by name; which it has taken."""
        left = list(origin_ids)
        while left:
            # Signed in a thread, as the server does.
            prepared = await self._db.read(self._prepare, left)
            if not prepared.sent:
                break
            outcome = settled(prepared.sent, await self._link.push(peer, prepared.body), parked=parked)
            if isinstance(outcome, Accepted):
                await self._db.write(push_rows.let_go, peer.name, prepared.sent)
                found.sent += len(prepared.sent)
                return prepared.sent
            await self._hold_back(peer, outcome, found)
            left = [each for each in left if each in prepared.sent and each not in found.refused]
        return frozenset()

    async def _hold_back(self, peer: Peer, outcome: Outcome, found: Resynced) -> None:
        if not isinstance(outcome, Refused):
            raise ResyncFailed(outcome.reason if isinstance(outcome, Failed) else "the push failed")
        retry_ts = self._now_ms() + _PARKED_MS
        await self._db.write(push_rows.hold_back, peer.name, outcome.origin_ids, outcome.reason, retry_ts)
        found.refused |= dict.fromkeys(outcome.origin_ids, outcome.reason)

    def _prepare(self, tx: Tx, origin_ids: Collection[int]) -> _Prepared:
        us = self._keys.server_name
        found = (statement_rows.own_statement(tx, us, origin_id) for origin_id in origin_ids)
        statements = [each for each in found if each is not None]
        return _Prepared(frozenset(each.origin_id for each in statements), push_body(self._keys, statements))

    async def _both(
        self, peer: Peer, after: int, until: int, size: int, *, empty: bool = False
    ) -> tuple[Digests, Digests]:
        """Our digests, and the peer's; `empty` where it is known that it has none."""
        theirs = {} if empty else await self._theirs(peer, after, until, size)
        return await self._db.read(statement_rows.digests, self._keys.server_name, after, until, size), theirs

    async def _theirs(self, peer: Peer, after: int, until: int, size: int) -> Digests:
        answer = await self._digests(peer, after, until, size)
        return _read(answer, lambda: read_digests(answer, after, until, size))

    async def _digests(self, peer: Peer, after: int, until: int, size: int) -> Answer:
        asked = {"after": after, "until": until, "size": size}
        answer = await self._ask(peer, DIGESTS_PATH, asked)
        if is_answer_of_sydent(answer):
            raise _CannotCompare
        return answer

    async def _binds(self, peer: Peer, origin_ids: Sequence[int]) -> Mapping[int, Mapping[str, object]]:
        """What the peer has bound by our word; nothing where it cannot be asked that."""
        answer = await self._ask(peer, STATEMENTS_PATH, {"ids": list(map(str, origin_ids))})
        if answer.status == HTTPStatus.NOT_FOUND and answer.errcode == "M_UNRECOGNIZED":
            return {}
        return _read(answer, lambda: read_binds(answer, origin_ids))

    async def _ask(self, peer: Peer, path: str, asked: Mapping[str, object]) -> Answer:
        try:
            return await self._link.ask(peer, path, orjson.dumps(asked))
        except LinkFailed as failed:
            raise ResyncFailed(failed.reason) from None


def _read(answer: Answer, read: Callable[[], T]) -> T:
    if answer.status != HTTPStatus.OK:
        code = f" {answer.errcode}" if answer.errcode else ""
        raise ResyncFailed(f"it was asked what it knows, and answers HTTP {answer.status}{code}")
    try:
        return read()
    except ValueError as error:
        raise ResyncFailed(f"it was asked what it knows, and its answer makes no sense: {error}") from None


def _spans(starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of neighbours that can be asked for one by one at once."""
    span: list[int] = []
    for start in starts:
        if span and start + _SIZE - span[0] > MOST_DIGESTS:
            yield span[0], span[-1]
            span = []
        span.append(start)
    if span:
        yield span[0], span[-1]
