"""The way to homeservers."""

import random
import threading
from importlib.metadata import version
from typing import Any

# Twisted's own resolver; only its reactor is public, and that has one pool for everybody.
from twisted.internet._resolver import GAIResolver
from twisted.internet.interfaces import IHostnameResolver
from twisted.names.client import Resolver
from twisted.python.threadpool import ThreadPool

from sydentish.actions.outbox import ONBIND, OutboxWorker
from sydentish.config import Config
from sydentish.federation.addresses import AddressPolicy
from sydentish.federation.agent import Https
from sydentish.federation.client import HomeserverClient
from sydentish.federation.discovery import Discovery
from sydentish.federation.notifier import OnbindNotifier
from sydentish.federation.tls import tls_options
from sydentish.federation.wellknown import WellKnown
from sydentish.metrics import Metrics
from sydentish.parts.world import World
from sydentish.store.database import Database

_LEASE_MARGIN_MS = 5000
_CONNECT_SECONDS = 5.0
_DNS_SECONDS = 5.0
_DNS_THREADS = 32


def make_homeservers(config: Config, world: World) -> HomeserverClient:
    """The way to homeservers: discovery, verified TLS, filtered addresses, limits."""
    options = config.homeservers
    exchange = Https(
        reactor=world.reactor,
        resolver=_host_names(world),
        policy=AddressPolicy(options.allowed_addresses, options.blocked_addresses),
        tls=tls_options(options.ca_file, verify=options.verify_tls),
        connect_limit=_CONNECT_SECONDS,
        user_agent=f"Sydentish/{version('sydentish')}",
    )
    discovery = Discovery(
        clock=world.reactor,
        resolver=Resolver(
            resolv=None if options.dns_servers else "/etc/resolv.conf",
            servers=list(options.dns_servers) or None,
            reactor=world.reactor,
        ),
        well_known=WellKnown(clock=world.reactor, exchange=exchange, time_limit=options.timeout / 1000),
        random=random.SystemRandom(),
        dns_limit=_DNS_SECONDS,
    )
    return HomeserverClient(
        clock=world.reactor,
        routes=discovery,
        exchange=exchange,
        time_limit=options.timeout / 1000,
        max_bytes=options.response_limit,
    )


def make_outbox(
    config: Config, world: World, db: Database, homeservers: HomeserverClient, metrics: Metrics
) -> OutboxWorker:
    """What tells homeservers of binds."""
    options = config.onbind
    return OutboxWorker(
        db=db,
        kind=ONBIND,
        deliverer=OnbindNotifier(client=homeservers, clock=world.reactor, time_limit=options.timeout / 1000),
        clock=world.reactor,
        max_in_flight=options.max_in_flight,
        lease_ms=options.timeout + _LEASE_MARGIN_MS,
        retry_for_ms=options.retry_for,
        now_ms=world.now_ms,
        jitter=world.jitter,
        on_result=lambda outcome: metrics.deliveries.labels(ONBIND, outcome).inc(),
    )


class _DnsThread(threading.Thread):
    """A thread that the end of the program does not wait for: a look-up cannot be cut short."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Thread's own
        super().__init__(*args, **kwargs, daemon=True)


def _host_names(world: World) -> IHostnameResolver:
    """Looks the names of homeservers up as the system does, in threads that nobody else waits for.

    A homeserver chooses how long its own name takes; the mail relay's must not wait behind it.
    """
    pool = ThreadPool(minthreads=0, maxthreads=_DNS_THREADS, name="homeserver-names")
    pool.threadFactory = _DnsThread
    pool.start()
    return GAIResolver(world.reactor, lambda: pool)
