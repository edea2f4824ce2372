"""Servers that have heard the same statements know the same, whatever came first, late, twice or never."""

import json
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path

import orjson
import pytest
from fixtures import DAY_MS, Counting, RecordingSigns
from hypothesis import given, settings
from hypothesis import strategies as st
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from store_tools import START_MS, InlineDatabase, at_once, contents, rows
from twisted.internet.task import Clock

from sydentish.actions.accounts import NOBODY, Gate
from sydentish.actions.lookup import Lookup
from sydentish.actions.peppers import PepperRotation
from sydentish.actions.statements import Statements
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.lookup import hash_address
from sydentish.domain.peers import Peer
from sydentish.domain.signatures import canonical
from sydentish.domain.statements import MAX_ORIGIN_ID, Tombstone, erased_key, order_of, read_statement
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import associations as association_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps

NAMES = ["a.example.org", "b.example.org", "c.example.org", "d.example.org"]
USERS = ["@alice:hs.example.org", "@bob:hs.example.org"]
ADDRESSES = [Threepid(EMAIL, "first@example.org"), Threepid(EMAIL, "second@example.org")]
LEASE_MS = 20_000


def key_ring(name):
    seed = name.encode().ljust(32, b"\0")
    return KeyRing(name, parse_key(make_key("0", seed)))


def peer(name):
    return Peer(name, f"https://{name}", {"ed25519:0": key_ring(name).active.public_key}, (name,))


class Server:
    """An identity server: a database of its own, a key of its own, and a clock that may be wrong."""

    def __init__(self, name, path):
        self.name = name
        self.path = path
        self.now = START_MS
        self.keys = key_ring(name)
        self.local_key = name.encode().rjust(32, b"\0")
        self.db = InlineDatabase(path)
        self.db.connection.execute("PRAGMA synchronous = OFF")  # nothing is to survive
        self.statements = Statements(
            keys=self.keys, validity_ms=DAY_MS, random_bytes=lambda _size: self.local_key
        )
        self.lookup = Lookup(
            gate=Gate(db=self.db, terms=Terms(), now_ms=self.now_ms),
            keys=self.keys,
            allow_none=True,
            max_addresses=None,
            pepper_grace_ms=DAY_MS,
            signs_of_life=RecordingSigns(),
            on_lookup=lambda *_: None,
            now_ms=self.now_ms,
        )

    def now_ms(self):
        return self.now

    def do(self, fn, *args):
        """What a transaction answers."""
        return at_once(self._do(fn, *args))

    async def _do(self, fn, *args):
        return await self.db.write(fn, *args)

    def bind(self, threepid, mxid):
        return self.do(self.statements.bind, threepid, mxid, self.now)

    def unbind(self, threepid):
        known = self.do(association_rows.association, threepid)
        return known is not None and self.do(self.statements.unbind, threepid, known.mxid, self.now)

    def hear(self, origin, text):
        """Takes what another server has signed, if it can be taken; whether it was news."""
        value = json.loads(text)
        peer(origin).check_signature(value["signed"])
        statement = read_statement(value["signed"], origin, value["origin_id"])
        signed = canonical(value["signed"]).decode()
        return self.do(self.statements.take, statement, signed, self.now)

    def said(self, statement):
        """One of its own statements as it is sent."""
        value = {"origin_id": statement.origin_id, "signed": self.keys.sign(statement.to_json())}
        return json.dumps(value)

    def log(self, after=0):
        return self.do(statement_rows.log_between, self.name, after, MAX_ORIGIN_ID, 1000)

    # --- what it knows

    def order_of(self, threepid):
        return self.do(statement_rows.newest, threepid)

    def known(self):
        """Of each address its user, if any, and its order."""
        bound = {each: self.do(association_rows.association, each) for each in ADDRESSES}
        return {each: (bound[each] and bound[each].mxid, self.order_of(each)) for each in ADDRESSES}

    def answers(self):
        """What each way of looking an address up answers."""
        return {
            each.address: (self.by_hash(each), self.in_the_clear(each), self.whole(each))
            for each in ADDRESSES
        }

    def by_hash(self, threepid):
        pepper = self.do(lookup_rows.peppers, DAY_MS).current
        hashed = hash_address(threepid, pepper.pepper)
        found = self.do(lookup_rows.find_hashes, pepper.pepper_id, orjson.dumps([hashed]).decode()).mappings
        return orjson.loads(found).get(hashed)

    def in_the_clear(self, threepid):
        entries = orjson.dumps([["asked", threepid.medium, threepid.address]]).decode()
        return orjson.loads(self.do(lookup_rows.find_plain, entries).mappings).get("asked")

    def whole(self, threepid):
        """The association as anybody is given it, whose signatures are good."""
        found = at_once(self.lookup.association(NOBODY, threepid))
        order = self.order_of(threepid)
        for name in {order.origin_server, self.name} if found else ():
            public_key = bytes(key_ring(name).active.signing_key.verify_key)
            verify_signed_json(found, name, decode_verify_key_bytes("ed25519:0", public_key))
        return {key: value for key, value in found.items() if key != "signatures"}

    def erased(self):
        return set(rows(self.path, "SELECT * FROM erased_addresses"))

    def digests(self):
        return {name: self.do(statement_rows.digests, name, 0, 1000, 4) for name in NAMES}

    def kept_addresses(self):
        """The addresses that stand anywhere in its database."""
        everything = repr(contents(self.path))
        return {each for each in ADDRESSES if each.address in everything}


