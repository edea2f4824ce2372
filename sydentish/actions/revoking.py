"""Revoking invitations: by the word of the operator, or because they have expired."""

from collections.abc import Sequence
from dataclasses import dataclass

from sydentish.actions.invites import mail_key
from sydentish.store import invites as invite_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store.database import Tx


@dataclass(frozen=True, slots=True)
class Revoked:
    """How much went.

    Attributes:
        invitations: with the keys that accept them.
        mails: that were not sent yet, or could not be.
    """

    invitations: int = 0
    mails: int = 0

    def __add__(self, other: "Revoked") -> "Revoked":
        return Revoked(self.invitations + other.invitations, self.mails + other.mails)


def revoke(tx: Tx, tokens: Sequence[str]) -> Revoked:
    """Revokes the invitations of these tokens: nobody can accept them any more, and no mail tells of them.

    What is on its way to a homeserver is left alone, since the row of the outbox that takes it there tells of the bind,
    too. A mail that is being handed over just now may arrive all the same.
    """
    return delete(tx, tokens, handed_over=False)


def expire(tx: Tx, now_ms: int, limit: int) -> Revoked:
    """Deletes some invitations that have expired, also those on their way; how much that was."""
    return delete(tx, invite_rows.expired(tx, now_ms, limit), handed_over=True)


def delete(tx: Tx, tokens: Sequence[str], *, handed_over: bool) -> Revoked:
    """Deletes invitations, with the keys that accept them and the mails that tell of them; how much that was.

    Args:
        tx: the transaction.
        tokens: of the invitations.
        handed_over: also those that are on their way to a homeserver.
    """
    gone = [token for token in tokens if invite_rows.delete(tx, token, handed_over=handed_over)]
    mails = [outbox_id for token in gone for outbox_id in mails_of(tx, token)]
    for outbox_id in mails:
        outbox_rows.withdraw(tx, outbox_id)
    return Revoked(len(gone), len(mails))


def mails_of(tx: Tx, token: str) -> list[int]:
    """The rows of the outbox with the mails that tell of an invitation."""
    return [each for state in ("pending", "dead") for each in outbox_rows.rows_of(tx, mail_key(token), state)]
