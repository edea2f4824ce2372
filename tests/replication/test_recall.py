"""Asking peers back after a server was set back to a copy of its database."""

import shutil
import tempfile
from contextlib import ExitStack, closing, contextmanager
from itertools import combinations
from pathlib import Path

import orjson
import pytest
import pytest_twisted
from fixtures import DAY_MS
from hypothesis import given, settings
from hypothesis import strategies as st
from replication.listening_peer import make_receiver, public, ring, start_here, start_there
from replication.mutual import HERE, THERE
from standins.behaviours import answer, close, error
from store_tools import START_MS, InlineDatabase, address, at_once, contents, rows

from sydentish.actions.statements import Statements
from sydentish.domain.associations import Association
from sydentish.domain.errors import UnknownPeer
from sydentish.domain.peers import LOG_PATH, MOST_RECALLED, RECALL_PATH, UNBOUND_PATH, Peer
from sydentish.domain.signatures import canonical
from sydentish.domain.statements import MAX_ORIGIN_ID, Order, Tombstone
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.replication.link import Answer, LinkFailed
from sydentish.replication.recall import Recall
from sydentish.replication.recalled import HIGHEST_ID, Recalled, read_page, read_unbound
from sydentish.store import associations as association_rows
from sydentish.store import counters, recalls
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.copies import copy_pages, snapshot
from sydentish.store.counters import JUMP, STATEMENT, raise_to
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.restoring import adapt, put_in_place
from sydentish.store.sqlite import SqliteTx, connect

NAMES = ["a.example.org", "b.example.org", "c.example.org"]
USERS = ["@alice:hs.example.org", "@bob:hs.example.org"]
ADDRESSES = [Threepid(EMAIL, f"{name}@example.org") for name in ("first", "second", "third")]
LEASE_MS = 20_000
ANN = "@ann:hs.example.org"
STRANGER = "stranger.example.org"


def quiet(_done, _of):
    pass


def as_peer(name):
    return Peer(name, f"https://{name}", public(ring(name, NAMES.index(name))), (name,))


class Server:
    """An identity server in one thread, that can be set back to a copy of its database."""

    def __init__(self, folder, name, template):
        self.name, self.path, self.copy = name, folder / f"{name}.db", None
        self.now = START_MS
        self.keys = ring(name, NAMES.index(name))
        shutil.copyfile(template, self.path)
        self._open()

    def _open(self):
        self.db = InlineDatabase(self.path)
        self.db.connection.execute("PRAGMA synchronous = OFF")  # nothing is to survive
        self.statements = Statements(
            keys=self.keys, validity_ms=DAY_MS, random_bytes=lambda size: self.name.encode().rjust(size)
        )
        self.receiver = make_receiver(
            self.db,
            self.keys,
            self.statements,
            max_statements=1000,
            max_future_ms=MAX_ORIGIN_ID,
            now_ms=lambda: self.now,
        )

    def do(self, fn, *args):
        return at_once(self._do(fn, *args))

    async def _do(self, fn, *args):
        return await self.db.write(fn, *args)

    def bind(self, threepid, mxid):
        self.do(self.statements.bind, threepid, mxid, self.now)

    def unbind(self, threepid):
        known = self.do(association_rows.association, threepid)
        if known is not None:
            self.do(self.statements.unbind, threepid, known.mxid, self.now)

    def push(self, other, limit, *, answered=True):
        """One push, whose answer may be lost; whether there was anything to push."""
        state = self.do(peer_rows.state, other.name)
        batch = self.do(push_rows.batch, self.name, state, self.now, limit)
        pushed = {str(each.origin_id): self.keys.sign(each.to_json()) for each in batch.statements}
        at_once(other.receiver.receive(self.name, pushed))
        if answered:
            lease = self.do(push_rows.lease, other.name, self.now, LEASE_MS)
            self.do(push_rows.acknowledged, other.name, batch, lease, self.now)
        return batch.moves_on

    def back_up(self, folder):
        self.copy = Path(tempfile.mkdtemp(dir=folder)) / "copy.db"
        with snapshot(self.path, 5000) as connection:
            copy_pages(connection, self.copy, quiet)

    def restore(self, *, after_loss):
        """Set back to its copy; the database that it had may be lost altogether."""
        present = 0 if after_loss else self.do(lambda tx: statement_rows.last_id(tx, self.name))
        self.db.connection.close()
        if after_loss:
            for file in self.path.parent.glob(f"{self.path.name}*"):
                file.unlink()
        copied = InlineDatabase(self.copy)
        at_once(self._adapted(copied, present))
        copied.connection.execute("PRAGMA journal_mode = DELETE")
        copied.connection.close()
        kept = put_in_place(self.copy, self.path, quiet)
        assert (kept is None) is after_loss
        self._open()

    async def _adapted(self, copied, present):
        others = [as_peer(name) for name in NAMES if name != self.name]
        await copied.write(adapt, self.name, others, present, self.now)

    def recall(self, servers, away=(), *, all_addresses=True):
        """Asks the other servers, of which some are away."""
        made = Recall(
            db=self.db,
            keys=self.keys,
            link=Wire(self.name, {each.name: each for each in servers if each.name not in away}),
            taker=self.statements,
            receiver=self.receiver,
            max_future_ms=MAX_ORIGIN_ID,
            now_ms=lambda: self.now,
            all_addresses=all_addresses,
            on_progress=quiet,
        )
        return at_once(made.run())

    def order(self, threepid):
        return self.do(statement_rows.newest, threepid)

    def owner(self, threepid):
        known = self.do(association_rows.association, threepid)
        return known and known.mxid

    def numbers(self):
        """All numbers of its own statements that stand in its database."""
        return self.do(statement_rows.ids_after, self.name, 0, 1000)


