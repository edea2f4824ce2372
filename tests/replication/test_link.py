"""What is posted to a peer, and what is made of all that it can answer."""

from typing import get_args

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from replication.mutual import HERE, MAX_BYTES, THERE
from standins.behaviours import EndlessBody, EndlessHeaders, Silence, answer, close, error, raw, redirect
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from zope.interface import implementer

from sydentish.domain.peers import PUSH_PATH, Accepted, Failed, FailureKind, Peer, Refused, settled
from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.replication.link import Answer, LinkFailed, outcome_of
from sydentish.replication.troubles import why

pytestmark = pytest.mark.usefixtures("quiet_log")

BODY = b'{"sgAssocs":{"1":{}}}'
CLOSED = Failed("answer", "it closed the connection before it had answered")
NO_SUCCESS = Failed("answer", "HTTP 200, but its body is not that of a success")
LIMIT = 10


@pytest_twisted.async_yield_fixture
async def server(start_peer):
    started = await start_peer()
    yield started
    await started.no_connections()


# --- what is asked ----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_goes_over_the_wire(server, make_link):
    server.behaviour = answer(201, {"a": [1]}, {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"})
    answered = await make_link().ask(server.peer(), "/some/path?with=query", BODY)
    assert answered == Answer(201, {"a": [1]}, 784_111_777_000)
    (sent,) = server.arrivals
    assert (sent.method, sent.target, sent.body) == ("POST", "/some/path?with=query", BODY)
    assert sorted(sent.headers) == [
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("connection", "close"),
        ("content-length", str(len(BODY))),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{server.port}"),
        ("user-agent", "Sydentish/0"),
    ]


@pytest_twisted.ensureDeferred
async def test_a_push_is_posted_where_sydent_has_it_and_whole(server, make_link):
    body = b'{"sgAssocs":{"1":"%b"}}' % (b"x" * 2_000_000)
    assert await make_link().push(server.peer(), body) == Accepted()
    assert [(sent.target, sent.body) for sent in server.arrivals] == [(PUSH_PATH, body)]


@pytest.mark.parametrize(
    "told",
    ["yesterday", "", "Sun, 06 Nov 1994 08:49:37 +0100", "Sun, 99 Nov 1994 08:49:37 GMT", "\xff", "9" * 5000],
)
@pytest_twisted.ensureDeferred
async def test_a_date_that_cannot_be_read_is_none(server, make_link, told):
    server.behaviour = answer(200, {}, {"Date": told})
    assert await make_link().ask(server.peer(), "/", BODY) == Answer(200, {}, None)


# --- what is answered -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (answer(200, {"success": True, "more": 1}), Accepted()),
        (answer(200, {"success": False}), NO_SUCCESS),
        (answer(200, {"success": 1}), NO_SUCCESS),
        (answer(200, {}), NO_SUCCESS),
        (answer(200, [{"success": True}]), NO_SUCCESS),
        (answer(200, b"<html>It works!</html>"), NO_SUCCESS),
        (answer(200, b""), NO_SUCCESS),
        (answer(200, b"[" * 50_000), NO_SUCCESS),
        (answer(200, b'{"success":true}\xff'), NO_SUCCESS),
        (answer(202, {"success": True}), Failed("status", "HTTP 202")),
        (answer(500), Failed("status", "HTTP 500")),
        (error(500, "M_UNKNOWN"), Failed("status", "HTTP 500 M_UNKNOWN")),
        (error(400, "no code at all"), Failed("status", "HTTP 400")),
        (error(403, "M_FORBIDDEN"), Failed("status", "HTTP 403 M_FORBIDDEN")),
        (redirect("https://127.0.0.1:1/"), Failed("status", "HTTP 302")),
        (redirect(PUSH_PATH, 307), Failed("status", "HTTP 307")),
        (
            error(403, "M_UNKNOWN_PEER"),
            Failed("unknown_peer", f"it knows no peer with our certificate, which is for {HERE}"),
        ),
        (
            answer(400, {"errcode": "M_VERIFICATION_FAILED", "error": "no", "failed_ids": ["12", "3"]}),
            Refused(frozenset({12, 3}), "no"),
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_a_push_comes_to(server, make_link, behaviour, outcome):
    server.behaviour = behaviour
    assert await make_link().push(server.peer(), BODY) == outcome
    assert len(server.arrivals) == 1


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (close, CLOSED),
        (raw(b""), CLOSED),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}"), CLOSED),
        (raw(b"220 smtp.example.org ESMTP\r\n"), Failed("answer", "no usable answer")),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"), Failed("answer", "no usable answer")),
        (raw(b'HTTP/1.0 200 OK\r\n\r\n{"success":true}'), Accepted()),
        (raw(b'HTTP/1.0 200 OK\r\n\r\n{"success":tr'), NO_SUCCESS),
        (answer(200, b"x" * (MAX_BYTES + 1)), Failed("answer", "the answer is too large")),
        (answer(200, b"x" * MAX_BYTES), NO_SUCCESS),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_fails(server, make_link, behaviour, outcome):
    server.behaviour = behaviour
    assert await make_link().push(server.peer(), BODY) == outcome


@pytest.mark.parametrize("endless", [EndlessBody(), EndlessHeaders()], ids=["body", "headers"])
@pytest_twisted.ensureDeferred
async def test_what_never_ends_is_dropped_early(server, make_link, endless):
    server.behaviour = endless
    assert await make_link().push(server.peer(), BODY) == Failed("answer", "the answer is too large")
    await endless.gone


def refusal(**members):
    return Answer(400, {"errcode": "M_VERIFICATION_FAILED", "error": "no", "failed_ids": ["1"], **members})


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        ([], set()),
        (["1", 2, "2", MAX_ORIGIN_ID], {1, 2, MAX_ORIGIN_ID}),
        (["-1", -1, "01", "1.0", 1.5, True, None, "x", "", [], {"1": 2}, "1\n", "٣", "7"], {7}),
        ([str(MAX_ORIGIN_ID + 1), "9" * 9000, 10**30], set()),
        ([str(n) for n in range(10_050)], set(range(10_000))),
    ],
)
def test_failed_ids_are_read_as_far_as_they_can_be(ids, read):
    assert outcome_of(refusal(failed_ids=ids), (HERE,)) == Refused(frozenset(read), "no")


