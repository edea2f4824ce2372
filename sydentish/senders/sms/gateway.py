"""What an SMS is, and what a gateway that takes it is to us."""

import re
from dataclasses import dataclass, field
from typing import Protocol

from sydentish.domain.threepids import PhoneNumber

_SHORT_CODE = re.compile(r"[0-9]{3,6}")
_TELEPHONE_NUMBER = re.compile(r"\+?[0-9]{7,15}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &+._-]{1,11}")


@dataclass(frozen=True, slots=True)
class Sms:
    """One SMS; nothing of it is to be logged.

    Attributes:
        originator: who it is from, as the person sees it: what is set for the number's country, or empty for
            what the gateway has of its own.
        destination: where it goes.
        text: what it says, on one line.
    """

    originator: str
    destination: PhoneNumber = field(repr=False)
    text: str = field(repr=False)


class GatewayError(Exception):
    """A gateway did not take the SMS.

    Attributes:
        reason: what went wrong, without number, text, URL or credentials.
        temporary: whether the same may succeed a little later.
        refused: whether the gateway itself said no.
        timed_out: whether it was the time limit.
    """

    def __init__(
        self, reason: str, *, temporary: bool, refused: bool = False, timed_out: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.temporary = temporary
        self.refused = refused
        self.timed_out = timed_out


class SmsGateway(Protocol):
    """Hands SMS over to one gateway.

    Attributes:
        name: how the operator calls it; for logs and metrics.
    """

    @property
    def name(self) -> str:
        """See above."""

    async def send(self, sms: Sms, time_limit: float) -> None:
        """Returns once the gateway has taken the SMS. Cancelling it leaves no connection behind.

        Args:
            sms: what is sent.
            time_limit: seconds for everything.

        Raises:
            GatewayError: the gateway did not take it within the limit.
        """


def check_originator(originator: str) -> None:
    """What an SMS can be from.

    Raises:
        ValueError: it is neither a telephone number, nor a short code, nor a name.
    """
    if not any(kind.fullmatch(originator) for kind in (_SHORT_CODE, _TELEPHONE_NUMBER, _NAME)):
        raise ValueError(
            "originator: must be a telephone number with its country code, a short code of 3 to 6 digits, "
            "or a name of 1 to 11 characters of A-Z a-z 0-9 blank & + . _ - with a letter in it"
        )


def is_short_code(originator: str) -> bool:
    """Whether an originator is a short code."""
    return _SHORT_CODE.fullmatch(originator) is not None


def is_telephone_number(originator: str) -> bool:
    """Whether an originator is a telephone number; a plus sign may be in front of it."""
    return _TELEPHONE_NUMBER.fullmatch(originator) is not None
