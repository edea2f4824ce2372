import pytest
import pytest_twisted
import trustme
from senders.relays import ScriptedRelay, server_context, templates_directory
from standins.mailbox import Mailbox
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from sydentish.senders.relay import Relay, relay_tls
from sydentish.senders.render import Templates
from sydentish.senders.smtp import SmtpClient


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority):
    return authority.issue_cert("localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def results():
    """How each hand-over ended, in their order."""
    return []


@pytest.fixture
def logged():
    """What is logged; no test may leave an error in it."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: "\n".join(f"{formatEvent(event)} {event}" for event in events)
    globalLogPublisher.removeObserver(events.append)
    assert [event for event in events if "log_failure" in event or event.get("isError")] == []


@pytest_twisted.async_yield_fixture
async def new_client(clock, ca_file, logged):
    """Makes clients of a relay on 127.0.0.1, with the limits on `clock`."""
    clients = []

    def make(port, security="plain", host="127.0.0.1", trust="test authority", **settings):
        tls = None
        if security != "plain":
            trusted = ca_file if trust == "test authority" else None
            tls = relay_tls(host, trusted, verify=trust != "anybody")
        settings = {"timeout": 30.0, "max_connections": 4, "identity": "identity.example.org"} | settings
        relay = Relay(host=host, port=port, security=security, tls=tls, **settings)
        clients.append(SmtpClient(reactor, clock, relay))
        return clients[-1]

    yield make
    # Whoever does not close a connection is cut off by now.
    clock.advance(3600)
    for client in clients:
        # A slot belongs to a connection until that is closed: who has all slots knows that all are.
        for _ in range(client._slots.limit):
            await client._slots.acquire()


@pytest_twisted.async_yield_fixture
async def new_relay(certificate):
    relays = []

    async def make(**script):
        relay = ScriptedRelay({step.replace("_", " "): reply for step, reply in script.items()}, certificate)
        await relay.start()
        relays.append(relay)
        return relay

    yield make
    for relay in relays:
        await relay.stop()


@pytest.fixture
def new_mailbox(certificate):
    mailboxes = []

    def make(*, starttls=False, tls=False, presents=certificate, **options):
        context = server_context(presents)
        mailbox = Mailbox(
            reactor=reactor, starttls=context if starttls else None, tls=context if tls else None, **options
        )
        mailbox.start()
        mailboxes.append(mailbox)
        return mailbox

    yield make
    for mailbox in mailboxes:
        mailbox.stop()


@pytest.fixture(scope="session")
def templates():
    return Templates(templates_directory())
