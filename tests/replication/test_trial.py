"""What is found out about a peer, by a real connection to it."""

from datetime import UTC, datetime, timedelta

import pytest
import pytest_twisted
from cryptography.x509.oid import ExtendedKeyUsageOID
from replication.listening_peer import MAX_FUTURE_MS, Clockwork, Node, public, ring
from replication.mutual import HERE, THERE, for_usages
from standins.behaviours import answer, close, error
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from sydentish.domain.peers import CHECK_PATH, PUSH_PATH, Peer
from sydentish.replication.trial import Trial

pytestmark = pytest.mark.usefixtures("quiet_log")

US = ring(HERE, 1)
PAGE = answer(404, b"<html>No Such Resource</html>")


@pytest.fixture
def trial(ours, make_link):
    def make(tls=None, keys=US, now_ms=None, time_limit=10):
        return Trial(
            link=make_link(tls or ours, time_limit=time_limit),
            tls=tls or ours,
            keys=keys,
            clock=reactor,
            time_limit=time_limit,
            max_future_ms=MAX_FUTURE_MS,
            now_ms=now_ms or Clockwork(),
        )

    return make


@pytest_twisted.async_yield_fixture
async def there(tmp_path, credentials):
    """A peer of ours that knows us."""
    node = Node(tmp_path, THERE, 2)
    await node.start()
    await node.knows(Peer(HERE, "https://here.example.org", public(US), (HERE,)))
    await node.listen(credentials(THERE).load())
    yield node
    await node.stop()


def told(findings):
    return [("ok" if each.ok else "failed", each.step) for each in findings]


def wrong(findings):
    """The findings that are not well, which have a remedy each."""
    assert all((each.remedy is None) is each.ok for each in findings)
    return {each.step: f"{each.told}; {each.remedy}" for each in findings if not each.ok}


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_well(there, trial):
    findings = await trial().run(there.as_peer())
    assert told(findings) == [
        ("ok", "our certificate"),
        ("ok", "connection"),
        ("ok", "its certificate"),
        ("ok", "known there"),
        ("ok", "our key"),
        ("ok", "its key"),
        ("ok", "clock"),
    ]
    assert wrong(findings) == {}
    lines = [each.told for each in findings]
    assert lines[0].startswith(f"our certificate is for {HERE}; it is valid until ")
    assert lines[1] == f"it can be reached at https://127.0.0.1:{there.port_number}"
    assert lines[2].startswith(
        f"its certificate is for {THERE}, and from an authority that is trusted here; it is valid"
    )
    assert lines[3:] == [
        f"it knows us as {HERE}",
        "it has our key ed25519:0",
        "it signs with a key that is known here",
        "its clock is 0 s behind ours",
    ]


# --- certificates -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_our_own_certificate_has_expired(there, trial, credentials, authority):
    before = datetime.now(UTC) - timedelta(days=1)
    tls = credentials(certificate=authority.issue(HERE, not_after=before)).load()
    now_ms = Clockwork(int(datetime.now(UTC).timestamp() * 1000))
    there.now_ms.ms = now_ms.ms
    found = wrong(await trial(tls, now_ms=now_ms).run(there.as_peer()))
    assert found["our certificate"].endswith(
        f"has expired on {before:%Y-%m-%d}; renew it, and restart the server"
    )
    assert "it does not accept our certificate: it has expired; renew our certificate" in found["answer"]


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_ends_soon_is_told(there, trial, credentials, authority):
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    tls = credentials(certificate=authority.issue(HERE, not_after=soon)).load()
    now_ms = Clockwork(int(datetime.now(UTC).timestamp() * 1000))
    there.now_ms.ms = now_ms.ms
    findings = await trial(tls, now_ms=now_ms).run(there.as_peer())
    assert wrong(findings) == {}
    assert findings[0].told.endswith("(3 days left: renew it)")


@pytest_twisted.ensureDeferred
async def test_our_certificate_has_another_name(there, trial, credentials):
    findings = await trial(credentials("other.example.org").load()).run(there.as_peer())
    assert (
        f"is for other.example.org, and not for {HERE}, so that peers must be told these names"
        in findings[0].told
    )
    (found,) = wrong(findings).values()
    assert found == (
        "it knows no peer with our certificate, which is for other.example.org; its operator must add us: "
        f"send them what this prints: sydentish peers show {HERE}"
    )


@pytest_twisted.ensureDeferred
async def test_our_authority_is_not_trusted_there(there, trial, credentials, stranger, authority):
    tls = credentials(certificate=stranger.issue(HERE), trusts=authority).load()
    (found,) = wrong(await trial(tls).run(there.as_peer())).values()
    assert found == (
        "it does not accept our certificate: it is not from an authority that is trusted there; its operator must "
        "trust the authority of our certificate: send them its certificate"
    )


@pytest_twisted.ensureDeferred
async def test_our_certificate_is_not_one_for_clients(there, trial, credentials, authority):
    certificate = for_usages(authority, HERE, [ExtendedKeyUsageOID.SERVER_AUTH])
    (found,) = wrong(await trial(credentials(certificate=certificate).load()).run(there.as_peer())).values()
    assert found.endswith("get a certificate that is also one for clients")


