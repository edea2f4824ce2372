"""Both sides of connections on which clients, too, show certificates; of a throw-away authority."""

from OpenSSL import SSL
from standins.certificates import Authority
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLContextFactory
from zope.interface import implementer

NEEDED = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


class MutualTls:
    """An authority, and what is made of its certificates.

    The authority's certificate is in `ca.pem`, and that of a server in `server.pem`.

    Attributes:
        server: what a server listens with that believes this authority.
        asks_for_nothing: the same, but it asks clients for no certificate.
    """

    def __init__(self, folder):
        self._folder = folder
        self._authority = Authority()
        self._ca = self._authority.write_ca(folder / "ca.pem")
        self._authority.issue("127.0.0.1", common_name="id.example.org").write(folder / "server.pem")
        self.server = _Server(self._context(SSL.TLS_SERVER_METHOD, "127.0.0.1"))
        self.server.getContext().set_verify(NEEDED, lambda *found: bool(found[-1]))
        self.asks_for_nothing = _Server(self._context(SSL.TLS_SERVER_METHOD, "127.0.0.1"))

    def client(self, *names, common_name=None):
        """Puts TLS around the endpoint of a client, with such a certificate; without names, with none at all."""
        creator = _Client(self._context(SSL.TLS_CLIENT_METHOD, *names, common_name=common_name))
        return lambda endpoint: wrapClientTLS(creator, endpoint)

    def _context(self, method, *names, common_name=None):
        context = SSL.Context(method)
        context.load_verify_locations(str(self._ca))
        if names or common_name:
            pem = self._folder / "own.pem"
            self._authority.issue(*names, common_name=common_name).write(pem)
            context.use_certificate_chain_file(str(pem))
            context.use_privatekey_file(str(pem))
        return context


@implementer(IOpenSSLContextFactory)
class _Server:
    def __init__(self, context):
        self._context = context

    def getContext(self):
        return self._context


@implementer(IOpenSSLClientConnectionCreator)
class _Client:
    def __init__(self, context):
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol):
        return SSL.Connection(self._context, None)
