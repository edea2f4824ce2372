"""Statements: the newest one of each address, and our own ones as peers are sent them.

An address stands in `associations` while it is bound, and in `erased_addresses` when it was. What peers must be sent
is derived from that: our own associations, and our own tombstones for as long as a peer has not acknowledged them.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from sydentish.domain.associations import Association
from sydentish.domain.statements import Order, Statement, Tombstone, erased_key, order_of
from sydentish.domain.threepids import Threepid
from sydentish.store.associations import association
from sydentish.store.database import Row, Tx

_ERASED = "erased_addresses"
_KEY_BYTES = 32
# Both halves have the columns of `_statement`; a tombstone has no user.
_LOG = """
    SELECT origin_id, medium, address, ts, mxid, not_before, not_after, origin_server FROM associations
    WHERE origin_server = ? AND origin_id > ? AND origin_id <= ?
    UNION ALL
    SELECT origin_id, medium, address, ts, NULL, NULL, NULL, ? FROM tombstones
    WHERE origin_id > ? AND origin_id <= ?
"""
_KNOWN = """
    SELECT origin_id, ts, mxid FROM associations WHERE origin_server = ? AND origin_id > ? AND origin_id <= ?
    UNION ALL
    SELECT origin_id, ts, '' FROM erased_addresses WHERE origin_server = ? AND origin_id > ? AND origin_id <= ?
    ORDER BY origin_id
