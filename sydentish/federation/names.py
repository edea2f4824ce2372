"""The addresses of host names: literals, the hosts file, then DNS; nothing that waits for a thread."""

import ipaddress
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
    IResolver,
)
from twisted.names import dns
from twisted.names.hosts import searchFileForAll
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from zope.interface import implementer

from sydentish.waiting import cancellable

# Seconds after which a query is sent again; the whole is bounded by the constructor's limit.
_QUERY_TIMEOUTS = (1, 2, 4)
# Seconds that the other kind of address may still take once one is known: a lost query is sent again within them.
_GRACE = 2.0
# Of each kind; a connection is tried to one after the other.
_MAX_ADDRESSES = 8
_LOOPBACK = ("127.0.0.1", "::1")

_Kind = type[IPv4Address] | type[IPv6Address]


@implementer(IHostnameResolver)
class HostNames:
    """Resolves host names without a thread, so that a look-up which waits costs nothing, and can be given up.

    What else the system may be told to ask (nsswitch.conf, search domains) is not asked.
    """

    def __init__(self, *, clock: IReactorTime, resolver: IResolver, hosts_file: Path, limit: float) -> None:
        """Takes what it uses.

        Args:
            clock: for the time limits.
            resolver: for A and AAAA records; its look-ups must end when they are cancelled.
            hosts_file: see hosts(5); what stands there is not asked for. Need not exist.
            limit: seconds that one resolution may take; what is known by then is the result.
        """
        self._clock = clock
        self._resolver = resolver
        self._hosts_file = FilePath(str(hosts_file))
        self._limit = limit

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See `IHostnameResolver`; once the resolution is cancelled, the receiver hears nothing more."""
        kinds = [kind for kind in (IPv4Address, IPv6Address) if addressTypes is None or kind in addressTypes]
        work = Deferred.fromCoroutine(self._addresses(hostName, kinds))
        resolution = _Resolution(hostName, work)
        resolutionReceiver.resolutionBegan(resolution)

        def deliver(addresses: list[str]) -> None:
            for address in addresses:
                resolutionReceiver.addressResolved(
                    _kind_of(address)(transportSemantics, address, portNumber)  # type: ignore[arg-type]
                )
            resolutionReceiver.resolutionComplete()

        work.addCallbacks(deliver, _given_up)
        return resolution

    async def _addresses(self, host: str, kinds: Sequence[_Kind]) -> list[str]:
        if _is_literal(host):
            known = [host]
        else:
            name = host.lower().removesuffix(".")
            known = self._local(name)
            if not known:
                return await self._ask(name, kinds)
        return [address for address in known if _kind_of(address) in kinds]

    def _local(self, name: str) -> list[str]:
        listed: list[str] = searchFileForAll(self._hosts_file, name.encode("utf-8", "replace"))
        if listed:
            return listed
        # RFC 6761 section 6.3: DNS is never asked for these.
        return [*_LOOPBACK] if name == "localhost" or name.endswith(".localhost") else []

    async def _ask(self, name: str, kinds: Sequence[_Kind]) -> list[str]:
        asking = [Deferred.fromCoroutine(self._records(name, kind)) for kind in kinds]

        def give_up() -> None:
            for each in asking:
                each.cancel()

        end = self._clock.callLater(self._limit, give_up)
        sooner = self._clock.seconds() + self._limit - _GRACE

        def hurry(addresses: list[str]) -> list[str]:
            # An endpoint waits for all addresses: one kind that is never answered must not cost the other.
            if addresses and end.active() and self._clock.seconds() < sooner:
                end.reset(_GRACE)
            return addresses

        for each in asking:
            each.addCallback(hurry)
        try:
            answers = await cancellable(DeferredList(asking, consumeErrors=True))
        finally:
            if end.active():
                end.cancel()
        # Kinds take turns, as in RFC 8305, so that a network which has only one of them delays nothing for long.
        turns = zip_longest(*(addresses for good, addresses in answers if good))
        return [address for address in chain.from_iterable(turns) if address is not None]

    async def _records(self, name: str, kind: _Kind) -> list[str]:
        ask = self._resolver.lookupAddress if kind is IPv4Address else self._resolver.lookupIPV6Address
        looking: Deferred[Any] = ask(name, _QUERY_TIMEOUTS)
        answers, _, _ = await cancellable(looking)
        # Whoever answers has followed the CNAMEs, which are among the answers.
        payloads = (answer.payload for answer in answers)
        found = [each.address for each in payloads if isinstance(each, dns.Record_A | dns.Record_AAAA)]
        texts = [str(ipaddress.ip_address(packed)) for packed in dict.fromkeys(found) if packed]
        return [text for text in texts if _kind_of(text) is kind][:_MAX_ADDRESSES]


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str, work: Deferred[Any]) -> None:
        self.name = name
        self._work = work

    def cancel(self) -> None:
        self._work.cancel()


def _given_up(failure: Failure) -> None:
    failure.trap(CancelledError)


def _kind_of(address: str) -> _Kind:
    return IPv6Address if ":" in address else IPv4Address


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
