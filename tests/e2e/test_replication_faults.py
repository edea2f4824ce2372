"""Peers that die, misbehave, live in another time or are somebody else: nothing is lost, doubled or believed."""

import signal
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_twisted
from daemons import SECONDS
from e2e.mesh import ELSEWHERE, A, B, C, Line, Mesh, eventually, people, side_by_side
from OpenSSL import SSL
from standins.certificates import Authority, ServerCertificate
from standins.peer import BEHAVIOURS, Peer
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.web.client import ResponseNeverReceived

ALICE, BOB = f"@alice:{ELSEWHERE}", f"@bob:{ELSEWHERE}"
HOUR = 3600
SMALL_BATCHES = "[replication]\nbatch_size = 50\n"
# A killed process holds a peer up for so long, and 5 s.
IMPATIENT = "[replication]\ntimeout = 1s\n"
PATIENT = "[replication]\ntimeout = 60s\n"
# More than all that is said before a push, and less than a push of hundreds.
BEGUN = 20_000


@pytest_twisted.async_yield_fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path, Authority(), [])
    yield mesh
    await mesh.clean_up()


@pytest_twisted.async_yield_fixture
async def line_to():
    """Leads lines to servers."""
    lines = []

    def lead(member):
        lines.append(Line(member.replication_port))
        lines[-1].join()
        return lines[-1]

    yield lead
    await side_by_side(*(line.cut() for line in lines))


@pytest_twisted.async_yield_fixture
async def stand_in(mesh):
    """Starts stand-in peers."""
    started = []

    def start(name, port=0, **options):
        peer = Peer(name, options.pop("authority", mesh.authority), **options)
        peer.start(reactor, port)
        started.append(peer)
        return peer

    yield start
    await side_by_side(*(peer.stop() for peer in started))


def now_ms():
    return int(reactor.seconds() * 1000)


def told_once(member, owners):
    """Whether a server knows just these associations, each of them once."""
    known = member.known()
    assert {address: mxid for *_, address, mxid in known} == owners
    assert len({(origin, number) for origin, number, *_ in known}) == len(known) == len(owners)
    return True


async def mid_push(mesh, line_to):
    """Three servers, of which one is in the middle of pushing: half of it to one, and to the other all but its answer."""
    a, b, c = (mesh.add(name, IMPATIENT) for name in (A, B, C))
    to_b, to_c = line_to(b), line_to(c)
    a.knows(b, at=to_b.url)
    a.knows(c, at=to_c.url)
    b.knows(a, c)
    c.knows(a, b)
    await mesh.start()
    await mesh.agree()
    to_b.hold(BEGUN)
    to_c.hold(BEGUN, answers=True)
    await a.bind_all(people(1200))
    await gatherResults([to_b.held, to_c.held]).addTimeout(SECONDS, reactor)
    assert b.number_from(A) == 0
    assert 0 < c.number_from(A) < 1200
    assert a.lag(C) == 1200
    return a, b, c, to_b, to_c


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_killed_while_it_pushes_pushes_again_when_it_is_back(mesh, line_to):
    a, b, c, to_b, to_c = await mid_push(mesh, line_to)
    await a.end(signal.SIGKILL)
    to_b.release()
    to_c.release()
    await b.bind("meanwhile@example.org", ALICE)
    await a.start()
    await mesh.agree()
    for member in (a, b, c):
        assert told_once(member, people(1200) | {"meanwhile@example.org": ALICE})


@pytest_twisted.ensureDeferred
async def test_servers_that_are_killed_while_they_are_pushed_to_are_pushed_to_again(mesh, line_to):
    a, b, c, to_b, to_c = await mid_push(mesh, line_to)
    await side_by_side(b.end(signal.SIGKILL), c.end(signal.SIGKILL))
    to_b.release()
    to_c.release()
    await a.bind("meanwhile@example.org", ALICE)
    await mesh.start(b, c)
    await mesh.agree()
    for member in (a, b, c):
        assert told_once(member, people(1200) | {"meanwhile@example.org": ALICE})


@pytest_twisted.ensureDeferred
async def test_a_server_may_be_killed_at_any_moment_of_many_pushes(mesh):
    a, b = mesh.of(A, B, sections=[SMALL_BATCHES])
    await mesh.start()
    await a.bind_all(people(2000))
    for number in (50, 500):
        await b.has_from(A, number)
        await b.end(signal.SIGKILL)
        await b.start()
    await mesh.agree()
    assert told_once(b, people(2000))


