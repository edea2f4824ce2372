"""Third-party identifiers: what is an address, and in which form it is stored, hashed and written to."""

import re
from contextlib import suppress
from dataclasses import dataclass, field

import idna
import phonenumbers
from phonenumbers import PhoneNumberFormat

from sydentish.domain.errors import IdentityError, InvalidAddress, InvalidEmail, InvalidParam

EMAIL = "email"
MSISDN = "msisdn"

# RFC 5321 section 4.5.3.1: octets of a local part, and of a whole path less its angle brackets.
_MAX_LOCAL_OCTETS = 64
_MAX_ADDRESS_OCTETS = 254
_MAX_DOMAIN_OCTETS = 253
_NO_NUMBER = "phone_number: must be a telephone number of that country, or one that begins with +"
_MAX_NUMBER_TEXT = 64
_REGION = re.compile(r"[A-Z]{2}")
_MSISDN = re.compile(r"[1-9][0-9]{3,14}")
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")


@dataclass(frozen=True, slots=True)
class Threepid:
    """An address of a medium, normalised."""

    medium: str
    address: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An e-mail address as a mail system needs it.

    Attributes:
        envelope: the address with its domain as A-labels where that is possible.
        needs_smtputf8: the local part is not ASCII, so the relay must offer SMTPUTF8 (RFC 6531).
    """

    envelope: str
    needs_smtputf8: bool


def normalise_email(text: str) -> str:
    """The form of an e-mail address that is stored and hashed: case-folded as a whole.

    See the specification's appendix "3PID Types" and MSC2265. Folding comes first, since it can change the
    length, and everything is checked on the result: that is the mailbox a mail goes to.

    Raises:
        InvalidEmail: when it is not a plain `local@domain` (no display name, brackets, lists, quoted local
            part, `mailto:`, blanks or control characters), or is too long.
    """
    address = text.casefold()
    local, at, domain = address.partition("@")
    if not at or "@" in domain:
        raise InvalidEmail("email: must have exactly one @")
    _check_local_part(local)
    ascii_domain = _ascii_domain(domain)
    if max(len(address.encode()), len(local.encode()) + 1 + len(ascii_domain)) > _MAX_ADDRESS_OCTETS:
        raise InvalidEmail(f"email: must have at most {_MAX_ADDRESS_OCTETS} bytes")
    return address


def mailbox(address: str) -> Mailbox:
    """How a mail system writes an address; `normalise_email` says what one is.

    Raises:
        InvalidEmail: when `address` is not one.
    """
    local, _, domain = address.partition("@")
    _check_local_part(local)
    ascii_domain = _ascii_domain(domain)
    if local.isascii():
        return Mailbox(f"{local}@{ascii_domain}", needs_smtputf8=False)
    return Mailbox(address, needs_smtputf8=True)


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A telephone number in the forms that are needed.

    Attributes:
        msisdn: the digits of E.164, country code first, without a plus sign: what is stored and hashed.
        intl_fmt: as people write it internationally, such as `+44 7700 900001`.
        region: the country it belongs to (ISO 3166-1 alpha-2), or None for a number of no country.
    """

    msisdn: str = field(repr=False)
    intl_fmt: str = field(repr=False)
    region: str | None


