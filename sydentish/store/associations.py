"""Associations."""

from collections.abc import Collection

from sydentish.domain.associations import Association
from sydentish.domain.threepids import Threepid
from sydentish.store.database import Row, Tx

_COLUMNS = "medium, address, mxid, ts, not_before, not_after, origin_server, origin_id"


def association(tx: Tx, threepid: Threepid) -> Association | None:
    """The association of an address."""
    row = tx.row(
        f"SELECT {_COLUMNS} FROM associations WHERE medium = ? AND address = ?",  # noqa: S608 - a constant
        (threepid.medium, threepid.address),
    )
    return _association(row) if row else None


def put(tx: Tx, association: Association, signed: str | None = None) -> None:
    """Stores the association of an address, in the place of the one before.

    Args:
        tx: the transaction.
        association: what is stored.
        signed: the JSON object that another server has signed; None for our own, which is signed when it is asked for.
    """
    tx.run(
        f"""
        INSERT INTO associations ({_COLUMNS}, signed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (medium, address) DO UPDATE SET
            mxid = excluded.mxid, ts = excluded.ts,
            not_before = excluded.not_before, not_after = excluded.not_after,
            origin_server = excluded.origin_server, origin_id = excluded.origin_id, signed = excluded.signed
        """,  # noqa: S608 - the columns are a constant
        (
            association.threepid.medium,
            association.threepid.address,
            association.mxid,
            association.ts,
            association.not_before,
            association.not_after,
            association.origin_server,
            association.origin_id,
            signed,
        ),
    )


def signed_elsewhere(tx: Tx, threepid: Threepid) -> str | None:
    """The JSON object with the signature of the server that has stated the association; None for our own."""
    row = tx.row(
        "SELECT signed FROM associations WHERE medium = ? AND address = ?",
        (threepid.medium, threepid.address),
    )
    return row[0] if row else None


def signed_by(tx: Tx, origin_server: str, origin_ids: Collection[int], max_characters: int) -> dict[int, str]:
    """The JSON objects that another server has signed, of those of its statements that are bound here, by their numbers.

    Args:
        tx: the transaction.
        origin_server: the server; not this one.
        origin_ids: the numbers.
        max_characters: objects that are longer are left out.
    """
    found: dict[int, str] = {}
    for origin_id in origin_ids:
        row = tx.row(
            """
            SELECT signed FROM associations
            WHERE origin_server = ? AND origin_id = ? AND length(signed) <= ? ORDER BY ts DESC LIMIT 1
            """,
            (origin_server, origin_id, max_characters),
        )
        if row is not None:
            found[origin_id] = row[0]
    return found


def signed_between(tx: Tx, origin_server: str, after: int, until: int, max_characters: int) -> dict[int, str]:
    """As `signed_by`, of the statements behind one number and up to another."""
    rows = tx.rows(
        """
        SELECT origin_id, signed FROM associations
        WHERE origin_server = ? AND origin_id > ? AND origin_id <= ? AND length(signed) <= ? ORDER BY ts
        """,
        (origin_server, after, until, max_characters),
    )
    return dict(rows)


def delete(tx: Tx, threepid: Threepid) -> None:
    """Deletes the association of an address."""
    tx.run("DELETE FROM associations WHERE medium = ? AND address = ?", (threepid.medium, threepid.address))


def of_user(tx: Tx, mxid: str) -> list[Association]:
    """All associations of a user, in the order of their addresses."""
    rows = tx.rows(
        f"SELECT {_COLUMNS} FROM associations WHERE mxid = ? ORDER BY medium, address",  # noqa: S608 - a constant
        (mxid,),
    )
    return [_association(row) for row in rows]


def after(tx: Tx, threepid: Threepid | None, limit: int) -> list[Association]:
    """The next associations in the order of the primary key, behind `threepid`."""
    position = (threepid.medium, threepid.address) if threepid else ("", "")
    rows = tx.rows(
        f"""
        SELECT {_COLUMNS} FROM associations WHERE (medium, address) > (?, ?)
        ORDER BY medium, address LIMIT ?
        """,  # noqa: S608 - the columns are a constant
        (*position, limit),
    )
    return [_association(row) for row in rows]


def _association(row: Row) -> Association:
    return Association(Threepid(row[0], row[1]), *row[2:])
