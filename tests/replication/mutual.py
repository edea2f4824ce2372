"""Peers on loopback, with TLS that shows certificates on both sides."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL
from standins.behaviours import answer
from standins.certificates import ServerCertificate
from standins.serving import Server, arrival
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from sydentish.domain.peers import Peer
from sydentish.replication.tls import PeerTls, TlsEndpoint

HERE, THERE = "here.example.org", "there.example.org"
MAX_BYTES = 65_536


@dataclass
class Credentials:
    """The files of one server."""

    certificate_file: Path
    ca_file: Path

    def load(self):
        return PeerTls.load(self.certificate_file, None, self.ca_file)


class PeerServer(Server):
    """A peer that answers as a test says, and notes what it is asked."""

    def __init__(self):
        super().__init__(self._respond, None)
        self.arrivals = []
        self.behaviour = answer(200, {"success": True})

    def _respond(self, request):
        self.arrivals.append(arrival(request))
        self.behaviour(request)

    async def listen(self, tls):
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self._port = await TlsEndpoint(endpoint, tls, reactor).listen(self._connections)

    def listen_with(self, options):
        self._port = reactor.listenSSL(0, self._connections, options, interface="127.0.0.1")

    def peer(self, *names, scheme="https"):
        return Peer(THERE, f"{scheme}://127.0.0.1:{self.port}", {}, names or (THERE,))


@implementer(IOpenSSLContextFactory)
@dataclass
class MutualTls:
    """Another server's way of mutual TLS, of one version of it."""

    credentials: Credentials
    version: int
    context: SSL.Context = field(init=False)

    def __post_init__(self):
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_min_proto_version(self.version)
        self.context.set_max_proto_version(self.version)
        self.context.use_certificate_chain_file(str(self.credentials.certificate_file))
        self.context.use_privatekey_file(str(self.credentials.certificate_file))
        self.context.load_verify_locations(str(self.credentials.ca_file))
        # OpenSSL itself has old TLS at the lowest level only.
        level = 0 if self.version == SSL.TLS1_1_VERSION else 1
        self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self.context.set_cipher_list(b"DEFAULT:@SECLEVEL=%d" % level)

    def getContext(self):
        return self.context


def for_usages(authority, name, usages):
    """A certificate that is good for some usages only; for nobody without a name."""
    pem = authority.issue(HERE).pem
    issued = x509.load_pem_x509_certificate(pem)
    builder = (
        x509.CertificateBuilder(issued.issuer, issued.subject, issued.public_key(), issued.serial_number)
        .not_valid_before(issued.not_valid_before_utc)
        .not_valid_after(issued.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    signer = load_pem_private_key(authority._ca.private_key_pem.bytes(), None)
    private = pem[: pem.index(b"-----BEGIN CERTIFICATE")]
    return ServerCertificate(private + builder.sign(signer, SHA256()).public_bytes(Encoding.PEM))
