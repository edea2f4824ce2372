"""Accepted terms."""

from sydentish.domain.terms import Acceptance
from sydentish.store.database import Tx


def accepted(tx: Tx, user_id: str) -> set[tuple[str, str]]:
    """What the user has accepted: pairs of policy ID and version."""
    rows = tx.rows("SELECT policy_id, version FROM accepted_terms WHERE user_id = ?", (user_id,))
    return {(policy_id, version) for policy_id, version in rows}


def add_acceptances(tx: Tx, user_id: str, acceptances: list[Acceptance], now_ms: int) -> None:
    """Adds to what the user has accepted; the first acceptance of a version stays as it is."""
    for acceptance in acceptances:
        tx.run(
            """
            INSERT INTO accepted_terms (user_id, policy_id, version, url, accepted_ts) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (user_id, policy_id, version) DO NOTHING
            """,
            (user_id, acceptance.policy_id, acceptance.version, acceptance.url, now_ms),
        )
