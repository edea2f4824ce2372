"""Invitations that wait, and the keys that accept them."""

from dataclasses import dataclass

from sydentish.domain.accounts import hash_secret
from sydentish.domain.invites import Invitation
from sydentish.domain.threepids import Threepid
from sydentish.store.database import Tx


@dataclass(frozen=True, slots=True)
class Kept:
    """An invitation, and how far it has come.

    Attributes:
        invitation: what is kept.
        outbox_id: the row of the outbox that takes it to a homeserver; None while nobody has bound the address.
        outbox_state: of that row: `pending`, or `dead` when it was given up.
    """

    invitation: Invitation
    outbox_id: int | None
    outbox_state: str | None


def add(tx: Tx, invitation: Invitation, public_key: bytes) -> None:
    """Adds an invitation, and makes its ephemeral key valid for as long."""
    put(tx, invitation)
    put_key(tx, public_key, invitation.expires_ts, invitation.token, invitation.sender)


def put(tx: Tx, invitation: Invitation) -> None:
    """Adds an invitation without its key."""
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


def put_key(tx: Tx, public_key: bytes, expires_ts: int, token: str | None, sender: str | None) -> bool:
    """Makes the key of an invitation valid, unless it is known already; whether it was not.

    Args:
        tx: the transaction.
        public_key: the key.
        expires_ts: until when it is valid, in ms.
        token: of its invitation; None if that is not known: then it accepts none.
        sender: of its invitation.
    """
    token_hash = None if token is None else hash_secret(token)
    return (
        tx.run(
            """
            INSERT INTO ephemeral_keys (public_key, expires_ts, token_hash, sender) VALUES (?, ?, ?, ?)
            ON CONFLICT (public_key) DO NOTHING
            """,
            (public_key.hex(), expires_ts, token_hash, sender),
        )
        > 0
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


def after(tx: Tx, token: str, limit: int) -> list[Kept]:
    """The next invitations in the order of their tokens, behind `token`."""
    rows = tx.rows(
        """
        SELECT i.token, i.medium, i.address, i.room_id, i.sender, i.created_ts, i.expires_ts, i.outbox_id, o.state
        FROM invitations AS i LEFT JOIN outbox AS o ON o.outbox_id = i.outbox_id
        WHERE i.token > ? ORDER BY i.token LIMIT ?
        """,
        (token, limit),
    )
    return [
        Kept(Invitation(found, Threepid(medium, address), *rest), outbox_id, outbox_state)
        for found, medium, address, *rest, outbox_id, outbox_state in rows
    ]


def expired(tx: Tx, now_ms: int, limit: int) -> list[str]:
    """The tokens of some invitations that have expired."""
    rows = tx.rows(
        "SELECT token FROM invitations WHERE expires_ts <= ? ORDER BY expires_ts LIMIT ?", (now_ms, limit)
    )
    return [token for (token,) in rows]


def delete(tx: Tx, token: str, *, handed_over: bool) -> bool:
    """Deletes an invitation and the key that accepts it; whether there was one.

    Args:
        tx: the transaction.
        token: of the invitation.
        handed_over: also if it is on its way to a homeserver.
    """
    deleted = tx.run(
        "DELETE FROM invitations WHERE token = ? AND (outbox_id IS NULL OR ? = 1)", (token, int(handed_over))
    )
    if deleted:
        tx.run("DELETE FROM ephemeral_keys WHERE token_hash = ?", (hash_secret(token),))
    return deleted > 0


def tokens_of(tx: Tx, threepid: Threepid, limit: int) -> list[str]:
    """The tokens of some invitations of an address, also of those on their way to a homeserver."""
    rows = tx.rows(
        "SELECT token FROM invitations WHERE medium = ? AND address = ? LIMIT ?",
        (threepid.medium, threepid.address, limit),
    )
    return [token for (token,) in rows]


def tokens_from(tx: Tx, sender: str, limit: int) -> list[str]:
    """The tokens of some invitations that a user has left, also of those on their way to a homeserver."""
    return [
        token
        for (token,) in tx.rows("SELECT token FROM invitations WHERE sender = ? LIMIT ?", (sender, limit))
    ]


def tokens_in(tx: Tx, outbox_id: int) -> list[str]:
    """The tokens of the invitations that a row of the outbox takes to a homeserver."""
    return [token for (token,) in tx.rows("SELECT token FROM invitations WHERE outbox_id = ?", (outbox_id,))]


def keys_from(tx: Tx, sender: str) -> list[str | None]:
    """The hashed token of each ephemeral key of a user's invitations; None where it is not known."""
    return [
        found for (found,) in tx.rows("SELECT token_hash FROM ephemeral_keys WHERE sender = ?", (sender,))
    ]


def delete_keys_from(tx: Tx, sender: str, limit: int) -> int:
    """Deletes some ephemeral keys of a user's invitations, so that nobody can accept these any more; how many."""
    return tx.run(
        """
        DELETE FROM ephemeral_keys WHERE public_key IN (
            SELECT public_key FROM ephemeral_keys WHERE sender = ? LIMIT ?
        )
        """,
        (sender, limit),
    )


def delete_expired_keys(tx: Tx, now_ms: int, limit: int) -> int:
    """Deletes some ephemeral keys that are valid no more; how many."""
    rows = tx.rows(
        "SELECT public_key FROM ephemeral_keys WHERE expires_ts <= ? ORDER BY expires_ts LIMIT ?",
        (now_ms, limit),
    )
    for (public_key,) in rows:
        tx.run("DELETE FROM ephemeral_keys WHERE public_key = ?", (public_key,))
    return len(rows)