REASONS = {
    "500": "HTTP 500 M_UNKNOWN",
    "rubbish": "no usable answer",
    "close": "it closed the connection before it had answered",
}


@pytest_twisted.ensureDeferred
async def test_peers_that_misbehave_are_left_alone_and_hold_up_nobody(mesh, stand_in):
    a, b = mesh.of(A, B, sections=[PATIENT])
    # Each has a stand-in in its place at first, but for the one where nobody takes what is connected.
    members = {how: mesh.add(f"{how}.example.org") for how in (*BEHAVIOURS, "slow", "deaf")}
    others = {}
    for how, member in members.items():
        a.knows(member)
        member.knows(a)
        if how != "deaf":
            others[how] = stand_in(member.name, member.replication_port)
            others[how].always = BEHAVIOURS.get(how)
    others["slow"].delay = 0.3
    with socket.create_server(("127.0.0.1", members["deaf"].replication_port)):
        await mesh.start(a, b)
        await a.bind_all(people(1500))
        await mesh.agree(a, b)
        # While the other one has all, these have not even answered the first push.
        assert [a.peer(members[how].name)["failures"] for how in ("silence", "deaf")] == [0, 0]
        assert len(others["silence"].requests) == 1
        for how, reason in REASONS.items():
            await a.process.says(f"a push to {members[how].name} failed: {reason}")

        # That they are left alone outlives the process.
        assert await a.end() == 0
        before = {how: a.peer(members[how].name) for how in REASONS}
        await a.start()
        await a.bind("late@example.org", ALICE)
        await b.comes_to_know("late@example.org", ALICE)
        await eventually(lambda: taken(others["slow"], 1501), a.last_words)
        for how, state in before.items():
            now = a.peer(members[how].name)
            assert state["acknowledged_id"] == now["acknowledged_id"] == 0
            assert now["failures"] >= state["failures"] > 0
            assert now["failing_since_ts"] == state["failing_since_ts"]
            assert (
                now["retry_ts"] == 0 or now["retry_ts"] > now["last_failure_ts"] >= state["last_failure_ts"]
            )
            assert now["last_failure"].startswith(REASONS[how])
        assert a.peer(members["slow"].name)["failures"] == 0

    await side_by_side(*(peer.stop() for peer in others.values()))
    replaced = [members[how] for how in ("silence", "close", "deaf")]
    await mesh.start(*replaced)
    for member in replaced:
        await mesh.agree(a, member)
        assert told_once(member, people(1500) | {"late@example.org": ALICE})


async def taken(peer, number):
    """Whether a stand-in has so many statements."""
    return len(peer.statements) == number


@pytest_twisted.ensureDeferred
async def test_what_a_server_in_the_future_states_waits_until_it_is_no_longer_future(mesh):
    a, b = mesh.of(A, B)
    a.live_in(HOUR)
    await mesh.start()
    await a.bind("tomorrow@example.org", ALICE)
    await a.process.says(f"a push to {B} failed: Nothing was taken because of 1 of 1 statements; 1: is dated")
    await b.process.says(f"a push of {A} was refused because of 1 of 1 statements; 1: is dated")
    await b.bind("today@example.org", BOB)
    await a.comes_to_know("today@example.org", BOB)
    assert await b.owner("tomorrow@example.org") is None
    assert a.lag(B) == 1
    assert await a.figure("sydentish_replication_pushes_total", outcome="refused", peer=B) >= 1

    await b.end()
    b.configure("[replication]\nmax_future = 2h")
    await b.start()
    await mesh.agree()
    assert await b.owner("tomorrow@example.org") == ALICE


@pytest_twisted.ensureDeferred
async def test_one_statement_from_the_future_has_nothing_of_its_push_taken(mesh, stand_in):
    (a,) = mesh.of(A)
    peer = stand_in(B)
    a.knows(peer)
    await a.start()
    early, late = now_ms() + 60_000, now_ms() + HOUR * 1000
    both = {7: peer.states("soon@example.org", BOB, early), 8: peer.states("later@example.org", BOB, late)}
    status, refused = await peer.push(reactor, a.replication_url, both)
    assert (status, refused["errcode"], refused["failed_ids"]) == (400, "M_VERIFICATION_FAILED", ["8"])
    assert a.known() == []
    assert await peer.push(reactor, a.replication_url, {7: both[7]}) == (200, {"success": True})
    assert await a.owner("soon@example.org") == BOB


