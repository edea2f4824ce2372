"""Which certificates we trust when we connect to homeservers."""

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from zope.interface import implementer

# Makes connections to the one whose certificate must be valid for this DNS name or IP address.
TlsOptions = Callable[[str], IOpenSSLClientConnectionCreator]


def tls_options(ca_file: Path | None, *, verify: bool) -> TlsOptions:
    """How to make TLS connections, given the name that the certificate must be valid for.

    Args:
        ca_file: PEM certificates to trust instead of the system's, or None.
        verify: whether certificates are checked at all.

    Raises:
        OSError: `ca_file` cannot be read.
        ValueError: `ca_file` holds no certificate.
    """
    if not verify:
        return _UncheckedTls
    if ca_file is None:
        # Made anew each time, so that the operating system's updates of it are seen without a restart.
        return lambda name: optionsForClientTLS(name, trustRoot=platformTrust())
    found = load_pem_x509_certificates(ca_file.read_bytes())
    trust = trustRootFromCertificates([Certificate.load(c.public_bytes(Encoding.DER)) for c in found])
    return lambda name: optionsForClientTLS(name, trustRoot=trust)


@implementer(IOpenSSLClientConnectionCreator)
class _UncheckedTls:
    def __init__(self, name: str) -> None:
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: ARG002 - the interface's
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        if not isIPAddress(self._name) and not isIPv6Address(self._name):
            # RFC 6066 section 3: literal addresses are not permitted there.
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection
