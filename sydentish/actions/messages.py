"""The messages that prove an address: what each medium sends, how it is kept, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sydentish.actions.ports import CodeSender, Style, VerificationSender
from sydentish.domain.accounts import hash_secret, opaque_token
from sydentish.domain.ratelimit import Budgets, Charge
from sydentish.domain.threepids import PhoneNumber, Threepid, check_numbering_plan
from sydentish.domain.validation import (
    CODE_BYTES,
    CODES_KEPT,
    MAIL_TOKENS_KEPT,
    TOKEN_BYTES,
    hash_code,
    numeric_code,
    validation_link,
)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a message with a token.

    Attributes:
        threepid: the address, normalised: this is the one that the message goes to.
        client_secret: what the client will prove the session with.
        send_attempt: the client's number of the attempt.
        next_link: where a browser goes after the validation, or None.
        style: how the message is to look.
        number: the address once more if it is a telephone number, else None.
    """

    threepid: Threepid
    client_secret: str = field(repr=False)
    send_attempt: int
    next_link: str | None
    style: Style = field(default_factory=Style)
    number: PhoneNumber | None = None


class Messages(Protocol):
    """The messages of one medium."""

    @property
    def kept(self) -> int:
        """So many of the newest tokens of a session are valid."""

    def check(self, request: TokenRequest) -> None:
        """Whether a message could be sent at all; raises what the person is to be told if not."""

    def charges(self, user_id: str | None, source: str, request: TokenRequest) -> list[Charge]:
        """What a message costs; see `Budgets.mail`."""

    def new_token(self) -> str:
        """What is to be sent."""

    def token_hash(self, token: str, client_secret: str) -> str:
        """The form in which it is stored."""

    async def send(self, sid: str, request: TokenRequest, token: str) -> None:
        """Hands the message over; raises what the person is to be told if that fails."""


class Mails:
    """Mails with a link; the `Messages` of e-mail.

    Args:
        sender: hands them over.
        public_base_url: what the link begins with.
        budgets: what they cost.
        random_bytes: so many random bytes.
    """

    kept = MAIL_TOKENS_KEPT

    def __init__(
        self,
        *,
        sender: VerificationSender,
        public_base_url: str,
        budgets: Budgets,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._sender = sender
        self._public_base_url = public_base_url
        self._budgets = budgets
        self._random_bytes = random_bytes

    def check(self, request: TokenRequest) -> None:
        """A mail can be sent to every address; whether the relay takes it, it says itself."""

    def charges(self, user_id: str | None, source: str, request: TokenRequest) -> list[Charge]:
        """See `Messages.charges`."""
        return self._budgets.mail(user_id, source, request.threepid.address)

    def new_token(self) -> str:
        """A token that nobody could guess."""
        return opaque_token(self._random_bytes(TOKEN_BYTES))

    def token_hash(self, token: str, _client_secret: str) -> str:
        """See `Messages.token_hash`."""
        return hash_secret(token)

    async def send(self, sid: str, request: TokenRequest, token: str) -> None:
        """Hands the mail over.

        Raises:
            EmailSendError: the relay did not take it.
        """
        link = validation_link(self._public_base_url, sid, request.client_secret, token)
        await self._sender.send_verification(request.threepid.address, link, request.style)


class Codes:
    """SMS with a code; the `Messages` of telephone numbers.

    Args:
        sender: hands them over.
        strict: whether numbers must match a numbering plan.
        budgets: what they cost.
        random_bytes: so many random bytes.
    """

    kept = CODES_KEPT

    def __init__(
        self, *, sender: CodeSender, strict: bool, budgets: Budgets, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._sender = sender
        self._strict = strict
        self._budgets = budgets
        self._random_bytes = random_bytes

    def check(self, request: TokenRequest) -> None:
        """Whether an SMS could be sent there.

        Raises:
            InvalidAddress: it is no number of any numbering plan.
            DestinationRejected: this server sends nothing to that country.
            SendError: this server sends no SMS at all.
        """
        number = _number(request)
        if self._strict:
            check_numbering_plan(number)
        self._sender.check(number)

    def charges(self, user_id: str | None, source: str, request: TokenRequest) -> list[Charge]:
        """See `Messages.charges`."""
        return self._budgets.sms(user_id, source, _number(request))

    def new_token(self) -> str:
        """A code that a person can type."""
        return numeric_code(self._random_bytes(CODE_BYTES))

    def token_hash(self, token: str, client_secret: str) -> str:
        """See `Messages.token_hash`. People type a code with blanks around it."""
        return hash_code(token.strip(), client_secret)

    async def send(self, _sid: str, request: TokenRequest, token: str) -> None:
        """Hands the SMS over.

        Raises:
            SendError: no gateway took it.
        """
        await self._sender.send_code(_number(request), token, request.style)


def _number(request: TokenRequest) -> PhoneNumber:
    if request.number is None:
        raise ValueError("an SMS needs a telephone number")
    return request.number
