"""A throw-away certificate authority, and server certificates from it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import trustme
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
