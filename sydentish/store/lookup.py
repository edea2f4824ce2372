"""Peppers, and the hashes that are looked up."""

from dataclasses import dataclass

from sydentish.domain.lookup import Pepper, Peppers, hash_address
from sydentish.domain.threepids import Threepid
from sydentish.store.counters import next_number
from sydentish.store.database import Tx


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        mappings: a JSON object as text, of what was asked to users.
        number: how many are in it.
    """

    mappings: str
    number: int


_NOTHING = Found("{}", 0)


def peppers(tx: Tx, grace_ms: int) -> Peppers | None:
    """The peppers that look-ups may name; None before the first one."""
    rows = tx.rows(
        """
        SELECT pepper_id, pepper, retired_ts FROM peppers WHERE current_since_ts IS NOT NULL
        ORDER BY pepper_id DESC LIMIT 2
        """
    )
    found = [Pepper(*row) for row in rows]
    return Peppers(found[0], found[1] if len(found) > 1 else None, grace_ms) if found else None


def current_since(tx: Tx) -> int | None:
    """Since when the current pepper is given out, in ms."""
    row = tx.row("SELECT max(current_since_ts) FROM peppers WHERE retired_ts IS NULL")
    return row[0] if row else None


def add_pepper(tx: Tx, pepper: str, now_ms: int) -> int:
    """Adds a pepper that is not given out yet; its ID. From now on every change of an address is hashed with it."""
    pepper_id = next_number(tx, "pepper")
    tx.run(
        "INSERT INTO peppers (pepper_id, pepper, created_ts) VALUES (?, ?, ?)", (pepper_id, pepper, now_ms)
    )
    return pepper_id


def is_known(tx: Tx, pepper: str) -> bool:
    """Whether this is, or was lately, a pepper of this server."""
    return tx.row("SELECT 1 FROM peppers WHERE pepper = ?", (pepper,)) is not None


def pepper_in_making(tx: Tx) -> tuple[int, str] | None:
    """The ID and the pepper of the one that is not given out yet."""
    row = tx.row("SELECT pepper_id, pepper FROM peppers WHERE current_since_ts IS NULL")
    return (row[0], row[1]) if row else None


def make_current(tx: Tx, pepper_id: int, now_ms: int) -> bool:
    """Gives this pepper out from now on, in the place of the one before; whether it was not given out yet."""
    made = tx.run(
        "UPDATE peppers SET current_since_ts = ? WHERE pepper_id = ? AND current_since_ts IS NULL",
        (now_ms, pepper_id),
    )
    # Another process may have been faster: then this one must not retire what that one has just given out.
    if made:
        tx.run(
            """
            UPDATE peppers SET retired_ts = ?
            WHERE pepper_id <> ? AND current_since_ts IS NOT NULL AND retired_ts IS NULL
            """,
            (now_ms, pepper_id),
        )
    return made > 0


def drop_hashes(tx: Tx, retired_before_ts: int, limit: int) -> int:
    """Deletes some hashes of peppers retired before this time, and a pepper with its last hash; how many."""
    row = tx.row("SELECT min(pepper_id) FROM peppers WHERE retired_ts < ?", (retired_before_ts,))
    if row is None or row[0] is None:
        return 0
    deleted = tx.run(
        """
        DELETE FROM lookup_hashes WHERE pepper_id = ? AND hash IN (
            SELECT hash FROM lookup_hashes WHERE pepper_id = ? LIMIT ?
        )
        """,
        (row[0], row[0], limit),
    )
    if deleted < limit:
        tx.run("DELETE FROM peppers WHERE pepper_id = ?", (row[0],))
    return deleted


def put_hash(tx: Tx, pepper_id: int, pepper: str, threepid: Threepid, mxid: str) -> None:
    """Makes the address of a user known under one pepper."""
    tx.run(
        """
        INSERT INTO lookup_hashes (pepper_id, hash, mxid) VALUES (?, ?, ?)
        ON CONFLICT (pepper_id, hash) DO UPDATE SET mxid = excluded.mxid
        """,
        (pepper_id, hash_address(threepid, pepper), mxid),
    )


def set_mxid(tx: Tx, threepid: Threepid, mxid: str | None) -> None:
    """Makes look-ups of the address answer `mxid`, or nothing, under every pepper there is."""
    for pepper_id, pepper in tx.rows("SELECT pepper_id, pepper FROM peppers"):
        if mxid is not None:
            put_hash(tx, pepper_id, pepper, threepid, mxid)
        else:
            tx.run(
                "DELETE FROM lookup_hashes WHERE pepper_id = ? AND hash = ?",
                (pepper_id, hash_address(threepid, pepper)),
            )


def find_hashes(tx: Tx, pepper_id: int, hashes_json: str) -> Found:
    """Maps those of the hashes that are known to their users.

    Args:
        tx: the transaction.
        pepper_id: whose hashes are meant.
        hashes_json: a JSON array of strings; handing it over as text keeps 10,000 values out of Python.
    """
    row = tx.row(tx.dialect.lookup_hashes, (hashes_json, pepper_id))
    return Found(*row) if row else _NOTHING


def find_plain(tx: Tx, entries_json: str) -> Found:
    """Maps those of the addresses that are known to their users.

    Args:
        tx: the transaction.
        entries_json: a JSON array of `[entry, medium, address]`.
    """
    row = tx.row(tx.dialect.lookup_plain, (entries_json,))
    return Found(*row) if row else _NOTHING