"""


def local_key(tx: Tx, random_bytes: Callable[[int], bytes]) -> bytes:
    """The key that addresses are erased with; made when it is asked for the first time."""
    key = _local_key(tx)
    if key is None:
        key = random_bytes(_KEY_BYTES)
        tx.run("INSERT INTO local_keys (name, key_hex) VALUES (?, ?)", (_ERASED, key.hex()))
    return key


def _local_key(tx: Tx) -> bytes | None:
    row = tx.row("SELECT key_hex FROM local_keys WHERE name = ?", (_ERASED,))
    return bytes.fromhex(row[0]) if row else None


def newest_erased(tx: Tx, threepid: Threepid, key: bytes) -> Order | None:
    """Where the statement stands by which an address belongs to nobody; None of one that is bound, or was never known.

    Args:
        tx: the transaction.
        threepid: the address.
        key: the local key.
    """
    row = tx.row(
        "SELECT ts, origin_server, origin_id FROM erased_addresses WHERE address_hmac = ?",
        (erased_key(key, threepid),),
    )
    return Order(*row) if row else None


def newest(tx: Tx, threepid: Threepid) -> Order | None:
    """Where the newest statement about an address stands, also of one that was erased; None of one that is not known."""
    known = association(tx, threepid)
    if known is not None:
        return order_of(known)
    return erased(tx, threepid)


def erased(tx: Tx, threepid: Threepid) -> Order | None:
    """As `newest_erased`, with the key of this database."""
    key = _local_key(tx)
    return None if key is None else newest_erased(tx, threepid, key)


def remember_erased(tx: Tx, tombstone: Tombstone, key: bytes) -> None:
    """Notes that an address belongs to nobody, without the address."""
    tx.run(
        """
        INSERT INTO erased_addresses (address_hmac, ts, origin_server, origin_id) VALUES (?, ?, ?, ?)
        ON CONFLICT (address_hmac) DO UPDATE SET
            ts = excluded.ts, origin_server = excluded.origin_server, origin_id = excluded.origin_id
        """,
        (erased_key(key, tombstone.threepid), tombstone.ts, tombstone.origin_server, tombstone.origin_id),
    )


def forget_erased(tx: Tx, threepid: Threepid, key: bytes) -> None:
    """The address belongs to somebody again."""
    tx.run("DELETE FROM erased_addresses WHERE address_hmac = ?", (erased_key(key, threepid),))


def add_tombstone(tx: Tx, tombstone: Tombstone) -> None:
    """Notes one of our own for the peers; an earlier one of the address must be gone."""
    tx.run(
        "INSERT INTO tombstones (origin_id, medium, address, ts) VALUES (?, ?, ?, ?)",
        (tombstone.origin_id, tombstone.threepid.medium, tombstone.threepid.address, tombstone.ts),
    )


def drop_tombstone(tx: Tx, threepid: Threepid) -> None:
    """A newer statement is known: peers need not hear of this one of ours."""
    tx.run("DELETE FROM tombstones WHERE medium = ? AND address = ?", (threepid.medium, threepid.address))


def has_tombstone(tx: Tx, threepid: Threepid) -> bool:
    """Whether an address still stands here only because a peer has not acknowledged its unbind."""
    row = tx.row(
        "SELECT 1 FROM tombstones WHERE medium = ? AND address = ?", (threepid.medium, threepid.address)
    )
    return row is not None


def erase_acknowledged(tx: Tx) -> int:
    """Deletes the tombstones, and with them the addresses, that every peer has acknowledged; how many.

    A peer that is paused, failing or no longer configured counts, until the operator removes it.
    """
    return tx.run(
        """
        DELETE FROM tombstones
        WHERE origin_id <= coalesce((SELECT min(acknowledged_id) FROM peers), 9223372036854775807)
            AND NOT EXISTS (SELECT 1 FROM parked_statements AS p WHERE p.origin_id = tombstones.origin_id)
        """
    )


def unerased(tx: Tx) -> int:
    """How many addresses still stand here only because a peer has not acknowledged their unbind."""
    row = tx.row("SELECT count(*) FROM tombstones")
    return int(row[0]) if row else 0


def last_id(tx: Tx, origin_server: str) -> int:
    """The highest number of a statement of a server that is known, also of an address that was erased; 0 without any."""
    row = tx.row(
        """
        SELECT coalesce(max(origin_id), 0) FROM (
            SELECT max(origin_id) AS origin_id FROM associations WHERE origin_server = ?
            UNION ALL SELECT max(origin_id) FROM erased_addresses WHERE origin_server = ?
        ) AS newest
        """,
        (origin_server, origin_server),
    )
    return int(row[0]) if row else 0


def unbound_names(tx: Tx) -> list[str]:
    """The names in which this server has stated the unbinds that a peer has yet to hear of.

    Of an unbind that all have heard of, nothing tells whether it was this server's or that of a peer that was removed.
    """
    key = _local_key(tx)
    if key is None:
        return []
    addresses = tx.rows("SELECT medium, address FROM tombstones")
    found = (newest_erased(tx, Threepid(*address), key) for address in addresses)
    return sorted({order.origin_server for order in found if order is not None})


def own_names(tx: Tx) -> list[str]:
    """The names in which this server has stated associations: one, unless it had another before.

    What another server has stated is kept with its signature. So a row of each name tells, and that is all that is read.
    """
    rows = tx.rows(
        """
        WITH RECURSIVE names (name) AS (
            SELECT min(origin_server) FROM associations
            UNION ALL
            SELECT (SELECT min(origin_server) FROM associations WHERE origin_server > name)
            FROM names WHERE name IS NOT NULL
        )
        SELECT name FROM names
        WHERE name IS NOT NULL
            AND (SELECT signed FROM associations WHERE origin_server = name LIMIT 1) IS NULL
        ORDER BY name
        """
    )
    return [name for (name,) in rows]


def log_between(tx: Tx, server_name: str, after: int, until: int, limit: int) -> list[Statement]:
    """Our own statements behind one number and up to another, the oldest first.

    What was superseded is not among them: whoever made the newer statement sends that.
    """
    bounds = (after, until)
    rows = tx.rows(
        f"{_LOG} ORDER BY origin_id LIMIT ?",
        (server_name, *bounds, server_name, *bounds, limit),
    )
    return [_statement(row) for row in rows]


def own_statement(tx: Tx, server_name: str, origin_id: int) -> Statement | None:
    """One of our own statements, unless it was superseded or its address is erased."""
    found = log_between(tx, server_name, origin_id - 1, origin_id, 1)
    return found[0] if found else None


def ids_after(tx: Tx, origin_server: str, after: int, limit: int) -> list[int]:
    """The next numbers of statements of a server that are known, also of addresses that were erased."""
    rows = tx.rows(
        """
        SELECT origin_id FROM associations WHERE origin_server = ? AND origin_id > ?
        UNION ALL SELECT origin_id FROM erased_addresses WHERE origin_server = ? AND origin_id > ?
        ORDER BY origin_id LIMIT ?
        """,
        (origin_server, after, origin_server, after, limit),
    )
    return [origin_id for (origin_id,) in rows]


def erased_between(tx: Tx, origin_server: str, after: int, until: int) -> dict[int, int]:
    """The unbinds of a server behind one number and up to another, each with its time in ms; without their addresses."""
    rows = tx.rows(
        """
        SELECT origin_id, ts FROM erased_addresses WHERE origin_server = ? AND origin_id > ? AND origin_id <= ?
        """,
        (origin_server, after, until),
    )
    return dict(rows)


def last_own_id(tx: Tx, server_name: str) -> int:
    """The number of our newest statement that peers must be sent; 0 without any."""
    row = tx.row(
        """
        SELECT coalesce(max(origin_id), 0) FROM (
            SELECT max(origin_id) AS origin_id FROM associations WHERE origin_server = ?
            UNION ALL SELECT max(origin_id) FROM tombstones
        ) AS newest
        """,
        (server_name,),
    )
    return int(row[0]) if row else 0


def digests(tx: Tx, origin_server: str, after: int, until: int, size: int) -> dict[int, tuple[int, str]]:
    """What is known of a server's statements, told in few bytes: two servers that know the same have the same.

    Args:
        tx: the transaction.
        origin_server: whose statements.
        after: the highest origin id that is not meant.
        until: the highest that is.
        size: how many origin ids go into one digest.

    Returns:
        By the highest origin id in front of it: how many statements there are, and the SHA-256 of them in
        hexadecimal; nothing where there are none.
    """
    bounds = (origin_server, after, until)
    found: dict[int, tuple[int, str]] = {}
    for start, group in _grouped(tx.rows(_KNOWN, (*bounds, *bounds)), after, size):
        # A number that was used twice, after a peer was set back, has no order of its own.
        found[start] = _digest(sorted(group))
    return found


def digest_of(association: Association) -> tuple[int, str]:
    """What `digests` tells of a bind alone."""
    return _digest([(association.origin_id, association.ts, association.mxid)])


def _digest(known: Iterable[Row]) -> tuple[int, str]:
    lines = [f"{origin_id} {ts} {mxid}\n" for origin_id, ts, mxid in known]
    return len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()


def _grouped(rows: Iterable[Row], after: int, size: int) -> Iterator[tuple[int, list[Row]]]:
    start, group = after, list[Row]()
    for row in rows:
        if row[0] > start + size:
            if group:
                yield start, group
            start, group = after + (row[0] - after - 1) // size * size, []
        group.append(row)
    if group:
        yield start, group


def _statement(row: Row) -> Statement:
    origin_id, medium, address, ts, mxid, not_before, not_after, origin_server = row
    threepid = Threepid(medium, address)
    if mxid is None:
        return Tombstone(threepid, ts, origin_server, origin_id)
    return Association(threepid, mxid, ts, not_before, not_after, origin_server, origin_id)
