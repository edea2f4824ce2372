"""Ephemeral keys: the public keys of pending invitations."""

from sydentish.store.database import Tx


def add_ephemeral(tx: Tx, public_key: bytes, expires_ts: int) -> None:
    """Makes an ephemeral public key valid until `expires_ts`, in ms."""
    tx.run(
        "INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (?, ?)", (public_key.hex(), expires_ts)
    )


def is_ephemeral_valid(tx: Tx, public_key: bytes, now_ms: int) -> bool:
    """Whether an ephemeral public key is valid now."""
    return (
        tx.row(
            "SELECT 1 FROM ephemeral_keys WHERE public_key = ? AND expires_ts > ?", (public_key.hex(), now_ms)
        )
        is not None
    )
