"""Invitations of addresses that have no Matrix user yet (Identity Service API, "Invitation storage").

Everything but the address comes from whoever invites, and is treated as hostile: read within bounds here, cleaned
by `sydentish.domain.invite_texts` before anybody sees it.
"""

import json
import unicodedata
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from sydentish.domain.accounts import hash_secret
from sydentish.domain.display import bare
from sydentish.domain.errors import InvalidParam
from sydentish.domain.ids import matches_server_on_any_port, server_name_of
from sydentish.domain.threepids import Threepid

TOKEN_BYTES = 32
"""Random bytes of an invitation's token."""

SHORT_ID_DIGITS = 16
"""Hexadecimal digits of the name that operators give an invitation."""

_MAX_ROOM_ID_BYTES = 255
_MAX_DETAIL = 4096
_CUT = "..."


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that waits until somebody binds the address.

    Attributes:
        token: names it in the room's state, and in the answer to whoever accepts it.
        threepid: the invited address, normalised.
        room_id: where to.
        sender: the user ID of whoever invites.
        created_ts: when it was stored, in ms.
        expires_ts: until when it can be accepted, in ms.
    """

    token: str = field(repr=False)
    threepid: Threepid = field(repr=False)
    room_id: str
    sender: str
    created_ts: int
    expires_ts: int

    @property
    def short_id(self) -> str:
        """What operators call it: the token itself is worth something to whoever knows the key."""
        return hash_secret(self.token)[:SHORT_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class InviteDetails:
    """What a request can say besides, as it says it; None for what it does not say.

    Nothing of it is checked but its length: it is what somebody claims.

    Attributes:
        room_alias: the canonical alias of the room.
        room_avatar_url: the picture of the room, an `mxc:` URI.
        room_join_rules: who can join, such as `invite`.
        room_name: the name of the room.
        room_type: `m.space` for a space.
        sender_display_name: how whoever invites calls themselves.
        sender_avatar_url: their picture, an `mxc:` URI.
        guest_access_token: what lets a guest look into the room; of older homeservers.
        guest_user_id: that guest.
    """

    room_alias: str | None = None
    room_avatar_url: str | None = None
    room_join_rules: str | None = None
    room_name: str | None = None
    room_type: str | None = None
    sender_display_name: str | None = None
    sender_avatar_url: str | None = None
    guest_access_token: str | None = field(default=None, repr=False)
    guest_user_id: str | None = None

    def names(self) -> list[str]:
        """The names that people choose."""
        return [text for text in (self.room_name, self.room_alias, self.sender_display_name) if text]


def room_id(name: str, value: str) -> str:
    """The parameter `name` as a room ID (specification, appendices, "Room IDs"): opaque, with or without a server.

    Raises:
        InvalidParam: it is none, or has more than 255 bytes.
    """
    fits = len(value.encode("utf-8", "surrogatepass")) <= _MAX_ROOM_ID_BYTES
    if not fits or not value.startswith("!") or value == "!" or not value.isprintable() or " " in value:
        raise InvalidParam(
            name, f"must be a room ID: ! and what can be seen, at most {_MAX_ROOM_ID_BYTES} bytes"
        )
    return value


def detail(name: str, value: str) -> str:
    """The parameter `name` as one of `InviteDetails`; what is long is shortened where it is shown, not here.

    Raises:
        InvalidParam: it is longer than anybody could mean.
    """
    if len(value) > _MAX_DETAIL:
        raise InvalidParam(name, f"must have at most {_MAX_DETAIL} characters")
    return value


def redact(address: str, shown: int) -> str:
    """What everybody in the room may see of an e-mail address, such as `fo...@exa...`.

    Args:
        address: `local@domain`.
        shown: how many characters are shown of each part; never the whole part, whatever its length.
    """
    return "@".join(_shortened(part, shown) for part in address.split("@"))


def _shortened(part: str, shown: int) -> str:
    return part[: max(0, min(shown, len(part) - 1))] + _CUT


def signed_part(invitation: Invitation, mxid: str) -> dict[str, object]:
    """What the long-term key signs to prove that `mxid` owns the invited address (Client-Server API, `signed`)."""
    return {"mxid": mxid, "token": invitation.token}


def onbind_invite(invitation: Invitation, mxid: str, signed: dict[str, object]) -> dict[str, object]:
    """An element of `invites` of an onbind call (Server-Server API, `3pid/onbind`).

    Args:
        invitation: the invitation.
        mxid: the user that its address is bound to now.
        signed: `signed_part`, signed with the long-term key.
    """
    return {
        "medium": invitation.threepid.medium,
        "address": invitation.threepid.address,
        "mxid": mxid,
        "room_id": invitation.room_id,
        "sender": invitation.sender,
        # The specification has it in `signed` only; older identity servers gave it here, too.
        "token": invitation.token,
        "signed": signed,
    }


# --- policy --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an invitation is not wanted.

    Attributes:
        reason: `room`, `homeserver` or `word`.
        entry: the entry of the operator's list that says so.
    """

    reason: str
    entry: str