@pytest_twisted.ensureDeferred
async def test_who_binds_later_wins_also_by_a_clock_that_is_behind(mesh):
    a, b = mesh.of(A, B)
    b.live_in(-HOUR)
    a.configure("[replication]\nmax_future = 1h")
    b.configure("[replication]\nmax_future = 2h")
    await mesh.start()
    for address in ("rebound@example.org", "unbound@example.org"):
        await a.bind(address, ALICE)
        await b.comes_to_know(address, ALICE)
    await b.bind("rebound@example.org", BOB)
    await b.unbind("unbound@example.org", ALICE)
    await a.comes_to_know("rebound@example.org", BOB)
    await a.comes_to_know("unbound@example.org", None)
    await mesh.agree()


@dataclass
class Wrong:
    """A certificate that is no good, and what is said of it: by who shows it, and by who sees it."""

    certificate: ServerCertificate
    shown: str
    seen: str
    kind: str = "certificate"


def wrong_certificates(authority):
    """By the names of the servers that show them."""
    mallory, yesterday = "mallory.example.org", datetime.now(tz=UTC) - timedelta(days=1)
    named, foreign, expired = "named.example.org", "foreign.example.org", "expired.example.org"
    return {
        named: Wrong(
            authority.issue("localhost", common_name=mallory),
            f"it knows no peer with our certificate, which is for localhost, {mallory}",
            f"its certificate is for localhost, {mallory}, not for {named}",
            "unknown_peer",
        ),
        foreign: Wrong(
            Authority().issue("localhost", common_name=foreign),
            "it does not accept our certificate: it is not from an authority that is trusted there",
            "its certificate is not from an authority that is trusted here",
        ),
        expired: Wrong(
            authority.issue("localhost", common_name=expired, not_after=yesterday),
            "it does not accept our certificate: it has expired",
            "its certificate has expired",
        ),
    }


@pytest_twisted.ensureDeferred
async def test_servers_with_wrong_certificates_are_refused_on_both_ways_until_they_have_the_right_ones(mesh):
    b = mesh.add(B)
    found = {mesh.add(name): wrong for name, wrong in wrong_certificates(mesh.authority).items()}
    for member, wrong in found.items():
        b.knows(member)
        member.knows(b)
        member.shows(wrong.certificate)
    await mesh.start()
    await b.bind("bob@example.org", BOB)
    for member, wrong in found.items():
        await member.bind(f"alice@{member.name}", ALICE)
        await member.process.says(f"a push to {B} failed: {wrong.shown}")
        await b.process.says(f"a push to {member.name} failed: {wrong.seen}")
        assert await member.figure("sydentish_replication_pushes_total", outcome=wrong.kind, peer=B) >= 1
        assert [address for *_, address, _ in member.known()] == [f"alice@{member.name}"]
    await b.process.says(
        "a server with a certificate for localhost, mallory.example.org was refused: it is no peer"
    )
    assert [address for *_, address, _ in b.known()] == ["bob@example.org"]

    await side_by_side(*(mended(mesh, member) for member in found))
    for member in found:
        await mesh.exchange(b, member)
    assert told_once(b, {f"alice@{member.name}": ALICE for member in found} | {"bob@example.org": BOB})


async def mended(mesh, member):
    """Gives a server the certificate that it should have."""
    assert await member.end() == 0
    member.shows(mesh.authority.issue("localhost", common_name=member.name))
    await member.start()


@pytest_twisted.ensureDeferred
async def test_nobody_but_a_peer_is_listened_to(mesh, stand_in):
    _, b = mesh.of(A, B)
    await b.start()
    statement = {1: {"medium": "email"}}
    stranger = stand_in("mallory.example.org")
    status, refused = await stranger.push(
        reactor, b.replication_url, {1: stranger.states("x@example.org", BOB, 1)}
    )
    assert (status, refused["errcode"]) == (403, "M_UNKNOWN_PEER")
    await b.process.says("mallory.example.org was refused: it is no peer")
    # With the certificate of A, but not its key.
    thief = stand_in("thief.example.org", certificate=mesh.authority.issue(A))
    thief.name = A
    status, refused = await thief.push(reactor, b.replication_url, {1: thief.states("x@example.org", BOB, 1)})
    assert (status, refused["failed_ids"]) == (400, ["1"])
    impostor = stand_in(A, authority=Authority())
    for peer, bare in ((impostor, False), (stranger, True)):
        with pytest.raises(ResponseNeverReceived) as raised:
            await peer.push(reactor, b.replication_url, statement, bare=bare)
        assert raised.value.reasons[0].check(SSL.Error)
    assert b.known() == []
    assert await b.owner("x@example.org") is None
