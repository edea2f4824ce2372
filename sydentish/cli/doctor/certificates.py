"""What clients see of a server's TLS: the certificate, and all that is wrong with it."""

from pathlib import Path

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from zope.interface import implementer

from sydentish.cli.doctor.asking import SECONDS
from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.domain.certificates import names_in
from sydentish.parts.world import World
from sydentish.replication.handshake import shown_certificate
from sydentish.replication.link import LinkFailed
from sydentish.replication.tls import NOT_TRUSTED, shown_names, trouble_with_server

_SOON_DAYS = 14
_DAY_SECONDS = 24 * 3600
_REMEDIES = (
    ("has expired", "renew it, and have what shows it read the new one"),
    ("is not valid yet", "compare the clocks, here and there"),
    ("is for", "get one that names the host, or correct the host"),
    (
        NOT_TRUSTED,
        (
            "send the certificates between it and its authority along (fullchain.pem); an authority of your own must "
            "be trusted by everybody who connects"
        ),
    ),
)


@implementer(IOpenSSLClientConnectionCreator)
class Inspector:
    """Connects by TLS whatever certificate is shown, and notes what others would have against it.

    Nothing secret may be sent on such a connection.

    Args:
        host: the name or IP address that the certificate must be for.
        ca_file: certificates (PEM) of the authorities to trust instead of those of the system.
    """

    def __init__(self, host: str, ca_file: Path | None = None) -> None:
        self._host = host
        self._is_ip = isIPAddress(host) or isIPv6Address(host)
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if ca_file is None:
            self._context.set_default_verify_paths()
        else:
            self._context.load_verify_locations(str(ca_file))
        self._context.set_verify(SSL.VERIFY_PEER, self._note)
        self._troubles: list[str] = []
        self._certificate: x509.Certificate | None = None

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: ARG002 - the interface's
        """See `IOpenSSLClientConnectionCreator`."""
        connection = SSL.Connection(self._context, None)
        if not self._is_ip:
            # RFC 6066 section 3: literal addresses are not permitted there.
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection

    def _note(self, _: SSL.Connection, shown: crypto.X509, code: int, depth: int, good: int) -> bool:
        if not depth:
            self._certificate = shown.to_cryptography()
        if not good:
            self._troubles.append(trouble_with_server(code, depth))
        return True

    def troubles(self) -> list[str]:
        """What is wrong with the certificate that was shown, if one was: clauses with a subject."""
        found = list(dict.fromkeys(self._troubles))
        if self._certificate is not None and not self._is_for_host(self._certificate):
            names = shown_names(names_in(self._certificate))
            found.append(f"its certificate is for {names}, not for {self._host}")
        return found

    def failures(self, check: str) -> list[Finding]:
        """The same with what helps.

        Args:
            check: what was looked at.
        """
        return [failed(check, trouble, _remedy(trouble)) for trouble in self.troubles()]

    def _is_for_host(self, certificate: x509.Certificate) -> bool:
        verify = verify_certificate_ip_address if self._is_ip else verify_certificate_hostname
        try:
            verify(certificate, self._host)
        except (VerificationError, CertificateError):
            return False
        return True


async def look_at_certificate(
    world: World, check: str, inspector: Inspector, endpoint: IStreamClientEndpoint
) -> list[Finding]:
    """Connects to a server by TLS, and tells of its certificate.

    Args:
        world: time and sockets.
        check: what is looked at.
        inspector: looks.
        endpoint: connects as that says.
    """
    try:
        certificate = await shown_certificate(endpoint, world.reactor, SECONDS)
    except LinkFailed as no:
        return [failed(check, f"it does not come to TLS: {no.reason}", "check host, port and firewalls")]
    return inspector.failures(check) or [_good(check, certificate, world.now_ms())]


def _remedy(trouble: str) -> str | None:
    return next((what for sign, what in _REMEDIES if sign in trouble), None)


def _good(check: str, certificate: x509.Certificate, now_ms: int) -> Finding:
    until = certificate.not_valid_after_utc
    days = int(until.timestamp() - now_ms / 1000) // _DAY_SECONDS
    told = f"its certificate is good, for {shown_names(names_in(certificate))}, until {until:%Y-%m-%d}"
    if days < _SOON_DAYS:
        return warning(
            check, f"{told}: {days} days are left", "renew it; does what renews it by itself still run?"
        )
    return ok(check, told)
