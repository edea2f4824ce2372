"""The public listener over real sockets, with time that stands still."""

from types import SimpleNamespace

import pytest
import pytest_twisted
from fixtures import House
from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from web.wire import Client

from sydentish.domain.errors import OpenIdRefused
from sydentish.domain.terms import Policy, PolicyText, Terms
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.http import ConnectionLimits, HttpFactory

TERMS = Terms(
    (
        Policy(
            "terms_of_service",
            "2.0",
            (
                PolicyText("en", "Terms of Service", "https://example.org/terms-2.0-en.html"),
                PolicyText("fr", "Conditions", "https://example.org/terms-2.0-fr.html"),
            ),
        ),
        Policy("privacy", "1.2", (PolicyText("en", "Privacy", "https://example.org/privacy-1.2-en.html"),)),
    )
)


LIMITS = RequestLimits(body=1000, large_body=5000, answer_seconds=60.0)


class KnownTokens(dict):
    """OpenID tokens that homeservers know; they refuse all others."""

    def __missing__(self, token):
        return OpenIdRefused("The homeserver does not accept the OpenID token")


@pytest.fixture(autouse=True)
def failures():
    """What was logged with a traceback; a test that makes it happen empties the list."""
    found = []

    def note(event):
        if "log_failure" in event:
            found.append((formatEvent(event), event["log_failure"]))

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)
    assert found == []


@pytest_twisted.async_yield_fixture
async def make_house(tmp_path):
    """Makes houses; all end with the test."""
    houses = []

    async def make(**options):
        folder = tmp_path / str(len(houses))
        folder.mkdir()
        house = House(folder, **options)
        house.verifier.tokens = KnownTokens()
        await house.start()
        houses.append(house)
        return house

    yield make
    for house in houses:
        await house.stop()


@pytest_twisted.async_yield_fixture
async def listen(make_house):
    """Listens with a dispatcher; all ports and connections end with the test.

    `tls` is what the server listens with, and `secure` puts TLS around the endpoint of its client.
    """
    opened = []

    async def listen_with(dispatcher, clock, *, tls=None, secure=lambda endpoint: endpoint, **limits):
        limits = {
            "header_bytes": 16384,
            "receive_seconds": 30,
            "idle_seconds": 60,
            "connections": None,
            **limits,
        }
        factory = HttpFactory(dispatcher, ConnectionLimits(**limits), clock)
        around = factory if tls is None else TLSMemoryBIOFactory(tls, isClient=False, wrappedFactory=factory)
        port = reactor.listenTCP(0, around, interface="127.0.0.1")
        client = Client(port.getHost().port, secure)
        opened.append((port, client, factory))
        return SimpleNamespace(
            client=client, ask=client.ask, connect=client.connect, factory=factory, port=port
        )

    yield listen_with
    for port, client, factory in opened:
        await port.stopListening()
        await client.close()
        await factory.drain()


@pytest.fixture
def serve(make_house, listen):
    """Makes a house and listens for it; `connection` holds limits of connections."""

    async def serve_house(*, connection=None, **options):
        house = await make_house(**options)
        server = await listen(house.dispatcher, house.clock, **(connection or {}))
        server.house = house
        return server

    return serve_house


@pytest.fixture
def serve_routes(make_house, listen):
    """Listens with routes of the test, below `/`."""

    async def serve_them(*routes, limits=LIMITS, pages=None, connection=None, admission=None):
        house = await make_house()
        dispatcher = Dispatcher(
            routes=routes,
            prefix="/",
            admission=admission or house.admission,
            pages=pages,
            limits=limits,
            clock=house.clock,
            new_request_id=lambda: "request-17",
            log=house.requests,
        )
        server = await listen(dispatcher, house.clock, **(connection or {}))
        server.house = house
        return server

    return serve_them


@pytest_twisted.async_yield_fixture
async def server(serve):
    """A server without terms."""
    yield await serve()


@pytest_twisted.async_yield_fixture
async def alice(server):
    """An access token of `@alice:hs.example.org`."""
    yield await server.house.token()
