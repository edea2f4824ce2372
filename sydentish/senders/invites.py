"""The mail about an invitation, on its way from the outbox to the relay."""

from collections.abc import Callable
from dataclasses import asdict

from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.actions.ports import Style
from sydentish.domain.delivery import Delivered, Delivery, NotDelivered
from sydentish.domain.errors import InvalidEmail
from sydentish.domain.invite_texts import invite_texts
from sydentish.domain.invites import InviteMail
from sydentish.senders.email import EmailSender, Outcome, outcome_of
from sydentish.senders.message import MessageProblem
from sydentish.senders.relay import MailUnfit, RelayError, RelayRefused
from sydentish.senders.render import TemplateProblem
from sydentish.waiting import within

_TEMPLATE = "invite"
# The steps at which a relay judges the mail; before them, it judges us, and may be set right.
_ABOUT_THE_MAIL = frozenset(("MAIL", "RCPT", "DATA", "message"))
_PERMANENT = 500
# RFC 5321 section 3.8: the relay is about to close the connection.
_GOING_AWAY = 421
# RFC 4954 section 6: we are to log in first.
_LOGIN_WANTED = 530

_log = Logger()


class InviteMailer:
    """Hands the mails of invitations over to the relay; a `sydentish.actions.ports.Deliverer`."""

    def __init__(
        self,
        *,
        sender: EmailSender,
        clock: IReactorTime,
        time_limit: float,
        on_result: Callable[[Outcome], None],
    ) -> None:
        """Takes what it uses.

        Args:
            sender: writes mails and hands them over.
            clock: for the time limit.
            time_limit: seconds for a delivery; shorter than its lease.
            on_result: is told how each hand-over ended.
        """
        self._sender = sender
        self._clock = clock
        self._time_limit = time_limit
        self._on_result = on_result

    async def deliver(self, delivery: Delivery) -> Delivered | NotDelivered:
        """Hands over the mail of a payload, see `InviteMail.to_json`.

        What the relay refuses for good (5yz), or what can never be written to it, is not tried again.
        """
        try:
            mail = InviteMail.from_json(delivery.payload)
        except ValueError as error:
            return NotDelivered(str(error), permanent=True)
        try:
            await within(self._time_limit, self._clock, self._send(mail))
        except InvalidEmail:
            return self._failed("failed", "the address is none that a mail could be sent to", permanent=True)
        except (MessageProblem, RelayError) as error:
            self._on_result(outcome_of(error))
            # A full mailbox is no reason to leave the relay alone.
            return NotDelivered(
                str(error), _is_permanent(error), destination_is_well=_is_about_the_mailbox(error)
            )
        except TemplateProblem as problem:
            # An operator can mend it, so it is not given up. What it quotes is for the log, which is redacted.
            _log.error("invitation mail: {problem}", problem=str(problem))
            return self._failed("failed", "the templates of the mail cannot be rendered", permanent=False)
        except DeferredTimeoutError:
            return self._failed("timeout", "the relay did not take it within the limit", permanent=False)
        self._on_result("sent")
        return Delivered()

    def _failed(self, outcome: Outcome, reason: str, *, permanent: bool) -> NotDelivered:
        self._on_result(outcome)
        return NotDelivered(reason, permanent=permanent)

    async def _send(self, mail: InviteMail) -> None:
        variables = {
            "address": mail.address,
            "link": mail.link,
            **asdict(invite_texts(mail.sender, mail.details)),
        }
        await self._sender.send(_TEMPLATE, mail.address, variables, Style(mail.brand))


def _is_permanent(error: MessageProblem | RelayError) -> bool:
    if isinstance(error, RelayRefused):
        return error.code >= _PERMANENT and error.code != _LOGIN_WANTED and error.step in _ABOUT_THE_MAIL
    return isinstance(error, MessageProblem | MailUnfit)


def _is_about_the_mailbox(error: MessageProblem | RelayError) -> bool:
    return isinstance(error, RelayRefused) and error.step == "RCPT" and error.code != _GOING_AWAY
