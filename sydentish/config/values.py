"""Value parsers: the text of an option to its value.

A parser takes text without surrounding blanks and raises `ValueError` with a message that begins with "must"
and says what is right. Messages repeat nothing of the value: it could be an address or a password.
"""

import re
from collections.abc import Callable
from email.errors import MessageError, ObsoleteHeaderDefect
from email.headerregistry import Address, AddressHeader, HeaderRegistry
from typing import TypeVar

from sydentish.domain.errors import InvalidEmail
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


def items(parser: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A list, one item per line or separated by commas; may be empty."""

    def parse(value: str) -> tuple[T, ...]:
        return tuple(_item(parser, item) for item in _stripped(re.split(r"[,\n]", value)))

    return parse


def lines(parser: Callable[[str], T], at_least: int = 0) -> Callable[[str], tuple[T, ...]]:
    """A list of items that may hold commas themselves, so there is one on each line.

    Args:
        parser: for an item.
        at_least: how many there must be.
    """

    def parse(value: str) -> tuple[T, ...]:
        found = tuple(_item(parser, item) for item in _stripped(value.split("\n")))
        if len(found) < at_least:
            raise ValueError(f"must have at least {at_least} item, one on each line")
        return found

    return parse


def _stripped(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _item(parser: Callable[[str], T], item: str) -> T:
    try:
        return parser(item)
    except ValueError as error:
        raise ValueError(f"{_quoted(item)} {error}") from None


def _quoted(item: str) -> str:
    # Among many items one must be named. What has an @ could be an address, or a password in a URL.
    if "@" in item:
        return "an item"
    return f"`{item[:_SHOWN]}...`" if len(item) > _SHOWN else f"`{item}`"


def folder_name(value: str) -> str:
    """A plain name of a folder: no path, not hidden."""
    if not _FOLDER.fullmatch(value):
        raise ValueError("must be a plain folder name of letters, digits, _, - and .")
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
