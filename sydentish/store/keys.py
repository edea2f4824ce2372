"""Ephemeral keys: the public keys of pending invitations."""

from sydentish.store.database import Tx


def is_ephemeral_valid(tx: Tx, public_key: bytes, now_ms: int) -> bool:
    """Whether an ephemeral public key is valid now."""
    return (
        tx.row(
            "SELECT 1 FROM ephemeral_keys WHERE public_key = ? AND expires_ts > ?", (public_key.hex(), now_ms)
        )
        is not None
    )
