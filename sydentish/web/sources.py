"""Where a request comes from, also when a reverse proxy stands in between."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from twisted.logger import Logger

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]

# A household, and whoever rents a machine, has a whole network of this size.
_IPV6_SOURCE_BITS = 64
_MAX_FORWARDED = 1000
_UNIX = "unix"

_log = Logger()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request comes from.

    Attributes:
        key: what it is counted by: an IPv4 address, an IPv6 network of 64 bits, or `unix`.
        trusted: whether that lies in a network that the operator trusts.
    """

    key: str
    trusted: bool


class Sources:
    """Finds the source of requests.

    Args:
        proxies: from whom `X-Forwarded-For` is believed; `unix` for unix sockets.
        trusted: the networks that the operator trusts.
    """

    def __init__(self, proxies: Sequence[Network], trusted: Sequence[Network]) -> None:
        self._proxies = tuple(proxies)
        self._trusted = tuple(trusted)
        self._find = lru_cache(maxsize=1024)(self._found)
        self._warned = False

    def find(self, peer: str | None, forwarded: Sequence[bytes], *, by_proxy: bool = False) -> Source:
        """The source of a request.

        What proxies have written is read from the right, as long as a trusted one has written it: whatever stands
        further left, anybody could have sent. A peer that forwards for others and is not known as a proxy, or does not
        say for whom, is not trusted, wherever it stands: nobody knows for whom it speaks.

        Args:
            peer: the address at the other end of the connection; None for a unix socket.
            forwarded: the values of `X-Forwarded-For`, in their order.
            by_proxy: whether anything in the request tells of a proxy.
        """
        return self._find(peer, b",".join(forwarded)[-_MAX_FORWARDED:], by_proxy)

    def _found(self, peer: str | None, forwarded: bytes, by_proxy: bool) -> Source:  # noqa: FBT001 - a cached function
        hops = [hop.strip() for hop in forwarded.split(b",")] if forwarded else []
        current: Address | None = None if peer is None else _address(peer)
        told = not by_proxy
        while hops and _listed(current, self._proxies):
            try:
                current = _address(hops.pop().decode("ascii", "replace"))
            except ValueError:
                # Whoever stands there wrote no address: it cannot be told from others.
                return Source("unknown", trusted=False)
            told = True
        told = told and not hops
        trusted = _listed(current, self._trusted)
        if trusted and not told and not self._warned:
            self._warned = True
            _log.warn(
                "a proxy forwards requests that trusted_proxies does not name, or that sends no X-Forwarded-For: "
                "all of them count as one source"
            )
        return Source(_key(current), trusted=trusted and told)


def _address(text: str) -> Address:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # an IPv4 address with a port, as some proxies write it
        text = text.partition(":")[0]
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _listed(address: Address | None, networks: Sequence[Network]) -> bool:
    if address is None:
        return _UNIX in networks
    return any(network != _UNIX and address in network for network in networks)


def _key(address: Address | None) -> str:
    if address is None:
        return _UNIX
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_SOURCE_BITS), strict=False))
    return str(address)
