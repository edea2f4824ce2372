"""What peers push here, and what they ask."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from twisted.logger import Logger

from sydentish.actions.ports import SignsOfLife, StatementTaker
from sydentish.domain.errors import InvalidParam, UnknownPeer, VerificationFailed
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import MOST_DIGESTS, MOST_IDS, MOST_RECALLED, MOST_STATEMENTS, Peer
from sydentish.domain.signatures import canonical
from sydentish.domain.statements import Statement, UnusableStatement, order_of, read_origin_id, read_statement
from sydentish.domain.threepids import Threepid
from sydentish.replication.preparing import signed_statements
from sydentish.store import associations as association_rows
from sydentish.store import peers as peer_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database, Tx

_LONGEST_STATEMENT = 4096
"""How many bytes are kept of one statement: whoever signs more has signed more than a statement."""

_LONGEST_NUMBER = 20

_log = Logger()


@dataclass(frozen=True, slots=True)
class _Checked:
    """A statement whose signature is good, and the JSON object that was signed."""

    statement: Statement
    signed: str = field(repr=False)


class Receiver:
    """Answers peers; implements `PushReceiver`.

    Args:
        db: the database.
        keys: what answers are signed with, and in whose name.
        taker: takes statements.
        pusher: has perhaps left the peer alone.
        on_taken: hears of statements that were taken, and that a homeserver may have to hear of.
        on_received: hears of the peer, and of how many statements were `new`, `known` (or outdated), `unusable`,
            or `refused` with all that came with them.
        max_statements: how many statements one push may bring.
        max_future_ms: how far ahead of our clock a statement may be dated, in ms.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        db: Database,
        keys: KeyRing,
        taker: StatementTaker,
        pusher: SignsOfLife,
        on_taken: Callable[[Sequence[Statement]], None],
        on_received: Callable[[str, Mapping[str, int]], None],
        max_statements: int,
        max_future_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._keys = keys
        self._taker = taker
        self._pusher = pusher
        self._on_taken = on_taken
        self._on_received = on_received
        self._max_statements = max_statements
        self._max_future_ms = max_future_ms
        self._now_ms = now_ms

    async def receive(self, peer: str, statements: Mapping[str, object]) -> None:
        """See `PushReceiver`."""
        if len(statements) > self._max_statements:
            raise InvalidParam("sgAssocs", f"must be at most {self._max_statements} statements")
        # Checked in a thread, and not in the one that writes: a signature costs as much as ten look-ups.
        try:
            checked = await self._db.read(self._check_all, peer, statements, self._now_ms())
        except VerificationFailed as refused:
            self._on_received(peer, {"refused": len(refused.failed_ids)})
            raise
        taken = await self._db.write(self._take_all, peer, checked, self._now_ms())
        if taken:
            self._on_taken(taken)
        counts = {
            "new": len(taken),
            "known": len(checked) - len(taken),
            "unusable": len(statements) - len(checked),
        }
        self._on_received(peer, counts)
        self._pusher.heard_from(peer)

    async def check(self, peer: str, greeting: Mapping[str, object]) -> dict[str, object]:
        """See `PushReceiver`."""
        known = await self._db.read(_known, peer)
        signature = "valid"
        try:
            known.check_signature(greeting)
        except ValueError as error:
            signature = str(error)
        return self._keys.sign(
            {
                "server_name": self._keys.server_name,
                "peer": peer,
                "signature": signature,
                "ts": self._now_ms(),
                "max_future_ms": self._max_future_ms,
            }
        )

    async def digests(self, peer: str, after: int, until: int, size: int) -> dict[str, object]:
        """See `PushReceiver`."""
        if until - after > MOST_IDS:
            raise InvalidParam("until", f"must be at most {MOST_IDS} above after")
        if until - after > size * MOST_DIGESTS:
            raise InvalidParam("size", f"must be so large that these are at most {MOST_DIGESTS} digests")
        return await self._db.read(_digests, peer, after, until, size)

    async def statements(self, peer: str, origin_ids: Collection[int]) -> dict[str, object]:
        """See `PushReceiver`."""
        if len(origin_ids) > MOST_STATEMENTS:
            raise InvalidParam("ids", f"must be at most {MOST_STATEMENTS}")
        return {"sgAssocs": await self._db.read(_statements, peer, origin_ids)}

    async def recall(self, peer: str, after: int) -> dict[str, object]:
        """See `PushReceiver`."""
        return await self._db.read(_recall, peer, after)

    async def log(self, peer: str, after: int) -> dict[str, object]:
        """See `PushReceiver`."""
        return await self._db.read(self._log_after, peer, after)

    async def unbound(self, peer: str, asked: Sequence[tuple[Threepid, int]]) -> dict[str, object]:
        """See `PushReceiver`."""
        return {"unbound": await self._db.read(self._unbound, peer, asked)}

    def _log_after(self, tx: Tx, name: str, after: int) -> dict[str, object]:
        _known(tx, name)
        us = self._keys.server_name
        until, more = _page(tx, us, after)
        statements = statement_rows.log_between(tx, us, after, until, MOST_RECALLED)
        # Of those that every peer had acknowledged, only the numbers are left.
        erased = statement_rows.erased_between(tx, us, after, until).items() - {
            (each.origin_id, each.ts) for each in statements
        }
        return _told(signed_statements(self._keys, statements), dict(erased), until, more=more)

    def _unbound(self, tx: Tx, name: str, asked: Sequence[tuple[Threepid, int]]) -> dict[str, object]:
        _known(tx, name)
        found: dict[str, object] = {}
        for number, (threepid, ts) in enumerate(asked):
            order = statement_rows.erased(tx, threepid)
            # What third ones have unbound, these are asked for themselves.
            if order and order.ts >= ts and order.origin_server in (name, self._keys.server_name):
                found[str(number)] = [order.ts, order.origin_server, str(order.origin_id)]
        return found

    def _check_all(self, tx: Tx, name: str, statements: Mapping[str, object], now_ms: int) -> list[_Checked]:
        """Those that can be used; raises if one of them is not what it should be."""
        peer = _known(tx, name)
        checked, unusable, failed = [], dict[str, str](), dict[str, str]()
        for origin_id, value in statements.items():
            try:
                checked.append(self._check(peer, origin_id, value, now_ms))
            except UnusableStatement as error:
                unusable[origin_id] = str(error)
            except ValueError as error:
                failed[origin_id] = str(error)
        if failed:
            self._refuse(name, failed, len(statements))
        if unusable:
            number, reason = next(iter(unusable.items()))
            _log.warn(
                "{count} of {pushed} statements that {peer} has pushed are of no use here; {number}: {reason}",
                count=len(unusable),
                pushed=len(statements),
                peer=name,
                number=_number(number),
                reason=reason,
            )
        return checked

    def _refuse(self, name: str, failed: Mapping[str, str], pushed: int) -> None:
        origin_id, reason = next(iter(failed.items()))
        number = _number(origin_id)
        _log.warn(
            "a push of {peer} was refused because of {failed} of {pushed} statements; {number}: {reason}",
            peer=name,
            failed=len(failed),
            pushed=pushed,
            number=number,
            reason=reason,
        )
        raise VerificationFailed(
            f"Nothing was taken because of {len(failed)} of {pushed} statements; {number}: {reason}",
            tuple(origin_id[:_LONGEST_NUMBER] for origin_id in failed),
        )

    def _check(self, peer: Peer, origin_id: str, value: object, now_ms: int) -> _Checked:
        number = read_origin_id(origin_id)
        if not isinstance(value, dict):
            raise ValueError("must be a JSON object")  # noqa: TRY004 - one kind of error for all that a peer sends
        peer.check_signature(value)
        statement = read_statement(value, peer.name, number)
        ahead_ms = statement.ts - now_ms
        if ahead_ms > self._max_future_ms:
            raise ValueError(f"is dated {ahead_ms // 1000} s in the future: compare the clocks")
        signed = canonical(peer.own_part(value))
        if len(signed) > _LONGEST_STATEMENT:
            raise UnusableStatement(f"has more than {_LONGEST_STATEMENT} bytes")
        return _Checked(statement, signed.decode())

    def _take_all(self, tx: Tx, name: str, checked: list[_Checked], now_ms: int) -> list[Statement]:
        _known(tx, name)  # it may have been removed meanwhile
        peer_rows.received(tx, name, now_ms)
        # What is outdated within the push itself need not be told to any homeserver.
        newest: dict[Threepid, _Checked] = {}
        for each in sorted(checked, key=lambda each: order_of(each.statement)):
            newest[each.statement.threepid] = each
        return [
            each.statement
            for each in newest.values()
            if self._taker.take(tx, each.statement, each.signed, now_ms)
        ]


