"""Who may speak with whom: real certificates, good and bad, on both sides."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from replication.mutual import HERE, THERE, MutualTls, for_usages
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from web.listening import Listening
from zope.interface import implementer

from sydentish.domain.certificates import names_in
from sydentish.domain.peers import Accepted, Failed, Peer
from sydentish.lifecycle import Listener
from sydentish.replication.credentials import TlsProblem
from sydentish.replication.tls import PeerTls, TlsEndpoint, WrongCertificateName
from sydentish.replication.troubles import why

pytestmark = pytest.mark.usefixtures("quiet_log")

EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)
VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
OLD = SSL.TLS1_1_VERSION
FOR_SERVERS, FOR_CLIENTS = [ExtendedKeyUsageOID.SERVER_AUTH], [ExtendedKeyUsageOID.CLIENT_AUTH]
BODY = b'{"sgAssocs":{}}'


# --- both good --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_two_servers_with_good_certificates_speak(start_peer, make_link):
    server = await start_peer()
    assert await make_link().push(server.peer(), BODY) == Accepted()
    assert [arrived.body for arrived in server.arrivals] == [BODY]


@pytest_twisted.ensureDeferred
async def test_one_certificate_for_servers_and_one_for_clients_will_do(
    start_peer, make_link, credentials, authority
):
    server = await start_peer(credentials(certificate=for_usages(authority, THERE, FOR_SERVERS)).load())
    client = credentials(certificate=for_usages(authority, HERE, FOR_CLIENTS)).load()
    assert await make_link(client).push(server.peer(), BODY) == Accepted()


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest_twisted.ensureDeferred
async def test_each_new_version_of_tls_will_do(start_other, make_link, credentials, version):
    server = start_other(MutualTls(credentials(THERE), version))
    assert await make_link().push(server.peer(), BODY) == Accepted()


@pytest.mark.parametrize("name", ["127.0.0.1", "*.example.org", "wanted.example.org"])
@pytest_twisted.ensureDeferred
async def test_any_of_the_configured_names_will_do(start_peer, make_link, credentials, name):
    server = await start_peer(credentials("other.example.org", name).load())
    assert await make_link().push(server.peer("absent.example.org", name), BODY) == Accepted()


@pytest_twisted.ensureDeferred
async def test_a_common_name_will_do(start_peer, make_link, credentials, authority):
    certificate = authority.issue("other.example.org", common_name="There.example.org")
    server = await start_peer(credentials(certificate=certificate).load())
    assert await make_link().push(server.peer(), BODY) == Accepted()


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("id.example.org", b"id.example.org"),
        ("127.0.0.1", None),
        ("[::1]", None),
        ("bücher.example", b"xn--bcher-kva.example"),
    ],
)
def test_the_name_that_is_sent_is_that_of_the_url(ours, host, sent):
    creator = ours.client(Peer(THERE, f"https://{host}:1001", {}, (THERE,)))
    server = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client = creator.clientConnectionForTLS(None)
    client.set_connect_state()
    server.set_accept_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    server.bio_write(client.bio_read(65_536))
    with pytest.raises(SSL.Error):
        server.do_handshake()
    assert server.get_servername() == sent


# --- the server is refused --------------------------------------------------------------------------------


@pytest.fixture
def refused_by_us(start_peer, make_link):
    """Asks a server with some credentials: what is told, when nothing reaches it."""

    async def reason(credentials, link=None):
        server = await start_peer(credentials.load())
        outcome = await (link or make_link()).push(server.peer(), BODY)
        assert server.arrivals == []
        assert isinstance(outcome, Failed)
        assert outcome.kind == "certificate"
        return outcome.reason

    return reason


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("other.example.org",), "other.example.org"),
        (("example.org", "192.0.2.1"), "example.org, 192.0.2.1"),
        (("*.example.org",), "*.example.org"),
        (("not-there.example.org",), "not-there.example.org"),
        (tuple(f"{n}.org" for n in range(9)), "0.org, 1.org, 2.org, 3.org, 4.org, and more"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_of_another_name_is_refused(refused_by_us, credentials, names, told):
    reason = await refused_by_us(credentials(*names))
    assert reason == f"its certificate is for {told}, not for there.example.org"


@pytest_twisted.ensureDeferred
async def test_a_certificate_for_nobody_is_refused(refused_by_us, credentials, authority):
    nameless = for_usages(authority, None, FOR_SERVERS)
    reason = await refused_by_us(credentials(certificate=nameless))
    assert reason == "its certificate is for nobody, not for there.example.org"


@pytest_twisted.ensureDeferred
async def test_an_expired_server_is_refused(refused_by_us, credentials, authority):
    expired = authority.issue(THERE, not_after=EXPIRED)
    assert await refused_by_us(credentials(certificate=expired)) == "its certificate has expired"


@pytest_twisted.ensureDeferred
async def test_a_server_from_another_authority_is_refused(refused_by_us, credentials, authority, stranger):
    # It trusts ours all the same.
    reason = await refused_by_us(credentials(certificate=stranger.issue(THERE)))
    assert reason == "its certificate is not from an authority that is trusted here"


@pytest_twisted.ensureDeferred
async def test_a_server_with_a_certificate_for_clients_only_is_refused(refused_by_us, credentials, authority):
    reason = await refused_by_us(credentials(certificate=for_usages(authority, THERE, FOR_CLIENTS)))
    assert reason == "its certificate is not one for servers: its extended key usage must have serverAuth"


@pytest_twisted.ensureDeferred
async def test_a_server_of_old_tls_is_refused(start_other, make_link, credentials):
    options = MutualTls(credentials(THERE), OLD)
    server = start_other(options)
    outcome = await make_link().push(server.peer(), BODY)
    assert outcome == Failed("certificate", "it does not speak TLS 1.2 or later")


def test_the_exception_knows_the_names_that_were_seen():
    error = WrongCertificateName(("a\n.org", "b.org"), ("c.org",))
    assert error.names == ("a\n.org", "b.org")
    assert error.reason == "its certificate is for a?.org, b.org, not for c.org"


# --- we are refused ---------------------------------------------------------------------------------------

SERVERS = ["ours", *VERSIONS]


@pytest.fixture
def refused_by_them(start_peer, start_other, make_link, credentials):
    """Asks a good server with some credentials: what is told, when nothing reaches it."""

    async def reason(kind, client):
        theirs = credentials(THERE)
        if kind == "ours":
            server = await start_peer(theirs.load())
        else:
            server = start_other(MutualTls(theirs, VERSIONS[kind]))
        outcome = await make_link(client.load()).push(server.peer(), BODY)
        assert server.arrivals == []
        assert isinstance(outcome, Failed)
        assert outcome.kind == "certificate"
        return outcome.reason

    return reason


@pytest.mark.parametrize("kind", SERVERS)
@pytest_twisted.ensureDeferred
async def test_our_expired_certificate_is_refused(refused_by_them, credentials, authority, kind):
    client = credentials(certificate=authority.issue(HERE, not_after=EXPIRED))
    assert await refused_by_them(kind, client) == "it does not accept our certificate: it has expired"


@pytest.mark.parametrize("kind", SERVERS)
@pytest_twisted.ensureDeferred
async def test_our_certificate_from_another_authority_is_refused(
    refused_by_them, credentials, stranger, kind
):
    reason = await refused_by_them(kind, credentials(certificate=stranger.issue(HERE)))
    assert reason == "it does not accept our certificate: it is not from an authority that is trusted there"


@pytest.mark.parametrize("kind", SERVERS)
@pytest_twisted.ensureDeferred
async def test_our_certificate_for_servers_only_is_refused(refused_by_them, credentials, authority, kind):
    client = credentials(certificate=for_usages(authority, HERE, FOR_SERVERS))
    assert await refused_by_them(kind, client) == (
        "it does not accept our certificate: it is not one for clients, "
        "its extended key usage must have clientAuth"
    )


@implementer(IOpenSSLClientConnectionCreator)
class Stranger:
    """A client without a certificate."""

    def __init__(self, version):
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(version)
        self._context.set_max_proto_version(version)
        # OpenSSL itself has old TLS at the lowest level only.
        self._context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")

    def clientConnectionForTLS(self, tlsProtocol):
        return SSL.Connection(self._context, None)


class Asking(Protocol):
    def __init__(self):
        self.lost = Deferred()

    def connectionMade(self):
        self.transport.write(b"GET / HTTP/1.1\r\nHost: there.example.org\r\n\r\n")

    def connectionLost(self, reason):
        self.lost.callback(reason.value)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (SSL.TLS1_3_VERSION, "it does not accept our certificate"),
        (SSL.TLS1_2_VERSION, "it does not agree to any way of TLS with us"),
        (SSL.TLS1_1_VERSION, "it does not speak TLS 1.2 or later"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_client_without_a_certificate_or_with_old_tls_is_refused(start_peer, version, told):
    server = await start_peer()
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
    asking = await connectProtocol(wrapClientTLS(Stranger(version), endpoint), Asking())
    assert why(await asking.lost) == ("certificate", told)
    assert server.arrivals == []


# --- nothing is resumed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_client_that_would_resume_shows_its_certificate_again(credentials, version):
    server, client = credentials(THERE), credentials(HERE)
    creator = server.load().server_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    context.load_verify_locations(client.ca_file)
    context.load_cert_chain(client.certificate_file)
    first = handshake(creator, context, None)
    second = handshake(creator, context, first.session)
    assert not second.session_reused


def handshake(creator, context, session):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, session=session)
    server = creator.serverConnectionForTLS(None)
    server.set_accept_state()
    for step in (client.do_handshake, server.do_handshake) * 3 + (client.read,):
        with suppress(ssl.SSLWantReadError, SSL.WantReadError):
            step()
        if outgoing.pending:
            server.bio_write(outgoing.read())
        with suppress(SSL.WantReadError):
            incoming.write(server.bio_read(65_536))
    assert names_in(server.get_peer_certificate().to_cryptography()) == (HERE,)
    return client


# --- in front of a listener -------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_listener_answers_behind_it_and_knows_who_asks(credentials, make_link):
    listening = Listening()
    ports = []

    class Noting:
        """An endpoint that tells which port it got."""

        def listen(self, factory):
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            return endpoint.listen(factory).addCallback(lambda port: ports.append(port) or port)

    endpoint = TlsEndpoint(Noting(), credentials(THERE).load(), reactor)
    listener = Listener("peers", endpoint, listening.factory, clock=reactor, drain_seconds=5)
    listener.startService()
    await listener.listening
    peer = Peer(THERE, f"https://127.0.0.1:{ports[0].getHost().port}", {}, (THERE,))
    answer = await make_link().ask(peer, "/upload", b"{}")
    assert (answer.status, answer.body) == (200, {})
    await listener.stopService()
    refused = await make_link().push(peer, BODY)
    assert refused == Failed("unreachable", "connection refused")


class Full(Factory):
    """Turns every connection away."""

    noisy = False

    def buildProtocol(self, addr):
        return None


@pytest_twisted.ensureDeferred
async def test_a_listener_that_is_full_turns_away(credentials, make_link, quiet_log):
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await TlsEndpoint(endpoint, credentials(THERE).load(), reactor).listen(Full())
    peer = Peer(THERE, f"https://127.0.0.1:{port.getHost().port}", {}, (THERE,))
    assert await make_link().push(peer, BODY) == Failed(
        "answer", "it closed the connection before it had answered"
    )
    await port.stopListening()


# --- the files --------------------------------------------------------------------------------------------


def test_what_is_known_of_our_own_certificate(credentials, authority):
    certificate = authority.issue("A.example.org", not_after=EXPIRED, common_name="b.example.org")
    tls = credentials(certificate=certificate).load()
    assert tls.certificate_names == ("a.example.org", "b.example.org")
    assert tls.not_after_ms == EXPIRED.timestamp() * 1000


def split(path, folder):
    """The key and the certificates of a file, as two files."""
    private, begin, certificates = path.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(begin + certificates)
    return folder / "certificate.pem", folder / "key.pem"


@pytest_twisted.ensureDeferred
async def test_key_and_certificate_may_be_two_files(credentials, start_peer, make_link, tmp_path):
    theirs = credentials(THERE)
    certificate_file, key_file = split(theirs.certificate_file, tmp_path)
    server = await start_peer(PeerTls.load(certificate_file, key_file, theirs.ca_file))
    assert await make_link().push(server.peer(), BODY) == Accepted()


def encrypted(path):
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary")))


@pytest.mark.parametrize(
    ("spoilt", "spoil", "told"),
    [
        ("certificate", lambda path: path.unlink(), "cannot be read: No such file or directory"),
        ("key", lambda path: path.unlink(), "cannot be read: No such file or directory"),
        ("ca", lambda path: path.unlink(), "cannot be read: No such file or directory"),
        ("certificate", lambda path: path.write_text("nothing"), "there is no certificate (PEM) in it"),
        ("key", lambda path: path.write_text("nothing"), "there is no private key (PEM) in it"),
        (
            "ca",
            lambda path: path.write_text("nothing"),
            "cannot be used for TLS (no certificate or crl found)",
        ),
        ("key", encrypted, "the private key has a passphrase; it must be without"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(credentials, tmp_path, spoilt, spoil, told):
    ours = credentials(HERE)
    certificate_file, key_file = split(ours.certificate_file, tmp_path)
    files = {"certificate": certificate_file, "key": key_file, "ca": ours.ca_file}
    spoil(files[spoilt])
    with pytest.raises(TlsProblem) as raised:
        PeerTls.load(*files.values())
    assert str(raised.value) == f"{files[spoilt]}: {told}"


def test_the_key_of_another_certificate_is_refused(credentials, tmp_path):
    certificate_file, _ = split(credentials(HERE).certificate_file, tmp_path)
    other = credentials(HERE)
    with pytest.raises(TlsProblem, match=r"the private key is not that of the certificate") as raised:
        PeerTls.load(certificate_file, other.certificate_file, other.ca_file)
    assert str(raised.value).startswith(f"{other.certificate_file}: ")


def test_a_certificate_without_its_key_is_refused(credentials, tmp_path):
    ours = credentials(HERE)
    certificate_file, _ = split(ours.certificate_file, tmp_path)
    with pytest.raises(TlsProblem, match="there is no private key"):
        PeerTls.load(certificate_file, None, ours.ca_file)


# --- who has no certificate ----------------------------------------------------------------------------


class Taking:
    """An endpoint that only takes the factory."""

    def listen(self, factory):
        self.factory = factory
        return succeed(None)


class Open(Factory):
    protocol = Protocol


def test_one_source_cannot_take_all_connections(ours):
    endpoint = Taking()
    TlsEndpoint(endpoint, ours, Clock()).listen(Open())
    near, far = IPv4Address("TCP", "192.0.2.1", 1), IPv4Address("TCP", "192.0.2.2", 1)
    taken = [endpoint.factory.buildProtocol(near) for _ in range(25)]
    assert [each is None for each in taken] == [False] * 20 + [True] * 5
    another = endpoint.factory.buildProtocol(far)
    assert another is not None
    for each in (*taken[:2], another):
        transport = StringTransport()
        each.makeConnection(transport)
        each.connectionLost(Failure(ConnectionDone()))
    assert [endpoint.factory.buildProtocol(near) is None for _ in range(3)] == [False, False, True]
