"""Invitations that wait, and the keys that accept them."""

from sydentish.domain.accounts import hash_secret
from sydentish.domain.invites import Invitation
from sydentish.domain.threepids import Threepid
from sydentish.store.database import Tx

# More for each that is added than one: so what has expired goes while the table is used.
_SWEPT = 5


def add(tx: Tx, invitation: Invitation, public_key: bytes) -> None:
    """Adds an invitation, and makes its ephemeral key valid for as long; some that have expired are deleted."""
    _sweep(tx, invitation.created_ts)
    tx.run(
        """
        INSERT INTO invitations (token, medium, address, room_id, sender, created_ts, expires_ts)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        """,
        (
            invitation.token,
            invitation.threepid.medium,
            invitation.threepid.address,
            invitation.room_id,
            invitation.sender,
            invitation.created_ts,
            invitation.expires_ts,
        ),
    )
    tx.run(
        "INSERT INTO ephemeral_keys (public_key, expires_ts, token_hash, sender) VALUES (?, ?, ?, ?)",
        (public_key.hex(), invitation.expires_ts, hash_secret(invitation.token), invitation.sender),
    )


def waiting(tx: Tx, threepid: Threepid, now_ms: int) -> list[Invitation]:
    """The invitations of an address that no homeserver has been told of, the oldest first."""
    rows = tx.rows(
        """
        SELECT token, room_id, sender, created_ts, expires_ts FROM invitations
        WHERE medium = ? AND address = ? AND outbox_id IS NULL AND expires_ts > ?
        ORDER BY created_ts, token
        """,
        (threepid.medium, threepid.address, now_ms),
    )
    return [
        Invitation(
            token=token,
            threepid=threepid,
            room_id=room_id,
            sender=sender,
            created_ts=created_ts,
            expires_ts=expires_ts,
        )
        for token, room_id, sender, created_ts, expires_ts in rows
    ]


def hand_over(tx: Tx, token: str, outbox_id: int) -> None:
    """The invitation is on its way to a homeserver, in this row of the outbox; it goes when that does."""
    tx.run("UPDATE invitations SET outbox_id = ? WHERE token = ?", (outbox_id, token))


def take_back(tx: Tx, outbox_ids: list[int]) -> None:
    """The invitations in these rows of the outbox wait again."""
    for outbox_id in outbox_ids:
        tx.run("UPDATE invitations SET outbox_id = NULL WHERE outbox_id = ?", (outbox_id,))


def sender_of(tx: Tx, token: str, public_key: bytes, now_ms: int) -> str | None:
    """Who sent the invitation of this token, if this is its valid ephemeral key."""
    row = tx.row(
        "SELECT sender FROM ephemeral_keys WHERE token_hash = ? AND public_key = ? AND expires_ts > ?",
        (hash_secret(token), public_key.hex(), now_ms),
    )
    return str(row[0]) if row else None


def is_known(tx: Tx, token: str, now_ms: int) -> bool:
    """Whether there is, or was, an invitation of this token that has not expired."""
    row = tx.row(
        "SELECT 1 FROM ephemeral_keys WHERE token_hash = ? AND expires_ts > ?", (hash_secret(token), now_ms)
    )
    return row is not None


def _sweep(tx: Tx, now_ms: int) -> None:
    for (token,) in tx.rows(
        "SELECT token FROM invitations WHERE expires_ts <= ? ORDER BY expires_ts LIMIT ?", (now_ms, _SWEPT)
    ):
        tx.run("DELETE FROM invitations WHERE token = ?", (token,))
    for (public_key,) in tx.rows(
        "SELECT public_key FROM ephemeral_keys WHERE expires_ts <= ? ORDER BY expires_ts LIMIT ?",
        (now_ms, _SWEPT),
    ):
        tx.run("DELETE FROM ephemeral_keys WHERE public_key = ?", (public_key,))
