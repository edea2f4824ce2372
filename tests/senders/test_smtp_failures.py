"""A relay that stops, refuses, drops or babbles at each step; the clock of the limits is the test's."""

import pytest
import pytest_twisted
from senders.relays import CLOSE, LAST_WORDS, SILENCE
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from sydentish.domain.threepids import mailbox as recipient_of
from sydentish.senders.relay import Relay, RelayError, RelayFailed, RelayRefused, RelayTimeout
from sydentish.senders.smtp import SmtpClient

SENDER = "noreply@identity.example.org"
ALICE = recipient_of("alice.secret@example.org")
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LOGIN = {"username": "mailer", "password": "correct horse"}
STEPS = ["greeting", "EHLO", "STARTTLS", "EHLO_under_TLS", "AUTH", "MAIL", "RCPT", "DATA", "message"]


def start(client):
    return Deferred.fromCoroutine(client.send(SENDER, ALICE, MESSAGE))


def settings_for(step):
    return {"security": "starttls" if "TLS" in step else "plain"} | (LOGIN if step == "AUTH" else {})


def named(step):
    return step.removesuffix("_under_TLS")


@pytest_twisted.ensureDeferred
async def test_the_scripted_relay_takes_mails(new_relay, new_client):
    relay = await new_relay()
    await new_client(relay.port, "starttls", **LOGIN).send(SENDER, ALICE, MESSAGE)
    assert relay.heard[:9] == [step.replace("_", " ") for step in STEPS]


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("identity.example.org", b"identity.example.org"),
        ("192.0.2.7", b"[192.0.2.7]"),
        ("2001:db8::7", b"[IPv6:2001:db8::7]"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_we_say_we_are(identity, said, new_relay, new_client):
    relay = await new_relay()
    await new_client(relay.port, identity=identity).send(SENDER, ALICE, MESSAGE)
    assert relay.lines[0] == b"EHLO " + said


@pytest.mark.parametrize("step", STEPS)
@pytest_twisted.ensureDeferred
async def test_silence(step, new_relay, new_client, clock, logged):
    relay = await new_relay(**{step: SILENCE})
    sending = start(new_client(relay.port, **settings_for(step)))
    await relay.reached(step.replace("_", " "))
    clock.advance(29.9)
    assert not sending.called
    clock.advance(0.2)
    with pytest.raises(RelayTimeout) as late:
        await sending
    # The relay can know of a connection before we do.
    assert late.value.step in ({"greeting", "connection"} if step == "greeting" else {named(step)})
    await relay.no_connections()
    assert clock.getDelayedCalls() == []
    assert "secret" not in str(late.value) + logged()


@pytest_twisted.ensureDeferred
async def test_silence_within_the_tls_handshake(new_relay, new_client, clock):
    for_starttls = await new_relay(STARTTLS=b"220 Go ahead\r\n", EHLO_under_TLS=SILENCE)
    for_tls = await new_relay(greeting=SILENCE)
    for relay, security in ((for_starttls, "starttls"), (for_tls, "tls")):
        sending = start(new_client(relay.port, security))
        await relay.reached("STARTTLS" if security == "starttls" else "greeting")
        clock.advance(31)
        with pytest.raises(RelayTimeout):
            await sending
        await relay.no_connections()


@pytest_twisted.ensureDeferred
async def test_a_relay_that_stops_reading(new_relay, new_client, clock):
    relay = await new_relay(DATA=b"354 Go ahead\r\n")
    client = new_client(relay.port)
    sending = Deferred.fromCoroutine(client.send(SENDER, ALICE, MESSAGE + b"x" * 64 + b"\r\n" * (16 << 20)))
    await relay.reached("DATA")
    for connection in relay.open:
        connection.transport.pauseProducing()
    clock.advance(31)
    with pytest.raises(RelayTimeout):
        await sending
    for connection in relay.open:
        connection.transport.resumeProducing()
    await relay.no_connections()


@pytest.mark.parametrize("code", [421, 450, 550, 554])
@pytest.mark.parametrize("step", STEPS)
@pytest_twisted.ensureDeferred
async def test_a_refusal(step, code, new_relay, new_client, logged):
    refusal = b"%d-5.1.1 <alice.secret@example.org> is\r\n%d 5.1.1 not here\r\n" % (code, code)
    relay = await new_relay(**{step: refusal})
    with pytest.raises(RelayRefused) as refused:
        await start(new_client(relay.port, **settings_for(step)))
    assert (refused.value.code, refused.value.step) == (code, named(step))
    await relay.reached("QUIT")
    await relay.no_connections()
    assert "secret" not in str(refused.value) + logged()


@pytest.mark.parametrize("step", STEPS)
@pytest_twisted.ensureDeferred
async def test_a_dropped_connection(step, new_relay, new_client, clock, logged):
    relay = await new_relay(**{step: CLOSE})
    with pytest.raises(RelayFailed, match=f"closed the connection at {named(step)}"):
        await start(new_client(relay.port, **settings_for(step)))
    assert clock.getDelayedCalls() == []


BABBLE = {
    "no code": b"hello\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an empty line": b"\r\n",
    "a signed number": b"+20 alice.secret@example.org\r\n",
    "a code beyond codes": b"999 alice.secret@example.org\r\n",
    "a code that is to be ignored": b"099 alice.secret@example.org\r\n",
    "no Unicode": b"\xff\xfe\x00\r\n",
    "an out-of-place code": b"299 alice.secret@example.org\r\n",
    "another out-of-place code": b"334 !\r\n",
    "an endless line": b"250 " + b"alice.secret@example.org" * 100_000,
    "endlessly many lines": b"250-alice.secret@example.org\r\n" * 10_000,
    "a line that is long": b"250 " + b"x" * 5000 + b"\r\n",
}


# Where a yes is any 2yz, none of them is out of place.
OUT_OF_PLACE = {"greeting", "STARTTLS", "DATA", "AUTH"}


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (step, kind)
        for step in STEPS
        for kind in BABBLE
        if kind != "an out-of-place code" or step in OUT_OF_PLACE
    ],
)
@pytest_twisted.ensureDeferred
async def test_babble(step, kind, new_relay, new_client, logged):
    relay = await new_relay(**{step: BABBLE[kind]})
    with pytest.raises(RelayError) as failed:
        await start(new_client(relay.port, **settings_for(step)))
    assert isinstance(failed.value, RelayFailed | RelayRefused)
    await relay.no_connections()
    assert "secret" not in str(failed.value) + logged()