@pytest_twisted.ensureDeferred
async def test_its_certificate_is_somebody_elses(there, trial):
    findings = await trial().run(there.as_peer(names=("more.example.org",)))
    assert told(findings)[1:] == [("ok", "connection"), ("failed", "its certificate")]
    found = wrong(findings)["its certificate"]
    assert found.startswith(
        f"its certificate is for {THERE}, not for more.example.org; is that its server name, and its URL?"
    )


@pytest_twisted.ensureDeferred
async def test_its_authority_is_not_trusted_here(there, trial, credentials, authority, stranger):
    tls = credentials(certificate=authority.issue(HERE), trusts=stranger).load()
    (found,) = wrong(await trial(tls).run(there.as_peer())).values()
    assert found.endswith(
        "is not from an authority that is trusted here; is that its replication listener, with no proxy in between? "
        "Then add its authority to the file of [replication] ca_file, and restart the server"
    )


@pytest_twisted.ensureDeferred
async def test_its_certificate_has_expired(tmp_path, trial, start_peer, credentials, authority):
    before = datetime.now(UTC) - timedelta(days=1)
    server = await start_peer(credentials(certificate=authority.issue(THERE, not_after=before)).load())
    (found,) = wrong(await trial().run(server.peer())).values()
    assert found == "its certificate has expired; its operator must renew it"


# --- on the way -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nobody_listens(trial, start_peer):
    server = await start_peer()
    peer = server.peer()
    await server.stop()
    findings = await trial().run(peer)
    assert told(findings) == [("ok", "our certificate"), ("failed", "connection")]
    assert wrong(findings)["connection"].startswith(
        f"connection refused at {peer.url}; check its URL, that it runs"
    )


@pytest_twisted.ensureDeferred
async def test_its_name_has_no_address(trial):
    peer = Peer(THERE, "https://there.invalid:4434", {}, (THERE,))
    (found,) = wrong(await trial().run(peer)).values()
    assert (
        found
        == "its name cannot be resolved at https://there.invalid:4434; check its URL, and that its name has an address"
    )


class Plain(Protocol):
    """Says something at once that is no TLS, or nothing at all."""

    def __init__(self, first, gone):
        self._first, self._gone = first, gone

    def connectionMade(self):
        self.transport.write(self._first)

    def connectionLost(self, reason=None):
        self._gone.callback(None)


