"""How much there is of everything: for operators, and for metrics.

For no number is a table gone through, so that a million rows take less than a tenth of a second; whoever asks for several
does so in as many transactions.
"""

from dataclasses import dataclass

from sydentish.store.database import Tx, number


@dataclass(frozen=True, slots=True)
class Sessions:
    """Validation sessions.

    Attributes:
        open: in which nothing is proved yet.
        validated: in which an address is proved.
        expired: which are of no use any more.
    """

    open: int
    validated: int
    expired: int


@dataclass(frozen=True, slots=True)
class Invitations:
    """Invitations.

    Attributes:
        waiting: for somebody to bind the address.
        handed_over: on their way to a homeserver, or refused there.
        expired: nobody can accept them any more.
    """

    waiting: int
    handed_over: int
    expired: int


def associations_by_medium(tx: Tx) -> dict[str, int]:
    """How many addresses of each medium are bound."""
    return dict(tx.rows("SELECT medium, count(*) FROM associations GROUP BY medium ORDER BY medium"))


def associations_by_origin(tx: Tx) -> dict[str, int]:
    """How many addresses are bound by the word of each server."""
    return dict(
        tx.rows(
            "SELECT origin_server, count(*) FROM associations GROUP BY origin_server ORDER BY origin_server"
        )
    )


def users(tx: Tx) -> int:
    """How many users have an address."""
    return number(tx, "SELECT count(DISTINCT mxid) FROM associations")


def accounts(tx: Tx) -> int:
    """How many accounts there are."""
    return number(tx, "SELECT count(*) FROM accounts")


def access_tokens(tx: Tx) -> int:
    """How many access tokens there are."""
    return number(tx, "SELECT count(*) FROM access_tokens")


def sessions(tx: Tx, now_ms: int, lifetime_ms: int) -> Sessions:
    """The validation sessions.

    Args:
        tx: the transaction.
        now_ms: the time, in ms.
        lifetime_ms: how long one lives after its last change, in ms.
    """
    oldest = now_ms - lifetime_ms
    expired = number(tx, "SELECT count(*) FROM validation_sessions WHERE changed_ts < ?", oldest)
    live, validated = tx.row(
        "SELECT count(*), count(validated_ts) FROM validation_sessions WHERE changed_ts >= ?", (oldest,)
    ) or (0, 0)
    return Sessions(live - validated, validated, expired)


def invitations(tx: Tx, now_ms: int) -> Invitations:
    """The invitations.

    Args:
        tx: the transaction.
        now_ms: the time, in ms.
    """
    known, handed_over = tx.row("SELECT count(*), count(outbox_id) FROM invitations") or (0, 0)
    expired = number(tx, "SELECT count(*) - count(outbox_id) FROM invitations WHERE expires_ts <= ?", now_ms)
    return Invitations(known - handed_over - expired, handed_over, expired)


def all_invitations(tx: Tx) -> int:
    """How many invitations there are, whatever became of them."""
    return number(tx, "SELECT count(*) FROM invitations")


def erased_addresses(tx: Tx) -> int:
    """How many addresses were unbound and erased, of which only a keyed hash is left."""
    return number(tx, "SELECT count(*) FROM erased_addresses")


def schema(tx: Tx) -> int:
    """The number of the last step that the database has seen."""
    return number(tx, "SELECT coalesce(max(number), 0) FROM schema_steps")
