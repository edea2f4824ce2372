"""A gateway that is silent, slow, closed, untrusted, or speaks something else; the clock of the limits is the test's."""

import gc
import gzip

import pytest
import pytest_twisted
from senders.sms.watching import Mute
from standins.behaviours import Drip, EndlessBody, EndlessHeaders, Silence, answer, close, raw, redirect
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher

from sydentish.senders.sms.gateway import GatewayError

KINDS = ["http", "openmarket", "twilio"]
NO_HTTP = "no usable answer"
NOT_ACCEPTED = "certificate not accepted"
UNREACHABLE = "connection refused"
SECRETS = ["correct-horse", "7700", "271828", "AC01234567", "Y29ycmVjd", "QUMwMTIz", "k3y"]


@pytest.fixture(scope="module", autouse=True)
def nothing_overlooked():
    """A failure that nobody looked at is logged when its Deferred is thrown away."""
    gc.collect()
    events = []
    globalLogPublisher.addObserver(events.append)
    yield
    gc.collect()
    globalLogPublisher.removeObserver(events.append)
    assert [event for event in events if "log_failure" in event or event.get("isError")] == []


def sending(provider, sms, time_limit=10):
    return Deferred.fromCoroutine(provider.send(sms, time_limit))


async def failure(provider, sms):
    with pytest.raises(GatewayError) as failed:
        await provider.send(sms, 10)
    return failed.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("behaviour", "reason", "temporary", "refused"),
    [
        (answer(500, b"<html>"), "it answered 500", True, True),
        (answer(503), "it answered 503", True, True),
        (answer(429), "it answered 429", True, True),
        (answer(408), "it answered 408", True, True),
        (answer(400), "it answered 400", False, True),
        (raw(b"220 This is not HTTP\r\n"), NO_HTTP, True, False),
        (raw(b"\x00\xff" * 5_000 + b"\r\n\r\n"), NO_HTTP, True, False),
        (raw(b"HTTP/1.1 2000 Yes\r\n\r\n"), "it answered 2000", False, True),
        (raw(b"HTTP/1.1 200 OK\r\nContent-"), NO_HTTP, True, False),
        (close, NO_HTTP, True, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_trouble(start, provider, sms, logged, *, kind, behaviour, reason, temporary, refused):
    gateway = start(kind)
    gateway.always = behaviour
    error = await failure(provider(kind, gateway), sms())
    assert (error.reason, error.temporary, error.refused) == (reason, temporary, refused)
    assert (str(error), error.timed_out) == (reason, False)
    assert not any(secret in repr(error) + logged() for secret in SECRETS)


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_silence(kind, start, provider, sms, clock):
    gateway = start(kind)
    gateway.always = silence = Silence()
    waiting = sending(provider(kind, gateway), sms())
    await silence.asked
    await times_out(waiting, clock)
    await silence.gone


@pytest.mark.parametrize(
    ("kind", "options"),
    [("twilio", {}), ("http", {"success_pattern": "OK"})],
    ids=["a refusal of Twilio has a code", "a pattern is to be found"],
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_counts_and_does_not_come_to_an_end(start, provider, sms, clock, *, kind, options):
    gateway = start(kind)
    gateway.always = drip = Drip(reactor)
    waiting = sending(provider(kind, gateway, **options), sms())
    await drip.flowing
    await times_out(waiting, clock)
    await drip.gone


async def times_out(waiting, clock):
    clock.advance(9.9)
    assert not waiting.called
    clock.advance(0.2)
    with pytest.raises(GatewayError) as late:
        await waiting
    assert (late.value.reason, late.value.timed_out) == ("no answer within the time limit", True)
    assert late.value.temporary


@pytest.mark.parametrize("secured", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_host_that_does_not_speak(secured, provider, sms, clock, ca_file):
    mute = Mute()
    mute.start(reactor)
    scheme = "https" if secured else "http"
    waiting = sending(provider("http", f"{scheme}://127.0.0.1:{mute.port}", ca_file=ca_file), sms())
    await mute.connected
    clock.advance(10.1)
    with pytest.raises(GatewayError, match="time limit"):
        await waiting
    await mute.gone
    await mute.stop()


@pytest.mark.parametrize("secured", [False, True])
@pytest_twisted.ensureDeferred
async def test_who_waits_can_give_up(secured, start, provider, sms, ca_file):
    gateway = start(names=["127.0.0.1"] if secured else None)
    gateway.always = silence = Silence()
    waiting = sending(provider("http", gateway, ca_file=ca_file), sms())
    await silence.asked
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    await silence.gone


@pytest_twisted.ensureDeferred
async def test_who_connects_can_give_up(start, provider, sms):
    gateway = start()
    waiting = sending(provider("http", gateway), sms())
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting


@pytest_twisted.ensureDeferred
async def test_who_reads_can_give_up(start, provider, sms):
    gateway = start()
    gateway.always = drip = Drip(reactor)
    waiting = sending(provider("http", gateway, success_pattern="OK"), sms())
    await drip.flowing
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    await drip.gone


@pytest.mark.parametrize("behaviour", [Drip(reactor), EndlessBody()])
@pytest_twisted.ensureDeferred
async def test_a_success_is_one_whatever_happens_to_a_body_that_does_not_count(
    behaviour, start, provider, sms
):
    gateway = start()
    gateway.always = behaviour
    await provider("http", gateway).send(sms(), 10)
    await behaviour.gone


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest_twisted.ensureDeferred
async def test_a_body_that_breaks_off_is_judged_as_far_as_it_came(head, start, provider, sms):
    gateway = start()
    body = b"5\r\nOK 47\r\n" if b"chunked" in head else b"OK 47"
    gateway.always = raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
    await provider("http", gateway, success_pattern="^OK").send(sms(), 10)


@pytest_twisted.ensureDeferred
async def test_no_more_is_read_of_a_body_than_counts(start, provider, sms):
    gateway = start()
    gateway.always = endless = EndlessBody()
    error = await failure(provider("http", gateway, success_pattern="OK"), sms())
    assert "success_pattern" in error.reason
    await endless.gone


@pytest_twisted.ensureDeferred
async def test_headers_that_never_end(start, provider, sms):
    gateway = start()
    gateway.always = endless = EndlessHeaders()
    error = await failure(provider("http", gateway), sms())
    assert (error.reason, error.temporary) == ("the answer is too large", False)
    await endless.gone


@pytest_twisted.ensureDeferred
async def test_a_packed_body_is_bounded_when_it_is_unpacked(start, provider, sms):
    gateway = start()
    packed = gzip.compress(b"x" * (64 * 1024 - 2) + b"OK" + b"y" * 10_000_000)
    gateway.always = answer(200, packed, {"Content-Encoding": "gzip"})
    await provider("http", gateway, success_pattern="OK$").send(sms(), 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest_twisted.ensureDeferred
async def test_a_redirect_is_not_followed(kind, status, start, provider, sms):
    elsewhere = start(kind)
    gateway = start(kind)
    gateway.always = redirect(f"{elsewhere.url}/send", status)
    error = await failure(provider(kind, gateway), sms())
    assert error.reason == f"it answered {status}"
    assert elsewhere.requests == []


@pytest_twisted.ensureDeferred
async def test_cookies_are_not_kept(start, provider, sms):
    gateway = start()
    gateway.behaviours = [answer(200, b"", {"Set-Cookie": "a=b"})]
    first = provider("http", gateway)
    await first.send(sms(), 10)
    await first.send(sms(), 10)
    assert len(gateway.messages) == 1
    assert gateway.refusals == []


# --- trust ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_certificate_of_nobody_we_trust(kind, start, provider, sms, logged):
    gateway = start(kind, names=["127.0.0.1"])
    error = await failure(provider(kind, gateway), sms())
    assert (error.reason, error.temporary, gateway.requests) == (NOT_ACCEPTED, False, [])
    assert not any(secret in logged() for secret in SECRETS)


@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_name(start, provider, sms, ca_file):
    gateway = start(names=["sms.example.org", "127.0.0.2"])
    error = await failure(provider("http", gateway, ca_file=ca_file), sms())
    assert (error.reason, gateway.requests) == (NOT_ACCEPTED, [])


@pytest_twisted.ensureDeferred
async def test_a_host_by_its_name(start, provider, sms, ca_file):
    gateway = start(names=["localhost"])
    await provider("http", f"https://localhost:{gateway.port}", ca_file=ca_file).send(sms(), 10)
    assert gateway.messages


@pytest_twisted.ensureDeferred
async def test_http_where_https_was_expected(provider, sms, ca_file):
    plain = Mute(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    plain.start(reactor)
    error = await failure(provider("http", f"https://127.0.0.1:{plain.port}", ca_file=ca_file), sms())
    assert (error.reason, error.temporary) == ("TLS failed", True)
    await plain.gone
    await plain.stop()


@pytest_twisted.ensureDeferred
async def test_https_where_http_was_expected(start, provider, sms):
    gateway = start(names=["127.0.0.1"])
    error = await failure(provider("http", gateway.url.replace("https:", "http:")), sms())
    assert (error.reason, gateway.requests) == (NO_HTTP, [])


@pytest_twisted.ensureDeferred
async def test_nobody_listens(provider, sms):
    mute = Mute()
    mute.start(reactor)
    port = mute.port
    await mute.stop()
    error = await failure(provider("http", f"http://127.0.0.1:{port}"), sms())
    assert (error.reason, error.temporary) == (UNREACHABLE, True)


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist(provider, sms):
    error = await failure(provider("http", "https://nowhere.invalid"), sms())
    assert (error.reason, error.temporary) == ("its name cannot be resolved", True)
