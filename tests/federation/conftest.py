"""A homeserver behind a small internet: real sockets and real TLS, but names lead where a test says."""

import ipaddress
from random import Random

import pytest
import pytest_twisted
from nameserver import NameServer, a_moment, open_sockets
from standins.certificates import Authority
from standins.homeserver import Homeserver
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import succeed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
)
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.names import dns
from twisted.names.error import DNSNameError
from zope.interface import implementer

from sydentish.federation.addresses import AddressPolicy
from sydentish.federation.agent import Https
from sydentish.federation.client import HomeserverClient
from sydentish.federation.discovery import Discovery
from sydentish.federation.tls import tls_options

HOST = "hs.example.org"
ADDRESS = "1.2.3.4"
TOKEN = "canary-token"


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
class Internet:
    """The reactor, with names and routes of its own; nothing leaves this machine."""

    def __init__(self):
        self.names = {}
        self.routes = {}
        self.connected = []
        self.nameResolver = self
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def installNameResolver(self, resolver):
        raise NotImplementedError

    def resolveHostName(self, receiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        resolution = _Resolution(hostName)
        receiver.resolutionBegan(resolution)
        for address in self.names.get(hostName, [hostName] if _is_literal(hostName) else []):
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, portNumber))
        receiver.resolutionComplete()
        return resolution

    def connectTCP(self, host, port, factory, timeout=30, bindAddress=None):
        self.connected.append((host, port))
        # Nobody listens on port 1.
        local_port = self.routes.get((host, port), 1)
        return reactor.connectTCP("127.0.0.1", local_port, factory, timeout, bindAddress)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name):
        self.name = name

    def cancel(self):
        raise NotImplementedError


def _is_literal(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Dns:
    """SRV records by name: a list, an exception, or a Deferred; no such name otherwise."""

    def __init__(self):
        self.records = {}
        self.asked = []

    def lookupService(self, name, timeout=None):
        self.asked.append(name)
        found = self.records.get(name, DNSNameError())
        if isinstance(found, Exception):
            raise found
        if isinstance(found, list):
            return succeed(([dns.RRHeader(name, record.TYPE, payload=record) for record in found], [], []))
        return found


class NoDelegations:
    async def delegated(self, host):
        return None


@pytest.fixture(autouse=True)
def quiet_log():
    """Nothing is logged as an error, no Deferred's error is lost, and no token is ever logged."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
    assert reactor.getDelayedCalls() == []
    assert [event for event in events if "log_failure" in event] == []
    assert [event for event in events if TOKEN in (formatEvent(event) or "") + repr(event)] == []


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture(scope="session")
def ca_file(authority, tmp_path_factory):
    return authority.write_ca(tmp_path_factory.mktemp("ca") / "ca.pem")


@pytest.fixture
def internet():
    return Internet()


@pytest.fixture
def srv():
    return Dns()


@pytest.fixture
def clock():
    return Clock()


@pytest_twisted.async_yield_fixture
async def start_homeserver(internet):
    """Starts homeservers that are reachable at an address and port of the small internet."""
    started = []

    def start(certificate, host=HOST, address=ADDRESS, port=None):
        homeserver = Homeserver(certificate, host)
        homeserver.start(reactor)
        started.append(homeserver)
        internet.names.setdefault(host, [address])
        internet.routes[address, port or homeserver.port] = homeserver.port
        return homeserver

    yield start
    for homeserver in started:
        await homeserver.stop()


@pytest_twisted.async_yield_fixture
async def start_name_server():
    """Starts DNS servers; who asked them must have closed all sockets when the test ends."""
    started = []

    def start():
        server = NameServer()
        server.start()
        started.append(server)
        return server

    before = open_sockets()
    yield start
    for server in started:
        await server.stop()
    await a_moment()
    assert open_sockets() == before


@pytest.fixture
def homeserver(start_homeserver, authority):
    return start_homeserver(authority.issue(HOST))


@pytest.fixture
def make_https(internet, ca_file):
    def make(policy=None, tls=None, over=None):
        return Https(
            reactor=over or internet,
            resolver=(over or internet).nameResolver,
            policy=policy or AddressPolicy(),
            tls=tls or tls_options(ca_file, verify=True),
            connect_limit=20,
            user_agent="Sydentish/0",
        )

    return make


@pytest.fixture
def make_client(clock, srv, make_https):
    def make(exchange=None, routes=None, **options):
        routes = routes or Discovery(
            clock=clock, resolver=srv, well_known=NoDelegations(), random=Random(1), dns_limit=3
        )
        exchange = exchange or make_https()
        return HomeserverClient(clock=clock, routes=routes, exchange=exchange, time_limit=10, **options)

    return make
