"""The peers of a server: who is recognised, and what becomes of those of the configuration."""

import pytest
import pytest_twisted
from replication.mesh import (
    A,
    AnsweringLink,
    B,
    C,
    Mesh,
    RefusingDatabase,
    WrittenLog,
    peer,
    ring,
)
from store_tools import START_MS, Watch, WatchedDatabase
from twisted.logger import LogLevel, globalLogPublisher

from sydentish.domain.errors import Busy, UnknownPeer
from sydentish.replication.peers import Peers
from sydentish.store import peers as peer_rows


class Directory:
    """The peers of a server on a real database."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.known = Watch()
        self.made = []

    def start(self, *configured, db=None):
        peers = Peers(
            db=db or self.mesh.db,
            configured=configured,
            clock=self.mesh.clock,
            on_known=self.known,
            now_ms=self.mesh.clock.now_ms,
        )
        peers.startService()
        self.made.append(peers)
        return peers

    async def started(self, *configured):
        """Peers, as soon as those of the configuration are known and warned of."""
        peers = self.start(*configured)
        await self.known.count(len(self.known.seen) + 1)
        return peers

    async def states(self):
        found = await self.mesh.engine.read(peer_rows.states)
        return {state.peer.name: state for state in found}


@pytest_twisted.async_yield_fixture
async def directory(tmp_path):
    directory = Directory(Mesh(tmp_path / "sydentish.db"))
    yield directory
    for peers in directory.made:
        await peers.stopService()
    await directory.mesh.close()


@pytest.fixture
def log():
    written = WrittenLog()
    globalLogPublisher.addObserver(written)
    yield written
    globalLogPublisher.removeObserver(written)


def warnings(log):
    return [
        event["log_format"].format(**event)
        for event in log.events
        if event.get("log_namespace") == "sydentish.replication.peers" and event["log_level"] == LogLevel.warn
    ]


# --- recognition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((A,), A),
        (("replication.b.example.net",), B),
        (("192.0.2.1",), B),
        (("2001:db8::1",), B),
        (("unknown.example.net", A), A),
        # The most telling name is the first, and it counts.
        ((A, "192.0.2.1"), A),
        (("192.0.2.1", A), B),
        (("unknown.example.net", "192.0.2.1", A), B),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_peer_is_recognised_by_the_first_name_that_is_known(directory, names, expected):
    other = peer(B, certificate_names=("replication.b.example.net", "192.0.2.1", "2001:db8::1"))
    peers = await directory.started(peer(A), other)
    assert await peers.peer_of(names) == expected


@pytest.mark.parametrize(
    "names", [(), ("unknown.example.net",), (B,), (f"x.{A}",), (A.upper(),), ("*.example.net",), ("",)]
)
@pytest_twisted.ensureDeferred
async def test_others_are_nobody(directory, names):
    peers = await directory.started(peer(A), peer(B, certificate_names=("replication.b.example.net",)))
    with pytest.raises(UnknownPeer):
        await peers.peer_of(names)


@pytest_twisted.ensureDeferred
async def test_without_peers_everybody_is_nobody(directory):
    peers = await directory.started()
    with pytest.raises(UnknownPeer):
        await peers.peer_of((A,))


@pytest_twisted.ensureDeferred
async def test_who_is_refused_stands_in_the_log_and_not_in_the_answer(directory, log):
    peers = await directory.started()
    with pytest.raises(UnknownPeer) as caught:
        await peers.peer_of(("odd.example.net", "192.0.2.7"))
    assert "odd.example.net" not in caught.value.message
    with pytest.raises(UnknownPeer):
        await peers.peer_of(())
    first, second = warnings(log)
    assert "odd.example.net, 192.0.2.7" in first
    assert "a certificate for nobody" in second


@pytest_twisted.ensureDeferred
async def test_an_address_in_a_certificate_does_not_reach_the_log(directory, log):
    peers = await directory.started()
    for name in ("canary@example.org", "mail canary@example.org now", "+44 7700 900123"):
        with pytest.raises(UnknownPeer):
            await peers.peer_of((name, "odd.example.net"))
    assert log.text.count("odd.example.net") == 3
    assert "canary" not in log.text
    assert "900123" not in log.text


@pytest_twisted.ensureDeferred
async def test_a_certificate_cannot_write_lines_of_its_own_into_the_log(directory, log):
    peers = await directory.started()
    with pytest.raises(UnknownPeer):
        await peers.peer_of(("odd\nERROR all is lost\r\x1b[31m",))
    (line, *rest) = [each for each in log.text.splitlines() if "odd" in each or "lost" in each]
    assert "WARN" in line
    assert all(each.startswith("    ") for each in rest)
    assert "\x1b" not in log.text


@pytest_twisted.ensureDeferred
async def test_a_peer_that_a_command_has_added_is_known_at_once_until_it_is_removed(directory):
    peers = await directory.started(peer(A))
    await directory.mesh.engine.write(peer_rows.add, peer(B), START_MS)
    assert await peers.peer_of((B,)) == B
    await directory.mesh.engine.write(peer_rows.remove, B)
    with pytest.raises(UnknownPeer):
        await peers.peer_of((B,))


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_paused_is_recognised(directory):
    peers = await directory.started(peer(A))
    await directory.mesh.engine.write(peer_rows.pause, A, paused=True)
    assert await peers.peer_of((A,)) == A


@pytest_twisted.ensureDeferred
async def test_a_database_that_is_busy_makes_nobody_unknown(directory):
    peers = await directory.started(peer(A))
    directory.mesh.db.refuse_reads = 1
    with pytest.raises(Busy):
        await peers.peer_of((A,))
    assert await peers.peer_of((A,)) == A


# --- the configuration ---------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_those_of_the_configuration_are_noted_at_the_start(directory, log):
    await directory.started(peer(A), peer(B))
    states = await directory.states()
    assert {name: (state.peer, state.source, state.since_ts) for name, state in states.items()} == {
        name: (peer(name), "configuration", START_MS) for name in (A, B)
    }
    assert directory.known.seen == [None]
    assert warnings(log) == []


@pytest_twisted.ensureDeferred
async def test_a_restart_changes_what_is_known_of_a_peer_and_not_how_it_fares(directory):
    await directory.started(peer(A))
    await directory.mesh.engine.write(
        lambda tx: tx.run("UPDATE peers SET acknowledged_id = 17, failures = 3, retry_ts = 99, paused = 1")
    )
    directory.mesh.clock.advance(1000)
    changed = peer(A, ring(A, seed=9), ("moved.example.net",))
    peers = await directory.started(changed)
    state = (await directory.states())[A]
    assert state.peer == changed
    # One that has failed is tried at once.
    assert (state.acknowledged_id, state.failures, state.retry_ts) == (17, 3, 0)
    assert (state.paused, state.since_ts) == (True, START_MS)
    assert await peers.peer_of(("moved.example.net",)) == A
    with pytest.raises(UnknownPeer):
        await peers.peer_of((A,))


@pytest_twisted.ensureDeferred
async def test_one_that_is_no_longer_in_the_configuration_is_left_alone_and_warned_of(directory, log):
    await directory.started(peer(A), peer(B))
    peers = await directory.started(peer(A))
    assert {name: state.source for name, state in (await directory.states()).items()} == {
        A: "configuration",
        B: "gone",
    }
    with pytest.raises(UnknownPeer):
        await peers.peer_of((B,))
    assert await peers.peer_of((A,)) == A
    (warning, _) = warnings(log)
    assert f"sydentish peers remove {B}" in warning


@pytest_twisted.ensureDeferred
async def test_one_that_comes_back_into_the_configuration_is_what_it_was(directory, log):
    await directory.started(peer(A))
    await directory.mesh.engine.write(lambda tx: tx.run("UPDATE peers SET acknowledged_id = 17"))
    await directory.started()
    peers = await directory.started(peer(A))
    assert await peers.peer_of((A,)) == A
    assert (await directory.states())[A].acknowledged_id == 17
    assert len(warnings(log)) == 1


@pytest_twisted.ensureDeferred
async def test_one_that_a_command_has_added_needs_no_configuration(directory, log):
    await directory.mesh.add_peers(C)
    peers = await directory.started(peer(A))
    assert await peers.peer_of((C,)) == C
    assert (await directory.states())[C].source == "command"
    assert warnings(log) == []


@pytest_twisted.ensureDeferred
async def test_the_pusher_greets_all_of_them_when_they_are_known(directory):
    link = AnsweringLink()
    pusher = directory.mesh.start(link)
    await directory.mesh.settled()
    peers = Peers(
        db=directory.mesh.db,
        configured=[peer(A), peer(B)],
        clock=directory.mesh.clock,
        on_known=pusher.greet,
        now_ms=directory.mesh.clock.now_ms,
    )
    peers.startService()
    await link.arrived.count(2)
    await directory.mesh.settled()
    assert sorted(pushed.peer for pushed in link.seen) == [A, B]
    assert directory.mesh.clock.seconds() == START_MS / 1000
    await peers.stopService()


# --- a database that is busy at the start --------------------------------------------------------------


class Told(WatchedDatabase):
    """Tells when a call of it is answered, whatever the answer."""

    def __init__(self, db):
        super().__init__(db)
        self.answered = Watch()

    def _tell(self, answer):
        self.answered()
        return answer

    def write(self, fn, *args, **kwargs):
        return super().write(fn, *args, **kwargs).addBoth(self._tell)

    def read(self, fn, *args, **kwargs):
        return super().read(fn, *args, **kwargs).addBoth(self._tell)


@pytest.mark.parametrize("skip", [0, 1], ids=["at once", "later"])
@pytest_twisted.ensureDeferred
async def test_peers_of_the_last_start_are_known_though_those_of_now_cannot_be_noted(directory, log, skip):
    await directory.started(peer(A))
    db = RefusingDatabase(directory.mesh.engine, lambda call: call == 1 + skip)
    for _ in range(skip):
        await db.read(lambda _tx: None)
    peers = directory.start(peer(A), peer(B), db=db)
    await directory.mesh.settled()
    (failure,) = [event for event in log.events if "log_failure" in event]
    assert failure["log_failure"].check(Busy)
    assert "the peers of the configuration could not be noted" in failure["log_format"]
    assert await peers.peer_of((A,)) == A
    assert B not in await directory.states()
    # It is tried again, until it is done.
    known = len(directory.known.seen)
    directory.mesh.clock.advance(60)
    await directory.known.count(known + 1)
    assert await peers.peer_of((B,)) == B


@pytest_twisted.ensureDeferred
async def test_peers_that_stop_while_they_are_noted_harm_nothing(directory):
    db = Told(directory.mesh.engine)
    peers = directory.start(peer(A), db=db)
    await peers.stopService()
    await directory.mesh.settled()
    # What was asked of the database is done all the same, and nobody is told.
    assert list(await directory.states()) == [A]
    assert directory.known.seen == []


@pytest_twisted.ensureDeferred
async def test_peers_that_stop_while_they_wait_for_another_try_wait_no_longer(directory):
    db = RefusingDatabase(directory.mesh.engine, lambda _call: True)
    peers = directory.start(peer(A), db=db)
    await directory.mesh.settled()
    assert directory.mesh.clock.getDelayedCalls()
    await peers.stopService()
    assert not directory.mesh.clock.getDelayedCalls()
