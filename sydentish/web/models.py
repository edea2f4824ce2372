"""What requests consist of: one class each, whose fields state how they are read.

A model is made from a mapping of names to values, whether these came as JSON, as a form or in the query.
"""

from dataclasses import dataclass, fields

from sydentish.actions.associations import Provision, Unbind
from sydentish.actions.invites import InviteRequest
from sydentish.actions.messages import TokenRequest
from sydentish.actions.ports import Style
from sydentish.actions.validation import Credentials
from sydentish.domain.accounts import openid_token
from sydentish.domain.ids import opaque, user_id
from sydentish.domain.invites import InviteDetails, detail, room_id
from sydentish.domain.threepids import (
    EMAIL,
    MSISDN,
    PhoneNumber,
    Threepid,
    given_threepid,
    normalise_email,
    parse_phone_number,
)
from sydentish.domain.validation import send_attempt
from sydentish.web.readers import (
    base64,
    brand,
    bulk_action,
    number,
    of_text,
    optional,
    required,
    server_name,
    text,
    texts,
    threepid,
    threepids,
    validation_token,
)


@dataclass(frozen=True, slots=True)
class Nothing:
    """A request without parameters."""


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """`POST /account/register`."""

    access_token: str = required(of_text(openid_token))
    token_type: str = required(text)
    matrix_server_name: str = required(of_text(server_name))
    expires_in: float = required(number)


@dataclass(frozen=True, slots=True)
class AcceptedTerms:
    """`POST /terms`."""

    user_accepts: list[str] = required(texts)


@dataclass(frozen=True, slots=True)
class LookupRequest:
    """`POST /lookup`."""

    algorithm: str = required(text)
    pepper: str = required(text)
    addresses: list[str] = required(texts)


@dataclass(frozen=True, slots=True)
class EmailTokenRequest:
    """`POST /validate/email/requestToken`."""

    client_secret: str = required(of_text(opaque))
    email: str = required(of_text(lambda _name, value: normalise_email(value)))
    send_attempt: int = required(send_attempt)
    next_link: str | None = optional(text)
    brand: str | None = optional(of_text(brand))

    def request(self, languages: tuple[str, ...]) -> TokenRequest:
        """What is asked for, by somebody who reads these languages."""
        return TokenRequest(
            Threepid(EMAIL, self.email),
            self.client_secret,
            self.send_attempt,
            self.next_link or None,
            Style(self.brand, languages),
        )


@dataclass(frozen=True, slots=True)
class MsisdnTokenRequest:
    """`POST /validate/msisdn/requestToken`."""

    client_secret: str = required(of_text(opaque))
    country: str = required(text)
    phone_number: str = required(text)
    send_attempt: int = required(send_attempt)
    next_link: str | None = optional(text)
    brand: str | None = optional(of_text(brand))

    def __post_init__(self) -> None:
        """Raises `InvalidAddress` when country and number are not a telephone number together."""
        self.number()

    def number(self) -> PhoneNumber:
        """The telephone number."""
        return parse_phone_number(self.country, self.phone_number)

    def request(self, languages: tuple[str, ...]) -> TokenRequest:
        """What is asked for, by somebody who reads these languages."""
        number = self.number()
        return TokenRequest(
            Threepid(MSISDN, number.msisdn),
            self.client_secret,
            self.send_attempt,
            self.next_link or None,
            Style(self.brand, languages),
            number,
        )


@dataclass(frozen=True, slots=True)
class SessionReference:
    """`GET /3pid/getValidated3pid`, and what other requests about a session have in common with it."""

    sid: str = required(of_text(opaque))
    client_secret: str = required(of_text(opaque))

    def credentials(self) -> Credentials:
        """The session that is meant."""
        return Credentials(self.sid, self.client_secret)


@dataclass(frozen=True, slots=True)
class SubmittedToken(SessionReference):
    """`submitToken` of either medium, by POST or GET."""

    token: str = required(of_text(validation_token))


