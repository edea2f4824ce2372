"""Peers with real certificates on real sockets."""

import pytest
import pytest_twisted
from replication.mutual import HERE, MAX_BYTES, THERE, Credentials, PeerServer
from standins.certificates import Authority
from twisted.internet import reactor
from twisted.logger import globalLogPublisher

from sydentish.replication.link import PeerLink


@pytest.fixture
def quiet_log():
    """Nothing is logged as an error, and no time is waited for any more."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
    assert reactor.getDelayedCalls() == []
    assert [event for event in events if "log_failure" in event] == []


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture(scope="session")
def stranger():
    """An authority that nobody trusts."""
    return Authority()


@pytest.fixture
def credentials(authority, tmp_path):
    """Writes the files of a server: a certificate, and the authority that it trusts."""
    count = iter(range(100))

    def write(*names, certificate=None, trusts=None):
        number = next(count)
        path = tmp_path / f"{number}.pem"
        (certificate or authority.issue(*names)).write(path)
        return Credentials(path, (trusts or authority).write_ca(tmp_path / f"{number}-ca.pem"))

    return write


@pytest.fixture
def ours(credentials):
    return credentials(HERE).load()


@pytest_twisted.async_yield_fixture
async def start_peer(credentials):
    started = []

    async def start(tls=None):
        server = PeerServer()
        await server.listen(tls or credentials(THERE).load())
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest_twisted.async_yield_fixture
async def start_other():
    """Starts peers that are not of our making."""
    started = []

    def start(options):
        server = PeerServer()
        server.listen_with(options)
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
def make_link(ours):
    def make(tls=None, over=reactor, **options):
        options = {"time_limit": 10, "connect_limit": 5, "max_bytes": MAX_BYTES, **options}
        return PeerLink(reactor=over, tls=tls or ours, user_agent="Sydentish/0", **options)

    return make
