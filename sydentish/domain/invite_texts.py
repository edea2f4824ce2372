"""What an invitation mail says: the claims of whoever invites, made fit to be shown."""

from dataclasses import dataclass

from sydentish.domain.display import bare, content_uri, unlinked
from sydentish.domain.invites import InviteDetails

SPACE = "m.space"
"""The `room_type` of a space."""

_JOIN_RULES = frozenset(("public", "invite", "knock", "restricted", "knock_restricted", "private"))


@dataclass(frozen=True, slots=True)
class InviteTexts:
    """What the templates of the mail can say of an invitation; each is fit to be shown, and empty where unknown.

    No name is a link: mail programs make one of whatever looks like it, and names are chosen by strangers.

    Attributes:
        sender: the user ID of whoever invites: what was checked.
        sender_display_name: how they call themselves, or else the user ID.
        bracketed_verified_sender: `(user ID)` where the former is not the user ID itself.
        room_name: the name of the room.
        room_alias: `#` and the local part of its alias.
        bracketed_room_name: `(name)`, if there is one.
        room_type: `m.space` for a space; no other is known.
        room_join_rules: who can join, in a word of the specification.
        room_avatar_url: the picture of the room, an `mxc:` URI.
        sender_avatar_url: the picture of whoever invites, too.
    """

    sender: str
    sender_display_name: str
    bracketed_verified_sender: str
    room_name: str
    room_alias: str
    bracketed_room_name: str
    room_type: str
    room_join_rules: str
    room_avatar_url: str
    sender_avatar_url: str


def invite_texts(sender: str, details: InviteDetails) -> InviteTexts:
    """The texts of the mail.

    Args:
        sender: the user ID of whoever invites, checked.
        details: what the request says.
    """
    verified = bare(sender)
    own_name = unlinked(details.sender_display_name or "") if details.sender_display_name != sender else ""
    room_name = unlinked(details.room_name or "")
    return InviteTexts(
        sender=verified,
        sender_display_name=own_name or verified,
        bracketed_verified_sender=f"({verified})" if own_name else "",
        room_name=room_name,
        room_alias=_alias(details.room_alias or ""),
        bracketed_room_name=f"({room_name})" if room_name else "",
        room_type=SPACE if details.room_type == SPACE else "",
        room_join_rules=details.room_join_rules or "" if details.room_join_rules in _JOIN_RULES else "",
        room_avatar_url=content_uri(details.room_avatar_url or ""),
        sender_avatar_url=content_uri(details.sender_avatar_url or ""),
    )


def _alias(claimed: str) -> str:
    # Its server is only claimed, and a mail program would make a link of it.
    local = unlinked(claimed.partition(":")[0])
    return local if local.startswith("#") and local != "#" else ""
