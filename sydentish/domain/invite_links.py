"""The link of an invitation mail: it opens a web client, and tells it how to accept the invitation.

The form is nobody's specification, but what web clients read.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from sydentish.domain.display import MAX_SHOWN, bare, content_uri
from sydentish.domain.ids import parse_server_name
from sydentish.domain.invites import Invitation, InviteDetails

ANY_CLIENT = "*"
"""In the list of allowed web clients: any."""

_MAX_WEB_CLIENT = 2048
# Scheme, authority, and a path of RFC 3986; no user, query or fragment, and nothing beyond ASCII.
_WEB_CLIENT = re.compile(
    r"(?i:(https?)://)([0-9A-Za-z.:\[\]-]+)((?:/(?:[0-9A-Za-z._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MACHINE_READABLE = re.compile(r"[!-~]{1,1024}")


@dataclass(frozen=True, slots=True)
class WebClients:
    """Which web clients the links of mails open.

    Attributes:
        configured: the base URL of ours.
        allowed: base URLs that homeservers can ask for instead; `ANY_CLIENT` in it stands for all.
    """

    configured: str
    allowed: frozenset[str] = frozenset()

    def choose(self, requested: str | None) -> str:
        """The base URL for a link, without a slash at its end.

        Args:
            requested: what the homeserver asks for, as `org.matrix.web_client_location`. What is not an absolute
                http or https URL, or not allowed, changes nothing: the invitation is good all the same.
        """
        wanted = _web_client(requested or "")
        allowed = {_web_client(url) for url in self.allowed}
        if wanted is None or not (ANY_CLIENT in self.allowed or wanted in allowed):
            return self.configured.rstrip("/")
        return wanted


def _web_client(text: str) -> str | None:
    """A base URL in its one spelling; None when it is none that a link could begin with."""
    match = _WEB_CLIENT.fullmatch(text) if len(text) <= _MAX_WEB_CLIENT else None
    if match is None:
        return None
    scheme = match[1].lower()
    try:
        host = parse_server_name(match[2])
    except ValueError:
        return None
    authority = str(host)
    if host.port == _DEFAULT_PORTS[scheme]:
        authority = authority.rpartition(":")[0]
    return f"{scheme}://{authority}{match[3].rstrip('/')}"


def sign_url(public_base_url: str, token: str, private_key: str) -> str:
    """Where a client has its user's ID signed to accept an invitation.

    It is of v1, since clients post to it without an access token.

    Args:
        public_base_url: without a slash at its end.
        token: the invitation's.
        private_key: its ephemeral key, in unpadded base64, URL-safe alphabet.
    """
    query = urlencode({"token": token, "private_key": private_key})
    return f"{public_base_url}/_matrix/identity/api/v1/sign-ed25519?{query}"


def invitation_link(web_client: str, invitation: Invitation, details: InviteDetails, signing_url: str) -> str:
    """The link of the mail.

    Args:
        web_client: what it begins with, as `WebClients.choose` has it.
        invitation: whose address and room it names.
        details: what it tells the client of room and sender; what is not known is empty.
        signing_url: as `sign_url` has it.
    """
    parameters = {
        "email": invitation.threepid.address,
        "signurl": signing_url,
        "room_name": _text(details.room_name),
        "room_avatar_url": content_uri(details.room_avatar_url or ""),
        "inviter_name": _text(details.sender_display_name),
        "guest_access_token": _word(details.guest_access_token),
        "guest_user_id": _word(details.guest_user_id),
        "room_type": _word(details.room_type),
    }
    # With quote, a blank is %20: a plus sign would be one to some clients only.
    query = urlencode(parameters, quote_via=quote, safe="")
    return f"{web_client}/#/room/{quote(invitation.room_id, safe='')}?{query}"


def _text(value: str | None) -> str:
    return bare(value or "")[:MAX_SHOWN]


def _word(value: str | None) -> str:
    return value if value and _MACHINE_READABLE.fullmatch(value) else ""
