"""Accounts and their access tokens."""

from sydentish.domain.accounts import Account
from sydentish.store.database import Tx


def add_account(tx: Tx, user_id: str, now_ms: int) -> None:
    """Makes the account, unless there is one; it was seen now."""
    tx.run(
        """
        INSERT INTO accounts (user_id, created_ts, last_seen_ts) VALUES (?, ?, ?)
        ON CONFLICT (user_id) DO UPDATE SET last_seen_ts = excluded.last_seen_ts
        """,
        (user_id, now_ms, now_ms),
    )


def add_token(tx: Tx, token_hash: str, user_id: str, now_ms: int) -> None:
    """Adds an access token to an account."""
    tx.run(
        "INSERT INTO access_tokens (token_hash, user_id, created_ts, last_used_ts) VALUES (?, ?, ?, ?)",
        (token_hash, user_id, now_ms, now_ms),
    )


def account_of(tx: Tx, token_hash: str) -> Account | None:
    """The account that the access token belongs to."""
    row = tx.row("SELECT user_id, last_used_ts FROM access_tokens WHERE token_hash = ?", (token_hash,))
    return Account(*row) if row else None


def touch_token(tx: Tx, token_hash: str, now_ms: int) -> None:
    """Notes that the access token is in use."""
    tx.run("UPDATE access_tokens SET last_used_ts = ? WHERE token_hash = ?", (now_ms, token_hash))


def delete_token(tx: Tx, token_hash: str) -> bool:
    """Deletes an access token; whether there was one."""
    return tx.run("DELETE FROM access_tokens WHERE token_hash = ?", (token_hash,)) > 0
