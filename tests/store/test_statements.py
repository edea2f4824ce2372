"""Statements as rows: the newest of each address, our own ones in their order, and what is left of an address."""

import hashlib
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sydentish.domain.associations import Association
from sydentish.domain.peers import Failed, Peer
from sydentish.domain.statements import MAX_ORIGIN_ID, Order, Tombstone, erased_key
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import associations, peers, pushes, statements
from sydentish.store.sqlite import SqliteTx, connect

OURS, PEER = "id.example.org", "peer.example.org"
CAROL, DAVE = "@carol:hs.example.org", "@dave:other.example.org"
ADDRESS, OTHER = Threepid(EMAIL, "carol@example.org"), Threepid(MSISDN, "447700900001")
KEY = b"k" * 32


def association(number, threepid=ADDRESS, *, ts=1000, mxid=CAROL, server=OURS):
    return Association(threepid, mxid, ts, ts, ts + 9, server, number)


def tombstone(number, threepid=ADDRESS, *, ts=1000, server=OURS):
    return Tombstone(threepid, ts, server, number)


def email(number):
    return Threepid(EMAIL, f"u{number}@example.org")


def add_peer(tx, name=PEER, acknowledged_id=0):
    peers.add(tx, Peer(name, f"https://{name}", {}, (name,)), 0)
    tx.run("UPDATE peers SET acknowledged_id = ? WHERE name = ?", (acknowledged_id, name))


def waiting(tx):
    return [number for (number,) in tx.rows("SELECT origin_id FROM tombstones ORDER BY origin_id")]


# --- who has stated ------------------------------------------------------------------------------------


def test_the_names_are_those_of_associations_that_nobody_else_has_signed(tx):
    assert statements.own_names(tx) == []
    for number, (server, signed) in enumerate(
        [(OURS, None), (OURS, None), ("a.example.org", None), (PEER, "{}"), ("z.example.org", "{}")], start=1
    ):
        associations.put(tx, association(number, email(number), server=server), signed)
    assert statements.own_names(tx) == ["a.example.org", OURS]


def test_the_names_of_unbinds_are_those_of_tombstones(tx):
    assert statements.unbound_names(tx) == []
    key = statements.local_key(tx, bytes)
    for number, server in enumerate([OURS, "a.example.org", OURS, "z.example.org"]):
        statements.remember_erased(tx, tombstone(number, email(number), server=server), key)
    # The last one is a peer's, or all have heard of it: nobody can tell.
    for number in range(3):
        statements.add_tombstone(tx, tombstone(number, email(number)))
    assert statements.unbound_names(tx) == ["a.example.org", OURS]
    assert statements.own_names(tx) == []


# --- the key that addresses are erased with ------------------------------------------------------------


def test_the_key_is_made_once_and_kept(tx):
    made = []

    def random_bytes(size):
        made.append(bytes([len(made)]) * size)
        return made[-1]

    assert statements.local_key(tx, random_bytes) == statements.local_key(tx, random_bytes) == bytes(32)
    assert made == [bytes(32)]


# --- the newest statement of an address ----------------------------------------------------------------


def test_of_an_address_that_was_never_heard_of_nothing_is_known(tx):
    associations.put(tx, association(1, OTHER))
    statements.remember_erased(tx, tombstone(2, email(1)), KEY)
    assert statements.newest_erased(tx, ADDRESS, KEY) is None


def test_an_address_of_another_medium_is_another_one(tx):
    statements.remember_erased(tx, tombstone(7, ts=5, server=PEER), KEY)
    assert statements.newest_erased(tx, Threepid(MSISDN, ADDRESS.address), KEY) is None


def test_the_newest_statement_of_an_address_that_is_erased(tx):
    statements.remember_erased(tx, tombstone(MAX_ORIGIN_ID, ts=5, server=PEER), KEY)
    assert statements.newest_erased(tx, ADDRESS, KEY) == Order(5, PEER, MAX_ORIGIN_ID)
    assert statements.newest_erased(tx, ADDRESS, b"another key") is None
    statements.remember_erased(tx, tombstone(3, ts=6), KEY)
    assert statements.newest_erased(tx, ADDRESS, KEY) == Order(6, OURS, 3)
    statements.forget_erased(tx, OTHER, KEY)
    assert statements.newest_erased(tx, ADDRESS, KEY) == Order(6, OURS, 3)
    statements.forget_erased(tx, ADDRESS, KEY)
    assert statements.newest_erased(tx, ADDRESS, KEY) is None


def test_of_an_address_that_is_erased_its_hmac_is_kept_and_nothing_else(tx):
    statements.remember_erased(tx, tombstone(3, ts=5), KEY)
    assert tx.rows("SELECT * FROM erased_addresses") == [(erased_key(KEY, ADDRESS), 5, OURS, 3)]


# --- our own statements, as peers are sent them --------------------------------------------------------


