"""Accounts and their access tokens."""

from dataclasses import dataclass

from sydentish.domain.accounts import Account
from sydentish.store.database import Tx, number


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """An account as operators see it.

    Attributes:
        user_id: whose it is.
        created_ts: when it was made, in ms.
        last_seen_ts: when a token of it was last noted as used, or ended, in ms.
        tokens: how many access tokens it has.
    """

    user_id: str
    created_ts: int
    last_seen_ts: int
    tokens: int


def add_account(tx: Tx, user_id: str, now_ms: int) -> None:
    """Makes the account, unless there is one; it was seen now."""
    tx.run(
        """
        INSERT INTO accounts (user_id, created_ts, last_seen_ts) VALUES (?, ?, ?)
        ON CONFLICT (user_id) DO UPDATE SET last_seen_ts = excluded.last_seen_ts
        """,
        (user_id, now_ms, now_ms),
    )


def has_account(tx: Tx, user_id: str) -> bool:
    """Whether there is such an account."""
    return tx.row("SELECT 1 FROM accounts WHERE user_id = ?", (user_id,)) is not None


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
    row = tx.row(
        "UPDATE access_tokens SET last_used_ts = ? WHERE token_hash = ? RETURNING user_id",
        (now_ms, token_hash),
    )
    if row is not None:
        _seen(tx, row[0], now_ms)


def delete_token(tx: Tx, token_hash: str, now_ms: int) -> bool:
    """Deletes an access token, by the word of whoever has it; whether there was one."""
    row = tx.row("DELETE FROM access_tokens WHERE token_hash = ? RETURNING user_id", (token_hash,))
    if row is not None:
        _seen(tx, row[0], now_ms)
    return row is not None


def delete_tokens(tx: Tx, user_id: str) -> int | None:
    """Deletes all access tokens of an account; how many, or None if there is no such account.

    When the user was last seen stays as it is noted: it is not the user who says so.
    """
    if not has_account(tx, user_id):
        return None
    row = tx.row("SELECT max(last_used_ts) FROM access_tokens WHERE user_id = ?", (user_id,))
    if row is not None and row[0] is not None:
        _seen(tx, user_id, row[0])
    return tx.run("DELETE FROM access_tokens WHERE user_id = ?", (user_id,))


def delete_account(tx: Tx, user_id: str) -> bool:
    """Deletes an account with its access tokens and all that it has accepted; whether there was one."""
    return tx.run("DELETE FROM accounts WHERE user_id = ?", (user_id,)) > 0


def accounts_after(tx: Tx, user_id: str, limit: int) -> list[KnownAccount]:
    """The next accounts in the order of their users, behind `user_id`."""
    rows = tx.rows(
        """
        SELECT user_id, created_ts, last_seen_ts,
            (SELECT count(*) FROM access_tokens AS t WHERE t.user_id = a.user_id)
        FROM accounts AS a WHERE user_id > ? ORDER BY user_id LIMIT ?
        """,
        (user_id, limit),
    )
    return [KnownAccount(*row) for row in rows]


def logged_in_after(tx: Tx, user_id: str, limit: int) -> list[str]:
    """The next users with an access token, in their order, behind `user_id`."""
    rows = tx.rows(
        "SELECT DISTINCT user_id FROM access_tokens WHERE user_id > ? ORDER BY user_id LIMIT ?",
        (user_id, limit),
    )
    return [found for (found,) in rows]


def tokens_of(tx: Tx, user_id: str) -> int:
    """How many access tokens an account has."""
    return number(tx, "SELECT count(*) FROM access_tokens WHERE user_id = ?", user_id)


def purge_tokens(tx: Tx, before_ts: int, limit: int) -> int:
    """Deletes some access tokens that were last used before a time, in ms; how many. Their accounts stay."""
    rows = tx.rows(
        """
        SELECT token_hash, user_id, last_used_ts FROM access_tokens WHERE last_used_ts < ?
        ORDER BY last_used_ts LIMIT ?
        """,
        (before_ts, limit),
    )
    for token_hash, user_id, last_used_ts in rows:
        tx.run("DELETE FROM access_tokens WHERE token_hash = ?", (token_hash,))
        _seen(tx, user_id, last_used_ts)
    return len(rows)


def purge_idle(
    tx: Tx, before_ts: int, after: tuple[int, str] | None, limit: int
) -> tuple[int, tuple[int, str] | None]:
    """Deletes those of some accounts that have no access token; they were last seen before a time, in ms.

    Args:
        tx: the transaction.
        before_ts: the time.
        after: the last account that was looked at before this; None to begin.
        limit: how many are looked at.

    Returns:
        How many were deleted, and where to go on; None at the end.
    """
    rows = tx.rows(
        """
        SELECT last_seen_ts, user_id FROM accounts WHERE (last_seen_ts, user_id) > (?, ?) AND last_seen_ts < ?
        ORDER BY last_seen_ts, user_id LIMIT ?
        """,
        (*(after or (-1, "")), before_ts, limit),
    )
    gone = sum(
        tx.run(
            """
            DELETE FROM accounts WHERE user_id = ?
                AND NOT EXISTS (SELECT 1 FROM access_tokens AS t WHERE t.user_id = accounts.user_id)
            """,
            (user_id,),
        )
        for _, user_id in rows
    )
    return gone, rows[-1] if len(rows) == limit else None


def _seen(tx: Tx, user_id: str, ts: int) -> None:
    tx.run("UPDATE accounts SET last_seen_ts = ? WHERE user_id = ? AND last_seen_ts < ?", (ts, user_id, ts))
