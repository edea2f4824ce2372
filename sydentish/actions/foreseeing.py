"""What an erasure would delete of invitations and of the outbox, found by reading alone: that holds up nobody."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from sydentish.actions import revoking
from sydentish.domain.accounts import hash_secret
from sydentish.domain.threepids import Threepid
from sydentish.store import invites as invite_rows
from sydentish.store.database import Database, Tx

# So many rows of the outbox, addresses or invitations are looked at in one transaction.
_BATCH = 200
_ALL = sys.maxsize

K = TypeVar("K")
T = TypeVar("T")


async def foresee(
    db: Database, mxid: str | None, threepids: Sequence[Threepid], outbox_ids: Sequence[int]
) -> dict[str, int]:
    """Counts what would go: each thing once, however many ways lead to it.

    Args:
        db: the database.
        mxid: the user who is to be erased; None when it is only addresses.
        threepids: the addresses.
        outbox_ids: the rows of the outbox that mention any of them.
    """
    own: set[str] = set()
    keys_left = 0
    if mxid is not None:
        own.update(await db.read(invite_rows.tokens_from, mxid, _ALL))
        # What is in the hands of homeservers has a key here, and no invitation.
        hashes = await db.read(invite_rows.keys_from, mxid)
        with_invitation = {hash_secret(token) for token in own}
        keys_left = sum(each not in with_invitation for each in hashes)
    tokens = own | await _found(db, lambda tx, each: invite_rows.tokens_of(tx, each, _ALL), threepids)
    tokens |= await _found(db, invite_rows.tokens_in, outbox_ids)
    mails = await _found(db, revoking.mails_of, list(tokens))
    return {
        "invitations": len(tokens),
        "ephemeral_keys": len(tokens) + keys_left,
        "outbox_rows": len(mails.union(outbox_ids)),
    }


async def _found(db: Database, find: Callable[[Tx, K], list[T]], whose: Sequence[K]) -> set[T]:
    """All that is found for any of these, a batch in each transaction."""

    def find_some(tx: Tx, some: Sequence[K]) -> list[T]:
        return [each for one in some for each in find(tx, one)]

    found: set[T] = set()
    for start in range(0, len(whose), _BATCH):
        found.update(await db.read(find_some, whose[start : start + _BATCH]))
    return found
