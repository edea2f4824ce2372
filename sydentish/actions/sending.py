"""Messages on their way, and what becomes of them and of their tokens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred

from sydentish.domain.errors import (
    DestinationRejected,
    EmailSendError,
    IdentityError,
    InvalidAddress,
    LimitExceeded,
    NoValidSession,
    SendError,
    SessionExpired,
    TokenIncorrect,
)

UNKNOWN = "unknown"
"""The medium of a session that there is not."""

OUTCOMES: dict[type[Exception], str] = {
    DestinationRejected: "refused",
    EmailSendError: "not_sent",
    InvalidAddress: "refused",
    LimitExceeded: "limited",
    NoValidSession: "no_session",
    SendError: "not_sent",
    SessionExpired: "expired",
    TokenIncorrect: "wrong_token",
}
"""What is told of errors; the others say nothing about the address."""


class Sending:
    """A message on its way; requests for the same attempt wait for it instead of sending another one."""

    def __init__(self, send_attempt: int) -> None:
        self.send_attempt = send_attempt
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> "Deferred[None]":
        """Fires when it was handed over, or with the reason why it was not."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def end(self, error: Exception | None) -> None:
        """It was handed over, or not."""
        for waiter in self._waiting:
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)


class Attempt:
    """What becomes of a request for a message, or of a token that came back; told to the operator as it ends.

    Attributes:
        medium: of the address; not known before the session is.
        outcome: what becomes of it if all goes well.
    """

    __slots__ = ("medium", "outcome")

    def __init__(self, outcome: str, medium: str = UNKNOWN) -> None:
        self.medium = medium
        self.outcome = outcome

    @contextmanager
    def told(self, on_outcome: Callable[[str, str], None]) -> Iterator[None]:
        """Tells the medium and the outcome when what is done inside has ended."""
        try:
            yield
        except IdentityError as error:
            if type(error) in OUTCOMES:
                on_outcome(self.medium, OUTCOMES[type(error)])
            raise
        on_outcome(self.medium, self.outcome)