@pytest.mark.parametrize(
    "challenge", [b"334 VXNlcm5hbWU6\r\n", b"334 not base64 at all\r\n", b"334\r\n", b"334 \xff\r\n"]
)
@pytest_twisted.ensureDeferred
async def test_odd_challenges_to_a_login(challenge, new_relay, new_client, logged):
    ehlo = b"250-relay.example\r\n250-\r\n250 auth login\r\n"
    relay = await new_relay(EHLO=ehlo, AUTH=challenge, AUTH_response=b"535 no\r\n")
    relay.script["*"] = b"501 aborted\r\n"
    with pytest.raises(RelayRefused) as refused:
        await start(new_client(relay.port, **LOGIN))
    assert refused.value.step == "AUTH"
    assert "correct horse" not in str(refused.value) + logged()


@pytest_twisted.ensureDeferred
async def test_what_comes_in_the_clear_after_starttls_is_not_believed(new_relay, new_client):
    injected = b"220 Go ahead\r\n250-relay.example\r\n250 AUTH PLAIN\r\n235 Welcome\r\n"
    relay = await new_relay(STARTTLS=injected)
    with pytest.raises(RelayFailed, match="STARTTLS"):
        await start(new_client(relay.port, "starttls", **LOGIN))
    assert relay.heard == ["greeting", "EHLO", "STARTTLS"]


@pytest_twisted.ensureDeferred
async def test_a_relay_without_ehlo(new_relay, new_client):
    relay = await new_relay(EHLO=b"502 what?\r\n")
    with pytest.raises(RelayRefused) as refused:
        await start(new_client(relay.port))
    assert (refused.value.code, refused.value.step) == (502, "EHLO")


@pytest_twisted.ensureDeferred
async def test_success_does_not_wait_for_the_answer_to_quit(new_relay, new_client, clock):
    relay = await new_relay(message=LAST_WORDS)
    client = new_client(relay.port, "starttls", max_connections=1, timeout=3.0)
    await start(client)
    # Under TLS, the other side is to close too. As long as it does not, there is a connection to wait for ...
    waiting = start(client)
    clock.advance(3.1)
    with pytest.raises(RelayTimeout) as late:
        await waiting
    assert late.value.step == "free connection"
    # ... but not for ever.
    waiting = start(client)
    clock.advance(2)
    relay.script["message"] = b"250 OK\r\n"
    await waiting
    for connection in relay.open:
        connection.transport.resumeProducing()
    await relay.no_connections()


