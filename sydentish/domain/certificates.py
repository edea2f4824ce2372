"""Certificates: for whom they are."""

from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

# Some parts are read only when they are asked for, and a part that is malformed says so only then.
_UNREADABLE = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names that a certificate is for, the most telling first, each once.

    These are its alternative names (RFC 5280, section 4.2.1.6), then the common names of its subject, which is where
    Sydent looks. What cannot be read is left out. A name with a wildcard is a text like any other: it stands for no
    other name.

    Returns:
        DNS names in lower case, IP addresses in their canonical form, common names in lower case.
    """
    found = [*_read(_alternative_names(certificate)), *_read(_common_names(certificate))]
    return tuple(dict.fromkeys(name for name in found if name))


def _read(names: Iterator[str]) -> list[str]:
    try:
        return list(names)
    except _UNREADABLE:
        return []


def _alternative_names(certificate: x509.Certificate) -> Iterator[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    for name in extension.value:
        if isinstance(name, x509.DNSName):
            yield name.value.lower()
        elif isinstance(name, x509.IPAddress):
            yield str(name.value)


def _common_names(certificate: x509.Certificate) -> Iterator[str]:
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if isinstance(attribute.value, str):
            yield attribute.value.lower()
