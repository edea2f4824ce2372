"""Third-party identifiers: what is an address, and in which form it is stored, hashed and written to."""

from dataclasses import dataclass

import idna

from sydentish.domain.errors import InvalidEmail

EMAIL = "email"

# RFC 5321 section 4.5.3.1: octets of a local part, and of a whole path less its angle brackets.
_MAX_LOCAL_OCTETS = 64
_MAX_ADDRESS_OCTETS = 254
_MAX_DOMAIN_OCTETS = 253
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")


@dataclass(frozen=True, slots=True)
class Threepid:
    """An address of a medium, normalised."""

    medium: str
    address: str


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
