"""Value parsers for telephone numbers: countries, gateways, and what SMS are from."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from phonenumbers import SUPPORTED_REGIONS

from sydentish.config import values

_GATEWAY = re.compile(r"[0-9A-Za-z_.-]{1,100}")
# A short code, or a number of E.164.
_NUMBER = re.compile(r"[0-9]{3,6}|\+?[0-9]{7,15}")
# 3GPP TS 23.040 section 9.1.2.5: an alphanumeric address has at most eleven characters.
_NAME = re.compile(r"(?=.*[A-Za-z])[0-9A-Za-z &+._-]{1,11}")


def country(value: str) -> str:
    """The two-letter code of a country that has telephone numbers (ISO 3166-1), in upper case."""
    code = value.upper()
    if not value.isascii() or code not in SUPPORTED_REGIONS:
        if code == "UK":
            raise ValueError("is no country code of ISO 3166-1: did you mean GB?")
        raise ValueError("must be a two-letter country code of ISO 3166-1, such as GB")
    return code


def gateway(value: str) -> str:
    """The NAME of a `[sms NAME]` section."""
    if not _GATEWAY.fullmatch(value):
        raise ValueError("must be a name of letters, digits, _, - and .")
    return value


def originator(value: str) -> str:
    """What an SMS is from: a telephone number, a short code, or a short name."""
    if not _NUMBER.fullmatch(value) and not _NAME.fullmatch(value):
        raise ValueError(
            "must be a telephone number with its country code, a short code of 3 to 6 digits, or a name of up to 11 "
            "letters, digits, blanks and &+._- with a letter in it"
        )
    return value


def originators(value: str) -> Mapping[str, str]:
    """A list of `COUNTRY:ORIGINATOR`, no country twice, as a mapping."""
    pairs = values.items(_pair)(value)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("must have each country once")
    return MappingProxyType(found)


def _pair(value: str) -> tuple[str, str]:
    code, colon, text = value.partition(":")
    if not colon:
        raise ValueError("must be a country and an originator such as GB:447700900001")
    try:
        region = country(code.strip())
    except ValueError as error:
        raise ValueError(f"begins with what {error}") from None
    return region, originator(text.strip())
