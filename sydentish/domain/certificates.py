"""Certificates: for whom they are."""

from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Some parts are read only when they are asked for, and a part that is malformed says so only then.
_UNREADABLE = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)

_SOON_MS = 30 * 24 * 3600 * 1000
_USAGES = ((ExtendedKeyUsageOID.SERVER_AUTH, "servers"), (ExtendedKeyUsageOID.CLIENT_AUTH, "clients"))


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names that a certificate is for, the most telling first, each once.

    These are its alternative names (RFC 5280, section 4.2.1.6), then the common names of its subject, which is where
    Sydent looks. What cannot be read is left out. A name with a wildcard is a text like any other: it stands for no
    other name.

    Returns:
        DNS names and common names in lower case, as far as they are ASCII; IP addresses in their canonical form.
    """
    found = [*_read(_alternative_names(certificate)), *_read(_common_names(certificate))]
    # Lower case makes ASCII letters of some others.
    return tuple(dict.fromkeys(name.lower() for name in found if name and name.isascii()))


def shortcomings(certificate: x509.Certificate, now_ms: int) -> list[str]:
    """Why other servers will not, or soon not, accept a certificate that is shown to them by a server and by a client.

    Args:
        certificate: ours.
        now_ms: the time, in ms.

    Returns:
        What begins with a verb.
    """
    until = certificate.not_valid_after_utc
    left_ms = until.timestamp() * 1000 - now_ms
    found = []
    if left_ms <= 0:
        found.append(f"has expired on {until:%Y-%m-%d}")
    elif left_ms < _SOON_MS:
        found.append(f"expires on {until:%Y-%m-%d}")
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except _UNREADABLE:
        return found
    for usage, whom in _USAGES:
        if usage not in usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
            found.append(
                f"is not for {whom}: its extended key usage must have {whom[:-1]}Auth, or not be there"
            )
    return found


def _read(names: Iterator[str]) -> list[str]:
    try:
        return list(names)
    except _UNREADABLE:
        return []


def _alternative_names(certificate: x509.Certificate) -> Iterator[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    for name in extension.value:
        if isinstance(name, x509.DNSName):
            yield name.value
        elif isinstance(name, x509.IPAddress):
            yield str(name.value)


def _common_names(certificate: x509.Certificate) -> Iterator[str]:
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if isinstance(attribute.value, str):
            yield attribute.value