@pytest.mark.parametrize("ids", [None, "12", {"12": 1}, 12])
def test_a_refusal_without_a_list_is_only_a_status(ids):
    assert outcome_of(refusal(failed_ids=ids), (HERE,)) == Failed("status", "HTTP 400 M_VERIFICATION_FAILED")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("a\nb\x1b[31mc", "a b [31mc"),
        ("x" * 300, "x" * 200),
        ("", "it does not say why"),
        (None, "it does not say why"),
        (["why"], "it does not say why"),
        ("\u202e\ud800", "it does not say why"),
    ],
)
def test_the_reason_is_fit_to_be_shown(told, reason):
    assert outcome_of(refusal(error=told), (HERE,)) == Refused(frozenset({1}), reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1", "12"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "success": JSON,
        "errcode": JSON | st.sampled_from(["M_VERIFICATION_FAILED", "M_UNKNOWN_PEER"]),
        "error": JSON | st.text(),
        "failed_ids": JSON | st.lists(JSON),
    },
)


@given(
    st.sampled_from([200, 400, 403]) | st.integers(100, 999),
    st.none() | MEMBERS | st.dictionaries(st.text(), JSON),
)
def test_whatever_is_answered_has_an_outcome(status, body):
    outcome = outcome_of(Answer(status, body), (HERE,))
    assert isinstance(settled({1, 12}, outcome), Accepted | Refused | Failed)
    if not isinstance(outcome, Accepted):
        assert outcome.reason.isprintable()
        assert 0 < len(outcome.reason) <= 200
    if isinstance(outcome, Failed):
        assert outcome.kind in get_args(FailureKind)
    if isinstance(outcome, Refused):
        assert all(0 <= each <= MAX_ORIGIN_ID for each in outcome.origin_ids)


# --- what does not get so far -----------------------------------------------------------------------------


class Talker(Protocol):
    """Says something at once that is no TLS; or closes."""

    def connectionMade(self):
        self.transport.write(self.factory.words)
        self.transport.loseConnection()


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (b"220 smtp.example.org ESMTP\r\n", Failed("certificate", "it does not speak TLS")),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Failed("certificate", "it does not speak TLS")),
        (b"", CLOSED),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_speaks_no_tls_fails(make_link, words, outcome):
    factory = Factory.forProtocol(Talker)
    factory.words = words
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    peer = Peer(THERE, f"https://127.0.0.1:{port.getHost().port}", {}, (THERE,))
    assert await make_link().push(peer, BODY) == outcome
    await port.stopListening()


@pytest.mark.parametrize(
    "url", ["https://", "https://h:0x", "https://h:99999", "https://[::1", "https://\u2014"]
)
@pytest_twisted.ensureDeferred
async def test_a_url_that_leads_nowhere_is_unreachable(make_link, url):
    outcome = await make_link().push(Peer(THERE, url, {}, (THERE,)), BODY)
    assert outcome.kind == "unreachable"