@pytest.mark.parametrize(
    ("first", "told_of_it"),
    [
        (
            b"SSH-2.0-x\r\n",
            "it does not speak TLS; check its URL: is that the port of its replication listener?",
        ),
        (
            b"",
            "no answer in time at {url}; check its URL (the port must be that of its replication listener), that it runs, and the firewalls",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_it_is_not_tls(trial, first, told_of_it):
    gone = Deferred()
    factory = Factory.forProtocol(lambda: Plain(first, gone))
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    peer = Peer(THERE, f"https://127.0.0.1:{port.getHost().port}", {}, (THERE,))
    (found,) = wrong(await trial(time_limit=10 if first else 0.2).run(peer)).values()
    await gone
    await port.stopListening()
    assert found == told_of_it.format(url=peer.url)


@pytest_twisted.ensureDeferred
async def test_it_closes_without_an_answer(trial, start_peer):
    server = await start_peer()
    server.behaviour = close
    findings = await trial().run(server.peer())
    assert told(findings)[1:] == [("ok", "connection"), ("ok", "its certificate"), ("failed", "answer")]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answer(500), "HTTP 500"),
        (error(404, "M_UNRECOGNIZED"), "HTTP 404 M_UNRECOGNIZED"),
        (answer(200, b"<html>It works!</html>"), "HTTP 200, but its body is not that of a success"),
        (answer(204), "HTTP 204"),
        (PAGE, "HTTP 404"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_it_is_another_program(trial, start_peer, behaviour, reason):
    server = await start_peer()
    server.behaviour = behaviour
    (found,) = wrong(await trial().run(server.peer())).values()
    assert (
        found
        == f"{reason}; check its URL: is that the port of its replication listener? Else look into the log there"
    )


# --- names and keys ---------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_it_takes_us_for_somebody_else(there, trial):
    await there.knows(Peer("aaa.example.org", "https://a.example.org", {}, (HERE,)))
    await there.knows(Peer(HERE, "https://here.example.org", public(US), ("old.example.org",)))
    found = wrong(await trial().run(there.as_peer()))
    assert found["known there"].startswith(
        "it takes us for aaa.example.org, by our certificate; its operator must"
    )


@pytest_twisted.ensureDeferred
async def test_it_has_another_key_of_ours(there, trial):
    keys = ring(HERE, 7)
    (found,) = wrong(await trial(keys=keys).run(there.as_peer())).values()
    assert found == (
        f"for it, what we sign has a wrong signature of {HERE}; the operator of {THERE} must have this key of ours: "
        f"ed25519:0 {keys.active.public_key}"
    )


@pytest_twisted.ensureDeferred
async def test_our_key_was_rotated(there, trial):
    (found,) = wrong(await trial(keys=ring(HERE, 1, version="1")).run(there.as_peer())).values()
    assert found.startswith(
        f"for it, what we sign is signed by {HERE} with none of the keys that are known of it; "
    )


@pytest_twisted.ensureDeferred
async def test_we_have_another_key_of_its(there, trial):
    (found,) = wrong(await trial().run(there.as_peer(keys=public(ring(THERE, 9))))).values()
    assert found.startswith(
        f"what it answers has a wrong signature of {THERE}; ask its operator for its name and its"
    )


@pytest_twisted.ensureDeferred
async def test_it_has_another_name(tmp_path, trial, credentials):
    node = Node(tmp_path, "renamed.example.org", 2)
    await node.start()
    await node.knows(Peer(HERE, "https://here.example.org", public(US), (HERE,)))
    await node.listen(credentials(THERE).load())
    try:
        peer = Peer(THERE, f"https://127.0.0.1:{node.port_number}", public(node.keys), (THERE,))
        (found,) = wrong(await trial().run(peer)).values()
    finally:
        await node.stop()
    assert found.startswith(
        f"what it answers is not signed by {THERE}, and calls itself renamed.example.org; "
    )


@pytest_twisted.ensureDeferred
async def test_what_it_says_of_itself_is_fit_to_be_shown(trial, start_peer):
    server = await start_peer()
    server.behaviour = answer(
        200, {"server_name": "\x1b[2J\n" + "x" * 1000, "peer": ["\x1b"], "signature": None, "ts": "now"}
    )
    findings = await trial().run(server.peer())
    assert told(findings)[3:] == [
        ("failed", "known there"),
        ("failed", "our key"),
        ("failed", "its key"),
        ("failed", "clock"),
    ]
    assert all(each.told.isprintable() and len(each.told) < 400 for each in findings)


# --- clocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "told_of_it"),
    [
        (MAX_FUTURE_MS, None),
        (-MAX_FUTURE_MS, None),
        (
            MAX_FUTURE_MS + 1000,
            "its clock is 301 s ahead of ours: beyond 300 s, what it states is refused here",
        ),
        (
            -MAX_FUTURE_MS - 1000,
            "its clock is 301 s behind ours: beyond 300 s, what we state is refused there",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_clocks_are_compared(there, trial, ahead, told_of_it):
    there.now_ms.ms += ahead
    findings = await trial().run(there.as_peer())
    assert findings[-1].ok is (told_of_it is None)
    if told_of_it is not None:
        assert findings[-1].told == told_of_it
        assert findings[-1].remedy == "set the clocks of both servers by NTP"


# --- a Sydent ---------------------------------------------------------------------------------------------


def like_a_sydent(push):
    """Knows pushes only."""

    def respond(request):
        behaviour = push if request.uri.decode() == PUSH_PATH else PAGE
        behaviour(request)

    return respond


DATE = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}  # START_MS


@pytest_twisted.ensureDeferred
async def test_a_sydent_that_is_well(trial, start_peer):
    server = await start_peer()
    server.behaviour = like_a_sydent(answer(200, {"success": True}, DATE))
    findings = await trial().run(server.peer())
    assert wrong(findings) == {}
    assert [each.told for each in findings[3:]] == [
        "it is probably a Sydent: keys cannot be tried with it",
        "it knows us by our certificate",
        f"we sign with ed25519:0, as a Sydent needs it; its operator must have {US.active.public_key}",
        "its clock is 0 s ahead of ours",
    ]
    assert [(sent.target, sent.body) for sent in server.arrivals if sent.target != CHECK_PATH] == [
        (PUSH_PATH, b'{"sgAssocs":{}}')
    ]


@pytest_twisted.ensureDeferred
async def test_a_sydent_that_does_not_know_us(trial, start_peer):
    server = await start_peer()
    server.behaviour = like_a_sydent(error(403, "M_UNKNOWN_PEER"))
    (found,) = wrong(await trial().run(server.peer())).values()
    assert found.startswith(
        f"it knows no peer with our certificate, which is for {HERE}; its operator must add us"
    )


@pytest_twisted.ensureDeferred
async def test_a_sydent_takes_no_other_key_than_the_first(trial, start_peer):
    server = await start_peer()
    server.behaviour = like_a_sydent(answer(200, {"success": True}, {"Date": "never"}))
    found = wrong(await trial(keys=ring(HERE, 1, version="1")).run(server.peer()))
    assert found == {
        "our key": "a Sydent knows our key as ed25519:0 only, but we sign with ed25519:1; it takes nothing before "
        "ed25519:0 is active",
        "clock": "it does not tell its time; compare the clocks yourself",
    }


@pytest_twisted.ensureDeferred
async def test_a_sydent_with_another_clock(trial, start_peer):
    server = await start_peer()
    server.behaviour = like_a_sydent(
        answer(200, {"success": True}, {"Date": "Tue, 14 Nov 2023 21:13:20 GMT"})
    )
    (found,) = wrong(await trial().run(server.peer())).values()
    assert found.startswith("its clock is 3600 s behind ours: beyond 300 s, what we state is refused there; ")
