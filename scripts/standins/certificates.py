"""A throw-away certificate authority, and server certificates from it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A private key and its certificate, as one PEM text."""

    pem: bytes

    def options(self) -> "ServerOptions":
        """What Twisted listens with."""
        with NamedTemporaryFile() as file:
            file.write(self.pem)
            file.flush()
            return ServerOptions(Path(file.name))

    def write(self, path: Path) -> None:
        """Writes key and certificate to `path`."""
        path.write_bytes(self.pem)


@implementer(IOpenSSLContextFactory)
class ServerOptions:
    """A TLS context from a PEM file; Twisted's own way wants objects that pyOpenSSL is about to drop."""

    def __init__(self, path: Path) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_chain_file(str(path))
        self._context.use_privatekey_file(str(path))

    def getContext(self) -> SSL.Context:
        """See `IOpenSSLContextFactory`."""
        return self._context


class Authority:
    """A certificate authority that nobody else knows."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write_ca(self, path: Path) -> Path:
        """Writes the authority's own certificate to `path`, for those who shall trust it."""
        path.write_bytes(self._ca.cert_pem.bytes())
        return path

    def issue(
        self, *names: str, not_after: datetime | None = None, common_name: str | None = None
    ) -> ServerCertificate:
        """A certificate for DNS names and IP addresses; good for servers, and for clients, too.

        Args:
            names: its subject alternative names.
            not_after: until when it is valid; for long by default.
            common_name: of its subject; none by default.
        """
        issued = self._ca.issue_cert(*names, not_after=not_after, common_name=common_name)
        return ServerCertificate(issued.private_key_and_cert_chain_pem.bytes())


def weak_certificate() -> bytes:
    """Key and certificate that are well-formed, and too weak for TLS of today."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.org")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
