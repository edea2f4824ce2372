"""[budgets]: how much may be asked of this server."""

# ruff: noqa: RUF009 - option() and _budget() are `dataclasses.field` with a declaration

from dataclasses import dataclass

from sydentish.config import values
from sydentish.config.declare import option
from sydentish.domain.ratelimit import Rate


def _budget(default: str, about: str) -> Rate | None:
    return option(values.limit(values.rate), default, about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """[budgets]: how much may be asked for, 30/1h for 30 at once and as many again over the next hour, or off."""

    mails_per_account: Rate | None = _budget("55/1h", "How many validation mails one user may ask for.")
    mails_per_address: Rate | None = _budget(
        "40/1d", "How many validation mails one address may be sent, whoever asks for them."
    )
    mails_per_homeserver: Rate | None = _budget(
        "1000/1h", "How many validation mails the users of one homeserver may ask for together."
    )
    mails_per_source: Rate | None = _budget(
        "50/1h",
        "How many mails, those of invitations included, one IP address may ask for at v1, which knows no users.",
    )
    sms_per_account: Rate | None = _budget("50/1d", "How many SMS one user may ask for.")
    sms_per_number: Rate | None = _budget(
        "20/1d", "How many SMS one telephone number may be sent, whoever asks for them."
    )
    sms_per_country: Rate | None = _budget(
        "1000/1d", "How many SMS the telephone numbers of one country may be sent together."
    )
    sms_per_homeserver: Rate | None = _budget(
        "1000/1d", "How many SMS the users of one homeserver may ask for together."
    )
    sms_per_source: Rate | None = _budget(
        "50/1d", "How many SMS one IP address may ask for at v1, unless it is in v1_trusted_networks."
    )
    invitations_per_sender: Rate | None = _budget("50/1h", "How many invitations one user may leave.")
    invitations_per_address: Rate | None = _budget(
        "40/1d", "How many invitations may be left for one address, whoever invites."
    )
    invitations_per_homeserver: Rate | None = _budget(
        "1000/1h", "How many invitations the users of one homeserver may leave together."
    )
    registrations_per_homeserver: Rate | None = _budget(
        "3000/1h", "How often the users of one homeserver may register here, together."
    )
    registrations_per_source: Rate | None = _budget(
        "600/1h", "How often users may register here from one IP address."
    )
    guesses_per_address: Rate = option(
        values.daily_rate(50),
        "100/1d",
        "How many guesses of codes are judged for one telephone number, at least 50/1d; this cannot be off.",
    )
    v1_requests_per_source: Rate | None = _budget(
        "50/1m", "How many requests one IP address may make at v1, unless it is in v1_trusted_networks."
    )