@pytest_twisted.ensureDeferred
async def test_nobody_listens(new_client):
    closed = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    port = closed.getHost().port
    await closed.stopListening()
    with pytest.raises(RelayFailed, match="no connection to the relay: connection refused"):
        await start(new_client(port))


@pytest.mark.parametrize("host", ["relay.invalid", "no host", "a" * 70 + ".example", ""])
@pytest_twisted.ensureDeferred
async def test_no_such_host(host, new_client):
    with pytest.raises(RelayFailed, match="no connection to the relay"):
        await start(new_client(25, host=host))


@implementer(IHostnameResolver)
class SilentResolver:
    def resolveHostName(self, resolutionReceiver, hostName, portNumber=0, *args, **kwargs):
        return None


@implementer(IReactorPluggableNameResolver)
class NameServerDown(MemoryReactorClock):
    nameResolver = SilentResolver()

    def installNameResolver(self, resolver):
        raise NotImplementedError


@pytest_twisted.ensureDeferred
async def test_a_silent_name_server(clock, logged):
    client = SmtpClient(
        NameServerDown(), clock, Relay("relay.example", 25, "plain", "me.example", max_connections=1)
    )
    for _ in range(2):
        sending = start(client)
        clock.advance(31)
        with pytest.raises(RelayTimeout) as late:
            await sending
        assert late.value.step == "connection"


@pytest_twisted.ensureDeferred
async def test_an_excess_of_mails_waits_within_its_limit(new_relay, new_client, clock):
    relay = await new_relay(EHLO=SILENCE)
    client = new_client(relay.port, max_connections=2)
    sendings = [start(client) for _ in range(2)]
    await relay.reached("EHLO", times=2)
    clock.advance(10)
    waiting = start(client)
    clock.advance(21)
    for sending in sendings:
        with pytest.raises(RelayTimeout):
            await sending
    await relay.reached("EHLO", times=3)
    assert not waiting.called
    clock.advance(8)
    assert not waiting.called
    clock.advance(2)
    with pytest.raises(RelayTimeout) as late:
        await waiting
    assert late.value.step == "EHLO"


@pytest_twisted.ensureDeferred
async def test_cancelling_one_that_waits(new_relay, new_client, clock):
    relay = await new_relay(EHLO=SILENCE)
    client = new_client(relay.port, max_connections=1)
    first, second, third = start(client), start(client), start(client)
    await relay.reached("EHLO")
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    clock.advance(31)
    results = await DeferredList([first, third], consumeErrors=True)
    assert [result.type for _, result in results] == [RelayTimeout] * 2
    await relay.no_connections()


@pytest.mark.parametrize("step", STEPS)
@pytest_twisted.ensureDeferred
async def test_cancelling_closes_the_connection_and_frees_its_slot(step, new_relay, new_client, clock):
    relay = await new_relay(**{step: SILENCE})
    client = new_client(relay.port, max_connections=1, **settings_for(step))
    for times in (1, 2):
        sending = start(client)
        await relay.reached(step.replace("_", " "), times=times)
        sending.cancel()
        # While connecting, Twisted has an error of its own for it.
        with pytest.raises(RelayFailed if step == "greeting" else CancelledError):
            await sending
        await relay.no_connections()
    assert clock.getDelayedCalls() == []


class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Pinger(Protocol):
    """Sends a byte, waits for its echo, and so on."""

    def __init__(self):
        self.answer = None

    async def ping(self):
        self.answer = Deferred()
        self.transport.write(b"?")
        await self.answer

    def dataReceived(self, data):
        self.answer.callback(None)


@pytest_twisted.ensureDeferred
async def test_fifty_mails_to_a_silent_relay_hold_up_nobody(new_relay, new_client, clock):
    relay = await new_relay(greeting=SILENCE)
    echo = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Echo))
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", echo.getHost().port)
    pinger = await endpoint.connect(Factory.forProtocol(Pinger))
    client = new_client(relay.port, max_connections=10)
    sendings = [start(client) for _ in range(50)]
    await relay.reached("greeting", times=10)
    # Two hundred round trips of somebody else's, and the fifty have not got on by one step.
    for _ in range(200):
        await pinger.ping()
    assert not any(sending.called for sending in sendings)
    assert relay.heard == ["greeting"] * 10
    clock.advance(31)
    results = await DeferredList(sendings, consumeErrors=True)
    assert [result.type for _, result in results] == [RelayTimeout] * 50
    pinger.transport.abortConnection()
    await echo.stopListening()
    await relay.no_connections()
