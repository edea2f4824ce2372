"""Which network addresses we connect to: judged after resolution, on the address that is connected to.

Whoever registers names the homeserver that we ask, so without a filter anybody could make this server send
requests into the operator's own network (CVE-2021-29431 was that).
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

from sydentish.outgoing import Unusable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What is not globally reachable, of the IANA special-purpose address registries (RFC 6890), multicast, and
# the IPv4-compatible and site-local forms of IPv6 that are deprecated (RFC 4291 and RFC 3879).
NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001:2::/48",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(Unusable):
    """A host has no address that the policy permits.

    Attributes:
        addresses: those that it has, for the operator alone.
    """

    reason = "its address is not one that may be connected to"

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        super().__init__()
        self.addresses = tuple(addresses)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which addresses may be connected to.

    Attributes:
        allowed: networks that are always permitted; they win over `blocked`.
        blocked: networks that are refused.
    """

    allowed: tuple[Network, ...] = ()
    blocked: tuple[Network, ...] = NOT_PUBLIC

    def permits(self, ip: str) -> bool:
        """Whether a connection to `ip` is permitted; what is no IP address never is.

        An IPv6 address that stands for an IPv4 address (IPv4-mapped, NAT64, 6to4, Teredo) must be permitted
        both as it is and as what it stands for.
        """
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return False
        return all(self._permits(form) for form in (address, *_embedded(address)))

    def _permits(self, address: Address) -> bool:
        if any(address in network for network in self.allowed):
            return True
        return not any(address in network for network in self.blocked)


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        # RFC 6052 section 2.1: the last 32 bits.
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [embedded for embedded in found if embedded is not None]


@implementer(IHostnameResolver)
class FilteredResolver:
    """Resolves as another resolver does, and passes on only what the policy permits.

    Twisted's endpoints ask the resolver for literals too and connect to what it yields, so nothing is
    looked up a second time between the check and the connection.

    Attributes:
        refused: the addresses that were held back so far.
    """

    def __init__(self, resolver: IHostnameResolver, policy: AddressPolicy) -> None:
        self._resolver = resolver
        self._policy = policy
        self._receivers: list[_FilteredReceiver] = []
        self.refused: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See `IHostnameResolver`."""
        receiver = _FilteredReceiver(resolutionReceiver, self._accepts)
        self._receivers.append(receiver)
        return self._resolver.resolveHostName(
            receiver, hostName, portNumber, addressTypes, transportSemantics
        )

    def cancel(self) -> None:
        """Stops the resolutions that are in progress; endpoints do not, when they are given up themselves."""
        for receiver in self._receivers:
            receiver.cancel()

    def _accepts(self, address: IAddress) -> bool:
        ip = getattr(address, "host", "")
        accepted = self._policy.permits(ip)
        if not accepted:
            self.refused.append(ip)
        return accepted


@implementer(IResolutionReceiver)
class _FilteredReceiver:
    def __init__(self, receiver: IResolutionReceiver, accepts: Callable[[IAddress], bool]) -> None:
        self._receiver = receiver
        self._accepts = accepts
        self._in_progress: IHostResolution | None = None

    def cancel(self) -> None:
        if self._in_progress is not None:
            self._in_progress.cancel()
            self._in_progress = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._in_progress = resolutionInProgress
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if self._accepts(address):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._in_progress = None
        self._receiver.resolutionComplete()
