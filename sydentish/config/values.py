"""Value parsers: the text of an option to its value.

A parser takes text without surrounding blanks and raises `ValueError` with a message that begins with "must"
and says what is right. Messages repeat nothing of the value: it could be an address or a password.
"""

import re
from collections.abc import Callable, Iterable
from email.errors import MessageError, ObsoleteHeaderDefect
from email.headerregistry import Address, AddressHeader, HeaderRegistry
from typing import TypeVar

from sydentish.domain.errors import InvalidEmail
from sydentish.domain.ratelimit import Rate
from sydentish.domain.threepids import normalise_email

T = TypeVar("T")

_BOOLEANS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_SIZE = re.compile(r"([0-9]{1,12})([KM]?)")
_SIZE_UNITS = {"": 1, "K": 1024, "M": 1024 * 1024}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_MAX_DURATION = "36500d"
_OFF = re.compile(r"off|0+(ms|s|m|h|d|K|M)?")
_FOLDER = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,99}")
_ROOM_ID = re.compile(r"!\S{1,254}")
# RFC 6750 section 2.1.
_BEARER_TOKEN = re.compile(r"[0-9A-Za-z._~+/-]+=*")
_RATE = re.compile(r"([0-9]{1,7})/([0-9]{1,12}(?:ms|s|m|h|d))")
_MAX_RATE_COUNT = 1_000_000
_DAY_MS = 86_400_000
_SHOWN = 60


def text(value: str) -> str:
    """One line of printable text; empty is allowed."""
    if not value.isprintable():
        raise ValueError("must be one line of printable text")
    return value


def boolean(value: str) -> bool:
    """`yes`, `true`, `on`, `1`, or `no`, `false`, `off`, `0`, in any case."""
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise ValueError("must be yes or no") from None


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number within bounds, both inclusive."""

    def parse(value: str) -> int:
        if not _INTEGER.fullmatch(value) or not minimum <= int(value) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def size(value: str) -> int:
    """A number of bytes, at least 1, in bytes, KiB (`K`) or MiB (`M`)."""
    match = _SIZE.fullmatch(value)
    if match is None or not int(match[1]):
        raise ValueError("must be a size such as 65536 or 64K")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def duration(maximum: str = _MAX_DURATION) -> Callable[[str], int]:
    """A time span of at least 1 ms, as milliseconds.

    Args:
        maximum: the longest that is allowed, written as in the file.
    """
    limit = _milliseconds(maximum) or 0
    bound = "" if maximum == _MAX_DURATION else f", at most {maximum}"

    def parse(value: str) -> int:
        span = _milliseconds(value)
        if span is None or not 0 < span <= limit:
            raise ValueError(f"must be a duration such as 500ms, 30s, 5m, 24h or 14d{bound}")
        return span

    return parse


def _milliseconds(value: str) -> int | None:
    match = _DURATION.fullmatch(value)
    return int(match[1]) * _DURATION_UNITS[match[2]] if match else None


def rate(value: str) -> Rate:
    """A budget, `N/duration`: so many at once, and as many again spread over the time; at most one in 1 ms."""
    match = _RATE.fullmatch(value)
    count, period_ms = (int(match[1]), _milliseconds(match[2]) or 0) if match else (0, 0)
    if not 1 <= count <= _MAX_RATE_COUNT or not count <= period_ms <= (_milliseconds(_MAX_DURATION) or 0):
        raise ValueError(
            f"must be a rate such as 30/1h: 1 to {_MAX_RATE_COUNT} in a duration, at most one in each millisecond"
        )
    return Rate(count, period_ms)


def daily_rate(at_least: int) -> Callable[[str], Rate]:
    """A budget that always has so many for a new day: at once, and on average."""

    def parse(value: str) -> Rate:
        parsed = rate(value)
        if parsed.count < at_least or parsed.count * _DAY_MS < parsed.period_ms * at_least:
            raise ValueError(
                f"must be at least {at_least}/1d: {at_least} at once, and as many again every day"
            )
        return parsed

    return parse


def limit(parser: Callable[[str], T]) -> Callable[[str], T | None]:
    """What `parser` takes, or `off` or `0` for no limit, which is None."""

    def parse(value: str) -> T | None:
        if _OFF.fullmatch(value):
            return None
        try:
            return parser(value)
        except ValueError as error:
            raise ValueError(f"{error}, or off") from None

    return parse


def optional(parser: Callable[[str], T]) -> Callable[[str], T | None]:
    """What `parser` takes, or nothing at all, which is None."""

    def parse(value: str) -> T | None:
        return parser(value) if value else None

    return parse


def choice(*words: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return parse


def words(*known: str) -> Callable[[str], frozenset[str]]:
    """A list of some words, or `all` of them, or `none`."""

    def parse(value: str) -> frozenset[str]:
        found = items(choice(*known, "all", "none"))(value)
        if len(found) > 1 and not {"all", "none"}.isdisjoint(found):
            raise ValueError("must be all alone, none alone, or a list without them")
        return frozenset(known if found == ("all",) else () if found == ("none",) else found)

    return parse


def distinct(parser: Callable[[str], tuple[T, ...]]) -> Callable[[str], tuple[T, ...]]:
    """What `parser` takes, no item twice."""

    def parse(value: str) -> tuple[T, ...]:
        found = parser(value)
        if len(set(found)) < len(found):
            raise ValueError("must have each item once")
        return found

    return parse


def items(parser: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A list, one item per line or separated by commas; may be empty."""

    def parse(value: str) -> tuple[T, ...]:
        return _each(parser, re.split(r"[,\n]", value))

    return parse


