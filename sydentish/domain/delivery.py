"""The rules of the outbox: when something is tried again, and when it is given up."""

from dataclasses import dataclass

FIRST_RETRY_MS = 1000
EARLY_CAP_MS = 30 * 1000
EARLY_PHASE_MS = 3600 * 1000
LATE_CAP_MS = 3600 * 1000
JITTER = 0.1
_MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing that must reach somebody, leased for delivery.

    Attributes:
        outbox_id: the row it comes from.
        destination: whom it must reach, for `onbind` a server name.
        payload: what is delivered, as it was stored.
        attempts: how many times it was tried before.
        method: what worked for this destination before (for `onbind` an HTTP method), or None.
    """

    outbox_id: int
    destination: str
    payload: str
    attempts: int
    method: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination took it.

    Attributes:
        method: what worked, to be remembered for the destination, or None.
    """

    method: str | None = None


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """The destination did not take it.

    Attributes:
        reason: for the operator, without addresses or secrets.
        permanent: trying again cannot help.
        destination_is_well: it took no exception but to this one thing, and may be given the next at once.
    """

    reason: str
    permanent: bool
    destination_is_well: bool = False


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at this time, in ms."""

    due_ts: int


@dataclass(frozen=True, slots=True)
class Dead:
    """Give up: an operator decides what becomes of it."""


def backoff_ms(failures: int, failing_for_ms: int, jitter: float) -> int:
    """How long to wait after a failure.

    One second, doubling, with jitter; at most 30 seconds while it has not failed for an hour yet, at most an
    hour later.

    Args:
        failures: how many times in a row it failed, this time included (1 or more).
        failing_for_ms: the time since the first of these failures.
        jitter: a random number between -1 and 1.
    """
    cap = EARLY_CAP_MS if failing_for_ms < EARLY_PHASE_MS else LATE_CAP_MS
    wait = min(FIRST_RETRY_MS << min(failures - 1, _MAX_DOUBLINGS), cap)
    return round(wait * (1 + JITTER * jitter))


def verdict(
    *, permanent: bool, failures: int, created_ts: int, now_ms: int, retry_for_ms: int, jitter: float
) -> RetryAt | Dead:
    """What becomes of an outbox row that was not delivered.

    Args:
        permanent: the destination said that trying again cannot help.
        failures: how many times the row was tried, this time included.
        created_ts: when the row was written, in ms.
        now_ms: the time now, in ms.
        retry_for_ms: rows older than this are given up, in ms.
        jitter: a random number between -1 and 1.
    """
    age = now_ms - created_ts
    if permanent or age >= retry_for_ms:
        return Dead()
    return RetryAt(now_ms + backoff_ms(failures, age, jitter))
