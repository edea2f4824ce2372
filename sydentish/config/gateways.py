"""The kinds of `[sms NAME]` sections: gateways that take SMS."""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sydentish.config import files, network, phones, values
from sydentish.config.declare import Secret, mandatory, mandatory_secret, option, secret

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(\S.*)", re.ASCII)
_METHODS = ("POST", "PUT", "PATCH", "GET")
# What is put into a request; the sender encodes it as its place demands.
_PLACEHOLDER = re.compile(r"\{(destination|destination_e164|originator|text)\}")
_SID = re.compile(r"[0-9A-Za-z]{1,64}")


def _block(value: str) -> str:
    """Lines of printable text."""
    if not all(line.isprintable() for line in value.split("\n")):
        raise ValueError("must be printable text")
    return value


def _url(value: str) -> str:
    """An absolute http or https URL without a user and a fragment; path and query may have placeholders."""
    problem = (
        "must be an absolute URL such as https://sms.example.org/send, without user and fragment, in ASCII; "
        "{destination}, {destination_e164}, {originator} and {text} may stand in its path and query"
    )
    if "#" in value or not value.isascii() or "{" in _PLACEHOLDER.sub("", value):
        raise ValueError(problem)
    if _PLACEHOLDER.search("/".join(value.split("/", 3)[:3])):
        raise ValueError(problem)
    network.web_url(_PLACEHOLDER.sub("0", value), problem)
    return value


def _headers(value: str) -> tuple[tuple[str, str], ...]:
    """`Name: value` on each line; no message repeats one, since it could hold a password."""
    found, wrong = [], []
    for number, line in enumerate(filter(None, value.split("\n")), start=1):
        match = _HEADER.fullmatch(line)
        if match is None or not match[2].isprintable() or not match[2].isascii():
            wrong.append(f"number {number} is none")
        else:
            found.append((match[1], match[2]))
    if wrong:
        raise ValueError(f"must have a header such as X-Name: value on each line; {', '.join(wrong)}")
    return tuple(found)


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except (re.error, OverflowError, RecursionError):
        raise ValueError("must be a regular expression of Python") from None


def _sid(value: str) -> str:
    if not _SID.fullmatch(value):
        raise ValueError("must be letters and digits, such as AC0123456789abcdef0123456789abcdef")
    return value


def _one_line(value: str) -> str:
    if not value:
        raise ValueError("must be one line of printable text")
    return values.text(value)


def _authorities() -> Path | None:
    return option(
        values.optional(files.ca_file),
        "",
        "A file with the authorities (PEM) that may vouch for the gateway, instead of the system's.",
    )


def _originator() -> str | None:
    return option(
        values.optional(phones.originator),
        "",
        "What SMS through this gateway are from, where [sms] originators says nothing; if not set, [sms] originator.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSection:
    """http: any gateway that takes an SMS in one HTTP request.

    Attributes:
        name: that of the section.
    """

    name: str
    url: str = mandatory(
        _url,
        "https://sms.example.org/send",
        "Where an SMS is handed over; {destination} (digits only), {destination_e164} (with a +), {originator} and "
        "{text} in its path and query are replaced.",
        hidden=True,
    )
    method: str = option(values.choice(*_METHODS), "POST", f"The method: {', '.join(_METHODS)}.")
    headers: tuple[tuple[str, str], ...] = option(
        _headers, "", "Further headers, one Name: value on each line.", hidden=True
    )
    body: str = option(
        _block,
        "",
        'The body, in which the same is replaced, such as {"to": "{destination}", "text": "{text}"}; it may go on in '
        "indented lines.",
        hidden=True,
    )
    content_type: str = option(
        _one_line,
        "application/json",
        "What the body is: application/json, application/x-www-form-urlencoded or text/plain.",
    )
    success_statuses: tuple[int, ...] = option(
        values.items(values.integer(200, 599)),
        "",
        "The statuses of an answer that mean success, as a list; if empty, all from 200 to 299.",
    )
    success_pattern: re.Pattern[str] | None = option(
        values.optional(_pattern),
        "",
        "A regular expression that must be found in the answer, too, for gateways that tell of errors with status 200.",
    )
    username: str | None = option(
        values.optional(values.text), "", "The user name at the gateway; without one there is no log-in."
    )
    password: Secret | None = secret("The password at the gateway.")
    ca_file: Path | None = _authorities()
    originator: str | None = _originator()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMarketSection:
    """openmarket: the Global SMS API of OpenMarket (Infobip).

    Attributes:
        name: that of the section.
    """

    name: str
    base_url: str = option(
        network.bare_url("https://smsc.openmarket.com"),
        "https://smsc.openmarket.com",
        "Where its API is.",
    )
    username: str = mandatory(_one_line, "me", "The user name of the account.")
    password: Secret = mandatory_secret("SECRET", "The password of the account.")
    ca_file: Path | None = _authorities()
    originator: str | None = _originator()


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioSection:
    """twilio: Programmable Messaging of Twilio.

    Attributes:
        name: that of the section.
    """

    name: str
    base_url: str = option(
        network.bare_url("https://api.twilio.com"), "https://api.twilio.com", "Where its API is."
    )
    account_sid: str = mandatory(_sid, "AC0123456789abcdef0123456789abcdef", "The identifier of the account.")
    auth_token: Secret = mandatory_secret("SECRET", "The secret of the account.")
    messaging_service_sid: str | None = option(
        values.optional(_sid),
        "",
        "The messaging service that chooses what SMS are from; without it, an originator must be set.",
    )
    ca_file: Path | None = _authorities()
    originator: str | None = _originator()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection:
    """log: writes SMS to the log instead of sending them; for development only.

    Attributes:
        name: that of the section.
    """

    name: str


GatewaySection = HttpSection | OpenMarketSection | TwilioSection | LogSection

# What `kind` can be; it decides which further keys a section may have.
KINDS: Mapping[str, type[GatewaySection]] = MappingProxyType(
    {"http": HttpSection, "openmarket": OpenMarketSection, "twilio": TwilioSection, "log": LogSection}
)
