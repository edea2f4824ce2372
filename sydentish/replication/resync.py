"""Comparing what a peer knows of our statements with what we know of them, and sending what is missing there."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson

from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import DIGESTS_PATH, Accepted, Failed, Outcome, Peer, Refused, settled
from sydentish.domain.statements import MAX_ORIGIN_ID, read_origin_id
from sydentish.replication.link import Answer, LinkFailed, PeerLink
from sydentish.replication.trial import is_unknown_to_a_sydent
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database, Tx

# What a peer answers at once.
_MOST_IDS = 100_000
_MOST_DIGESTS = 1000
_SIZE = _MOST_IDS // _MOST_DIGESTS
_PARKED_MS = 3_600_000
_DIGEST = re.compile(r"[0-9a-f]{64}")

Digests = Mapping[int, tuple[int, str]]


@dataclass(slots=True)
class Resynced:
    """What has come of it.

    Attributes:
        compared: how many of our statements were compared.
        sent: how many were sent again, and taken.
        refused: those that the peer refuses by name, and what it says of them.
        erased: how many it does not have, and cannot be sent since their addresses are erased.
        outdated: how many it took, but does not keep, since it knows newer ones of other servers.
        foreign: how many of our statements it has that are no longer known here.
        starts_over: whether it cannot be compared, so that everything is pushed to it again.
        failure: why it ended early, or None.
    """

    compared: int = 0
    sent: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    erased: int = 0
    outdated: int = 0
    foreign: int = 0
    starts_over: bool = False
    failure: str | None = None


class ResyncFailed(Exception):
    """The peer cannot be compared with, or sent anything; the message says why."""


class _CannotCompare(Exception):
    """The peer does not know digests."""


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
        end = min(last + _MOST_IDS, MAX_ORIGIN_ID)
        for after in range(0, end, _MOST_IDS):
            until = min(after + _MOST_IDS, end)
            await self._range(peer, after, until, found)
            self._on_progress(until, end)

    async def _range(self, peer: Peer, after: int, until: int, found: Resynced) -> None:
        """Compares the statements behind one number and up to another, and sends what is missing."""
        ours, theirs = await self._both(peer, after, until, _SIZE)
        found.compared += sum(count for count, _ in ours.values())
        differing = sorted(start for start in {*ours, *theirs} if ours.get(start) != theirs.get(start))
        for first, last in _spans(differing):
            # Where the peer has nothing at all, there is nothing to be asked either.
            empty = not any(first <= start <= last for start in theirs)
            await self._narrow(peer, first, min(last + _SIZE, until), found, empty=empty)

    async def _narrow(self, peer: Peer, after: int, until: int, found: Resynced, *, empty: bool) -> None:
        """Compares one by one."""
        ours, theirs = await self._both(peer, after, until, 1, empty=empty)
        missing = [start + 1 for start, digest in sorted(ours.items()) if theirs.get(start) != digest]
        taken: set[int] = set()
        if missing:
            parked = {origin_id for origin_id, _ in await self._db.read(push_rows.parked, peer.name)}
            for again in (False, True):
                # Those that were refused before go for themselves: that they are refused again is no news.
                ids = [each for each in missing if (each in parked) is again]
                for at in range(0, len(ids), self._batch_size):
                    taken |= await self._send(peer, ids[at : at + self._batch_size], found, parked=again)
        if taken:
            ours, theirs = await self._both(peer, after, until, 1)
            found.outdated += sum(ours.get(each - 1) != theirs.get(each - 1) for each in taken)
        found.foreign += len(theirs.keys() - ours.keys())

    async def _send(
        self, peer: Peer, origin_ids: Sequence[int], found: Resynced, *, parked: bool
    ) -> frozenset[int]:
        """Pushes statements, without those that the peer refuses by name; which it has taken."""
        left = list(origin_ids)
        while left:
            # Signed in a thread, as the server does.
            prepared = await self._db.read(self._prepare, left)
            if len(left) == len(origin_ids):
                found.erased += len(left) - len(prepared.sent)
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
        statements = [statement_rows.own_statement(tx, us, origin_id) for origin_id in origin_ids]
        signed = {
            str(each.origin_id): self._keys.sign(each.to_json()) for each in statements if each is not None
        }
        return _Prepared(frozenset(map(int, signed)), orjson.dumps({"sgAssocs": signed}))

    async def _both(
        self, peer: Peer, after: int, until: int, size: int, *, empty: bool = False
    ) -> tuple[Digests, Digests]:
        """Our digests, and the peer's; `empty` where it is known that it has none."""
        theirs = {} if empty else await self._theirs(peer, after, until, size)
        return await self._db.read(statement_rows.digests, self._keys.server_name, after, until, size), theirs

    async def _theirs(self, peer: Peer, after: int, until: int, size: int) -> Digests:
        asked = {"after": after, "until": until, "size": size}
        try:
            answer = await self._link.ask(peer, DIGESTS_PATH, orjson.dumps(asked))
        except LinkFailed as failed:
            raise ResyncFailed(failed.reason) from None
        if is_unknown_to_a_sydent(answer):
            raise _CannotCompare
        if answer.status != HTTPStatus.OK:
            code = f" {answer.errcode}" if answer.errcode else ""
            raise ResyncFailed(f"it was asked what it knows, and answers HTTP {answer.status}{code}")
        try:
            return read_digests(answer, after, until, size)
        except ValueError as error:
            raise ResyncFailed(
                f"it was asked what it knows, and its answer makes no sense: {error}"
            ) from None


def read_digests(answer: Answer, after: int, until: int, size: int) -> dict[int, tuple[int, str]]:
    """What a peer answers of what it knows, as `store.statements.digests` has it.

    Args:
        answer: HTTP 200; nothing of it was checked yet.
        after: the highest origin id that was not meant.
        until: the highest that was.
        size: how many origin ids were to go into one digest.

    Raises:
        ValueError: it is not that.
    """
    digests = (answer.body or {}).get("digests")
    if not isinstance(digests, dict) or len(digests) > _MOST_DIGESTS:
        raise ValueError("there are no digests in it, or too many")
    found = {}
    for key, value in digests.items():
        start = _start(key)
        if start is None or not after <= start < until or (start - after) % size:
            raise ValueError("it has digests that were not asked for")
        if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - a number and a hash
            raise ValueError("a digest is none")
        count, digest = value
        if type(count) is not int or not 0 < count <= size:
            raise ValueError("a digest is of none, or of too many")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError("a digest is none")
        found[start] = (count, digest)
    return found


def _start(key: str) -> int | None:
    try:
        return read_origin_id(key)
    except ValueError:
        return None


def _spans(starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of neighbours that can be asked for one by one at once."""
    span: list[int] = []
    for start in starts:
        if span and start + _SIZE - span[0] > _MOST_DIGESTS:
            yield span[0], span[-1]
            span = []
        span.append(start)
    if span:
        yield span[0], span[-1]
