"""Peers as rows: who they are, by whose word, and what becomes of what waits for them."""

import dataclasses
import sqlite3

import pytest

from sydentish.domain.peers import Failed, Peer
from sydentish.domain.statements import Tombstone
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import peers, progress, pushes, statements

NOW = 1_000_000
A = Peer(
    "a.example.org",
    "https://a.example.org:1001",
    {"ed25519:0": "AAAA", "ed25519:x": "é"},
    ("a.example.org", "::1"),
)
B = Peer("b.example.org:8448", "https://b.example.org", {}, ())
C = Peer("c.example.org", "https://c.example.org", {"ed25519:0": "CCCC"}, ("c.example.org",))


def sources(tx):
    return {each.peer.name: each.source for each in peers.states(tx)}


def worn(tx, name):
    """A peer that a good deal has happened to."""
    lease = pushes.lease(tx, name, NOW, 1000)
    pushes.park(tx, name, {3}, "odd", lease, NOW, 0.0)
    lease = pushes.lease(tx, name, NOW, 1000)
    pushes.acknowledged(tx, name, pushes.Batch([], 5, moves_on=True), lease, NOW + 1)
    lease = pushes.lease(tx, name, NOW, 1000)
    pushes.failed(tx, name, Failed("unreachable", "down"), lease, NOW + 2, 0.0)
    peers.received(tx, name, NOW + 3)
    pushes.lease(tx, name, NOW, 1000)


def rows(tx):
    return tx.rows("SELECT * FROM peers ORDER BY name"), tx.rows(
        "SELECT * FROM parked_statements ORDER BY peer"
    )


def bury(tx, *numbers):
    for number in numbers:
        threepid = Threepid(EMAIL, f"u{number}@example.org")
        statements.add_tombstone(tx, Tombstone(threepid, NOW, "id.example.org", number))


def buried(tx):
    return [number for (number,) in tx.rows("SELECT origin_id FROM tombstones ORDER BY origin_id")]


def test_a_new_peer_has_heard_of_nothing(tx):
    assert not peers.is_any(tx)
    peers.add(tx, A, NOW)
    assert peers.is_any(tx)
    assert peers.state(tx, A.name) == peers.PeerState(
        peer=A,
        source="command",
        paused=False,
        since_ts=NOW,
        acknowledged_id=0,
        failures=0,
        failing_since_ts=None,
        retry_ts=0,
        last_success_ts=None,
        last_failure_ts=None,
        last_failure=None,
        last_received_ts=None,
    )
    assert peers.state(tx, "nobody") is None


def test_peers_are_listed_by_name_as_they_were_told(tx):
    for each in (C, A, B):
        peers.add(tx, each, NOW)
    assert [each.peer for each in peers.states(tx)] == [A, B, C]
    assert peers.in_use(tx) == [A, B, C]
    assert peers.state(tx, B.name).peer == B


def test_how_a_peer_fares_is_noted(tx):
    peers.add(tx, A, NOW)
    worn(tx, A.name)
    assert peers.state(tx, A.name) == peers.PeerState(
        peer=A,
        source="command",
        paused=False,
        since_ts=NOW,
        acknowledged_id=5,
        failures=1,
        failing_since_ts=NOW + 2,
        retry_ts=NOW + 2 + 1000,
        last_success_ts=NOW + 1,
        last_failure_ts=NOW + 2,
        last_failure="down",
        last_received_ts=NOW + 3,
    )


def test_a_peer_that_is_told_of_again_keeps_what_it_has_heard(tx):
    peers.add(tx, A, NOW)
    worn(tx, A.name)
    before = peers.state(tx, A.name)
    moved = dataclasses.replace(
        A, url="https://new.example.org", keys={"ed25519:n": "N"}, certificate_names=("n",)
    )
    peers.add(tx, moved, NOW + 10)
    assert peers.state(tx, A.name) == dataclasses.replace(before, peer=moved)
    assert pushes.parked(tx, A.name) == [(3, "odd")]


def test_the_configuration_names_the_peers_and_leaves_alone_those_that_it_no_longer_names(tx):
    peers.configure(tx, [A, B], NOW)
    peers.add(tx, C, NOW)
    assert sources(tx) == {A.name: "configuration", B.name: "configuration", C.name: "command"}
    worn(tx, A.name)
    # Only that a peer which has failed is tried at once, when a server starts.
    tx.run("UPDATE peers SET retry_ts = 99 + ?", (NOW,))
    before = rows(tx)
    peers.configure(tx, [A, B], NOW + 5)
    assert {each.retry_ts for each in peers.states(tx)} == {0}
    tx.run("UPDATE peers SET retry_ts = 99 + ?", (NOW,))
    assert rows(tx) == before
    peers.configure(tx, iter([B]), NOW + 5)
    assert sources(tx) == {A.name: "gone", B.name: "configuration", C.name: "command"}
    assert peers.in_use(tx) == [B, C]
    # It is still known how it fared, and back it is where it was.
    assert not peers.state(tx, A.name).in_use
    assert peers.state(tx, A.name).acknowledged_id == 5
    peers.configure(tx, [A], NOW + 6)
    assert sources(tx) == {A.name: "configuration", B.name: "gone", C.name: "command"}
    assert peers.state(tx, A.name).since_ts == NOW
    peers.configure(tx, [], NOW)
    assert peers.in_use(tx) == [C]
    assert peers.is_any(tx)


def test_who_has_told_of_a_peer_last_is_who_can_take_it_away(tx):
    peers.add(tx, A, NOW)
    peers.configure(tx, [A], NOW)
    assert sources(tx) == {A.name: "configuration"}
    peers.configure(tx, [], NOW)
    assert sources(tx) == {A.name: "gone"}
    peers.add(tx, A, NOW)
    peers.configure(tx, [], NOW)
    assert sources(tx) == {A.name: "command"}


