"""Connecting along a route: filtered addresses, and TLS."""

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
from zope.interface import implementer

from sydentish.federation.addresses import AddressPolicy, AddressRefused, FilteredResolver
from sydentish.federation.discovery import Route, Target
from sydentish.federation.tls import TlsOptions
from sydentish.waiting import cancellable


@implementer(IStreamClientEndpoint)
class RouteEndpoint:
    """Connects over TLS to the first target of a route that accepts a connection."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        route: Route,
        *,
        resolver: IHostnameResolver,
        policy: AddressPolicy,
        tls: TlsOptions,
        connect_limit: float,
    ) -> None:
        """Connects to nothing yet; `connect_limit` is the seconds that one target may take."""
        self._reactor = reactor
        self._route = route
        self._resolver = resolver
        self._policy = policy
        self._tls = tls
        self._connect_limit = connect_limit

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`; fails with the last target's error when none accepts."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        trouble: Exception = DNSLookupError("no target")
        for target in self._route.targets:
            try:
                return await self._reach(target, factory)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the next target may do better
                trouble = error
        raise trouble

    async def _reach(self, target: Target, factory: IProtocolFactory) -> IProtocol:
        resolver = FilteredResolver(self._resolver, self._policy)
        seconds = self._connect_limit
        plain = HostnameEndpoint(_ReactorView(self._reactor, resolver), target.host, target.port, seconds)
        endpoint = wrapClientTLS(self._tls(self._route.tls_name), plain)
        connecting: Deferred[IProtocol] = endpoint.connect(factory)
        try:
            return await cancellable(connecting).addTimeout(seconds, self._reactor)
        except DNSLookupError:
            if resolver.refused:
                raise AddressRefused(resolver.refused) from None
            raise
        finally:
            resolver.cancel()


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