def parse_phone_number(country: str, number: str) -> PhoneNumber:
    """A telephone number as it would be dialled from a country (Identity Service API, `request_msisdn_validation`).

    A possible length is enough: the numbering plans that phonenumbers knows lag behind the real ones. See
    `check_numbering_plan`.

    Args:
        country: ISO 3166-1 alpha-2, in either case.
        number: national, or international with a plus sign in front.

    Raises:
        InvalidAddress: it is not a telephone number.
    """
    region = country.upper() if country.isascii() else ""
    if not _REGION.fullmatch(region) or region not in phonenumbers.SUPPORTED_REGIONS:
        raise InvalidAddress("country: must be a two-letter country code of ISO 3166-1, such as GB")
    if len(number) > _MAX_NUMBER_TEXT:
        raise InvalidAddress(_NO_NUMBER)
    try:
        parsed = _settled(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        raise InvalidAddress(_NO_NUMBER) from None
    msisdn = _e164(parsed).removeprefix("+")
    if parsed.extension or not phonenumbers.is_possible_number(parsed) or not _MSISDN.fullmatch(msisdn):
        raise InvalidAddress(_NO_NUMBER)
    return PhoneNumber(
        msisdn=msisdn,
        intl_fmt=phonenumbers.format_number(parsed, PhoneNumberFormat.INTERNATIONAL),
        region=_region_of(parsed),
    )


def check_numbering_plan(number: PhoneNumber) -> None:
    """Whether the number is one that its country's numbering plan, as far as it is known, has given out.

    Raises:
        InvalidAddress: it is not.
    """
    if not phonenumbers.is_valid_number(phonenumbers.parse(f"+{number.msisdn}")):
        raise InvalidAddress(_NO_NUMBER)


def normalise(medium: str, address: str) -> Threepid | None:
    """The address in the form that is stored; None when it cannot be one of that medium.

    A telephone number is given by its digits, with the country code and perhaps a plus sign in front.
    """
    if medium == MSISDN:
        msisdn = address.removeprefix("+")
        return Threepid(MSISDN, msisdn) if _MSISDN.fullmatch(msisdn) else None
    if medium != EMAIL:
        return None
    try:
        return Threepid(EMAIL, normalise_email(address))
    except IdentityError:
        return None


def spellings(threepid: Threepid) -> list[Threepid]:
    """An address in all forms that are stored as different ones although they are the same mailbox.

    They differ in the domain, which may be written as A-labels or U-labels.
    """
    found = {threepid.address: None}
    local, _, domain = threepid.address.partition("@")
    if threepid.medium == EMAIL:
        with suppress(InvalidEmail, UnicodeError):
            ascii_domain = _ascii_domain(domain)
            found[f"{local}@{ascii_domain}"] = None
            found[f"{local}@{idna.decode(ascii_domain)}".casefold()] = None
    return [Threepid(threepid.medium, address) for address in found]


def given_threepid(medium: str, address: str) -> Threepid:
    """What the operator gives as `medium` and `address`, in the form that is stored.

    Raises:
        InvalidParam: names the one of the two that is wrong.
    """
    if medium not in (EMAIL, MSISDN):
        raise InvalidParam("medium", f"must be {EMAIL} or {MSISDN}")
    threepid = normalise(medium, address)
    if threepid is None:
        raise InvalidParam("address", "must be an e-mail address, or the digits of a telephone number")
    return threepid


def _settled(number: phonenumbers.PhoneNumber) -> phonenumbers.PhoneNumber:
    # Who writes the 0 of national calls twice means the same telephone: what is stored must be what is read again.
    again = number if number.extension else phonenumbers.parse(_e164(number))
    return number if _e164(again) == _e164(number) else _settled(again)


def _e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def _region_of(number: phonenumbers.PhoneNumber) -> str | None:
    region = phonenumbers.region_code_for_number(number)
    region = region or phonenumbers.region_code_for_country_code(number.country_code or 0)
    return region if _REGION.fullmatch(region) else None


def _check_local_part(local: str) -> None:
    if not local or len(_utf8(local)) > _MAX_LOCAL_OCTETS:
        raise InvalidEmail(f"email: the part before the @ must have 1 to {_MAX_LOCAL_OCTETS} bytes")
    # Beyond ASCII everything is a letter to RFC 6531; what cannot be seen is refused all the same.
    if any(c not in _ATEXT if c.isascii() else (c.isspace() or not c.isprintable()) for c in local):
        raise InvalidEmail("email: a character before the @ is not allowed there")
    # All of its characters are allowed, but to a mail program an encoded word (RFC 2047) is what it encodes, which
    # can be line ends, and headers after them.
    if "=?" in local:
        raise InvalidEmail("email: the part before the @ must not have a ? right after a =")
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise InvalidEmail("email: dots before the @ stand between other characters")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidEmail("email: must be valid Unicode") from None


def _ascii_domain(domain: str) -> str:
    if not domain or len(_utf8(domain)) > _MAX_DOMAIN_OCTETS or domain.endswith("."):
        raise InvalidEmail(
            f"email: the domain must have 1 to {_MAX_DOMAIN_OCTETS} bytes and no dot at its end"
        )
    try:
        labels = [_ascii_label(label) for label in domain.split(".")]
    except (UnicodeError, ValueError):
        raise InvalidEmail("email: what stands after the @ is not a domain") from None
    ascii_domain = ".".join(labels)
    if len(ascii_domain) > _MAX_DOMAIN_OCTETS:
        raise InvalidEmail(f"email: the domain must have at most {_MAX_DOMAIN_OCTETS} bytes")
    if labels[-1].isdigit():
        raise InvalidEmail("email: an IP address cannot stand after the @")
    return ascii_domain


def _ascii_label(label: str) -> str:
    return idna.alabel(label).decode() if not label.isascii() else _ldh(label)


def _ldh(label: str) -> str:
    # RFC 1123 section 2.1; the underscore is refused, as mail systems do.
    bounds = label[:1] + label[-1:]
    if not 0 < len(label) <= 63 or not bounds.isalnum() or not label.replace("-", "").isalnum():  # noqa: PLR2004
        raise ValueError(label)
    return label
