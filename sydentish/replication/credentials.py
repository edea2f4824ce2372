"""The files of our certificate, its key, and the authorities that we trust, and what OpenSSL makes of them."""

from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL

MUST_SHOW = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
"""What OpenSSL is told so that the other side must show a certificate, which is verified."""

# Of TLS 1.2: those with forward secrecy and authenticated encryption (RFC 9325, section 4.2). TLS 1.3 has no others.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


class TlsProblem(Exception):
    """A file for TLS cannot be used; the message says which one, and why."""


def tls_context(certificate_file: Path, key_file: Path, ca_file: Path) -> SSL.Context:
    """What connections are made with that show our certificate, and verify one of an authority of `ca_file`.

    Raises:
        TlsProblem: OpenSSL takes no such file.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE)
    _take(certificate_file, lambda: context.use_certificate_chain_file(str(certificate_file)))
    _take(key_file, lambda: context.use_privatekey_file(str(key_file)))
    _take(ca_file, lambda: context.load_verify_locations(str(ca_file)))
    context.set_verify(MUST_SHOW)
    # Nothing is resumed: each connection shows its certificates. Without the name, one that tries would fail.
    context.set_session_id(b"sydentish")
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # The last one: some versions of pyOpenSSL take no settings after it.
    context.set_cipher_list(_CIPHERS)
    return context


def _take(path: Path, use: Callable[[], None]) -> None:
    try:
        use()
    except SSL.Error as error:
        told = error.args[0][-1][-1] if error.args and error.args[0] else ""
        raise TlsProblem(f"{path}: cannot be used for TLS ({told or 'OpenSSL does not say why'})") from None


def read_file(path: Path) -> bytes:
    """What is in a file.

    Raises:
        TlsProblem: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsProblem(f"{path}: cannot be read: {error.strerror}") from None


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file.

    Raises:
        TlsProblem: there is none.
    """
    try:
        return x509.load_pem_x509_certificates(read_file(path))[0]
    except ValueError:
        raise TlsProblem(f"{path}: there is no certificate (PEM) in it") from None


def check_key(path: Path, certificate: x509.Certificate) -> None:
    """Whether the private key in a file is that of a certificate.

    Raises:
        TlsProblem: it is not, or there is none.
    """
    try:
        key = load_pem_private_key(read_file(path), None)
        fits = _public(key) == _public(certificate)
    except TypeError:
        # OpenSSL would ask the terminal for it.
        raise TlsProblem(f"{path}: the private key has a passphrase; it must be without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsProblem(f"{path}: there is no private key (PEM) in it") from None
    if not fits:
        raise TlsProblem(f"{path}: the private key is not that of the certificate")


def _public(holder: PrivateKeyTypes | x509.Certificate) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
