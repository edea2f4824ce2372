"""Budgets: what is left in the buckets."""

from collections.abc import Iterable

from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import LimitExceeded
from sydentish.domain.ratelimit import Charge, Refused, withdraw
from sydentish.store.database import Tx

# Two for each that is added: so the table shrinks while it is used.
_SWEPT = 2


def forget(tx: Tx, buckets: Iterable[tuple[str, str]]) -> int:
    """Deletes buckets, which are full again so; how many there were.

    Args:
        tx: the transaction.
        buckets: budgets, and the keys of their buckets.
    """
    return sum(
        tx.run("DELETE FROM budgets WHERE budget = ? AND key_hash = ?", (budget, hash_secret(key)))
        for budget, key in buckets
    )


def charge(tx: Tx, charges: Iterable[Charge], now_ms: int) -> None:
    """Withdraws from several buckets, or from none.

    Args:
        tx: the transaction; what it has withdrawn is given back if it fails.
        charges: the buckets; those of budgets that are switched off don't count.
        now_ms: the time, in ms.

    Raises:
        LimitExceeded: one of them is empty. When more is there again is told of the one that takes longest; which
            one it is, is not told.
    """
    wait_ms, budget = max(((_withdraw(tx, each, now_ms), each.budget) for each in charges), default=(0, ""))
    if wait_ms:
        raise LimitExceeded("Too many requests of this kind: try again later", wait_ms, budget)


def _withdraw(tx: Tx, charge: Charge, now_ms: int) -> int:
    """How long to wait before this is covered, in ms; 0 if it is, and was withdrawn."""
    if charge.rate is None:
        return 0
    key = (charge.budget, hash_secret(charge.key))
    row = tx.row("SELECT full_ts FROM budgets WHERE budget = ? AND key_hash = ?", key)
    result = withdraw(row[0] if row else None, charge.rate, now_ms)
    if isinstance(result, Refused):
        return result.retry_after_ms
    tx.run(
        """
        INSERT INTO budgets (budget, key_hash, full_ts) VALUES (?, ?, ?)
        ON CONFLICT (budget, key_hash) DO UPDATE SET full_ts = excluded.full_ts
        """,
        (*key, result.full_ts),
    )
    if row is None:
        purge(tx, now_ms, _SWEPT)
    return 0


def purge(tx: Tx, now_ms: int, limit: int) -> int:
    """Deletes some buckets that are full again; how many."""
    rows = tx.rows(
        "SELECT budget, key_hash FROM budgets WHERE full_ts <= ? ORDER BY full_ts LIMIT ?", (now_ms, limit)
    )
    for budget, key_hash in rows:
        tx.run("DELETE FROM budgets WHERE budget = ? AND key_hash = ?", (budget, key_hash))
    return len(rows)