def test_our_own_statements_are_sent_in_their_order_and_whole(tx):
    mine = [
        association(1, email(1)),
        tombstone(3, email(2)),
        association(4, OTHER, mxid=DAVE, ts=7),
        tombstone(MAX_ORIGIN_ID, ADDRESS),
    ]
    for each in mine[::-1]:
        put = statements.add_tombstone if isinstance(each, Tombstone) else associations.put
        put(tx, each)
    # Those of others are not, nor is what was only erased.
    associations.put(tx, association(2, email(3), server=PEER), "{}")
    statements.remember_erased(tx, tombstone(5, email(4)), KEY)

    def between(after, until, limit=100):
        return statements.log_between(tx, OURS, after, until, limit)

    assert between(0, MAX_ORIGIN_ID) == mine
    assert between(0, MAX_ORIGIN_ID, 2) == mine[:2]
    assert between(0, 3) == mine[:2]
    assert between(1, 4) == mine[1:3]
    assert between(4, MAX_ORIGIN_ID) == mine[3:]
    assert between(MAX_ORIGIN_ID, MAX_ORIGIN_ID) == between(4, 3) == between(0, 9, 0) == []
    assert [statements.own_statement(tx, OURS, number) for number in (1, 2, 3, 5)] == [
        mine[0],
        None,
        mine[1],
        None,
    ]
    assert statements.own_statement(tx, PEER, 2) == association(2, email(3), server=PEER)


def test_a_tombstone_waits_until_a_newer_statement_is_known(tx):
    statements.add_tombstone(tx, tombstone(1))
    statements.add_tombstone(tx, tombstone(2, OTHER))
    statements.drop_tombstone(tx, Threepid(MSISDN, ADDRESS.address))
    assert waiting(tx) == [1, 2]
    statements.drop_tombstone(tx, ADDRESS)
    assert waiting(tx) == [2]


@pytest.mark.parametrize("again", [tombstone(1, OTHER), tombstone(2)])
def test_neither_a_number_nor_an_address_has_two_tombstones(tx, again):
    statements.add_tombstone(tx, tombstone(1))
    with pytest.raises(sqlite3.IntegrityError):
        statements.add_tombstone(tx, again)


def test_the_highest_number_that_is_known_of_a_server(tx):
    assert statements.last_id(tx, PEER) == 0
    associations.put(tx, association(3, server=PEER), "{}")
    associations.put(tx, association(9, OTHER))
    assert (statements.last_id(tx, PEER), statements.last_id(tx, OURS)) == (3, 9)
    statements.remember_erased(tx, tombstone(MAX_ORIGIN_ID, email(1), server=PEER), KEY)
    statements.remember_erased(tx, tombstone(8, email(2)), KEY)
    assert (statements.last_id(tx, PEER), statements.last_id(tx, OURS)) == (MAX_ORIGIN_ID, 9)


# --- erasure -------------------------------------------------------------------------------------------


def test_without_peers_no_tombstone_is_kept(tx):
    statements.add_tombstone(tx, tombstone(1))
    assert statements.erase_acknowledged(tx) == 1
    assert waiting(tx) == []
    assert statements.erase_acknowledged(tx) == 0


def test_tombstones_wait_for_the_slowest_peer_whatever_is_wrong_with_it(tx):
    assert statements.unerased(tx) == 0
    for number in range(1, 9):
        statements.add_tombstone(tx, tombstone(number, email(number)))
    assert statements.unerased(tx) == 8
    for name, acknowledged_id in (("fast", 8), ("paused", 7), ("failing", 6), ("gone", 5)):
        add_peer(tx, name, acknowledged_id)
    peers.pause(tx, "paused", paused=True)
    lease = pushes.lease(tx, "failing", 0, 1000)
    pushes.failed(tx, "failing", Failed("unreachable", "down"), lease, 0, 0.0)
    tx.run("UPDATE peers SET source = 'gone' WHERE name = 'gone'")
    statements.erase_acknowledged(tx)
    assert waiting(tx) == [6, 7, 8]
    for name, left in (("gone", [7, 8]), ("failing", [8]), ("paused", []), ("fast", [])):
        assert peers.remove(tx, name)
        assert waiting(tx) == left
        assert statements.unerased(tx) == len(left)


def test_a_tombstone_that_a_peer_has_refused_is_kept_for_it(tx):
    for number in (1, 2, 3):
        statements.add_tombstone(tx, tombstone(number, email(number)))
    for name in ("a", "b"):
        add_peer(tx, name, 3)
    lease = pushes.lease(tx, "a", 0, 1000)
    pushes.park(tx, "a", {2}, "odd", lease, 0, 0.0)
    assert statements.erase_acknowledged(tx) == 2
    assert waiting(tx) == [2]
    # Another peer does not let it go.
    assert peers.remove(tx, "b")
    assert waiting(tx) == [2]
    assert peers.remove(tx, "a")
    assert waiting(tx) == []


