"""Listening on sockets that were handed over, so that they are there after this process as they were before it."""

import os
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute, gatherResults
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from sydentish.supervision.sockets import InheritedSocket


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """Listens on all of some sockets.

    Args:
        sockets: at least one.
        reactor: watches them.
    """

    def __init__(self, sockets: Sequence[InheritedSocket], reactor: Any) -> None:  # noqa: ANN401 - several interfaces
        self._sockets = sockets
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """See `IStreamServerEndpoint`."""
        listening: Deferred[IListeningPort] = execute(self._listen, protocolFactory)
        return listening

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        return _Ports([self._port(each, factory) for each in self._sockets])

    def _port(self, inherited: InheritedSocket, factory: IProtocolFactory) -> Any:  # noqa: ANN401 - as Twisted has them
        os.set_blocking(inherited.descriptor, False)
        if inherited.family != socket.AF_UNIX:
            return self._reactor.adoptStreamPort(inherited.descriptor, inherited.family, factory)
        port = _UnixPort(inherited.descriptor, factory, self._reactor)
        port.startListening()
        return port


@implementer(IListeningPort)
class _Ports:
    """Several ports as one."""

    def __init__(self, ports: Sequence[Any]) -> None:
        self._ports = ports

    def startListening(self) -> None:
        for port in self._ports:
            port.startListening()

    def stopListening(self) -> "Deferred[Any]":
        return gatherResults([port.stopListening() for port in self._ports])

    def getHost(self) -> IAddress:
        host: IAddress = self._ports[0].getHost()
        return host


class _UnixPort(unix.Port):
    """A unix socket that is not ours: Twisted's own would change its mode, and take it away in the end."""

    def __init__(self, descriptor: int, factory: IProtocolFactory, reactor: Any) -> None:  # noqa: ANN401 - see above
        self._handed_over = socket.socket(fileno=os.dup(descriptor))
        super().__init__(self._handed_over.getsockname(), factory, reactor=reactor)

    def startListening(self) -> None:
        factory: Any = self.factory
        factory.doStart()
        self.socket = self._handed_over
        # As of other sockets that Twisted adopts: shut down, it would be so for everybody.
        self._shouldShutdown = False
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as Twisted's own does
        self.connected = True
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)
