"""Asking peers back for what was stated since a backup was made that this server was set back to.

Three things are missing then. What was bound here, peers have with our signature. What they have stated themselves they
have, too, but believe that we know it. And of what was unbound, here or there, no address may be left anywhere but in
our old copy: so that peers are asked about the addresses that are bound here, as soon as they know of an unbind that we
do not find otherwise.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, TypeVar

import orjson

from sydentish.actions.ports import OwnTaker, PushReceiver, StatementTaker
from sydentish.domain.associations import Association
from sydentish.domain.errors import UnknownPeer, VerificationFailed
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import LOG_PATH, MOST_ADDRESSES, RECALL_PATH, UNBOUND_PATH, Peer
from sydentish.domain.signatures import check_signed_by
from sydentish.domain.statements import Order, Tombstone, order_of, read_statement
from sydentish.domain.threepids import Threepid
from sydentish.replication.link import Answer, LinkFailed, is_answer_of_sydent
from sydentish.replication.recalled import HIGHEST_ID, MOST_UNBOUND, Page, Recalled, read_page, read_unbound
from sydentish.store import associations as association_rows
from sydentish.store import counters, recalls
from sydentish.store import peers as peer_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database, Tx
from sydentish.store.recalls import Pending

T = TypeVar("T")


class Asking(Protocol):
    """The way to peers, as far as questions go."""

    async def ask(self, peer: Peer, path: str, body: bytes) -> Answer:
        """See `PeerLink.ask`."""


class Taker(OwnTaker, StatementTaker, Protocol):
    """Takes statements, whoever has made them."""


class _CannotAsk(Exception):
    """The peer gives no answer that could be used; the message says why."""


class _IsSydent(Exception):
    """The peer does not know what it was asked, as a Sydent would not."""


@dataclass(slots=True)
class _Asked:
    """A peer that is being asked.

    Attributes:
        pending: for what.
        found: what has come of it.
        wanted: unbinds that it knows, and that were not found here yet.
    """

    pending: Pending
    found: Recalled
    wanted: set[Order] = field(default_factory=set)


class Recall:
    """Asks all peers that are still to be asked; also beside a server that runs.

    Args:
        db: the database.
        keys: whose statements were lost, and what they are signed with.
        link: the way to the peers.
        taker: takes back what was stated here.
        receiver: takes those of the peers, as if they had pushed them.
        max_future_ms: how far ahead of our clock what they tell may be dated, in ms.
        now_ms: the time, in ms.
        all_addresses: whether peers are also asked about addresses that third servers have bound, where an unbind that they
            tell of is found among no others: they learn these addresses, if they do not know them already.
        on_progress: hears how many questions were answered, and how many there are at least.
    """

    def __init__(
        self,
        *,
        db: Database,
        keys: KeyRing,
        link: Asking,
        taker: Taker,
        receiver: PushReceiver,
        max_future_ms: int,
        now_ms: Callable[[], int],
        all_addresses: bool,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._db = db
        self._keys = keys
        self._link = link
        self._taker = taker
        self._receiver = receiver
        self._max_future_ms = max_future_ms
        self._now_ms = now_ms
        self._all_addresses = all_addresses
        self._on_progress = on_progress
        self._answers = 0

    async def run(self) -> list[Recalled]:
        """Asks; what has come of each peer. As long as one could not be asked, all are asked again the next time.

        For what that one tells may be outdated by what another one knows.
        """
        asked = [
            _Asked(each, Recalled(each.peer.name, each.peers_id))
            for each in await self._db.read(recalls.pending)
        ]
        # Binds of all first: what one of them knows to be unbound, another one may have bound before.
        for work in (self._own, self._theirs, self._unbinds):
            for each in asked:
                if each.found.failure is None and not each.found.is_sydent:
                    await self._try(work, each)
        if all(each.found.failure is None and not each.found.unfound for each in asked):
            await self._db.write(recalls.done)
        return [each.found for each in asked]

    async def _try(self, work: Callable[[_Asked], Awaitable[None]], asked: _Asked) -> None:
        try:
            await work(asked)
        except _IsSydent:
            asked.found.is_sydent = True
        except (_CannotAsk, UnknownPeer) as problem:
            asked.found.failure = str(problem)

    async def _own(self, asked: _Asked) -> None:
        """Our own statements, as far as the peer knows them."""
        us, after, more = self._keys.server_name, asked.pending.own_id, True
        # All that was lost has been passed over: who tells of more has made it up.
        highest = await self._db.read(counters.value, counters.STATEMENT)
        while more:
            page = await self._page(asked, RECALL_PATH, after, highest)
            binds = [bind for each in page.statements.items() if (bind := self._bind(*each, asked.found))]
            asked.found.binds += await self._db.write(self._take_back, binds, asked.pending.own_id)
            self._want(asked, us, page)
            after, more = page.until, page.more

    def _bind(self, origin_id: int, value: Mapping[str, object], found: Recalled) -> Association | None:
        try:
            check_signed_by(value, self._keys.server_name, self._keys.public_key)
            statement = read_statement(value, self._keys.server_name, origin_id)
        except ValueError:
            found.foreign += 1
            return None
        return statement if isinstance(statement, Association) else None

    def _take_back(self, tx: Tx, statements: Iterable[Association | Tombstone], own_id: int) -> int:
        """Has statements of ours be so again; peers that were sent later ones since are sent them, too."""
        us, taken = self._keys.server_name, 0
        for each in statements:
            # A number that is known here needs no taking back, and one that was used otherwise is a mistake of the peer.
            if statement_rows.own_statement(tx, us, each.origin_id) is None:
                taken += self._taker.take_back(tx, each, self._now_ms())
        if taken:
            peer_rows.rewind(tx, own_id)
        return taken

    async def _theirs(self, asked: _Asked) -> None:
        """What the peer has stated itself, as if it had pushed it."""
        peer, after, more = asked.pending.peer, asked.pending.peers_id, True
        while more:
            page = await self._page(asked, LOG_PATH, after)
            await self._receive(peer.name, page.statements, asked.found)
            self._want(asked, peer.name, page)
            after, more = page.until, page.more

    async def _receive(self, peer: str, told: Mapping[int, Mapping[str, object]], found: Recalled) -> None:
        left: dict[str, object] = {str(origin_id): value for origin_id, value in told.items()}
        while left:
            try:
                await self._receiver.receive(peer, left)
            except VerificationFailed as refused:
                bad = left.keys() & set(refused.failed_ids)
                if not bad:
                    raise _CannotAsk(str(refused)) from None
                found.refused += len(bad)
                left = {origin_id: value for origin_id, value in left.items() if origin_id not in bad}
            else:
                found.pushed += len(left)
                return

    def _want(self, asked: _Asked, origin: str, page: Page) -> None:
        asked.wanted |= {Order(ts, origin, origin_id) for origin_id, ts in page.unbound.items()}
        if len(asked.wanted) > MOST_UNBOUND:
            raise _CannotAsk("it tells of more unbinds than can be looked for")

    async def _unbinds(self, asked: _Asked) -> None:
        """The unbinds that the peer knows: of which of our addresses they are."""
        asked.wanted -= await self._db.read(_known_unbinds, asked.wanted)
        us, them = self._keys.server_name, asked.pending.peer.name
        # It knows the addresses that we and itself have bound. Those of third servers may be none of its business.
        for first in (True, False) if self._all_addresses else (True,):
            at: Threepid | None = None
            while asked.wanted:
                batch = await self._db.read(association_rows.after, at, MOST_ADDRESSES)
                if not batch:
                    break
                at = batch[-1].threepid
                latest = max(asked.wanted)
                chosen = [
                    (each.threepid, order_of(each))
                    for each in batch
                    if (each.origin_server in (us, them)) is first and order_of(each) < latest
                ]
                if chosen:
                    await self._ask_about(asked, chosen)
        if not self._all_addresses:
            asked.found.unfound = len(asked.wanted)

    async def _ask_about(self, asked: _Asked, chosen: Sequence[tuple[Threepid, Order]]) -> None:
        us, them = self._keys.server_name, asked.pending.peer.name
        question = [[each.medium, each.address, known.ts] for each, known in chosen]
        answer = await self._ask(asked.pending.peer, UNBOUND_PATH, {"addresses": question})
        latest_ts = self._now_ms() + self._max_future_ms
        found = _read(lambda: read_unbound(answer, chosen, (us, them), latest_ts))
        # No others: of what it has not told of before, nothing was lost.
        tombstones = [
            Tombstone(each, order.ts, order.origin_server, order.origin_id)
            for each, order in found.items()
            if order in asked.wanted
        ]
        if tombstones:
            asked.found.unbinds += await self._db.write(self._unbind, tombstones, asked.pending.own_id)
        asked.wanted -= set(found.values())

    def _unbind(self, tx: Tx, tombstones: Sequence[Tombstone], own_id: int) -> int:
        us = self._keys.server_name
        ours = [each for each in tombstones if each.origin_server == us]
        theirs = [each for each in tombstones if each.origin_server != us]
        return self._take_back(tx, ours, own_id) + sum(
            self._taker.take(tx, each, None, self._now_ms()) for each in theirs
        )

    async def _page(self, asked: _Asked, path: str, after: int, highest: int = HIGHEST_ID) -> Page:
        answer = await self._ask(asked.pending.peer, path, {"after": str(after)})
        return _read(lambda: read_page(answer, after, highest))

    async def _ask(self, peer: Peer, path: str, question: Mapping[str, object]) -> Answer:
        try:
            answer = await self._link.ask(peer, path, orjson.dumps(question))
        except LinkFailed as failed:
            raise _CannotAsk(failed.reason) from None
        if is_answer_of_sydent(answer):
            raise _IsSydent
        if answer.status == HTTPStatus.NOT_FOUND and answer.errcode == "M_UNRECOGNIZED":
            raise _CannotAsk("its version cannot be asked for this: it must be updated first")
        if answer.status != HTTPStatus.OK:
            code = f" {answer.errcode}" if answer.errcode else ""
            raise _CannotAsk(f"it was asked what it knows, and answers HTTP {answer.status}{code}")
        self._answers += 1
        self._on_progress(self._answers, self._answers + 1)
        return answer


def _known_unbinds(tx: Tx, unbinds: Iterable[Order]) -> set[Order]:
    return {
        each
        for each in unbinds
        if statement_rows.erased_between(tx, each.origin_server, each.origin_id - 1, each.origin_id).get(
            each.origin_id
        )
        == each.ts
    }


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise _CannotAsk(f"it was asked what it knows, and its answer makes no sense: {error}") from None