class Wire:
    """Asks servers in this thread, as a peer."""

    def __init__(self, caller, servers):
        self.caller = caller
        self.servers = servers

    async def ask(self, peer, path, body):
        if peer.name not in self.servers:
            raise LinkFailed("unreachable", "the connection was refused")
        receiver, asked = self.servers[peer.name].receiver, orjson.loads(body)
        if path == UNBOUND_PATH:
            addresses = [(Threepid(medium, address), ts) for medium, address, ts in asked["addresses"]]
            told = await receiver.unbound(self.caller, addresses)
        else:
            ask = {RECALL_PATH: receiver.recall, LOG_PATH: receiver.log}[path]
            told = await ask(self.caller, int(asked["after"]))
        return Answer(200, orjson.loads(orjson.dumps(told)))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A database as it is when a server starts for the first time."""
    path = tmp_path_factory.mktemp("template") / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    return path


@contextmanager
def three_servers(template):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [Server(folder, name, template) for name in NAMES]
        for one, other in combinations(servers, 2):
            one.do(peer_rows.add, as_peer(other.name), START_MS)
            other.do(peer_rows.add, as_peer(one.name), START_MS)
        servers[0].back_up(folder)
        yield servers
        for server in servers:
            server.db.connection.close()


SERVERS = st.integers(0, 2)
DEEDS = st.one_of(
    st.tuples(st.just("bind"), SERVERS, st.sampled_from(ADDRESSES), st.sampled_from(USERS)),
    st.tuples(st.just("unbind"), SERVERS, st.sampled_from(ADDRESSES)),
    st.tuples(st.just("clock"), SERVERS, st.sampled_from([1, 1000, DAY_MS, -1, -1000, -DAY_MS])),
    st.tuples(st.just("push"), SERVERS, SERVERS, st.integers(1, 3), st.booleans()),
)


def happen(servers, deeds):
    for deed, number, *details in deeds:
        server = servers[number]
        if deed == "bind":
            server.bind(*details)
        elif deed == "unbind":
            server.unbind(*details)
        elif deed == "clock":
            server.now += details[0]
        elif servers[details[0]] is not server:
            other, limit, answered = details
            server.push(servers[other], limit, answered=answered)


def settle(servers):
    # Twice: whoever hears what is outdated by an unbind sends that again.
    for server in servers * 2:
        for other in servers:
            while other is not server and server.push(other, 2):
                pass


def newest(servers):
    """Of each address the newest that anybody knows of it, and to whom it belongs by that."""
    found = {}
    for threepid in ADDRESSES:
        known = [(order, server.owner(threepid)) for server in servers if (order := server.order(threepid))]
        found[threepid] = max(known, default=(None, None))
    return found


@settings(max_examples=100, deadline=None)
@given(
    before=st.lists(DEEDS, max_size=20),
    after=st.lists(DEEDS, max_size=20),
    meanwhile=st.lists(DEEDS, max_size=6),
    after_loss=st.booleans(),
    late=st.lists(st.sampled_from(NAMES[1:]), unique=True, max_size=2),
)
def test_nothing_is_lost_that_one_peer_at_least_knows(  # noqa: PLR0917 - what happens, and when
    template, before, after, meanwhile, after_loss, late
):
    with three_servers(template) as servers:
        restored = servers[0]
        happen(servers, before)
        restored.back_up(restored.path.parent)
        happen(servers, after)
        used = set(restored.numbers())
        restored.restore(after_loss=after_loss)
        expected = newest(servers)
        if late:
            # Some cannot be asked at first; life goes on without them.
            found = restored.recall(servers, away=late)
            assert {each.peer for each in found if each.failure} == set(late)
            happen(servers, meanwhile)
            expected = newest(servers)
        found = restored.recall(servers)
        assert [each.failure for each in found] == [None, None]
        assert [each.foreign for each in found] == [0, 0]
        assert restored.recall(servers) == []
        settle(servers)
        for server in servers:
            assert {each: server.owner(each) for each in ADDRESSES} == {
                each: mxid for each, (_, mxid) in expected.items()
            }
            for threepid, (order, mxid) in expected.items():
                assert not mxid or server.order(threepid) == order
        # No address is left that belongs to nobody.
        for server in servers:
            everything = repr(contents(server.path))
            assert {each for each in ADDRESSES if each.address in everything} == {
                each for each, (_, mxid) in expected.items() if mxid
            }
        # And no number is given out that was ever used.
        restored.now += DAY_MS * 1000
        restored.bind(ADDRESSES[0], ANN)
        assert restored.numbers()[-1] not in used
        settle(servers)
        assert [server.owner(ADDRESSES[0]) for server in servers] == [ANN] * 3


# --- over real mutual TLS ---------------------------------------------------------------------------------


def recalled(**numbers):
    return Recalled(**{"peer": THERE, "peers_id": 0} | numbers)


@pytest_twisted.async_yield_fixture
async def here(tmp_path, quiet_log):
    node = await start_here(tmp_path)
    yield node
    await node.stop()


@pytest_twisted.async_yield_fixture
async def there(tmp_path, here, credentials):
    """A peer of ours, whom we are to ask."""
    node = await start_there(tmp_path, here, credentials(THERE).load())
    await here.db.write(recalls.note, 0)
    yield node
    await node.stop()


@pytest_twisted.async_yield_fixture
async def other(here, start_peer):
    """A peer whose answers a test writes, whom we are to ask."""
    server = await start_peer()
    keys = ring(THERE, 2)
    known = Peer(THERE, f"https://127.0.0.1:{server.port}", public(keys), (THERE,))
    await here.knows(known)
    await here.db.write(recalls.note, 0)
    # As a restored database has it.
    await here.db.write(raise_to, STATEMENT, JUMP)
    yield server


@pytest.fixture
def recall(here, make_link):
    async def run(**options):
        receiver = make_receiver(
            here.db,
            here.keys,
            here.statements,
            max_statements=MOST_RECALLED,
            max_future_ms=1000,
            now_ms=here.now_ms,
        )
        made = Recall(
            **{"db": here.db, "keys": here.keys, "taker": here.statements, "receiver": receiver}
            | {"link": make_link(max_bytes=2**20), "max_future_ms": 1000, "now_ms": here.now_ms}
            | {"on_progress": quiet, "all_addresses": True}
            | options
        )
        return await made.run()

    return run


async def told_there(here, there):
    """The peer is pushed all that we have stated, and notes that."""
    statements = await here.db.read(statement_rows.log_between, HERE, 0, MAX_ORIGIN_ID, 10_000)
    for each in statements:
        signed = canonical(here.keys.sign(each.to_json())).decode()
        await there.db.write(there.statements.take, each, signed, there.now_ms())


async def lose(here):
    """All that it has stated itself is gone."""

    def forget(tx):
        for table in ("associations", "erased_addresses", "tombstones", "lookup_hashes"):
            tx.run(f"DELETE FROM {table}")
        raise_to(tx, STATEMENT, JUMP)

    await here.db.write(forget)


async def bind_all(node, numbers, mxid=ANN):
    def do(tx):
        for number in numbers:
            node.statements.bind(tx, address(number), mxid, node.now_ms())

    await node.db.write(do)


def own_row(here):
    return rows(here.path, "SELECT origin_id, address, mxid, signed FROM associations ORDER BY origin_id")


@pytest_twisted.ensureDeferred
async def test_more_than_one_answer_holds_comes_back_with_its_numbers(here, there, recall):
    await bind_all(here, range(MOST_RECALLED + 20))
    await bind_all(there, range(2000, 2000 + MOST_RECALLED))
    await told_there(here, there)
    before = own_row(here)
    await lose(here)
    heard = []
    found = await recall(on_progress=lambda done, of: heard.append((done, of)))
    assert found == [recalled(binds=MOST_RECALLED + 20, pushed=MOST_RECALLED)]
    # Two of each, and one that shows that there is no more.
    assert heard == [(number, number + 1) for number in range(1, 5)]
    assert [row for row in own_row(here) if row[3] is None] == before
    # The next number is a fresh one, and nobody is asked twice.
    await here.bind(address(5000))
    assert own_row(here)[-1][0] == JUMP + 1
    assert await recall() == []


@pytest_twisted.ensureDeferred
async def test_of_unbinds_the_addresses_are_found_among_those_that_are_bound(here, there, recall):
    await bind_all(here, range(10))
    await told_there(here, there)
    await here.db.write(recalls.done)
    await here.db.write(recalls.note, 10)
    here.now_ms.ms += 1000
    there.now_ms.ms += 2000

    def unbind(tx):
        for number in (3, 4):
            here.statements.unbind(tx, address(number), ANN, here.now_ms())

    # Made here, told there, and forgotten here.
    def undo(tx):
        for number in (3, 4):
            tx.run("DELETE FROM erased_addresses")
            tx.run("DELETE FROM tombstones")
            association_rows.put(tx, kept[number])

    kept = {number: await here.db.read(association_rows.association, address(number)) for number in (3, 4)}
    await here.db.write(unbind)
    await told_there(here, there)
    await here.db.write(undo)
    await there.unbind(address(7))
    # It has no need of the address any more, since there was nobody to be told.
    await there.db.write(lambda tx: tx.run("DELETE FROM tombstones"))
    (found,) = await recall()
    assert (found.unbinds, found.failure) == (3, None)
    assert [row[1] for row in own_row(here)] == [address(number).address for number in (0, 1, 2, 5, 6, 8, 9)]
    # Ours are sent to everybody again, under their numbers.
    assert rows(here.path, "SELECT origin_id, address FROM tombstones ORDER BY origin_id") == [
        (11, address(3).address),
        (12, address(4).address),
    ]


@pytest_twisted.ensureDeferred
async def test_peers_that_were_sent_later_statements_are_sent_what_came_back(here, there, recall):
    await bind_all(here, range(3))
    await told_there(here, there)
    await lose(here)
    await here.db.write(raise_to, STATEMENT, 1000)
    await here.bind(address(9))
    lease = await here.db.write(push_rows.lease, THERE, START_MS, LEASE_MS)
    batch = push_rows.Batch((), 1001, moves_on=True)
    await here.db.write(push_rows.acknowledged, THERE, batch, lease, START_MS)
    assert (await recall())[0].binds == 3
    state = await here.db.read(peer_rows.state, THERE)
    assert state.acknowledged_id == 0
    pushed = await here.db.read(push_rows.batch, HERE, state, START_MS, 100)
    assert [each.origin_id for each in pushed.statements] == [1, 2, 3, JUMP + 1]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_away_has_all_asked_again(here, there, recall):
    await here.knows(Peer("gone.example.org", "https://127.0.0.1:1", public(ring("x", 3)), ("x",)))
    await here.db.write(recalls.note, 0)
    gone, found = await recall()
    assert gone.failure == "connection refused"
    assert found == recalled()
    assert len(await here.db.read(recalls.pending)) == 2
    # Removed, it holds nothing up.
    await here.db.write(peer_rows.remove, "gone.example.org")
    assert await recall() == [recalled()]
    assert await here.db.read(recalls.pending) == []


def test_what_an_earlier_backup_lacks_is_still_asked_for(tmp_path):
    path = tmp_path / "twice.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    with closing(connect(path, 5000)) as connection:
        tx = SqliteTx(connection)
        peer_rows.add(tx, as_peer(NAMES[1]), START_MS)
        adapt(tx, NAMES[0], (), 0, START_MS)
        adapt(tx, NAMES[0], (), 17, START_MS)
        assert [(each.own_id, each.peers_id) for each in recalls.pending(tx)] == [(0, 0)]
        assert counters.value(tx, STATEMENT) == 2 * JUMP


# --- what a peer may ask ------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_peer_is_told_only_what_itself_or_the_one_it_asks_has_stated(here, there):
    third = ring("third.example.org", 3)
    for number, (keys, origin_id) in enumerate([(here.keys, 5), (third, 5)]):
        bound = Association(address(number), ANN, START_MS, 0, START_MS, keys.server_name, origin_id)
        signed = canonical(keys.sign(bound.to_json())).decode()
        await there.db.write(there.statements.take, bound, signed, START_MS)
        gone = Tombstone(address(number + 10), START_MS, keys.server_name, origin_id + 1)
        await there.db.write(there.statements.take, gone, "", START_MS)
    await there.bind(address(20))
    await there.bind(address(21))
    await there.unbind(address(21))
    receiver = there.receiver
    told = await receiver.recall(HERE, 0)
    assert told.keys() == {"sgAssocs", "unbound", "until", "more"}
    assert {number: each["address"] for number, each in told["sgAssocs"].items()} == {"5": address(0).address}
    assert (told["unbound"], told["until"], told["more"]) == ({"6": START_MS}, "6", False)
    assert await receiver.recall(HERE, 6) == {"sgAssocs": {}, "unbound": {}, "until": "6", "more": False}

    told = await receiver.log(HERE, 0)
    assert [(number, each["mxid"]) for number, each in told["sgAssocs"].items()] == [("1", ANN), ("3", None)]
    assert told["unbound"] == {}
    await there.db.write(lambda tx: tx.run("DELETE FROM tombstones"))
    assert (await receiver.log(HERE, 1))["unbound"] == {"3": START_MS + 1}

    # Its own unbinds and the other's, but not those of third ones; not what is bound, or newer than that.
    asked = [(address(number), START_MS) for number in (0, 1, 10, 11, 20, 21, 30)]
    assert await receiver.unbound(HERE, asked) == {
        "unbound": {"2": [START_MS, HERE, "6"], "5": [START_MS + 1, THERE, "3"]}
    }
    assert await receiver.unbound(HERE, [(address(10), START_MS + 1)]) == {"unbound": {}}
    for question in (
        receiver.recall(STRANGER, 0),
        receiver.log(STRANGER, 0),
        receiver.unbound(STRANGER, asked),
    ):
        with pytest.raises(UnknownPeer):
            await question


# --- what a peer may answer ---------------------------------------------------------------------------------


NOTHING = {"sgAssocs": {}, "unbound": {}, "until": "0", "more": False}


def answers(recall=None, log=None, unbound=None):
    """A behaviour, by what was asked; nothing is known where a test says nothing."""
    behaviours = {
        RECALL_PATH: recall or answer(200, NOTHING),
        LOG_PATH: log or answer(200, NOTHING),
        UNBOUND_PATH: unbound or answer(200, {"unbound": {}}),
    }
    return lambda request: behaviours[request.uri.decode()](request)


def told(statements=(), unbound=(), until=100, *, more=False):
    return answer(
        200,
        {
            "sgAssocs": {str(number): each for number, each in dict(statements).items()},
            "unbound": {str(number): ts for number, ts in dict(unbound).items()},
            "until": str(until),
            "more": more,
        },
    )


def bind_of(keys, number, origin_id, ts=START_MS):
    bound = Association(address(number), ANN, ts, ts, ts + 1, keys.server_name, origin_id)
    return keys.sign(bound.to_json())


@pytest_twisted.ensureDeferred
async def test_a_sydent_is_told_of_and_holds_nothing_up(here, other, recall):
    other.behaviour = answer(404, b"<html>No Such Resource</html>")
    assert await recall() == [recalled(is_sydent=True)]
    assert len(other.arrivals) == 1
    assert await recall() == []


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (
            error(404, "M_UNRECOGNIZED"),
            "its version cannot be asked for this: it must be updated first",
        ),
        (
            error(403, "M_UNKNOWN_PEER"),
            "it was asked what it knows, and answers HTTP 403 M_UNKNOWN_PEER",
        ),
        (answer(500), "it was asked what it knows, and answers HTTP 500"),
        (close, "it closed the connection before it had answered"),
        (
            answer(200, b"rubbish"),
            "it was asked what it knows, and its answer makes no sense: there are no statements in it, or too many",
        ),
        (
            told(until=0, more=True),
            "it was asked what it knows, and its answer makes no sense: it has more of nothing",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_well_is_asked_again(here, other, recall, behaviour, failure):
    other.behaviour = answers(recall=behaviour)
    before = contents(here.path)
    (found,) = await recall()
    assert found == recalled(failure=failure)
    assert contents(here.path) == before
    other.behaviour = answers(log=behaviour)
    assert (await recall())[0].failure == failure
    other.behaviour = answers()
    assert await recall() == [recalled()]


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_that_was_not_signed_by_us_or_by_the_peer(here, other, recall):
    stranger, theirs = ring(HERE, 9), ring(THERE, 2)
    unsigned = bind_of(here.keys, 1, 1) | {"mxid": "@mallory:hs.example.org"}
    other.behaviour = answers(
        recall=told({1: unsigned, 2: bind_of(stranger, 2, 2), 3: bind_of(here.keys, 3, 3)}),
        log=told(
            {7: bind_of(theirs, 7, 7), 8: bind_of(stranger, 8, 8), 9: bind_of(theirs, 9, 9, START_MS + 9999)}
        ),
    )
    (found,) = await recall()
    assert found == recalled(binds=1, foreign=2, pushed=1, refused=2)
    assert [row[:3] for row in own_row(here)] == [(3, address(3).address, ANN), (7, address(7).address, ANN)]


@pytest_twisted.ensureDeferred
async def test_a_number_is_taken_once_only(here, other, recall):
    await here.bind(address(0))
    ((used, *_),) = own_row(here)
    binds = {used: bind_of(here.keys, 1, used), 5: bind_of(here.keys, 5, 5)}
    other.behaviour = answers(recall=told(binds, until=used))
    assert (await recall())[0].binds == 1
    assert [row[:2] for row in own_row(here)] == [(5, address(5).address), (used, address(0).address)]


@pytest_twisted.ensureDeferred
async def test_an_unbind_that_the_peer_makes_up_is_not_believed(here, other, recall):
    await here.bind(address(0))
    before = contents(here.path)
    for lie, why in (
        ([START_MS + 1, "third.example.org", "5"], "an unbind is none, or of another server"),
        ([START_MS + 1001, HERE, "5"], "an unbind is dated too far ahead: compare the clocks"),
        ([START_MS + 1, HERE, str(HIGHEST_ID + 1)], "it has numbers that were not asked for"),
        ([START_MS + 1, HERE, 5], "it has numbers that were not asked for"),
        ("rubbish", "an unbind is none, or of another server"),
    ):
        other.behaviour = answers(
            recall=told(unbound={5: START_MS + 1}), unbound=answer(200, {"unbound": {"0": lie}})
        )
        (found,) = await recall()
        assert found.failure == f"it was asked what it knows, and its answer makes no sense: {why}"
        assert contents(here.path) == before
    # Something older than what is known changes nothing.
    lie = [START_MS - 1, HERE, "5"]
    other.behaviour = answers(
        recall=told(unbound={5: START_MS + 1}), unbound=answer(200, {"unbound": {"0": lie}})
    )
    assert await recall() == [recalled()]
    assert contents(here.path) == before | {"recalls": []}


@pytest_twisted.ensureDeferred
async def test_no_address_is_told_to_a_peer_that_knows_of_no_unbind(here, other, recall):
    await here.bind(address(0))
    other.behaviour = answers()
    await recall()
    assert [sent.target for sent in other.arrivals] == [RECALL_PATH, LOG_PATH]


@pytest_twisted.ensureDeferred
async def test_numbers_that_cannot_have_been_lost_are_made_up(here, other, recall):
    """Believed, they would leave none for us."""
    await here.bind(address(0))
    last = await here.db.read(counters.value, STATEMENT)
    bind = bind_of(here.keys, 1, last + 1)
    for lie in ({"unbound": {last + 1: START_MS + 1}}, {"statements": {last + 1: bind}}):
        other.behaviour = answers(recall=told(**lie, until=last + 1))
        (found,) = await recall()
        why = "its answer makes no sense: it has numbers that were not asked for"
        assert found.failure == f"it was asked what it knows, and {why}"
    assert await here.db.read(counters.value, STATEMENT) == last


@pytest_twisted.ensureDeferred
async def test_an_unbind_that_was_not_told_of_before_is_left(here, other, recall):
    await here.bind(address(0))
    other.behaviour = answers(
        recall=told(unbound={5: START_MS + 1}),
        unbound=answer(200, {"unbound": {"0": [START_MS + 2, HERE, "6"]}}),
    )
    assert await recall() == [recalled()]
    assert [row[1] for row in own_row(here)] == [address(0).address]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_has_more_for_ever_is_given_up(here, other, recall):
    numbers = iter(range(1, 10))
    other.behaviour = answers(
        recall=lambda request: told(until=next(numbers), more=True)(request)  # noqa: PLW0108 - another one each time
    )
    (found,) = await recall()
    assert (
        found.failure == "it was asked what it knows, and its answer makes no sense: it has more of nothing"
    )


@pytest_twisted.ensureDeferred
async def test_addresses_of_third_servers_are_told_to_nobody_unless_the_operator_wants_it(
    here, other, recall
):
    await here.bind(address(0))
    await here.take(Association(address(1), ANN, START_MS, 0, START_MS, "third.example.org", 5))
    asked = []

    def unbound(request):
        asked.append(orjson.loads(request.content.getvalue())["addresses"])
        answer(200, {"unbound": {}})(request)

    other.behaviour = answers(recall=told(unbound={9: START_MS + 1}), unbound=unbound)
    assert await recall(all_addresses=False) == [recalled(unfound=1)]
    assert [[each[1] for each in addresses] for addresses in asked] == [[address(0).address]]
    # It can be asked again.
    assert len(await here.db.read(recalls.pending)) == 1


@pytest_twisted.ensureDeferred
async def test_addresses_of_third_ones_are_asked_about_last(here, other, recall):
    await here.bind(address(0))
    third = Association(address(1), ANN, START_MS, 0, START_MS, "third.example.org", 5)
    await here.take(third)
    asked = []

    def unbound(request):
        (addresses,) = orjson.loads(request.content.getvalue()).values()
        asked.append([each[1] for each in addresses])
        found = {"0": [START_MS + 1, HERE, "9"]} if address(1).address in asked[-1] else {}
        answer(200, {"unbound": found})(request)

    other.behaviour = answers(recall=told(unbound={9: START_MS + 1}), unbound=unbound)
    assert await recall() == [recalled(unbinds=1)]
    assert asked == [[address(0).address], [address(1).address]]
    assert [row[1] for row in own_row(here)] == [address(0).address]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64) | st.sampled_from(["0", "7", "100", "x", HERE]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["0", "7", "x", "sgAssocs", "unbound", "until", "more"]), inner, max_size=5
        )
    ),
    max_leaves=15,
)


@settings(deadline=None)
@given(body=st.none() | JSON)
def test_any_answer_is_read_or_refused(body):
    given_back = Answer(200, body if isinstance(body, dict) else None)
    try:
        page = read_page(given_back, 3)
    except ValueError:
        pass
    else:
        assert all(3 < number <= page.until for number in (*page.statements, *page.unbound))
        assert not page.more or page.until > 3
    known = Order(START_MS, HERE, 1)
    try:
        found = read_unbound(given_back, [(address(0), known)], (HERE, THERE), START_MS + 1000)
    except ValueError:
        return
    assert all(each > known for each in found.values())