def test_of_what_was_erased_no_byte_is_left_in_the_file(path):
    names = [f"somebody-{number:05d}@erased.example.org" for number in range(300)]
    with closing(connect(path, 1000)) as connection:
        tx = SqliteTx(connection)
        add_peer(tx)
        for number, name in enumerate(names, 1):
            statements.add_tombstone(tx, tombstone(number, Threepid(EMAIL, name)))
        tx.run("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.read_bytes().count(b"@erased.example.org") >= 300
        tx.run("UPDATE peers SET acknowledged_id = 300")
        assert statements.erase_acknowledged(tx) == 300
        tx.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"somebody-" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


# --- digests -------------------------------------------------------------------------------------------


def expected_digests(known, after, until, size):
    """What digests are, from what is known: number, time and user (or nothing) of each statement."""
    digests = {}
    for start in range(after, until, size):
        lines = [
            f"{number} {ts} {mxid}\n"
            for number, ts, mxid in sorted(known)
            if start < number <= min(start + size, until)
        ]
        if lines:
            digests[start] = (len(lines), hashlib.sha256("".join(lines).encode()).hexdigest())
    return digests


KNOWN = st.dictionaries(
    st.integers(1, 30), st.tuples(st.integers(1, 3), st.sampled_from(["", CAROL, DAVE])), max_size=12
)


def learn(tx, known):
    """A database that knows these statements of a peer, and others that do not count."""
    for table in ("associations", "erased_addresses"):
        tx.run(f"DELETE FROM {table}")
    for number, (ts, mxid) in known.items():
        if mxid:
            associations.put(tx, association(number, email(number), ts=ts, mxid=mxid, server=PEER), "{}")
        else:
            statements.remember_erased(tx, tombstone(number, email(number), ts=ts, server=PEER), KEY)
    associations.put(tx, association(1, email("x")))
    statements.remember_erased(tx, tombstone(2, email("y")), KEY)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(KNOWN, st.integers(0, 12), st.integers(0, 32), st.integers(1, 12))
def test_a_digest_tells_what_is_known_in_its_bounds(tx, known, after, until, size):
    learn(tx, known)
    rows = [(number, *each) for number, each in known.items()]
    assert statements.digests(tx, PEER, after, until, size) == expected_digests(rows, after, until, size)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(KNOWN, st.data())
def test_digests_are_the_same_if_and_only_if_the_same_is_known(tx, known, data):
    changes = data.draw(st.lists(st.tuples(st.integers(1, 30), st.none() | st.sampled_from(list(known.values()) or [(9, CAROL)])), max_size=2))  # fmt: skip
    others = dict(known)
    for number, each in changes:
        others.pop(number, None)
        if each is not None:
            others[number] = each
    size = data.draw(st.integers(1, 31))
    learn(tx, known)
    mine = statements.digests(tx, PEER, 0, 30, size)
    learn(tx, dict(reversed(others.items())))
    theirs = statements.digests(tx, PEER, 0, 30, size)
    assert (mine == theirs) == (known == others)
    differing = {number for number in range(1, 31) if known.get(number) != others.get(number)}
    different = {start for start in mine.keys() | theirs.keys() if mine.get(start) != theirs.get(start)}
    assert different == {(number - 1) // size * size for number in differing}


def test_the_borders_of_digests(tx):
    for number in (1, 10, 11, 20, 31, 32):
        associations.put(tx, association(number, email(number), server=PEER), "{}")

    def numbers(after, until, size):
        return {
            start: count for start, (count, _) in statements.digests(tx, PEER, after, until, size).items()
        }

    assert numbers(0, 32, 10) == {0: 2, 10: 2, 30: 2}
    assert numbers(1, 32, 10) == {1: 2, 11: 1, 21: 1, 31: 1}
    assert numbers(0, 31, 10) == {0: 2, 10: 2, 30: 1}
    assert numbers(0, 32, 1) == {0: 1, 9: 1, 10: 1, 19: 1, 30: 1, 31: 1}
    assert numbers(0, 32, 1000) == {0: 6}
    assert numbers(0, MAX_ORIGIN_ID, MAX_ORIGIN_ID) == {0: 6}
    assert numbers(32, 100, 10) == numbers(10, 10, 10) == numbers(20, 10, 10) == {}


def test_an_unbind_is_no_bind_of_the_same_time(tx):
    associations.put(tx, association(1, server=PEER), "{}")
    bound = statements.digests(tx, PEER, 0, 10, 10)
    associations.delete(tx, ADDRESS)
    statements.remember_erased(tx, tombstone(1, server=PEER), KEY)
    erased = statements.digests(tx, PEER, 0, 10, 10)
    assert (bound[0][0], erased[0][0]) == (1, 1)
    assert bound != erased
    # It does not depend on what a server makes of the address.
    statements.forget_erased(tx, ADDRESS, KEY)
    statements.remember_erased(tx, tombstone(1, server=PEER), b"another key")
    assert statements.digests(tx, PEER, 0, 10, 10) == erased
