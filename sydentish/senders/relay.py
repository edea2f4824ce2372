"""A mail relay: where it is, how it is spoken with and trusted, and how it can fail."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

Security = Literal["plain", "starttls", "tls"]

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class RelayError(Exception):
    """The relay did not take the mail; the text holds no address and nothing that the relay said."""


class RelayRefused(RelayError):
    """The relay answered with 4yz or 5yz.

    Attributes:
        code: the reply code (RFC 5321 section 4.2).
        step: what it was the answer to: `greeting`, a command, or `message`.
    """

    def __init__(self, code: int, step: str) -> None:
        super().__init__(f"the relay answered {code} to {step}")
        self.code = code
        self.step = step


class RelayFailed(RelayError):
    """The relay cannot be reached, trusted or understood, or cannot do what the mail needs."""


class MailUnfit(RelayFailed):
    """The relay cannot take this mail, however often it is tried: an address cannot be written to it."""


class RelayTimeout(RelayError):
    """The relay did not take the mail within the limit.

    Attributes:
        step: what was being waited for: `free connection`, `connection`, or a step as in `RelayRefused`.
    """

    def __init__(self, step: str) -> None:
        super().__init__(f"the limit was reached while waiting for: {step}")
        self.step = step


@dataclass(frozen=True, slots=True)
class Relay:
    """A mail relay and how to speak with it.

    Attributes:
        host: its name or IP address.
        port: its TCP port.
        security: `tls` from the first byte, `starttls` required, or `plain`: nothing is protected.
        identity: the name or IP address that we give ourselves in EHLO.
        tls: how to check its certificate, see `relay_tls`; for `tls` and `starttls`.
        username: for the login, or None for none.
        password: for the login.
        timeout: seconds for one mail, from the call to the relay's yes, waiting for a connection included.
        max_connections: how many connections there are at most at a time.
    """

    host: str
    port: int
    security: Security
    identity: str
    tls: IOpenSSLClientConnectionCreator | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)
    timeout: float = 30.0
    max_connections: int = 10

    def __post_init__(self) -> None:
        if (self.security == "plain") != (self.tls is None):
            raise ValueError("tls: must be given for starttls and tls, and only for them")

    @property
    def ehlo(self) -> str:
        """Our identity as EHLO has it: an IP address is a literal there (RFC 5321 section 4.1.3)."""
        try:
            address = ipaddress.ip_address(self.identity)
        except ValueError:
            return self.identity
        return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"  # noqa: PLR2004


def relay_tls(host: str, ca_file: Path | None, *, verify: bool = True) -> IOpenSSLClientConnectionCreator:
    """How the certificate of a relay is checked.

    Args:
        host: the name or IP address that the certificate must be for.
        ca_file: certificates (PEM) of the authorities to trust instead of those of the system.
        verify: whether to check at all.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds no certificate.
    """
    if not verify:
        return _Unverified()
    if ca_file is None:
        return optionsForClientTLS(host, platformTrust())
    try:
        authorities = [Certificate.loadPEM(pem) for pem in _PEM.findall(ca_file.read_bytes())]
    except crypto.Error:
        authorities = []
    if not authorities:
        raise ValueError("ca_file: must hold certificates in PEM form")
    return optionsForClientTLS(host, trustRootFromCertificates(authorities))


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Encrypts without knowing for whom."""

    def __init__(self) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_verify(SSL.VERIFY_NONE)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002
        return SSL.Connection(self._context, None)
