"""What operators do with rows of the outbox: having them tried again, and dropping them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sydentish.actions.outbox import ONBIND
from sydentish.domain.threepids import Threepid
from sydentish.store import associations as association_rows
from sydentish.store import letters as letter_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store.database import Tx
from sydentish.store.letters import Letter


class Retried(Enum):
    """What becomes of a row that is to be tried again."""

    AGAIN = "again"
    DUE = "due"
    NOT_KEPT = "not_kept"
    OUTDATED = "outdated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was dropped, or None where there was none, and how many invitations went with it."""

    letter: Letter | None
    invitations: int


def retry(tx: Tx, outbox_ids: Sequence[int], now_ms: int) -> dict[int, Retried]:
    """Has rows tried again at once; what becomes of each.

    What was given up begins anew, with all the time that a new one has. What says something that is no longer so stays
    as it is.
    """
    return {outbox_id: _retry(tx, letter_rows.letter(tx, outbox_id), now_ms) for outbox_id in outbox_ids}


def drop(tx: Tx, outbox_ids: Sequence[int]) -> dict[int, Dropped]:
    """Deletes rows, and with them the invitations that they take to a homeserver; what went.

    What is on its way just now may arrive all the same.
    """
    dropped = {}
    for outbox_id in outbox_ids:
        found = letter_rows.letter(tx, outbox_id)
        outbox_rows.withdraw(tx, outbox_id)
        dropped[outbox_id] = Dropped(found, 0 if found is None else found.invitations)
    return dropped


def _retry(tx: Tx, found: Letter | None, now_ms: int) -> Retried:
    if found is None:
        return Retried.UNKNOWN
    if not found.payload:
        return Retried.NOT_KEPT
    if found.kind == ONBIND and _is_outdated(tx, found):
        return Retried.OUTDATED
    letter_rows.revive(tx, found, now_ms)
    return Retried.AGAIN if found.state == "dead" else Retried.DUE


def _is_outdated(tx: Tx, found: Letter) -> bool:
    """Whether the address was bound anew since; with an unbind, the row would have gone."""
    told = json.loads(found.payload)
    known = association_rows.association(tx, Threepid(told["medium"], told["address"]))
    return known is None or (known.mxid, known.ts) != (told["mxid"], told["ts"])
