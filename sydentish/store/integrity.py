"""Whether what stands in a database agrees: associations with their hashes and signatures, and what is derived."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from sydentish.domain.accounts import hash_secret
from sydentish.domain.associations import Association
from sydentish.domain.lookup import hash_address
from sydentish.domain.peers import Peer
from sydentish.domain.signatures import check_signed_by
from sydentish.domain.statements import read_statement
from sydentish.domain.threepids import Threepid
from sydentish.store import invites, peers, statements
from sydentish.store.counters import JUMP, STATEMENT, value
from sydentish.store.database import Row, Tx, number
from sydentish.store.shape import Flaw

PAGE = 500
"""How many rows are looked at in one transaction: so that none of them lasts."""

_COLUMNS = "rowid, medium, address, mxid, ts, not_before, not_after, origin_server, origin_id, signed"
_HASHES = "a new pepper has all hashes made anew: set [lookup] pepper_rotation to 1h until sydentish stats shows a new one"
_SIGNED = "ask that peer for it again: there, sydentish peers resync with the name of this server"
_KEY_HEX = 64


@dataclass(slots=True)
class Looked:
    """What was looked at.

    Attributes:
        associations: how many.
        unknown: how many of them were stated by servers, or signed with keys, that are not known here.
        wrong: how many are wrong in each way, by `_WAYS`.
    """

    associations: int = 0
    unknown: int = 0
    wrong: "Counter[str]" = field(default_factory=Counter)


_WAYS = {
    "missing": ("hashes", "associations are not found by their hashes", _HASHES),
    "other": ("hashes", "associations have another user by their hashes", _HASHES),
    "erased": (
        "unbinds",
        "addresses are bound, and unbound at the same time",
        "unbind them, and bind them again",
    ),
    "unsigned": ("signatures", "associations of peers have no signature of theirs that is good", _SIGNED),
    "unlike": ("signatures", "associations of peers are not what these have signed", _SIGNED),
}


class Checks:
    """Looks at associations, page by page.

    Args:
        server_name: our own.
        grace_ms: how long the hashes of a pepper are kept after it was replaced, in ms.
        now_ms: the time, in ms.
    """

    def __init__(self, server_name: str, grace_ms: int, now_ms: int) -> None:
        self._us = server_name
        self._grace_ms = grace_ms
        self._now_ms = now_ms
        self.looked = Looked()

    def page(self, tx: Tx, after: int, until: int) -> int:
        """Looks at the associations behind a row, at most `PAGE` of them; the last of these, or `until`."""
        rows = tx.rows(
            f"SELECT {_COLUMNS} FROM associations WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",  # noqa: S608 - a constant
            (after, until, PAGE),
        )
        self._look(tx, rows)
        return rows[-1][0] if len(rows) == PAGE else until

    def sample(self, tx: Tx, until: int, count: int, below: Callable[[int], int] = random.randrange) -> None:
        """Looks at some that chance has picked."""
        picked: dict[int, Row] = {}
        for _ in range(count):
            row = tx.row(
                f"SELECT {_COLUMNS} FROM associations WHERE rowid > ? ORDER BY rowid LIMIT 1",  # noqa: S608 - a constant
                (below(max(1, until)),),
            )
            if row is not None:
                picked[row[0]] = row
        self._look(tx, list(picked.values()))

    def flaws(self) -> Iterator[Flaw]:
        """What is wrong with what was looked at."""
        for way, (check, told, remedy) in _WAYS.items():
            if self.looked.wrong[way]:
                yield Flaw(check, f"{self.looked.wrong[way]} {told}", remedy)

    def _look(self, tx: Tx, rows: Sequence[Row]) -> None:
        known = {each.peer.name: each.peer for each in peers.states(tx)}
        peppers = [
            (each, text)
            for each, text, complete in _live_peppers(tx, self._grace_ms, self._now_ms)
            if complete
        ]
        self.looked.associations += len(rows)
        for _, medium, address, *rest, signed in rows:
            association = Association(Threepid(medium, address), *rest)
            self._hashes(tx, association, peppers)
            if statements.erased(tx, association.threepid) is not None:
                self.looked.wrong["erased"] += 1
            if association.origin_server != self._us:
                self._signature(association, signed, known)

    def _hashes(self, tx: Tx, association: Association, peppers: Sequence[tuple[int, str]]) -> None:
        for pepper_id, pepper in peppers:
            row = tx.row(
                "SELECT mxid FROM lookup_hashes WHERE pepper_id = ? AND hash = ?",
                (pepper_id, hash_address(association.threepid, pepper)),
            )
            if row is None or row[0] != association.mxid:
                self.looked.wrong["missing" if row is None else "other"] += 1
                return

    def _signature(self, association: Association, signed: str | None, known: Mapping[str, Peer]) -> None:
        peer = known.get(association.origin_server)
        signed_json = _json_object(signed)
        if peer is None or (signed_json is not None and not _names_key(signed_json, peer)):
            # It was removed since, or has replaced its key: what it had signed before is as good as it was.
            self.looked.unknown += 1
            return
        try:
            check_signed_by(signed_json or {}, peer.name, peer.keys.get)
        except ValueError:
            self.looked.wrong["unsigned"] += 1
            return
        try:
            stated = read_statement(signed_json or {}, peer.name, association.origin_id)
        except ValueError:
            stated = None
        if stated != association:
            self.looked.wrong["unlike"] += 1


def _json_object(text: str | None) -> dict[str, object] | None:
    try:
        found = orjson.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _names_key(signed: Mapping[str, object], peer: Peer) -> bool:
    """Whether a JSON object has a signature with a key that is known, or none at all of that peer."""
    signatures = signed.get("signatures")
    own = signatures.get(peer.name) if isinstance(signatures, dict) else None
    return not isinstance(own, dict) or not own or any(key in peer.keys for key in own)


def _live_peppers(tx: Tx, grace_ms: int, now_ms: int) -> list[tuple[int, str, bool]]:
    """The peppers whose hashes are of use: number, pepper, and whether all hashes must be there by now."""
    rows = tx.rows("SELECT pepper_id, pepper, current_since_ts, retired_ts FROM peppers ORDER BY pepper_id")
    return [
        (pepper_id, pepper, since is not None)
        for pepper_id, pepper, since, retired in rows
        # A minute less: those that are over are being deleted.
        if retired is None or retired > now_ms - max(0, grace_ms - 60_000)
    ]


def last_row(tx: Tx) -> int:
    """The last row of the associations."""
    return number(tx, "SELECT coalesce(max(rowid), 0) FROM associations")


def leftover_hashes(tx: Tx, grace_ms: int, now_ms: int) -> Iterator[Flaw]:
    """Whether there are more hashes than associations: each must belong to one."""
    associations = number(tx, "SELECT count(*) FROM associations")
    for pepper_id, _, complete in _live_peppers(tx, grace_ms, now_ms):
        hashes = number(tx, "SELECT count(*) FROM lookup_hashes WHERE pepper_id = ?", pepper_id)
        if hashes > associations or (complete and hashes < associations):
            told = f"{associations} associations have {hashes} hashes with pepper {pepper_id}"
            yield Flaw("hashes", told, _HASHES)


def numbers(tx: Tx, server_name: str) -> Iterator[Flaw]:
    """Whether the number of the next statement was used before: peers would not hear of it."""
    last, counter = statements.last_id(tx, server_name), value(tx, STATEMENT)
    if last > counter:
        told = f"our statements have numbers up to {last}, but the next one would get {counter + 1}"
        mend = f"UPDATE counters SET value = {last + JUMP} WHERE name = '{STATEMENT}'"  # noqa: S608 - for people
        yield Flaw("numbers", told, f"stop the server, and run this in the database: {mend}")


def names(tx: Tx, server_name: str) -> Iterator[Flaw]:
    """Whether we have stated associations in another name than our present one: for all others they are not ours."""
    others = [each for each in statements.own_names(tx) if each != server_name]
    if others:
        told = f"associations in it were stated as {', '.join(others)}, and [general] server_name is {server_name}"
        yield Flaw("names", told, "is it the database of another server, or was that option changed?")


def outbox(tx: Tx) -> Iterator[Flaw]:
    """Whether everything in the outbox is known to be due, when it is."""
    lost = number(
        tx,
        """
        SELECT count(*) FROM (SELECT DISTINCT kind, destination FROM outbox WHERE state = 'pending') AS o
        LEFT JOIN outbox_destinations AS d ON d.kind = o.kind AND d.destination = o.destination
        WHERE d.kind IS NULL
        """,
    )
    wrong = number(
        tx,
        """
        SELECT count(*) FROM (
            SELECT next_due_ts, retry_ts, (
                SELECT min(due_ts) FROM outbox AS o
                WHERE o.kind = d.kind AND o.destination = d.destination AND o.state = 'pending'
            ) AS due_ts FROM outbox_destinations AS d
        ) AS found
        WHERE next_due_ts IS NOT CASE WHEN due_ts < retry_ts THEN retry_ts ELSE due_ts END
        """,
    )
    if lost or wrong:
        told = f"of {lost + wrong} destinations it is not known right when something is due"
        yield Flaw("outbox", told, "sydentish outbox retry, with the kind and the destination of what waits")


def keys(tx: Tx, now_ms: int) -> Iterator[Flaw]:
    """Whether ephemeral keys can be keys, and invitations have one."""
    odd = number(
        tx,
        "SELECT count(*) FROM ephemeral_keys WHERE length(public_key) <> ? OR public_key GLOB '*[^0-9a-f]*'",
        _KEY_HEX,
    )
    if odd:
        yield Flaw("ephemeral keys", f"{odd} are no keys", "none is needed: they expire, and are deleted")
    keyless, token = 0, ""
    while found := invites.after(tx, token, PAGE):
        token = found[-1].invitation.token
        keyless += sum(
            each.invitation.expires_ts > now_ms and not _has_key(tx, each.invitation.token) for each in found
        )
    if keyless:
        told = f"{keyless} invitations have no key, so that the links of their mails accept nothing"
        yield Flaw("ephemeral keys", told, "revoke them (sydentish invites), and have people invited again")


def _has_key(tx: Tx, token: str) -> bool:
    return tx.row("SELECT 1 FROM ephemeral_keys WHERE token_hash = ?", (hash_secret(token),)) is not None