class Mesh:
    """Servers that all are peers, and a record of every statement that was ever made."""

    def __init__(self, servers, *, strangers=False):
        self.servers = servers
        self.ever = []
        self.numbers = {server.name: [] for server in servers}
        if not strangers:
            self.meet_all()

    def meet(self, one, other):
        """The two are each other's peers from now on."""
        one.do(peer_rows.add, peer(other.name), one.now)
        other.do(peer_rows.add, peer(one.name), other.now)

    def meet_all(self):
        for one, other in combinations(self.servers, 2):
            self.meet(one, other)

    def note(self, server):
        """Records what the server has just stated."""
        numbers = self.numbers[server.name]
        for statement in server.log(numbers[-1] if numbers else 0):
            numbers.append(statement.origin_id)
            self.ever.append((server.name, server.said(statement), statement))

    def bind(self, server, threepid, mxid):
        before = server.order_of(threepid)
        association = server.bind(threepid, mxid)
        if order_of(association) != before:
            assert before is None or order_of(association) > before
            assert association.ts >= server.now
        self.note(server)

    def unbind(self, server, threepid):
        before = server.order_of(threepid)
        if server.unbind(threepid):
            assert server.order_of(threepid) > before
        self.note(server)

    def hear_again(self, server, index):
        """A statement that was made some time ago arrives, perhaps once more."""
        origin, text, statement = self.ever[index % len(self.ever)]
        if origin != server.name:
            before = server.order_of(statement.threepid)
            taken = server.hear(origin, text)
            assert taken == (before is None or order_of(statement) > before)
            assert not server.hear(origin, text)

    def push(self, server, other, limit, *, answered=True):
        """One push; whether there was anything to push. The answer may be lost on its way."""
        state = server.do(peer_rows.state, other.name)
        if state is None:
            return False
        batch = server.do(push_rows.batch, server.name, state, server.now, limit)
        for statement in batch.statements:
            other.hear(server.name, server.said(statement))
        if answered:
            lease = server.do(push_rows.lease, other.name, server.now, LEASE_MS)
            server.do(push_rows.acknowledged, other.name, batch, lease, server.now)
        return batch.moves_on

    def settle(self):
        """Everybody pushes to everybody all there is."""
        for server in self.servers:
            for other in self.servers:
                while other is not server and self.push(server, other, 2):
                    pass

    def newest(self):
        """Of each address the newest statement that was ever made."""
        statements = [statement for _, _, statement in self.ever]
        return {
            threepid: max(
                (each for each in statements if each.threepid == threepid), key=order_of, default=None
            )
            for threepid in ADDRESSES
        }

    def check(self):
        """All know the same, which is the newest statement of each address."""
        expected = self.newest()
        for server in self.servers:
            known = server.known()
            for threepid, newest in expected.items():
                mxid = getattr(newest, "mxid", None)
                assert known[threepid] == (mxid, newest and order_of(newest))
                shown = newest.to_json() if mxid else {}
                assert server.answers()[threepid.address] == (mxid, mxid, shown)
            unbound = [each for each in expected.values() if isinstance(each, Tombstone)]
            assert server.erased() == {
                (erased_key(server.local_key, each.threepid), each.ts, each.origin_server, each.origin_id)
                for each in unbound
            }
            assert server.digests() == self.servers[0].digests()

    def check_alike(self):
        """All have the same addresses bound, alike, and keep no others; what was unbound before they met, not all know."""
        bound = [
            {each: found for each, found in server.known().items() if found[0]} for server in self.servers
        ]
        assert all(each == bound[0] for each in bound)
        for server in self.servers:
            assert server.kept_addresses() == bound[0].keys()

    def check_erased(self):
        """Where everybody has heard of everything, no address is left that belongs to nobody."""
        bound = {threepid for threepid, newest in self.newest().items() if getattr(newest, "mxid", None)}
        for server in self.servers:
            assert server.kept_addresses() == bound


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A database as it is when a server starts for the first time."""
    path = tmp_path_factory.mktemp("template") / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    db = InlineDatabase(path)
    times = {"clock": Clock(), "now_ms": lambda: START_MS, "random_bytes": Counting()}
    at_once(PepperRotation(db=db, interval_ms=None, grace_ms=DAY_MS, **times).ensure_pepper())
    db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.connection.close()
    return path


@contextmanager
def mesh_of(template, count, **options):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = []
        for name in NAMES[:count]:
            shutil.copyfile(template, folder / name)
            servers.append(Server(name, folder / name))
            stack.callback(servers[-1].db.connection.close)
        yield Mesh(servers, **options)


@pytest.fixture
def mesh(template):
    with mesh_of(template, 3) as mesh:
        yield mesh


# --- any statements, in any order ----------------------------------------------------------------------

SERVERS = st.integers(0, 3)
DEEDS = st.one_of(
    st.tuples(st.just("bind"), SERVERS, st.sampled_from(ADDRESSES), st.sampled_from(USERS)),
    st.tuples(st.just("unbind"), SERVERS, st.sampled_from(ADDRESSES)),
    st.tuples(st.just("clock"), SERVERS, st.sampled_from([1, 1000, DAY_MS, -1, -1000, -DAY_MS])),
    st.tuples(st.just("hear again"), SERVERS, st.integers(0, 99)),
    st.tuples(st.just("push"), SERVERS, SERVERS, st.integers(1, 3), st.booleans()),
)


def all_but_peers(server):
    """All that it has written down, but how its peers fare."""
    return contents(server.path) | {"peers": None}


def happen(mesh, deeds):
    for deed, number, *details in deeds:
        server = mesh.servers[number % len(mesh.servers)]
        if deed == "bind":
            mesh.bind(server, *details)
        elif deed == "unbind":
            mesh.unbind(server, *details)
        elif deed == "clock":
            server.now += details[0]
        elif deed == "hear again" and mesh.ever:
            mesh.hear_again(server, *details)
        elif deed == "meet":
            other = mesh.servers[details[0] % len(mesh.servers)]
            if other is not server:
                mesh.meet(server, other)
        elif deed == "push":
            other, limit, answered = details
            other = mesh.servers[other % len(mesh.servers)]
            if other is not server:
                mesh.push(server, other, limit, answered=answered)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 4), deeds=st.lists(DEEDS, max_size=30), data=st.data())
def test_whatever_happens_all_servers_end_alike(template, count, deeds, data):
    with mesh_of(template, count) as mesh:
        happen(mesh, deeds)
        mesh.settle()
        mesh.check()
        mesh.check_erased()
        # What was ever made comes again, in any order, what was superseded and what is erased included.
        before = [all_but_peers(server) for server in mesh.servers]
        for server in mesh.servers:
            for index in data.draw(st.permutations(range(len(mesh.ever)))):
                mesh.hear_again(server, index)
        # Whoever has stated again what is outdated is reminded, which is no news either.
        mesh.settle()
        assert [all_but_peers(server) for server in mesh.servers] == before
        # Numbers are never used twice.
        for numbers in mesh.numbers.values():
            assert numbers == sorted(set(numbers))


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(2, 4),
    deeds=st.lists(st.one_of(DEEDS, st.tuples(st.just("meet"), SERVERS, SERVERS)), max_size=30),
)
def test_servers_that_meet_late_end_alike_all_the_same(template, count, deeds):
    with mesh_of(template, count, strangers=True) as mesh:
        happen(mesh, [each for each in deeds if each[0] != "hear again"])
        mesh.meet_all()
        # Twice: whoever hears what is outdated by an unbind sends that again.
        mesh.settle()
        mesh.settle()
        mesh.check_alike()


@settings(max_examples=50, deadline=None)
@given(deeds=st.lists(DEEDS, max_size=20), data=st.data())
def test_who_hears_of_everything_late_and_in_any_order_knows_what_the_others_know(template, deeds, data):
    with mesh_of(template, 4) as mesh:
        *others, late = mesh.servers
        # It states nothing itself, and is paused: nothing reaches it.
        happen(
            mesh,
            [each for each in deeds if each[1] % 4 != 3 and not (each[0] == "push" and each[2] % 4 == 3)],
        )
        heard = data.draw(st.permutations([*range(len(mesh.ever))] * 2))
        for index in heard:
            mesh.hear_again(late, index)
        mesh.settle()
        mesh.check()
        assert late.known() == others[0].known()


# --- examples ------------------------------------------------------------------------------------------

ADDRESS = ADDRESSES[0]


def test_two_that_were_cut_off_from_each_other_agree_on_the_newer_bind(mesh):
    first, second, third = mesh.servers
    first.now += 5
    mesh.bind(first, ADDRESS, USERS[0])
    mesh.bind(second, ADDRESS, USERS[1])
    assert {server.by_hash(ADDRESS) for server in mesh.servers} == {*USERS, None}
    mesh.settle()
    mesh.check()
    assert third.by_hash(ADDRESS) == USERS[0]


def test_at_the_same_time_the_servers_name_decides_and_then_the_number(mesh):
    for server, mxid in zip(mesh.servers, [*USERS, USERS[0]], strict=True):
        mesh.bind(server, ADDRESS, mxid)
    mesh.settle()
    mesh.check()
    assert mesh.servers[0].order_of(ADDRESS).origin_server == NAMES[2]


def test_a_slow_clock_loses_no_statement(mesh):
    first, slow, third = mesh.servers
    slow.now -= 10 * DAY_MS
    mesh.bind(first, ADDRESS, USERS[0])
    mesh.settle()
    mesh.unbind(slow, ADDRESS)
    assert slow.order_of(ADDRESS).ts == START_MS + 1
    mesh.settle()
    assert [server.by_hash(ADDRESS) for server in mesh.servers] == [None] * 3
    # Nor one after a statement of which its server has kept no address.
    assert slow.log() == []
    mesh.bind(slow, ADDRESS, USERS[1])
    assert slow.order_of(ADDRESS).ts == START_MS + 2
    mesh.settle()
    mesh.check()
    assert third.by_hash(ADDRESS) == USERS[1]


@pytest.mark.parametrize("lost", [0, 1])
def test_what_comes_late_brings_no_erased_address_back(mesh, lost):
    first, second, third = mesh.servers
    mesh.bind(first, ADDRESS, USERS[0])
    if not lost:
        mesh.settle()
    mesh.unbind(first, ADDRESS)
    assert first.kept_addresses() == {ADDRESS}
    mesh.settle()
    mesh.check_erased()
    for server in (second, third):
        before = contents(server.path)
        assert not server.hear(*mesh.ever[0][:2])
        assert contents(server.path) == before


def test_a_tombstone_waits_for_the_last_peer_that_is_known(mesh):
    first, second, third = mesh.servers
    mesh.bind(first, ADDRESS, USERS[0])
    mesh.settle()
    mesh.unbind(first, ADDRESS)
    assert mesh.push(first, second, 10)
    # Who has heard of it, keeps no address.
    assert [server.kept_addresses() for server in mesh.servers] == [{ADDRESS}, set(), {ADDRESS}]
    # A push whose answer is lost counts for nothing.
    mesh.push(first, third, 10, answered=False)
    assert first.kept_addresses() == {ADDRESS}
    assert mesh.push(first, third, 10)
    mesh.check_erased()


def test_who_is_gone_for_good_and_removed_holds_nothing_up(mesh):
    first, second, third = mesh.servers
    mesh.bind(first, ADDRESS, USERS[0])
    mesh.push(first, second, 10)
    mesh.unbind(first, ADDRESS)
    mesh.push(first, second, 10)
    assert first.kept_addresses() == {ADDRESS}
    assert first.do(peer_rows.remove, third.name)
    assert first.kept_addresses() == set()
    assert first.by_hash(ADDRESS) is None


def test_a_tombstone_that_a_newer_bind_has_overtaken_is_sent_to_nobody(mesh):
    first, second, third = mesh.servers
    mesh.bind(first, ADDRESS, USERS[0])
    mesh.push(first, second, 10)
    mesh.unbind(first, ADDRESS)
    mesh.push(first, second, 10)
    mesh.bind(second, ADDRESS, USERS[1])
    mesh.push(second, first, 10)
    assert first.log() == []
    assert not mesh.push(first, third, 10)
    mesh.settle()
    mesh.check()
    assert third.by_hash(ADDRESS) == USERS[1]


def test_a_peer_that_starts_over_hears_of_all_there_is_and_changes_nothing(mesh):
    first, second, _ = mesh.servers
    for address, mxid in zip(ADDRESSES, USERS, strict=True):
        mesh.bind(first, address, mxid)
    mesh.settle()
    before = contents(second.path)
    assert first.do(peer_rows.start_over, second.name, first.now)
    assert mesh.push(first, second, 10)
    assert contents(second.path) == before
    # One that has lost what it knew has it again.
    second.do(lambda tx: [tx.run(f"DELETE FROM {table}") for table in ("associations", "lookup_hashes")])
    assert first.digests() != second.digests()
    first.do(peer_rows.start_over, second.name, first.now)
    mesh.settle()
    mesh.check()