@dataclass(frozen=True, slots=True)
class BindRequest(SessionReference):
    """`POST /3pid/bind`."""

    mxid: str = required(of_text(user_id))


@dataclass(frozen=True, slots=True)
class UnbindRequest:
    """`POST /3pid/unbind`.

    A malformed sid or client secret is a proof that fails, a 403, and not a malformed request: homeservers
    take a 400 for "cannot unbind at all".
    """

    threepid: Threepid = required(threepid)
    mxid: str = required(of_text(user_id))
    sid: str | None = optional(text)
    client_secret: str | None = optional(text)

    def request(self) -> Unbind:
        """What is asked for."""
        credentials = None
        if self.sid is not None and self.client_secret is not None:
            credentials = Credentials(self.sid, self.client_secret)
        return Unbind(self.threepid, self.mxid, credentials)


@dataclass(frozen=True, slots=True)
class KeyReference:
    """`GET /pubkey/{key_id}`."""

    key_id: str = required(text)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`GET /pubkey/isvalid` and `GET /pubkey/ephemeral/isvalid`."""

    public_key: str = required(of_text(base64))


@dataclass(frozen=True, slots=True)
class StoredInvite:
    """`POST /store-invite`."""

    medium: str = required(text)
    address: str = required(text)
    room_id: str = required(of_text(room_id))
    sender: str = required(of_text(user_id))
    room_alias: str | None = optional(of_text(detail))
    room_avatar_url: str | None = optional(of_text(detail))
    room_join_rules: str | None = optional(of_text(detail))
    room_name: str | None = optional(of_text(detail))
    room_type: str | None = optional(of_text(detail))
    sender_display_name: str | None = optional(of_text(detail))
    sender_avatar_url: str | None = optional(of_text(detail))
    guest_access_token: str | None = optional(of_text(detail))
    guest_user_id: str | None = optional(of_text(detail))
    brand: str | None = optional(of_text(brand))
    web_client_location: str | None = optional(text, "org.matrix.web_client_location")

    def request(self) -> InviteRequest:
        """What is asked for."""
        details = InviteDetails(**{each.name: getattr(self, each.name) for each in fields(InviteDetails)})
        threepid = Threepid(self.medium, self.address)
        web_client = self.web_client_location
        return InviteRequest(threepid, self.room_id, self.sender, details, web_client, self.brand)


@dataclass(frozen=True, slots=True)
class InviteToSign:
    """`POST /sign-ed25519`."""

    mxid: str = required(of_text(user_id))
    token: str = required(text)
    private_key: str = required(of_text(base64))


@dataclass(frozen=True, slots=True)
class LookupOne:
    """v1, `GET /lookup`."""

    medium: str = required(text)
    address: str = required(text)

    def threepid(self) -> Threepid:
        """The address that is asked for."""
        return Threepid(self.medium, self.address)


@dataclass(frozen=True, slots=True)
class LookupMany:
    """v1, `POST /bulk_lookup`."""

    threepids: list[Threepid] = required(threepids)


# --- the internal API ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provisioned:
    """`POST /internal/bind` and `/internal/unbind`, and a line of `/internal/bulk`."""

    medium: str = required(text)
    address: str = required(text)
    mxid: str = required(of_text(user_id))

    def __post_init__(self) -> None:
        """Raises `InvalidParam` when medium and address are no address together."""
        self.threepid()

    def threepid(self) -> Threepid:
        """The address, normalised."""
        return given_threepid(self.medium, self.address)

    def provision(self, *, bound: bool) -> Provision:
        """What is to be so."""
        return Provision(self.threepid(), self.mxid, bound)


@dataclass(frozen=True, slots=True)
class BulkLine(Provisioned):
    """A line of `POST /internal/bulk`."""

    action: str | None = optional(of_text(bulk_action))


@dataclass(frozen=True, slots=True)
class Lines:
    """`POST /internal/bulk`."""

    body: bytes = required(lambda _name, value: value)
