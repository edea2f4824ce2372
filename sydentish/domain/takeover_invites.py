"""Invitations that were left at a Sydent, and which key is whose."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OldInvitation:
    """An invitation that was left there.

    Attributes:
        row_id: its row: while others stand behind it, no number is used twice.
        medium: of the invited address.
        address: the invited address.
        room_id: the room.
        sender: who invites.
        token: its token.
        received_s: when it was left there, in seconds.
        is_sent: whether a homeserver was told of it.
    """

    row_id: int
    medium: str
    address: str = field(repr=False)
    room_id: str
    sender: str
    token: str = field(repr=False)
    received_s: int
    is_sent: bool


@dataclass(frozen=True, slots=True)
class OldKey:
    """The public key of an invitation, of which it is not noted which one.

    Attributes:
        row_id: its row; none is ever deleted.
        public_key: in base64.
        made_s: when it was stored, in seconds: right before its invitation.
    """

    row_id: int
    public_key: str
    made_s: int


def pair(
    invitations: Iterable[OldInvitation], keys: Iterable[OldKey]
) -> Iterator[tuple[OldInvitation | None, OldKey | None]]:
    """Finds the key of each invitation; what has none of the other kind comes alone.

    A key is stored right before its invitation, in the same second or the one before. Both tables count; but
    invitations are deleted, and keys never: so the number of a key is ahead of its invitation's, and never by less than
    for those before. That tells them apart where many were left within a second.

    Args:
        invitations: by time and row.
        keys: by time and row.
    """
    waiting: deque[OldKey] = deque()
    rest = iter(keys)
    ahead = 0
    for invitation in invitations:
        while (not waiting or waiting[-1].made_s <= invitation.received_s) and (key := next(rest, None)):
            waiting.append(key)
        while waiting and not _fits(waiting[0], invitation, ahead):
            if waiting[0].made_s > invitation.received_s:
                break
            yield None, waiting.popleft()
        if waiting and _fits(waiting[0], invitation, ahead):
            own = waiting.popleft()
            ahead = own.row_id - invitation.row_id
            yield invitation, own
        else:
            yield invitation, None
    yield from ((None, key) for key in (*waiting, *rest))


def _fits(key: OldKey, invitation: OldInvitation, ahead: int) -> bool:
    is_near = invitation.received_s - 1 <= key.made_s <= invitation.received_s
    return is_near and key.row_id - invitation.row_id >= ahead
