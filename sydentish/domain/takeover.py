"""Taking over what a Sydent has kept: which of its rows about an address says what is true.

A Sydent keeps two tables. One is the log of what it has stated itself, unbinds included, from which it pushes; it has
one row for each address, as it was spelt. The other has the binds of all servers, its own among them, and is what it
looks up in; an unbind, whoever states it, only deletes rows there. So a bind of its own that stands in the log alone
was unbound elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from sydentish.domain.associations import Association
from sydentish.domain.ids import is_server_name
from sydentish.domain.signatures import canonical
from sydentish.domain.statements import Statement, Tombstone, order_of, read_statement

OWN = "associations of this server"
PEERS = "associations of peers"
UNBINDS = "unbinds"

MOST_ID = 1 << 62
"""The highest number of a statement that is taken over: ours go on behind it, and need room."""

OUTDATED = "outdated: a newer statement about that address counts"
GONE = "unbound at a peer"

Outcome = tuple[str, str]
"""What kind of thing a row is, and what becomes of it."""


@dataclass(frozen=True, slots=True)
class OldRow:
    """A row about an address, of either table.

    Attributes:
        medium: as it stands there.
        address: as it stands there.
        mxid: the user, or None for an unbind.
        ts: when it was stated, in ms.
        not_before: from when it is valid, in ms, or None.
        not_after: until when it is valid, in ms, or None.
        origin_server: the server that has stated it; None for the log of its own statements.
        origin_id: its number among the statements of that server.
        row_id: the row in the table of all binds, or None for the log.
    """

    medium: str
    address: str = field(repr=False)
    mxid: str | None
    ts: int
    not_before: int | None
    not_after: int | None
    origin_server: str | None
    origin_id: int
    row_id: int | None

    @property
    def fields(self) -> dict[str, object]:
        """What the statement says."""
        return {
            "medium": self.medium,
            "address": self.address,
            "mxid": self.mxid,
            "ts": self.ts,
            "not_before": self.not_before,
            "not_after": self.not_after,
        }


@dataclass(frozen=True, slots=True)
class OldPeer:
    """A peer, as the Sydent's database has it.

    Attributes:
        name: its server name.
        port: where it is reached, where the configuration does not say.
        acknowledged_id: the last of the Sydent's statements that it has acknowledged; None if that makes no sense.
        is_active: whether it is in use.
        key: its public key, in base64 or hexadecimal.
    """

    name: str
    port: int | None
    acknowledged_id: int | None
    is_active: bool
    key: str | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """An address that stands there in several spellings, for several users; the newest statement counts.

    Attributes:
        medium: of the address.
        address: normalised.
        spellings: as they stand there.
        kept: the user that it belongs to, or None if the newest statement is an unbind.
        lost: the users that it does not belong to any more.
    """

    medium: str
    address: str = field(repr=False)
    spellings: tuple[str, ...] = field(repr=False)
    kept: str | None
    lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What all rows about one address say together.

    Attributes:
        kind: of the statement that counts.
        statement: that one; None if none can be used.
        signed: what another server has signed, if it is one of its.
        is_told: whether it is an unbind that peers are sent, unless they have acknowledged it.
        others: what becomes of the other rows.
        unusable: those of them that cannot be used, and why.
        conflict: a conflict of spellings, if there is one.
    """

    kind: str
    statement: Statement | None
    signed: str | None = None
    is_told: bool = False
    others: tuple[Outcome, ...] = ()
    unusable: tuple[tuple[OldRow, str], ...] = ()
    conflict: Conflict | None = None


def fold(medium: str, address: str) -> str:
    """What the spellings of one address have in common."""
    return address.removeprefix("+") if medium == "msisdn" else address.casefold()


def settle(rows: Sequence[OldRow], server_name: str, signed: Callable[[int], str | None]) -> Settled:
    """Which of the rows about one address counts: the newest one that can be used, as on every server.

    Args:
        rows: all that there are about an address, in whatever spellings.
        server_name: that of the Sydent, and ours.
        signed: gives the signed JSON object of a row of the table of all binds.
    """
    reading = _Reading(server_name, signed)
    known = {row.origin_id for row in rows if row.origin_server == server_name}
    in_log = [row for row in rows if row.origin_server is None]
    binds = [row for row in rows if row.origin_server is not None]
    candidates = reading.read([*binds, *(row for row in in_log if row.mxid is None)])
    gone = [row for row in in_log if row.mxid is not None and row.origin_id not in known]
    winner = reading.newest_of(candidates)
    if winner is None:
        return reading.only_gone(gone)
    row, statement, text = winner
    others = [(reading.kind(other), OUTDATED) for other, _ in candidates if other is not row]
    return Settled(
        reading.kind(row),
        statement,
        text,
        is_told=isinstance(statement, Tombstone),
        others=(*reading.refused, *others, *((OWN, GONE) for _ in gone)),
        unusable=tuple(reading.unusable),
        conflict=_conflict(statement, [each for each, _ in candidates if each.mxid is not None]),
    )