@implementer(IHostnameResolver)
class Nowhere:
    """Knows no names."""

    def resolveHostName(self, receiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        receiver.resolutionBegan(self)
        receiver.resolutionComplete()
        return self


@implementer(IReactorPluggableNameResolver)
class Slow:
    """The reactor, for which a test tells when time has passed; what is due at once is done at once."""

    def __init__(self, connect=reactor.connectTCP, resolver=reactor.nameResolver):
        self.clock = Clock()
        self.connectTCP = connect
        self.nameResolver = resolver
        self.seconds = self.clock.seconds

    def installNameResolver(self, resolver):
        raise NotImplementedError

    def callLater(self, delay, *args, **kwargs):
        return (self.clock if delay else reactor).callLater(delay, *args, **kwargs)


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_known_is_unreachable(make_link):
    link = make_link(over=Slow(resolver=Nowhere()))
    outcome = await link.push(Peer(THERE, "https://absent.example.org:1", {}, (THERE,)), BODY)
    assert outcome == Failed("unreachable", "its name cannot be resolved")


@pytest_twisted.ensureDeferred
async def test_nobody_who_takes_the_connection_in_time_is_told(make_link):
    connecting = Deferred()

    def connect(host, port, factory, timeout=30, bindAddress=None):
        reactor.callLater(0, connecting.callback, (factory, timeout))

    slow = Slow(connect)
    asking = Deferred.fromCoroutine(
        make_link(over=slow, connect_limit=3).push(Peer(THERE, "https://127.0.0.1:9", {}, (THERE,)), BODY)
    )
    factory, timeout = await connecting
    assert timeout == 3
    factory.clientConnectionFailed(None, Failure(ConnectTimeoutError()))
    slow.clock.advance(LIMIT - 1)
    assert await asking == Failed("timeout", "no connection in time")


class Wordless(Protocol):
    """Takes the connection and says nothing; not even in TLS."""

    def connectionMade(self):
        self.factory.met.callback(None)

    def connectionLost(self, reason):
        self.factory.gone.callback(None)


@pytest_twisted.ensureDeferred
async def test_the_time_limit_is_over_the_handshake_too(make_link):
    factory = Factory.forProtocol(Wordless)
    factory.met, factory.gone = Deferred(), Deferred()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    peer = Peer(THERE, f"https://127.0.0.1:{port.getHost().port}", {}, (THERE,))
    slow = Slow()
    asking = Deferred.fromCoroutine(make_link(over=slow).push(peer, BODY))
    await factory.met
    slow.clock.advance(LIMIT)
    assert await asking == Failed("timeout", "no answer in time")
    await factory.gone
    await port.stopListening()


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n{"])
@pytest_twisted.ensureDeferred
async def test_who_never_finishes_is_left_after_the_limit(server, make_link, begun):
    silence = server.behaviour = Silence()
    silence.begin = lambda request: request.channel.write(begun)
    slow = Slow()
    asking = Deferred.fromCoroutine(make_link(over=slow).push(server.peer(), BODY))
    await silence.asked
    slow.clock.advance(LIMIT - 1)
    assert not asking.called
    slow.clock.advance(1)
    assert await asking == Failed("timeout", "no answer in time")
    await silence.gone
    assert slow.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_giving_up_closes_the_connection(server, make_link):
    silence = server.behaviour = Silence()
    asking = Deferred.fromCoroutine(make_link().ask(server.peer(), "/", BODY))
    await silence.asked
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await silence.gone


@pytest_twisted.ensureDeferred
async def test_giving_up_while_connecting_is_no_answer(make_link):
    link = make_link(over=Slow(connect=None, resolver=Unfinished()))
    asking = Deferred.fromCoroutine(link.push(Peer(THERE, "https://a.example.org", {}, (THERE,)), BODY))
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking


@implementer(IHostnameResolver)
class Unfinished:
    """Never knows a name."""

    def resolveHostName(self, receiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        receiver.resolutionBegan(self)
        return self

    def cancel(self):
        pass


@pytest_twisted.ensureDeferred
async def test_who_asks_is_told_the_kind_and_the_reason(make_link):
    with pytest.raises(LinkFailed) as raised:
        await make_link().ask(Peer(THERE, "https://127.0.0.1:1", {}, (THERE,)), "/", BODY)
    assert (raised.value.kind, raised.value.reason) == ("unreachable", "connection refused")
    assert str(raised.value) == "connection refused"


OURS = "it does not accept our certificate"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("tlsv13 alert certificate required", OURS),
        ("sslv3 alert bad certificate", OURS),
        ("ssl/tls alert bad certificate", OURS),
        ("ssl/tls alert certificate unknown", OURS),
        ("tlsv1 alert access denied", OURS),
        ("sslv3 alert certificate expired", f"{OURS}: it has expired"),
        ("ssl/tls alert certificate revoked", f"{OURS}: it was revoked"),
        ("tlsv1 alert unknown ca", f"{OURS}: it is not from an authority that is trusted there"),
        (
            "ssl/tls alert unsupported certificate",
            f"{OURS}: it is not one for clients, its extended key usage must have clientAuth",
        ),
        ("tlsv1 alert protocol version", "it does not speak TLS 1.2 or later"),
        ("unsupported protocol", "it does not speak TLS 1.2 or later"),
        ("ssl/tls alert handshake failure", "it does not agree to any way of TLS with us"),
        ("wrong version number", "it does not speak TLS"),
        ("something new", "TLS failed"),
    ],
)
def test_what_openssl_says_is_put_in_words(told, reason):
    error = SSL.Error([("SSL routines", "", told)])
    assert why(error) == ("certificate", reason)
    assert why(ResponseNeverReceived([Failure(ConnectionLost()), Failure(error)])) == ("certificate", reason)


def test_what_nobody_has_thought_of_is_no_answer():
    assert why(KeyError("secret")) == ("answer", "no usable answer")
    assert why(SSL.Error()) == ("certificate", "TLS failed")
