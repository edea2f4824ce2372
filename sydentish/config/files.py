"""Value parsers for paths, and the reading of files that options name. Nothing is ever written."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import (
    Certificate,
    DNSName,
    DuplicateExtension,
    IPAddress,
    SubjectAlternativeName,
    UnsupportedGeneralNameType,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import NameOID

_MAX_BYTES = 8 * 1024 * 1024


def path(value: str) -> Path:
    """A path, which need not exist; a relative one counts from the working directory."""
    if not value or not value.isprintable():
        raise ValueError("must be a path")
    return Path(value)


def data_file(value: str) -> Path:
    """The path of a file of ours, which need not exist yet, but is no directory."""
    found = path(value)
    if _mode(found, stat.S_ISDIR):
        raise ValueError("must be a file, but is a directory")
    return found


def folder(value: str) -> Path:
    """The path of a directory of ours, which need not exist yet, but is nothing else."""
    found = path(value)
    if _mode(found, lambda mode: not stat.S_ISDIR(mode)):
        raise ValueError("must be a directory, but is something else")
    return found


def readable_folder(value: str) -> Path:
    """The path of a directory that exists and can be read."""
    found = path(value)
    if not _mode(found, stat.S_ISDIR) or not os.access(found, os.R_OK | os.X_OK):
        raise ValueError("must be a directory that exists and can be read")
    return found


def ca_file(value: str) -> Path:
    """The path of a readable file with at least one certificate in PEM form."""
    found = path(value)
    try:
        load_pem_x509_certificates(read_bounded(found))
    except OSError as error:
        raise ValueError(f"must be a readable file: {reason(error)}") from None
    except ValueError:
        raise ValueError("must be a file with at least one certificate in PEM form") from None
    return found


def private_key_file(value: str) -> Path:
    """The path of a readable file with a private key in PEM form; a password is asked of nobody."""
    found = path(value)
    try:
        load_pem_private_key(read_bounded(found), password=None)
    except OSError as error:
        raise ValueError(f"must be a readable file: {reason(error)}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("must be a file with a private key in PEM form, without a password") from None
    return found


def is_key_of(private_key: Path, certificate: Path) -> bool:
    """Whether a private key is that of the first certificate; both are files that could be read before."""
    try:
        own = load_pem_private_key(read_bounded(private_key), password=None).public_key()
        return own == load_pem_x509_certificates(read_bounded(certificate))[0].public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return False


def names_in_certificate(file: Path) -> frozenset[str]:
    """The common names and the alternative names (DNS, IP) of the first certificate, in lower case.

    None where they cannot be read.
    """
    try:
        return frozenset(name.lower() for name in _names(load_pem_x509_certificates(read_bounded(file))[0]))
    except (OSError, ValueError, DuplicateExtension, UnsupportedGeneralNameType):
        return frozenset()


def _names(certificate: Certificate) -> list[str]:
    names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in certificate.extensions:
        if isinstance(extension.value, SubjectAlternativeName):
            names += extension.value.get_values_for_type(DNSName)
            names += map(str, extension.value.get_values_for_type(IPAddress))
    return names


def read_secret(value: str) -> str:
    """The content of a file, less one newline at its end.

    Raises:
        ValueError: when it cannot be read, or is not one line of UTF-8 text; tells nothing of the content.
    """
    try:
        content = read_bounded(path(value)).decode()
    except OSError as error:
        raise ValueError(f"must be a readable file: {reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError("must be a file with UTF-8 text") from None
    line = content.removesuffix("\n").removesuffix("\r")
    if not line or not line.isprintable():
        raise ValueError("must be a file with one line of printable text")
    return line


def read_bounded(file: Path) -> bytes:
    """The content of a file of a sensible size.

    Raises:
        OSError: when it cannot be read, or never ends.
    """
    with file.open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(f"it has more than {_MAX_BYTES} bytes")
    return content


def reason(error: OSError) -> str:
    """Why a file cannot be read, without its name."""
    return error.strerror or str(error)


def others_may(file: Path, permission: int) -> bool:
    """Whether everybody has `permission`, one of the `stat.S_I?OTH` bits; False where that cannot be seen."""
    return _mode(file, lambda mode: bool(mode & permission))


def _mode(file: Path, test: Callable[[int], bool]) -> bool:
    try:
        return test(file.stat().st_mode)
    except (OSError, ValueError):
        return False


def tls_key_pair(private_key: str, certificate: str) -> None:
    """Checks the PEM files of a listener that speaks TLS.

    Raises:
        ValueError: one of them is missing, cannot be read, or holds something else.
    """
    try:
        load_pem_private_key(Path(private_key).read_bytes(), password=None)
        load_pem_x509_certificates(Path(certificate).read_bytes())
    except OSError:
        raise ValueError("must name readable files behind privateKey and certKey") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("must name PEM files of a private key and a certificate") from None
