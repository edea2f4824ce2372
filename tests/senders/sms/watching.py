"""A listener that knows who came and went."""

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol


class _Listening(Protocol):
    def connectionMade(self):
        self.factory.mute.connected.callback(None)

    def dataReceived(self, data):
        self.transport.write(self.factory.mute.reply)

    def connectionLost(self, reason):
        self.factory.mute.gone.callback(None)


class Mute:
    """Takes one connection, and says nothing, not even to begin TLS; or always the same."""

    def __init__(self, reply=b""):
        self.reply = reply
        self.connected = Deferred()
        self.gone = Deferred()
        self._factory = Factory.forProtocol(_Listening)
        self._factory.noisy = False
        self._factory.mute = self

    def start(self, reactor):
        self._port = reactor.listenTCP(0, self._factory, interface="127.0.0.1")
        self.port = self._port.getHost().port

    async def stop(self):
        await self._port.stopListening()