def lines(parser: Callable[[str], T], at_least: int = 0) -> Callable[[str], tuple[T, ...]]:
    """A list of items that may hold commas themselves, so there is one on each line.

    Args:
        parser: for an item.
        at_least: how many there must be.
    """

    def parse(value: str) -> tuple[T, ...]:
        found = _each(parser, value.split("\n"))
        if len(found) < at_least:
            raise ValueError(f"must have at least {at_least} item, one on each line")
        return found

    return parse


def _each(parser: Callable[[str], T], parts: Iterable[str]) -> tuple[T, ...]:
    """The items in their order; each that is wrong is named, all that are wrong in the same way together."""
    found: list[T] = []
    wrong: dict[str, dict[str, None]] = {}
    for item in filter(None, map(str.strip, parts)):
        try:
            found.append(parser(item))
        except ValueError as error:
            wrong.setdefault(str(error), {})[quoted(item)] = None
    if wrong:
        raise ValueError("; ".join(f"{', '.join(named)} {message}" for message, named in wrong.items()))
    return tuple(found)


def quoted(item: str) -> str:
    """How a message names one of several items."""
    # What has an @ could be an address, or a password in a URL.
    if "@" in item:
        return "an item"
    return f"`{item[:_SHOWN]}...`" if len(item) > _SHOWN else f"`{item}`"


def folder_name(value: str) -> str:
    """A plain name of a folder: no path, not hidden."""
    if not _FOLDER.fullmatch(value):
        raise ValueError("must be a plain folder name of letters, digits, _, - and .")
    return value


def room_id(value: str) -> str:
    """The ID of a room; what stands behind the `!` depends on the room's version."""
    if not _ROOM_ID.fullmatch(value) or not value.isprintable():
        raise ValueError("must be a room ID such as !id:example.org")
    return value


def bearer_token(value: str) -> str:
    """A token as it can stand in an `Authorization` header."""
    if not _BEARER_TOKEN.fullmatch(value):
        raise ValueError("must have only letters, digits and -._~+/, and = at its end")
    return value


def mailbox(value: str) -> str:
    """An RFC 5322 mailbox, `Name <local@domain>` or `local@domain`, in its canonical form.

    The address is ASCII, so that every relay takes it; the name may be any printable text.
    """
    try:
        return str(_address(value))
    except (ValueError, IndexError, AttributeError, TypeError, MessageError):
        # The parser of the standard library stumbles over some broken headers, in these ways.
        raise ValueError(
            "must be one mailbox such as Sydentish <noreply@example.org>, its address in ASCII"
        ) from None


def _check_sender(address: str) -> None:
    try:
        normalise_email(address)
    except InvalidEmail:
        raise ValueError(address) from None


def _address(value: str) -> Address:
    if not value.isprintable():
        raise ValueError(value)
    header = HeaderRegistry()("From", value)
    if not isinstance(header, AddressHeader):
        raise TypeError(header)
    # RFC 5322 section 4.1: an unquoted dot in a name is obsolete, but common (`Example Inc. <...>`).
    defects = [defect for defect in header.defects if not isinstance(defect, ObsoleteHeaderDefect)]
    (address,) = header.addresses
    (group,) = header.groups
    if defects or group.display_name is not None or not address.username or not address.domain:
        raise ValueError(value)
    if not address.addr_spec.isascii() or not str(address).isprintable():
        raise ValueError(value)
    _check_sender(address.addr_spec)
    return address
