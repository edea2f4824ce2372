"""The way to homeservers."""

import random
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from sydentish.config import Config
from sydentish.domain.accounts import HomeserverPolicy
from sydentish.federation.addresses import AddressPolicy
from sydentish.federation.agent import Https
from sydentish.federation.client import HomeserverClient
from sydentish.federation.discovery import Discovery
from sydentish.federation.keyring import HomeserverKeys
from sydentish.federation.names import HostNames
from sydentish.federation.nameservers import NameServers
from sydentish.federation.proofs import SignedRequests
from sydentish.federation.tls import tls_options
from sydentish.federation.wellknown import WellKnown
from sydentish.parts.world import World

_MAX_FETCHING = 1000
_CONNECT_SECONDS = 5.0
_DNS_SECONDS = 5.0
_HOSTS_FILE = Path("/etc/hosts")


@dataclass(frozen=True, slots=True)
class Way:
    """How homeservers are found, and asked.

    Attributes:
        discovery: finds them.
        exchange: asks them.
    """

    discovery: Discovery
    exchange: Https


def homeserver_policy(config: Config) -> HomeserverPolicy:
    """Which homeservers' users may register."""
    options = config.homeservers
    return HomeserverPolicy(
        allow=frozenset(options.allow) if options.allow else None, deny=frozenset(options.deny)
    )


def make_way(config: Config, world: World) -> Way:
    """The way to homeservers: discovery, verified TLS, filtered addresses."""
    options = config.homeservers
    name_servers = NameServers(reactor=world.reactor, servers=options.dns_servers)
    exchange = Https(
        reactor=world.reactor,
        resolver=HostNames(
            clock=world.reactor, resolver=name_servers, hosts_file=_HOSTS_FILE, limit=_DNS_SECONDS
        ),
        policy=AddressPolicy(options.allowed_addresses, options.blocked_addresses),
        tls=tls_options(options.ca_file, verify=options.verify_tls),
        connect_limit=_CONNECT_SECONDS,
        user_agent=f"Sydentish/{version('sydentish')}",
    )
    discovery = Discovery(
        clock=world.reactor,
        resolver=name_servers,
        well_known=WellKnown(clock=world.reactor, exchange=exchange, time_limit=options.timeout / 1000),
        random=random.SystemRandom(),
        dns_limit=_DNS_SECONDS,
    )
    return Way(discovery, exchange)


def make_homeservers(config: Config, world: World) -> HomeserverClient:
    """What asks homeservers, within limits."""
    options, way = config.homeservers, make_way(config, world)
    return HomeserverClient(
        clock=world.reactor,
        routes=way.discovery,
        exchange=way.exchange,
        time_limit=options.timeout / 1000,
        max_bytes=options.response_limit,
    )


def make_proofs(config: Config, world: World, homeservers: HomeserverClient) -> SignedRequests:
    """What checks the signatures of homeservers."""
    general = config.general
    # Clients call us by the host that they reach us at, and homeservers sign what clients say.
    public_host = urlsplit(general.public_base_url).netloc
    keys = HomeserverKeys(
        client=homeservers,
        now_ms=world.now_ms,
        max_fetching=config.homeservers.max_registering or _MAX_FETCHING,
    )
    return SignedRequests(names=[general.server_name, *general.server_name_aliases, public_host], keys=keys)
