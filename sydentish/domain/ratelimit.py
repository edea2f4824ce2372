"""Budgets: how much of something may be asked for in a time, and when more may be.

A budget is a token bucket, kept as one number (the generic cell rate algorithm): the time at which the bucket
will be full again. A bucket that is full needs no row.
"""

from dataclasses import dataclass

from sydentish.domain.errors import InvalidEmail
from sydentish.domain.ids import parse_server_name, server_name_of
from sydentish.domain.threepids import MSISDN, PhoneNumber, Threepid, mailbox

# Several processes may share a bucket, each with a clock of its own.
_CLOCKS_DIFFER_MS = 60_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and as many again spread over a time.

    Attributes:
        count: how many may come in a burst; 1 or more.
        period_ms: how long it takes until as many may come again, in ms.
    """

    count: int
    period_ms: int


@dataclass(frozen=True, slots=True)
class Charge:
    """One withdrawal from a budget.

    Attributes:
        budget: the name of the budget, a word of ours.
        key: whose bucket it is: an address, a user, a server name, a source.
        rate: what that bucket holds; None when the budget is switched off.
    """

    budget: str
    key: str
    rate: Rate | None


@dataclass(frozen=True, slots=True)
class Granted:
    """The withdrawal is covered.

    Attributes:
        full_ts: when the bucket will be full again, in ms: what is to be stored.
    """

    full_ts: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The bucket is empty.

    Attributes:
        retry_after_ms: in how many ms the next withdrawal is covered; 1 or more.
    """

    retry_after_ms: int


def withdraw(full_ts: int | None, rate: Rate, now_ms: int) -> Granted | Refused:
    """Takes one out of a bucket.

    A time further ahead than the bucket can reach was stored by a clock that was wrong, or at another rate. It counts
    as a bucket with one left: a refusal stores nothing, and would hold until that time has come.

    Args:
        full_ts: when the bucket is full again, in ms; None for a full one.
        rate: what it holds.
        now_ms: the time, in ms.
    """
    # Rounded up, so that never more than the rate is granted.
    interval = -(-rate.period_ms // rate.count)
    capacity = interval * rate.count
    due = max(full_ts or 0, now_ms)
    if due > now_ms + capacity + _CLOCKS_DIFFER_MS:
        due = now_ms + capacity - interval
    over = due + interval - (now_ms + capacity)
    return Refused(over) if over > 0 else Granted(due + interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """All budgets there are; each attribute is a rate, or None where it is switched off.

    A homeserver is many users, so what it is counted by is far more than what one user is.
    """

    mails_per_account: Rate | None = None
    mails_per_address: Rate | None = None
    mails_per_homeserver: Rate | None = None
    mails_per_source: Rate | None = None
    sms_per_account: Rate | None = None
    sms_per_number: Rate | None = None
    sms_per_country: Rate | None = None
    sms_per_homeserver: Rate | None = None
    sms_per_source: Rate | None = None
    invitations_per_sender: Rate | None = None
    invitations_per_address: Rate | None = None
    invitations_per_homeserver: Rate | None = None
    registrations_per_homeserver: Rate | None = None
    registrations_per_source: Rate | None = None
    guesses_per_address: Rate | None = None
    v1_requests_per_source: Rate | None = None

    def mail(self, user_id: str | None, source: str, address: str) -> list[Charge]:
        """What a validation mail costs.

        Args:
            user_id: who asks for it; None at v1, where nobody knows.
            source: where the request came from; empty where that is not counted.
            address: where the mail goes.
        """
        return [
            *self._asking("mails", user_id, source),
            self._charge("mails_per_address", _mailbox(address)),
        ]

    def sms(self, user_id: str | None, source: str, number: PhoneNumber) -> list[Charge]:
        """What an SMS costs; arguments as for `mail`."""
        return [
            *self._asking("sms", user_id, source),
            self._charge("sms_per_number", number.msisdn),
            self._charge("sms_per_country", number.region or ""),
        ]

    def invitation(self, sender: str, source: str, address: str) -> list[Charge]:
        """What an invitation costs; arguments as for `mail`, and `sender` is whom the mail names."""
        return [
            self._charge("invitations_per_sender", sender),
            self._charge("invitations_per_homeserver", _homeserver(sender)),
            self._charge("invitations_per_address", _mailbox(address)),
            *self._from("mails_per_source", source),
        ]

    def registration(self, source: str) -> list[Charge]:
        """What asking a homeserver about an OpenID token costs whoever makes us ask."""
        return self._from("registrations_per_source", source)

    def account(self, user_id: str) -> list[Charge]:
        """What an access token costs the homeserver that vouches for its user."""
        return [self._charge("registrations_per_homeserver", _homeserver(user_id))]

    def guess(self, threepid: Threepid) -> list[Charge]:
        """What trying a code costs."""
        return [self._charge("guesses_per_address", f"{threepid.medium}:{threepid.address}")]

    def v1_request(self, source: str) -> list[Charge]:
        """What a request without an access token costs."""
        return self._from("v1_requests_per_source", source)

    def _asking(self, what: str, user_id: str | None, source: str) -> list[Charge]:
        if user_id is None:
            return self._from(f"{what}_per_source", source)
        return [
            self._charge(f"{what}_per_account", user_id),
            self._charge(f"{what}_per_homeserver", _homeserver(user_id)),
        ]

    def _from(self, name: str, source: str) -> list[Charge]:
        return [self._charge(name, source)] if source else []

    def _charge(self, name: str, key: str) -> Charge:
        return Charge(name, key, getattr(self, name))


def buckets_of_address(threepid: Threepid) -> list[tuple[str, str]]:
    """The buckets that belong to an address alone, each as a budget and a key."""
    address = threepid.address
    buckets = [("guesses_per_address", f"{threepid.medium}:{address}")]
    if threepid.medium == MSISDN:
        return [*buckets, ("sms_per_number", address)]
    try:
        mailbox_key = _mailbox(address)
    except InvalidEmail:
        # Other servers have bound addresses that we never send a mail to.
        return buckets
    return [*buckets, ("mails_per_address", mailbox_key), ("invitations_per_address", mailbox_key)]


def buckets_of_user(user_id: str) -> list[tuple[str, str]]:
    """The buckets that belong to a user alone, each as a budget and a key."""
    return [(name, user_id) for name in ("mails_per_account", "sms_per_account", "invitations_per_sender")]


def _homeserver(user_id: str) -> str:
    # Without its port: whoever has the name has all of them.
    return parse_server_name(server_name_of(user_id)).host


def _mailbox(address: str) -> str:
    """What most likely ends up in the same mailbox: whatever stands behind a plus sign, and however the domain is written."""
    local, _, domain = mailbox(address).envelope.partition("@")
    return f"{local.partition('+')[0]}@{domain}"
