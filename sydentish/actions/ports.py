"""What the actions need from parts that they don't know; `app.build` joins them."""

from typing import Protocol

from sydentish.domain.delivery import Delivered, Delivery, NotDelivered


class VerificationSender(Protocol):
    """Sends the mail that proves an e-mail address."""

    async def send_verification(self, address: str, link: str) -> None:
        """Hands the mail with the validation link over to the relay, and returns once it took it.

        Args:
            address: the normalised e-mail address.
            link: the URL that validates the session.

        Raises:
            EmailSendError: when the relay did not take it within the limit.
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