def _known(tx: Tx, name: str) -> Peer:
    state = peer_rows.state(tx, name)
    if state is None or not state.in_use:
        raise UnknownPeer("The certificate is not that of a peer of this server any more")
    return state.peer


def _digests(tx: Tx, name: str, after: int, until: int, size: int) -> dict[str, object]:
    peer = _known(tx, name).name
    found = statement_rows.digests(tx, peer, after, until, size)
    following = statement_rows.ids_after(tx, peer, until, 1)
    return {
        "digests": {str(start): list(digest) for start, digest in found.items()},
        "next": str(following[0]) if following else None,
    }


def _statements(tx: Tx, name: str, origin_ids: Collection[int]) -> dict[str, object]:
    """Read again in a thread, too."""
    found = association_rows.signed_by(tx, _known(tx, name).name, origin_ids, _LONGEST_STATEMENT)
    return {str(origin_id): orjson.loads(signed) for origin_id, signed in found.items()}


def _recall(tx: Tx, name: str, after: int) -> dict[str, object]:
    origin = _known(tx, name).name
    until, more = _page(tx, origin, after)
    signed = association_rows.signed_between(tx, origin, after, until, _LONGEST_STATEMENT)
    binds = {str(origin_id): orjson.loads(text) for origin_id, text in signed.items()}
    return _told(binds, statement_rows.erased_between(tx, origin, after, until), until, more=more)


def _page(tx: Tx, origin_server: str, after: int) -> tuple[int, bool]:
    """Up to which number an answer tells of the statements of a server, and whether there may be more behind it."""
    ids = statement_rows.ids_after(tx, origin_server, after, MOST_RECALLED)
    return (ids[-1] if ids else after), len(ids) == MOST_RECALLED


def _told(
    statements: Mapping[str, object], unbound: Mapping[int, int], until: int, *, more: bool
) -> dict[str, object]:
    times = {str(origin_id): ts for origin_id, ts in unbound.items()}
    return {"sgAssocs": statements, "unbound": times, "until": str(until), "more": more}


def _number(origin_id: str) -> str:
    """What a peer calls a statement; what is no number could be anything."""
    try:
        return str(read_origin_id(origin_id))
    except ValueError:
        return "one without a number"
