"""Writes mails and sends them: from variables to a message to the relay."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.actions.ports import Style
from sydentish.domain.errors import EmailSendError
from sydentish.domain.threepids import Mailbox, mailbox, normalise_email
from sydentish.senders.message import Letter, MessageProblem, write_message
from sydentish.senders.relay import RelayError, RelayRefused, RelayTimeout
from sydentish.senders.render import MailText, Templates, one_line

Outcome = Literal["sent", "refused", "failed", "timeout"]

_MESSAGE_ID_BYTES = 16

_log = Logger()


class Relaying(Protocol):
    """Hands a message over to the relay; see `sydentish.senders.smtp.SmtpClient`."""

    async def send(self, sender: str, recipient: Mailbox, message: bytes) -> None:
        """Returns once the relay has taken the message.

        Raises:
            RelayError: it did not.
        """


class EmailSender:
    """Sends the mails of one brand from one address: a `sydentish.actions.ports.VerificationSender`."""

    def __init__(
        self,
        *,
        templates: Templates,
        relay: Relaying,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
        on_result: Callable[[Outcome], None],
        server_name: str,
        from_address: str,
        from_name: str = "",
        brand: str | None = None,
    ) -> None:
        """Checks the address that mails come from.

        Args:
            templates: what mails say.
            relay: takes them.
            clock: for the date of a mail, in seconds since the epoch.
            random_bytes: that many, from the system's random source.
            on_result: is told how each hand-over of a verification ended.
            server_name: our name, as users know it.
            from_address: the address of the From header, and of the envelope.
            from_name: the name in the From header, if any.
            brand: of the templates; None for the default brand.

        Raises:
            InvalidEmail: `from_address` is not an address.
        """
        self._templates = templates
        self._relay = relay
        self._clock = clock
        self._random_bytes = random_bytes
        self._on_result = on_result
        self._server_name = server_name
        self._brand = brand
        self._sender = _sender(from_address)
        self._from_name = one_line(from_name)

    async def send_verification(self, address: str, link: str, style: Style) -> None:
        """Hands the mail with the validation link over to the relay, and returns once it took it.

        Args:
            address: the normalised e-mail address.
            link: the URL that validates the session.
            style: how the mail is to look.

        Raises:
            EmailSendError: when the relay did not take it within the limit, or the mail would not say what it
                is meant to.
        """
        try:
            await self.send("verification", address, {"address": address, "link": link}, style)
        except (MessageProblem, RelayError) as error:
            outcome = outcome_of(error)
            self._on_result(outcome)
            _log.warn("mail not handed over, {outcome}: {reason}", outcome=outcome, reason=str(error))
            raise EmailSendError("The mail could not be handed over to the mail relay") from None
        self._on_result("sent")

    async def send(self, name: str, address: str, variables: Mapping[str, str], style: Style) -> None:
        """Hands any mail over to the relay, and returns once it took it; tells nobody else how that ended.

        Args:
            name: of its templates.
            address: the normalised e-mail address.
            variables: what the templates can use, besides `server_name`.
            style: how the mail is to look; without a brand it is the one that was configured.

        Raises:
            InvalidEmail: `address` is not an address.
            TemplateProblem: the templates cannot be rendered.
            MessageProblem: the mail would not say what it is meant to.
            RelayError: the relay did not take it.
        """
        recipient = mailbox(address)
        brand = self._brand if style.brand is None else style.brand
        text = self._templates.mail(name, brand, {**variables, "server_name": self._server_name})
        message = write_message(self._letter(recipient, text))
        await self._relay.send(self._sender.envelope, recipient, message)

    def _letter(self, recipient: Mailbox, text: MailText) -> Letter:
        return Letter(
            sender=self._sender.envelope,
            sender_name=self._from_name,
            recipient=recipient.envelope,
            date=datetime.fromtimestamp(self._clock.seconds(), UTC),
            message_id=f"{self._random_bytes(_MESSAGE_ID_BYTES).hex()}@{self._ascii_domain()}",
            content=text,
        )

    def _ascii_domain(self) -> str:
        return mailbox("x@" + self._sender.envelope.partition("@")[2]).envelope.partition("@")[2]


def _sender(address: str) -> Mailbox:
    normalise_email(address)
    # It passed; but what the operator wrote before the @ stays as it is, since its case can matter there.
    local, _, domain = address.partition("@")
    return mailbox(f"{local}@{domain.casefold()}")


def outcome_of(error: Exception) -> Outcome:
    """What becomes of a mail whose hand-over ended with this error."""
    if isinstance(error, RelayTimeout):
        return "timeout"
    return "refused" if isinstance(error, RelayRefused) else "failed"