def test_who_else_could_have_told_of_a_peer_is_refused(tx):
    peers.add(tx, A, NOW)
    with pytest.raises(sqlite3.IntegrityError):
        tx.run("UPDATE peers SET source = 'somebody'")


def test_a_peer_is_paused_and_resumed(tx):
    peers.add(tx, A, NOW)
    peers.add(tx, B, NOW)
    worn(tx, A.name)
    before = peers.state(tx, A.name)
    assert peers.pause(tx, A.name, paused=True)
    assert peers.state(tx, A.name) == dataclasses.replace(before, paused=True, retry_ts=0)
    assert not peers.state(tx, B.name).paused
    # Statements are still exchanged with it: it may push.
    assert peers.in_use(tx) == [A, B]
    assert peers.pause(tx, A.name, paused=False)
    assert peers.state(tx, A.name) == dataclasses.replace(before, retry_ts=0)
    assert not peers.pause(tx, "nobody", paused=True)


def test_a_peer_that_is_paused_stays_so_when_the_server_starts_again(tx):
    peers.configure(tx, [A], NOW)
    peers.pause(tx, A.name, paused=True)
    peers.configure(tx, [A], NOW)
    assert peers.state(tx, A.name).paused


def test_a_peer_that_is_removed_is_forgotten_with_what_was_parked_for_it(tx):
    for each in (A, B):
        peers.add(tx, each, NOW)
        worn(tx, each.name)
    assert peers.remove(tx, A.name)
    assert not peers.remove(tx, A.name)
    assert [each.peer for each in peers.states(tx)] == [B]
    assert pushes.parked(tx, A.name) == []
    assert pushes.parked(tx, B.name) == [(3, "odd")]
    peers.add(tx, A, NOW + 9)
    assert (peers.state(tx, A.name).acknowledged_id, peers.state(tx, A.name).since_ts) == (0, NOW + 9)


def test_a_peer_that_is_removed_holds_no_erasure_up(tx):
    bury(tx, 1, 2, 3)
    peers.add(tx, A, NOW)
    peers.add(tx, B, NOW)
    tx.run("UPDATE peers SET acknowledged_id = 2 WHERE name = ?", (B.name,))
    # One that is only left alone still does.
    peers.pause(tx, A.name, paused=True)
    peers.configure(tx, [], NOW)
    assert buried(tx) == [1, 2, 3]
    peers.remove(tx, "nobody")
    assert buried(tx) == [1, 2, 3]
    peers.remove(tx, A.name)
    assert buried(tx) == [3]
    peers.remove(tx, B.name)
    assert buried(tx) == []


def test_a_peer_that_starts_over_is_sent_everything_again(tx):
    for each in (A, B):
        peers.add(tx, each, NOW)
        worn(tx, each.name)
    other = peers.state(tx, B.name)
    bury(tx, 7)
    assert peers.start_over(tx, A.name, NOW + 50)
    found = peers.state(tx, A.name)
    assert (found.acknowledged_id, found.since_ts, found.retry_ts) == (0, NOW + 50, 0)
    assert pushes.parked(tx, A.name) == []
    assert (peers.state(tx, B.name), pushes.parked(tx, B.name)) == (other, [(3, "odd")])
    assert buried(tx) == [7]
    assert not peers.start_over(tx, "nobody", NOW)


def test_what_is_on_its_way_when_a_peer_starts_over_acknowledges_nothing(tx):
    peers.add(tx, A, NOW)
    bury(tx, 7)
    lease = pushes.lease(tx, A.name, NOW, 1000)
    batch = pushes.batch(tx, "id.example.org", peers.state(tx, A.name), NOW, 10)
    peers.start_over(tx, A.name, NOW + 1)
    assert pushes.acknowledged(tx, A.name, batch, lease, NOW + 2) is False
    assert peers.state(tx, A.name).acknowledged_id == 0
    assert buried(tx) == [7]
    # It belongs to nobody: what is sent now counts.
    lease = pushes.lease(tx, A.name, NOW + 2, 1000)
    pushes.acknowledged(tx, A.name, batch, lease, NOW + 3)
    assert peers.state(tx, A.name).acknowledged_id == 7
    assert buried(tx) == []


def test_a_push_of_a_peer_is_noted_and_one_of_nobody_is_not(tx):
    peers.add(tx, A, NOW)
    peers.received(tx, A.name, NOW + 1)
    peers.received(tx, "nobody", NOW + 2)
    assert [each.last_received_ts for each in peers.states(tx)] == [NOW + 1]


def test_who_has_yet_to_hear_of_a_statement_is_told(tx):
    assert progress.behind_at(tx, 3) == []
    for peer in (B, A):
        peers.add(tx, peer, NOW)
    assert progress.behind_at(tx, 3) == [A.name, B.name]
    tx.run("UPDATE peers SET acknowledged_id = 9")
    assert progress.behind_at(tx, 9) == []
    assert progress.behind_at(tx, 10) == [A.name, B.name]
    # A has taken others, and refused this one by name.
    tx.run("INSERT INTO parked_statements VALUES (?, 3, 'odd', 1, 1, 1)", (A.name,))
    assert progress.behind_at(tx, 3) == [A.name]
    assert progress.behind_at(tx, 4) == []
    # Who is no longer in the configuration is not waited for here.
    tx.run("UPDATE peers SET source = 'gone' WHERE name = ?", (B.name,))
    assert progress.behind_at(tx, 10) == [A.name]
