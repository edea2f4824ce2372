"""What the actions need from parts that they don't know; `app.build` joins them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sydentish.domain.delivery import Delivered, Delivery, NotDelivered
from sydentish.domain.threepids import PhoneNumber


@dataclass(frozen=True, slots=True)
class Style:
    """How a message to a person is to look.

    Attributes:
        brand: the name of a brand, as the request has it; None, or one that there is not, is the default brand.
        languages: what the person reads, best first, as language tags (RFC 5646); empty for the default.
    """

    brand: str | None = None
    languages: tuple[str, ...] = ()


class VerificationSender(Protocol):
    """Sends the mail that proves an e-mail address."""

    async def send_verification(self, address: str, link: str, style: Style) -> None:
        """Hands the mail with the validation link over to the relay, and returns once it took it.

        Args:
            address: the normalised e-mail address.
            link: the URL that validates the session.
            style: how the mail is to look.

        Raises:
            EmailSendError: when the relay did not take it within the limit.
        """


class CodeSender(Protocol):
    """Sends the SMS that proves a telephone number."""

    def check(self, number: PhoneNumber) -> None:
        """Whether an SMS could be sent there at all; nothing is sent.

        Raises:
            DestinationRejected: this server sends nothing to that country.
            SendError: this server sends no SMS at all.
        """

    async def send_code(self, number: PhoneNumber, code: str, style: Style) -> None:
        """Hands the SMS with the code over to a gateway, and returns once one took it.

        Args:
            number: where it goes.
            code: the digits that the person is to type.
            style: how the SMS is to look.

        Raises:
            SendError: when no gateway took it within the limit.
        """


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that a homeserver claims to have signed.

    Attributes:
        method: the HTTP method.
        target: path and query as they were sent.
        authorizations: the values of all its `Authorization` headers.
        content: the JSON object of its body.
    """

    method: str
    target: str
    authorizations: Sequence[bytes] = field(repr=False)
    content: dict[str, object] = field(repr=False)


class HomeserverProofs(Protocol):
    """Checks the signatures of homeservers under their requests."""

    async def origin_of(self, request: SignedRequest) -> str:
        """The server name of the homeserver that signed the request, in its canonical form.

        Raises:
            ProofRefused: the proof is missing, malformed, meant for another server, or wrong.
            KeysUnavailable: the homeserver's keys cannot be fetched now.
        """


class OpenIdVerifier(Protocol):
    """Asks a homeserver whom an OpenID token belongs to."""

    async def user_id_of(self, server_name: str, access_token: str) -> str:
        """The user ID that the homeserver names, which is one of its own.

        Args:
            server_name: the homeserver, as the OpenID token names it; well-formed.
            access_token: the OpenID token; printable and not empty.

        Raises:
            OpenIdRefused: the homeserver does not accept the token.
            HomeserverError: it cannot be found, reached or understood.
            HomeserverTimeout: it did not answer in time.
        """


class Deliverer(Protocol):
    """Knows how one kind of outbox row reaches its destination."""

    async def deliver(self, delivery: Delivery) -> Delivered | NotDelivered:
        """Tries once, within its own time limit. Whatever goes wrong is a `NotDelivered`, not an exception."""


class SignsOfLife(Protocol):
    """Wants to know when a homeserver was heard from, since what waits for it can be tried again."""

    def heard_from(self, server_name: str) -> None:
        """Tells that `server_name` is alive; cheap, and never fails."""