@dataclass(frozen=True, slots=True)
class InvitePolicy:
    """Which invitations are not wanted.

    Attributes:
        blocked_rooms: room IDs.
        blocked_homeservers: canonical server names, or `*.example.org` for every name below; of the user who
            invites, or of the room.
        blocked_words: parts of names and of the user ID of whoever invites, whatever their case.
    """

    blocked_rooms: frozenset[str] = frozenset()
    blocked_homeservers: frozenset[str] = frozenset()
    blocked_words: tuple[str, ...] = ()

    def find(self, room_id: str, sender: str, details: InviteDetails) -> Finding | None:
        """Why this invitation is not wanted; None when it is."""
        if room_id in self.blocked_rooms:
            return Finding("room", room_id)
        for server_name in (server_name_of(sender), room_id.partition(":")[2]):
            entry = self._blocked_by(server_name)
            if entry is not None:
                return Finding("homeserver", entry)
        texts = [_folded(text) for text in (sender, *details.names())]
        words = [word for word in self.blocked_words if any(_is_in(word, text) for text in texts)]
        return Finding("word", words[0]) if words else None

    def _blocked_by(self, server_name: str) -> str | None:
        for entry in sorted(self.blocked_homeservers):
            with suppress(ValueError):  # the rest of a room ID is opaque, and need not be a server name
                if matches_server_on_any_port(server_name, frozenset((entry,))):
                    return entry
        return None


def _is_in(word: str, text: str) -> bool:
    folded = _folded(word)
    return bool(folded) and folded in text


def _folded(text: str) -> str:
    # NFKC makes one letter of its many forms; folding can undo that, so it comes again.
    compatible = unicodedata.normalize("NFKC", bare(text, joiners="")).casefold()
    return " ".join(unicodedata.normalize("NFKC", compatible).split())


# --- the mail ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteMail:
    """The mail about an invitation, as it waits in the outbox; its repr shows no secret and no address.

    Attributes:
        address: whom it goes to, normalised.
        link: accepts the invitation; holds the ephemeral private key.
        sender: the user ID of whoever invites, checked.
        details: what the request says besides.
        brand: how it looks, or None for the default.
    """

    address: str = field(repr=False)
    link: str = field(repr=False)
    sender: str
    details: InviteDetails = field(repr=False)
    brand: str | None = None

    def to_json(self) -> str:
        """The payload for the outbox."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, payload: str) -> Self:
        """The mail of a payload.

        Raises:
            ValueError: it is none; the message shows nothing of it.
        """
        try:
            values = json.loads(payload)
            given = values["details"]
            return cls(
                address=_string(values["address"]),
                link=_string(values["link"]),
                sender=_string(values["sender"]),
                # What an earlier version did not write is not known.
                details=InviteDetails(*(_optional(given.get(each.name)) for each in fields(InviteDetails))),
                brand=_optional(values["brand"]),
            )
        except (ValueError, TypeError, LookupError, AttributeError):
            raise ValueError("the payload is not that of an invitation mail") from None


def _optional(value: object) -> str | None:
    return None if value is None else _string(value)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