class _Reading:
    """Reads the rows about one address, and keeps what is wrong with some."""

    def __init__(self, server_name: str, signed: Callable[[int], str | None]) -> None:
        self._server_name = server_name
        self._signed = signed
        self.unusable: list[tuple[OldRow, str]] = []

    @property
    def refused(self) -> list[Outcome]:
        return [(self.kind(row), f"unusable: {reason}") for row, reason in self.unusable]

    def kind(self, row: OldRow) -> str:
        if row.mxid is None:
            return UNBINDS
        return OWN if row.origin_server in (None, self._server_name) else PEERS

    def read(self, rows: Iterable[OldRow]) -> list[tuple[OldRow, Statement]]:
        """Those of the rows that can be used, the newest first."""
        found = []
        for row in rows:
            try:
                origin = self._server_name if row.origin_server is None else _server(row.origin_server)
                statement = read_statement(row.fields, origin, _number(row.origin_id))
            except ValueError as error:
                self._refuse(row, error)
            else:
                found.append((row, statement))
        return sorted(found, key=lambda each: order_of(each[1]), reverse=True)

    def newest_of(
        self, candidates: list[tuple[OldRow, Statement]]
    ) -> tuple[OldRow, Statement, str | None] | None:
        """The first that can be used with what was signed; those before it are taken away."""
        while candidates:
            row, statement = candidates[0]
            if row.row_id is None or row.origin_server == self._server_name:
                return row, statement, None
            try:
                return row, *self._as_signed(row, statement)
            except ValueError as error:
                self._refuse(row, error)
                del candidates[0]
        return None

    def only_gone(self, gone: Sequence[OldRow]) -> Settled:
        """Nobody has the address, but it is remembered: what is older cannot bring it back."""
        read = [each for _, each in self.read(gone)]
        tombstones = [Tombstone(each.threepid, each.ts, each.origin_server, each.origin_id) for each in read]
        return Settled(
            OWN,
            tombstones[0] if tombstones else None,
            others=(*self.refused, *((OWN, GONE) for _ in tombstones)),
            unusable=tuple(self.unusable),
        )

    def _refuse(self, row: OldRow, error: ValueError) -> None:
        self.unusable.append((row, str(error)))

    def _as_signed(self, row: OldRow, statement: Statement) -> tuple[Statement, str]:
        """The statement of a peer as the peer has signed it."""
        origin = statement.origin_server
        try:
            value = orjson.loads(self._signed(row.row_id or 0) or "")
        except orjson.JSONDecodeError:
            raise ValueError("the signed statement must be JSON") from None
        signatures = value.get("signatures") if isinstance(value, dict) else None
        own = signatures.get(origin) if isinstance(signatures, dict) else None
        if not isinstance(own, dict) or not own:
            raise ValueError("the statement must be signed by the server that has made it")
        found = read_statement(value, origin, statement.origin_id)
        if not isinstance(found, Association) or found.threepid != statement.threepid:
            raise ValueError("the signed statement must be about that address")
        kept = {key: value[key] for key in value if key != "unsigned"} | {"signatures": {origin: own}}
        return found, canonical(kept).decode()


def _number(origin_id: int) -> int:
    if not isinstance(origin_id, int) or not 0 <= origin_id <= MOST_ID:
        raise ValueError(f"originId: must be a number from 0 to {MOST_ID}")
    return origin_id


def _server(name: str) -> str:
    if not isinstance(name, str) or not is_server_name(name):
        raise ValueError("originServer: must be a server name")
    return name


def _conflict(statement: Statement, binds: Sequence[OldRow]) -> Conflict | None:
    spellings = {row.address for row in binds}
    users = {row.mxid for row in binds if row.mxid is not None}
    if len(spellings) == 1 or len(users) == 1 or not binds:
        return None
    kept = statement.mxid if isinstance(statement, Association) else None
    threepid = statement.threepid
    lost = tuple(sorted(users - {kept}))
    return Conflict(threepid.medium, threepid.address, tuple(sorted(spellings)), kept, lost)
