"""Connecting along a route: filtered addresses, TLS, a limit on what comes back, and a hand on the switch."""

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sydentish.federation.addresses import AddressPolicy, AddressRefused, FilteredResolver
from sydentish.federation.discovery import Route, Target
from sydentish.federation.tls import TlsOptions
from sydentish.federation.waiting import cancellable


class AnswerTooLarge(Exception):
    """More bytes came, or were announced, than the limit."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What one connection may take: seconds to connect to one target, and bytes that come back."""

    connect_seconds: float
    max_bytes: int


@implementer(IStreamClientEndpoint)
class RouteEndpoint:
    """Connects over TLS to the first target of a route that accepts a connection.

    It makes one connection and keeps hold of it, so that it can be cut at any time.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        route: Route,
        *,
        resolver: IHostnameResolver,
        policy: AddressPolicy,
        tls: TlsOptions,
        limits: EndpointLimits,
    ) -> None:
        self._reactor = reactor
        self._route = route
        self._resolver = resolver
        self._policy = policy
        self._tls = tls
        self._limits = limits
        self._connection: _MeteredProtocol | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`; fails with the last target's error when none accepts."""
        return Deferred.fromCoroutine(self._connect(_MeteredFactory(protocolFactory, self._limits.max_bytes)))

    def abort(self) -> None:
        """Cuts the connection, if there is one."""
        if self._connection is not None:
            self._connection.abort()

    async def _connect(self, factory: "_MeteredFactory") -> IProtocol:
        trouble: Exception = DNSLookupError("no target")
        for target in self._route.targets:
            try:
                self._connection = await self._reach(target, factory)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the next target may do better
                trouble = error
            else:
                return self._connection.wrapped
        raise trouble

    async def _reach(self, target: Target, factory: "_MeteredFactory") -> "_MeteredProtocol":
        resolver = FilteredResolver(self._resolver, self._policy)
        seconds = self._limits.connect_seconds
        plain = HostnameEndpoint(_ReactorView(self._reactor, resolver), target.host, target.port, seconds)
        endpoint = wrapClientTLS(self._tls(self._route.tls_name), plain)
        connecting: Deferred[Any] = endpoint.connect(factory)
        try:
            connected: _MeteredProtocol = await cancellable(connecting).addTimeout(seconds, self._reactor)
        except DNSLookupError:
            if resolver.refused:
                raise AddressRefused from None
            raise
        return connected


@implementer(IReactorPluggableNameResolver)
class _ReactorView:
    """What a host name endpoint uses of a reactor, with another resolver."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:  # noqa: ANN401 - as above
        self.nameResolver = resolver
        self.connectTCP = reactor.connectTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        previous, self.nameResolver = self.nameResolver, resolver
        return previous


class _MeteredFactory(Factory):
    """Puts a meter before each protocol of another factory."""

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, max_bytes: int) -> None:
        self._wrapped = wrapped
        self._max_bytes = max_bytes

    def buildProtocol(self, addr: Any) -> "_MeteredProtocol | None":  # noqa: ANN401 - the base class says None too
        protocol = self._wrapped.buildProtocol(addr)
        return None if protocol is None else _MeteredProtocol(protocol, self._max_bytes)


class _MeteredProtocol(Protocol):
    """Lets a limited number of bytes through, and cuts the connection at the next one."""

    def __init__(self, wrapped: IProtocol, max_bytes: int) -> None:
        self.wrapped = wrapped
        self._left = max_bytes
        self._transport: Any = None

    def makeConnection(self, transport: Any) -> None:  # noqa: ANN401 - TLS makes a transport of no fixed type
        self._transport = transport
        self.wrapped.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.abort()
        else:
            self.wrapped.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._transport = None
        self.wrapped.connectionLost(Failure(AnswerTooLarge()) if self._left < 0 else reason)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abortConnection()
