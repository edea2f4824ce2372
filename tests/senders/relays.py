"""Mail relays on real sockets that do as they are told: stop talking, refuse, drop, babble."""

import ssl
from collections import defaultdict
from pathlib import Path

import trustme
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from sydentish.senders.render import TemplateProblem, shipped_templates

CLOSE = object()
SILENCE = object()
# Answers as is right, and does not even listen any more.
LAST_WORDS = object()
START_TLS = object()

CAPABLE = b"250-relay.example\r\n250-SMTPUTF8\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"

# The steps that a relay answers, in their order, and what a good one says. "EHLO" comes again after STARTTLS.
GOOD = {
    "greeting": b"220 relay.example ESMTP\r\n",
    "EHLO": CAPABLE,
    "STARTTLS": START_TLS,
    "EHLO under TLS": CAPABLE,
    "AUTH": b"235 2.7.0 Welcome\r\n",
    "MAIL": b"250 2.1.0 OK\r\n",
    "RCPT": b"250 2.1.5 OK\r\n",
    "DATA": b"354 Go ahead\r\n",
    "message": b"250 2.0.0 Queued\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
}


def templates_directory() -> Path:
    """The shipped templates: those of the installed package, or in a checkout those of the source tree."""
    try:
        return shipped_templates()
    except TemplateProblem:
        return Path(__file__).parents[2] / "res" / "templates"


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    def __init__(self, certificate: trustme.LeafCert):
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        certificate.configure_cert(self.context)

    def serverConnectionForTLS(self, tlsProtocol):
        return SSL.Connection(self.context, None)


class ScriptedRelay(Factory):
    """Answers each step with bytes from `script`, or with one of CLOSE, SILENCE, LAST_WORDS and START_TLS."""

    noisy = False

    def __init__(self, script, certificate=None):
        self.script = {**GOOD, **script}
        self.certificate = certificate
        self.heard = []
        self.lines = []
        self.open = set()
        self._waiting = defaultdict(list)
        self._emptied = []
        self._listener = None

    async def start(self):
        self._listener = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)

    @property
    def port(self):
        return self._listener.getHost().port

    async def stop(self):
        await self._listener.stopListening()
        for connection in list(self.open):
            connection.transport.abortConnection()
        await self.no_connections()

    def buildProtocol(self, addr):
        connection = _Connection(self)
        self.open.add(connection)
        return connection

    def reached(self, step, times=1):
        """Fires once `times` connections got to `step`."""
        if self.heard.count(step) >= times:
            return succeed(None)
        waiting = Deferred()
        self._waiting[step].append((times, waiting))
        return waiting

    def no_connections(self):
        """Fires once no connection is open."""
        if not self.open:
            return succeed(None)
        waiting = Deferred()
        self._emptied.append(waiting)
        return waiting

    def note(self, step):
        self.heard.append(step)
        ready = [each for each in self._waiting[step] if each[0] <= self.heard.count(step)]
        for each in ready:
            self._waiting[step].remove(each)
            each[1].callback(None)

    def gone(self, connection):
        self.open.discard(connection)
        if not self.open:
            waiting, self._emptied = self._emptied, []
            for each in waiting:
                each.callback(None)


class _Connection(LineReceiver):
    MAX_LENGTH = 1 << 20

    def __init__(self, relay):
        self.relay = relay
        self.in_message = False
        self.in_login = False
        self.under_tls = False

    def connectionMade(self):
        self.answer("greeting")

    def connectionLost(self, reason=connectionDone):
        self.relay.gone(self)

    def answer(self, step):
        self.relay.note(step)
        reply = self.relay.script[step]
        if reply is CLOSE:
            self.transport.loseConnection()
        elif reply is START_TLS:
            self.transport.write(b"220 Go ahead\r\n")
            self.under_tls = True
            self.transport.startTLS(ServerTls(self.relay.certificate))
        elif reply is LAST_WORDS:
            self.transport.write(GOOD[step])
            self.transport.pauseProducing()
        elif reply is not SILENCE:
            self.in_message = step == "DATA" and reply.startswith(b"354")
            self.in_login = step.startswith("AUTH") and reply.startswith(b"334")
            self.transport.write(reply)
            if step == "QUIT":
                self.transport.loseConnection()

    def lineReceived(self, line):
        self.relay.lines.append(line)
        if self.in_message:
            if line == b".":
                self.in_message = False
                self.answer("message")
        elif self.in_login and line != b"QUIT" and not line.startswith(b"AUTH"):
            self.answer("*" if line == b"*" else "AUTH response")
        else:
            verb = line.split(b" ")[0].decode("latin-1")
            self.answer("EHLO under TLS" if verb == "EHLO" and self.under_tls else verb)


class Recorder:
    """A relay that takes everything."""

    def __init__(self):
        self.sent = []

    async def send(self, sender, recipient, message):
        self.sent.append((sender, recipient, message))
