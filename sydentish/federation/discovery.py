"""From a server name to where the homeserver listens, and by which name it must prove itself.

Server-Server API, "Resolving server names"; the numbers in this module are the steps of that section.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import dns

from sydentish.domain.ids import ServerName, parse_server_name
from sydentish.waiting import cancellable, within

_FEDERATION_PORT = 8448
# Step 3.3 before 3.4, and 4 before 5: the second is deprecated.
_SERVICES = ("_matrix-fed._tcp", "_matrix._tcp")
# Seconds after which a DNS query is sent again; the whole is bounded by the constructor's limit.
_QUERY_TIMEOUTS = (1, 2, 4)
_MAX_RECORDS = 32
_MAX_TARGETS = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to: a DNS name or an IP literal without brackets, and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Route:
    """How to speak to a homeserver.

    Attributes:
        targets: where to connect to, in this order.
        tls_name: the DNS name or IP address that the certificate must be valid for, also sent as SNI.
        host_header: the value of the `Host` header.
    """

    targets: tuple[Target, ...]
    tls_name: str
    host_header: str


class NoRoute(Exception):
    """There is no way to a homeserver.

    Attributes:
        reason: why, without its name.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Delegations(Protocol):
    """Knows to which server name a host delegates by `.well-known` (step 3)."""

    async def delegated(self, host: str) -> ServerName | None:
        """The server name that `host` delegates to, or None when it does not; never an error."""


def direct_route(name: ServerName, default_port: int) -> Route:
    """The route to a server name that needs no further resolution (steps 1, 2, 3.1, 3.2, 3.5 and 6)."""
    port = default_port if name.port is None else name.port
    return Route((Target(name.host, port),), name.host, str(name))


def ordered(records: Iterable[dns.Record_SRV], random: Random) -> tuple[Target, ...]:
    """The targets of SRV records in the order in which to try them: by priority, then drawn by weight.

    RFC 2782, "Weight" and "Target": a target of "." is none.
    """
    usable = [record for record in records if _host_of(record) and record.port]
    remaining = sorted(usable[:_MAX_RECORDS], key=lambda record: (record.priority, record.weight))
    targets: list[Target] = []
    while remaining and len(targets) < _MAX_TARGETS:
        record = _draw([r for r in remaining if r.priority == remaining[0].priority], random)
        remaining.remove(record)
        targets.append(Target(_host_of(record), record.port))
    return tuple(targets)


def _draw(group: list[dns.Record_SRV], random: Random) -> dns.Record_SRV:
    point = random.randint(0, sum(record.weight for record in group))
    for record in group:
        point -= record.weight
        if point <= 0:
            return record
    return group[-1]


def _host_of(record: dns.Record_SRV) -> str:
    return record.target.name.decode("ascii", "replace").rstrip(".")


class Discovery:
    """Finds the route to a homeserver."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        resolver: IResolver,
        well_known: Delegations,
        random: Random,
        dns_limit: float,
    ) -> None:
        """Takes what it uses.

        Args:
            clock: for the time limit.
            resolver: for SRV records.
            well_known: for delegation.
            random: draws between SRV records of one priority.
            dns_limit: seconds that the SRV look-ups for one name may take together.
        """
        self._clock = clock
        self._resolver = resolver
        self._well_known = well_known
        self._random = random
        self._dns_limit = dns_limit

    async def route(self, server_name: str) -> Route:
        """How to reach `server_name`; whether anybody listens there is not known yet.

        Raises:
            NoRoute: when it is not a server name, or its DNS says that there is no homeserver.
        """
        try:
            name = parse_server_name(server_name)
        except ValueError:
            raise NoRoute("its name is not a server name") from None
        if not _is_final(name):
            name = await self._well_known.delegated(name.host) or name
        if _is_final(name):
            return direct_route(name, _FEDERATION_PORT)
        targets = await self._services(name.host)
        return Route(targets, name.host, str(name)) if targets else direct_route(name, _FEDERATION_PORT)

    async def _services(self, host: str) -> tuple[Target, ...]:
        try:
            records = await within(self._dns_limit, self._clock, self._first_service(host))
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a resolver fails in many ways, and none of them is final
            # The certificate guards whom we speak to, and in networks without DNS this is the way that works.
            return ()
        targets = ordered(records, self._random)
        if records and not targets:
            raise NoRoute("its SRV records say that there is none")
        return targets

    async def _first_service(self, host: str) -> list[dns.Record_SRV]:
        for service in _SERVICES:
            records = await self._records(f"{service}.{host}")
            if records:
                return records
        return []

    async def _records(self, name: str) -> list[dns.Record_SRV]:
        try:
            looking: Deferred[Any] = self._resolver.lookupService(name, _QUERY_TIMEOUTS)
            answers, _, _ = await cancellable(looking)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - as above; "no such name" is one of these errors
            return []
        # A CNAME on the way to the record is among the answers.
        payloads = (answer.payload for answer in answers)
        return [payload for payload in payloads if isinstance(payload, dns.Record_SRV)]


def _is_final(name: ServerName) -> bool:
    return name.is_ip or name.port is not None
