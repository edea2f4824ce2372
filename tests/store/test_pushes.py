"""Pushes: what a peer is sent next, what it has acknowledged, and when the next is tried."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sydentish.domain.associations import Association
from sydentish.domain.delivery import EARLY_CAP_MS, LATE_CAP_MS
from sydentish.domain.peers import Failed, Peer
from sydentish.domain.statements import Tombstone
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import associations, peers, progress, pushes, statements

OURS, PEER, OTHER = "id.example.org", "peer.example.org", "other.example.org"
CAROL = "@carol:hs.example.org"
NOW = 1_700_000_000_000
DAY, HOUR, LEASE = 24 * 3600_000, 3600_000, 20_000
# A clock that was wrong has noted this.
FAR = NOW + 10 * 365 * DAY


def email(number):
    return Threepid(EMAIL, f"u{number}@example.org")


def add_peer(tx, name=PEER, now_ms=NOW):
    peers.add(tx, Peer(name, f"https://{name}", {}, (name,)), now_ms)


def bind(tx, *numbers, ts=NOW):
    for number in numbers:
        associations.put(tx, Association(email(number), CAROL, ts + number, 0, 9, OURS, number))


def unbind(tx, *numbers, ts=NOW):
    for number in numbers:
        statements.add_tombstone(tx, Tombstone(email(number), ts + number, OURS, number))


def supersede(tx, number):
    """Another server's statement is newer than ours."""
    associations.put(tx, Association(email(number), CAROL, NOW + 99, 0, 9, OTHER, 1), "{}")
    statements.drop_tombstone(tx, email(number))


def state(tx, name=PEER):
    return peers.state(tx, name)


def batch(tx, limit=100, now_ms=NOW, name=PEER):
    return pushes.batch(tx, OURS, state(tx, name), now_ms, limit)


def ids(found):
    return [each.origin_id for each in found.statements]


def lease(tx, now_ms=NOW, name=PEER):
    return pushes.lease(tx, name, now_ms, LEASE)


def take(tx, found, now_ms=NOW, name=PEER):
    return pushes.acknowledged(tx, name, found, lease(tx, now_ms, name), now_ms)


def park(tx, *numbers, retry_ts=NOW + HOUR, name=PEER, reason="odd"):
    pushes.park(tx, name, numbers, reason, lease(tx, name=name), NOW, 0.0)
    pushes.hold_back(tx, name, numbers, reason, retry_ts)


def due(tx, now_ms=NOW, heartbeat_ms=DAY):
    return pushes.due(tx, OURS, now_ms, heartbeat_ms)


def tombstones(tx):
    return [number for (number,) in tx.rows("SELECT origin_id FROM tombstones ORDER BY origin_id")]


# --- what is sent --------------------------------------------------------------------------------------


def test_without_statements_there_is_nothing_to_send(tx):
    add_peer(tx)
    supersede(tx, 1)
    assert batch(tx) == pushes.Batch([], 0, moves_on=False)
    assert statements.last_own_id(tx, OURS) == 0


def test_what_is_new_is_sent_in_order_and_no_more_than_allowed(tx):
    add_peer(tx)
    bind(tx, 1, 4, 6)
    unbind(tx, 2, 9)
    supersede(tx, 3)
    first = batch(tx, 3)
    assert (ids(first), first.until_id, first.moves_on, first.parked_ids) == ([1, 2, 4], 4, True, ())
    # It is sent again until it is taken.
    assert batch(tx, 3) == first
    take(tx, first)
    second = batch(tx, 3)
    assert (ids(second), second.until_id) == ([6, 9], 9)
    take(tx, second)
    assert batch(tx) == pushes.Batch([], 9, moves_on=False)
    assert statements.last_own_id(tx, OURS) == 6
    bind(tx, 10)
    assert ids(batch(tx)) == [10]


def test_the_newest_of_ours_is_a_bind_or_an_unbind(tx):
    add_peer(tx)
    bind(tx, 3)
    assert statements.last_own_id(tx, OURS) == 3
    unbind(tx, 5)
    assert statements.last_own_id(tx, OURS) == 5
    bind(tx, 6)
    assert statements.last_own_id(tx, OURS) == 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["bind", "unbind", "superseded"]), max_size=12),
    refused=st.sets(st.integers(1, 12)),
    limit=st.integers(1, 5),
)
def test_whatever_is_refused_all_else_is_sent_once_and_in_order(tx, kinds, refused, limit):
    for table in ("associations", "tombstones", "peers"):
        tx.run(f"DELETE FROM {table}")
    add_peer(tx)
    for number, kind in enumerate(kinds, 1):
        {"bind": bind, "unbind": unbind, "superseded": supersede}[kind](tx, number)
    own = [number for number, kind in enumerate(kinds, 1) if kind != "superseded"]
    taken = []
    for _ in range(4 * len(kinds) + 1):
        found = batch(tx, limit)
        named = refused & set(ids(found))
        if not found.moves_on:
            break
        if named:
            park(tx, *named)
        else:
            taken += ids(found)
            take(tx, found)
    assert taken == [number for number in own if number not in refused]
    assert [number for number, _ in pushes.parked(tx, PEER)] == [
        number for number in own if number in refused
    ]
    assert progress.lag(tx, OURS, state(tx))[0] == len(set(own) & refused)
    # What is erased was taken.
    assert [number for number in tombstones(tx) if number not in refused] == []
    again = batch(tx, 100, NOW + HOUR)
    assert ids(again) == [number for number in own if number in refused]


# --- what was refused by name --------------------------------------------------------------------------


def test_what_is_parked_is_passed_over_and_the_rest_is_sent(tx):
    add_peer(tx)
    add_peer(tx, OTHER)
    bind(tx, 1, 2, 3)
    park(tx, 1, 3, reason="a reason")
    assert pushes.parked(tx, PEER) == [(1, "a reason"), (3, "a reason")]
    assert lease(tx) is not None
    found = batch(tx)
    assert (ids(found), found.until_id, found.moves_on) == ([2], 3, True)
    assert ids(batch(tx, name=OTHER)) == [1, 2, 3]


def test_where_all_that_is_new_is_parked_there_is_nothing_to_send_but_something_to_note(tx):
    add_peer(tx)
    bind(tx, 1, 2)
    park(tx, 1, 2)
    found = batch(tx)
    assert (ids(found), found.until_id, found.moves_on) == ([], 2, True)
    take(tx, found)
    assert pushes.parked(tx, PEER) == [(1, "odd"), (2, "odd")]
    assert batch(tx) == pushes.Batch([], 2, moves_on=False)


def test_what_is_parked_is_tried_again_when_nothing_is_new(tx):
    add_peer(tx)
    bind(tx, 1, 2, 3)
    park(tx, 2)
    park(tx, 1, retry_ts=NOW + 5)
    take(tx, batch(tx))
    assert batch(tx, now_ms=NOW + 4).moves_on is False
    early = batch(tx, now_ms=NOW + 5)
    assert (ids(early), early.until_id, early.moves_on, early.parked_ids) == ([1], 3, True, (1,))
    assert ids(batch(tx, now_ms=NOW + HOUR)) == [1, 2]
    assert ids(batch(tx, 1, now_ms=NOW + HOUR)) == [1]
    bind(tx, 4)
    assert ids(batch(tx, now_ms=NOW + HOUR)) == [4]
    take(tx, batch(tx))
    take(tx, batch(tx, now_ms=NOW + 5), NOW + 5)
    assert pushes.parked(tx, PEER) == [(2, "odd")]
    assert state(tx).acknowledged_id == 4
    # Refused again, it waits again.
    park(tx, 2, retry_ts=NOW + 2 * HOUR, reason="still odd")
    assert pushes.parked(tx, PEER) == [(2, "still odd")]
    assert batch(tx, now_ms=NOW + HOUR).moves_on is False


def test_what_is_parked_and_superseded_vanishes(tx):
    add_peer(tx)
    bind(tx, 1, 2)
    unbind(tx, 3)
    park(tx, 1, 3)
    take(tx, batch(tx))
    supersede(tx, 1)
    found = batch(tx, now_ms=NOW + HOUR)
    assert (ids(found), found.parked_ids) == ([3], (1, 3))
    supersede(tx, 3)
    found = batch(tx, now_ms=NOW + HOUR)
    assert (ids(found), found.parked_ids, found.moves_on) == ([], (1, 3), True)
    take(tx, found)
    assert pushes.parked(tx, PEER) == []
    assert progress.lag(tx, OURS, state(tx)) == (0, None)


def test_what_need_not_be_sent_is_passed_over_and_the_peer_is_not_said_to_be_well(tx):
    add_peer(tx)
    bind(tx, 1)
    unbind(tx, 2)
    park(tx, 1, 2)
    pushes.failed(tx, PEER, Failed("unreachable", "down"), lease(tx), NOW, 0.0)
    before = state(tx)
    pushes.skip(tx, PEER, batch(tx), lease(tx, NOW + 1000))
    assert state(tx) == dataclasses.replace(before, acknowledged_id=2)
    assert tombstones(tx) == [2]
    # The lease has ended, too.
    held = lease(tx, NOW + 1000)
    assert held is not None
    # What was superseded since, is forgotten.
    supersede(tx, 1)
    pushes.skip(tx, PEER, pushes.Batch([], 2, moves_on=True, parked_ids=(1,)), held)
    assert pushes.parked(tx, PEER) == [(2, "odd")]


def test_what_was_sent_without_a_lease_is_held_back_and_let_go(tx):
    add_peer(tx)
    add_peer(tx, OTHER)
    bind(tx, 1)
    unbind(tx, 2, 3)
    for name in (PEER, OTHER):
        take(tx, batch(tx, 1, name=name), name=name)
    held = lease(tx)
    pushes.hold_back(tx, PEER, [1, 3], "odd", NOW + HOUR)
    pushes.hold_back(tx, OTHER, [2], "odd", NOW + HOUR)
    pushes.hold_back(tx, "nobody", [2], "odd", NOW + HOUR)
    assert pushes.parked(tx, PEER) == [(1, "odd"), (3, "odd")]
    # The lease is not touched.
    pushes.acknowledged(tx, PEER, pushes.Batch([], 3, moves_on=True), held, NOW)
    assert state(tx).acknowledged_id == 3
    take(tx, batch(tx, name=OTHER), name=OTHER)
    assert tombstones(tx) == [2, 3]
    pushes.let_go(tx, PEER, [2, 3, 99])
    assert pushes.parked(tx, PEER) == [(1, "odd")]
    assert pushes.parked(tx, OTHER) == [(2, "odd")]
    assert tombstones(tx) == [2]
    pushes.let_go(tx, OTHER, [2])
    assert tombstones(tx) == []


def test_a_tombstone_is_erased_when_the_last_peer_takes_it_parked_or_not(tx):
    for name in (PEER, OTHER):
        add_peer(tx, name)
    unbind(tx, 1, 2, 3)
    take(tx, batch(tx, 2))
    assert tombstones(tx) == [1, 2, 3]
    park(tx, 2, name=OTHER)
    take(tx, batch(tx, name=OTHER), name=OTHER)
    assert tombstones(tx) == [2, 3]
    take(tx, batch(tx))
    assert tombstones(tx) == [2]
    take(tx, batch(tx, now_ms=NOW + HOUR, name=OTHER), name=OTHER)
    assert tombstones(tx) == []


def test_a_peer_that_was_removed_is_parked_nothing_and_has_not_failed(tx):
    add_peer(tx)
    held = lease(tx)
    peers.remove(tx, PEER)
    pushes.park(tx, PEER, {1}, "odd", held, NOW, 0.0)
    assert pushes.failed(tx, PEER, Failed("unreachable", "down"), held, NOW, 0.0) == NOW
    assert pushes.acknowledged(tx, PEER, pushes.Batch([], 9, moves_on=True), held, NOW) is False
    pushes.release(tx, PEER, held)
    assert pushes.lease(tx, PEER, NOW, LEASE) is None
    assert tx.rows("SELECT * FROM parked_statements") == peers.states(tx) == []


# --- who is due ----------------------------------------------------------------------------------------


def well(tx, name=PEER, now_ms=NOW):
    """The peer has just taken all there is."""
    add_peer(tx, name)
    take(tx, batch(tx, name=name), now_ms, name)


def test_a_peer_is_due_when_there_is_something_new(tx):
    well(tx)
    well(tx, OTHER)
    assert due(tx) == []
    bind(tx, 1)
    assert due(tx) == [OTHER, PEER]
    take(tx, batch(tx))
    assert due(tx) == [OTHER]


def test_a_new_peer_is_greeted_even_with_nothing(tx):
    add_peer(tx)
    assert due(tx) == [PEER]


def test_a_peer_that_was_long_silent_is_due(tx):
    well(tx)
    assert due(tx, NOW + 999, 1000) == []
    assert due(tx, NOW + 1000, 1000) == [PEER]
    # At once, where nobody is to wait.
    assert due(tx, NOW, 0) == [PEER]


def test_a_peer_is_due_when_it_is_time_for_what_is_parked(tx):
    well(tx)
    bind(tx, 1, 2)
    park(tx, 1)
    take(tx, batch(tx))
    assert due(tx, NOW + HOUR - 1) == []
    assert due(tx, NOW + HOUR) == [PEER]


def test_a_peer_is_left_alone_while_it_is_leased_or_has_failed(tx):
    well(tx)
    bind(tx, 1)
    held = lease(tx)
    assert held == NOW + LEASE
    assert due(tx, NOW + LEASE - 1) == []
    assert due(tx, NOW + LEASE) == [PEER]
    retry_ts = pushes.failed(tx, PEER, Failed("unreachable", "down"), held, NOW, 0.0)
    assert due(tx, retry_ts - 1) == []
    assert due(tx, retry_ts) == [PEER]


@pytest.mark.parametrize("source", ["gone", "paused"])
def test_nothing_is_pushed_to_a_peer_that_is_paused_or_gone(tx, source):
    peers.configure(tx, [Peer(PEER, "https://x", {}, ())], NOW)
    bind(tx, 1)
    pushes.failed(tx, PEER, Failed("unreachable", "down"), lease(tx), NOW, 0.0)
    if source == "gone":
        peers.configure(tx, [], NOW)
    else:
        peers.pause(tx, PEER, paused=True)
    assert due(tx, NOW + DAY, 0) == []
    assert lease(tx, NOW + DAY) is None
    assert pushes.next_retry(tx, NOW) is None
    # What it has not heard of waits on.
    assert progress.lag(tx, OURS, state(tx))[0] == 1
    if source == "gone":
        peers.configure(tx, [Peer(PEER, "https://x", {}, ())], NOW)
    else:
        peers.pause(tx, PEER, paused=False)
    assert due(tx, NOW + DAY) == [PEER]


@pytest.mark.parametrize("column", ["retry_ts", "lease_until_ts", "last_success_ts"])
def test_what_a_wrong_clock_has_noted_holds_no_peer_up(tx, column):
    well(tx)
    bind(tx, 1)
    tx.run(f"UPDATE peers SET {column} = ?", (FAR,))
    assert due(tx) == [PEER]
    held = lease(tx)
    assert held == NOW + LEASE
    take(tx, batch(tx), NOW + LEASE)
    assert (state(tx).acknowledged_id, state(tx).last_success_ts) == (1, NOW + LEASE)
    assert due(tx, NOW + LEASE) == []


def test_what_a_wrong_clock_has_parked_is_tried_again(tx):
    well(tx)
    bind(tx, 1, 2)
    park(tx, 1, retry_ts=FAR)
    take(tx, batch(tx))
    assert due(tx) == [PEER]
    assert ids(batch(tx)) == [1]


def test_a_heartbeat_is_due_when_the_clock_has_gone_back(tx):
    well(tx, now_ms=NOW + HOUR)
    assert due(tx, NOW, DAY) == [PEER]
    take(tx, batch(tx), NOW)
    assert due(tx, NOW, DAY) == []


# --- leases --------------------------------------------------------------------------------------------


def test_a_peer_is_leased_once_at_a_time(tx):
    for name in (PEER, OTHER):
        add_peer(tx, name)
    held = lease(tx)
    assert held == NOW + LEASE
    assert lease(tx, NOW + LEASE - 1) is None
    assert lease(tx, name=OTHER) == NOW + LEASE
    pushes.release(tx, PEER, held)
    assert lease(tx, NOW + 1) == NOW + 1 + LEASE
    # Only who has it can end it.
    pushes.release(tx, PEER, held)
    assert lease(tx, NOW + 2) is None
    assert lease(tx, NOW + 1 + LEASE) is not None
    assert pushes.lease(tx, "nobody", NOW, LEASE) is None


def lost(tx):
    """A lease that has run out, in whose place another one is held."""
    add_peer(tx)
    bind(tx, 1, 2)
    unbind(tx, 3)
    first = lease(tx)
    return first, lease(tx, NOW + LEASE)


def test_under_a_lost_lease_nothing_is_acknowledged(tx):
    first, second = lost(tx)
    found, before = batch(tx), tx.rows("SELECT * FROM peers")
    assert pushes.acknowledged(tx, PEER, found, first, NOW + LEASE) is False
    assert tx.rows("SELECT * FROM peers") == before
    assert tombstones(tx) == [3]
    pushes.acknowledged(tx, PEER, found, second, NOW + LEASE)
    assert (state(tx).acknowledged_id, tombstones(tx)) == (3, [])


def test_under_a_lost_lease_nothing_is_parked(tx):
    first, second = lost(tx)
    before = tx.rows("SELECT * FROM peers")
    pushes.park(tx, PEER, {2}, "odd", first, NOW, 0.0)
    assert pushes.parked(tx, PEER) == []
    assert tx.rows("SELECT * FROM peers") == before
    pushes.park(tx, PEER, {2}, "odd", second, NOW, 0.0)
    assert pushes.parked(tx, PEER) == [(2, "odd")]


def test_under_a_lost_lease_no_failure_is_noted(tx):
    first, second = lost(tx)
    before = tx.rows("SELECT * FROM peers")
    pushes.failed(tx, PEER, Failed("unreachable", "timed out"), first, NOW + LEASE, 0.0)
    assert tx.rows("SELECT * FROM peers") == before
    pushes.failed(tx, PEER, Failed("unreachable", "timed out"), second, NOW + LEASE, 0.0)
    assert (state(tx).failures, state(tx).last_failure) == (1, "timed out")


def test_under_a_lost_lease_nothing_is_passed_over(tx):
    first, second = lost(tx)
    found, before = batch(tx), tx.rows("SELECT * FROM peers")
    pushes.skip(tx, PEER, found, first)
    assert (tx.rows("SELECT * FROM peers"), tombstones(tx)) == (before, [3])
    pushes.skip(tx, PEER, found, second)
    assert (state(tx).acknowledged_id, tombstones(tx)) == (3, [])


@pytest.mark.parametrize("end", ["acknowledged", "parked", "failed"])
def test_what_becomes_of_a_push_ends_its_lease(tx, end):
    add_peer(tx)
    bind(tx, 1)
    if end == "acknowledged":
        take(tx, batch(tx))
    elif end == "parked":
        park(tx, 1)
    else:
        assert pushes.failed(tx, PEER, Failed("unreachable", "down"), lease(tx), NOW, 0.0) == NOW + 1000
        # It is left alone all the same.
        assert lease(tx, NOW + 999) is None
    assert lease(tx, NOW + 1000) is not None


# --- how it goes ---------------------------------------------------------------------------------------


def test_failures_count_and_back_off_until_something_is_taken(tx):
    add_peer(tx)
    now_ms, waits = NOW, []
    for _ in range(8):
        retry_ts = pushes.failed(tx, PEER, Failed("unreachable", "down"), lease(tx, now_ms), now_ms, 0.0)
        waits.append(retry_ts - now_ms)
        assert state(tx).retry_ts == retry_ts
        now_ms = retry_ts
    assert waits == [1000, 2000, 4000, 8000, 16_000, EARLY_CAP_MS, EARLY_CAP_MS, EARLY_CAP_MS]
    assert (state(tx).failures, state(tx).failing_since_ts) == (8, NOW)
    now_ms = NOW + 2 * HOUR
    for _ in range(8):
        late, now_ms = (
            now_ms,
            pushes.failed(tx, PEER, Failed("unreachable", "still down"), lease(tx, now_ms), now_ms, 0.0),
        )
    assert now_ms == state(tx).retry_ts == late + LATE_CAP_MS
    assert (state(tx).last_failure, state(tx).last_failure_ts) == ("still down", late)
    assert take(tx, batch(tx), now_ms) is True
    assert (state(tx).failures, state(tx).failing_since_ts, state(tx).retry_ts) == (0, None, 0)
    # What it was is still shown.
    assert state(tx).last_failure == "still down"
    assert take(tx, batch(tx), now_ms) is False


@pytest.mark.parametrize(("jitter", "wait"), [(1.0, 1100), (-1.0, 900)])
def test_peers_that_fail_together_are_not_tried_together(tx, jitter, wait):
    add_peer(tx)
    assert pushes.failed(tx, PEER, Failed("unreachable", "down"), lease(tx), NOW, jitter) == NOW + wait


def test_the_next_try_is_that_of_the_first_peer_that_is_left_alone(tx):
    for name in (PEER, OTHER):
        add_peer(tx, name)
    assert pushes.next_retry(tx, NOW) is None
    pushes.failed(tx, PEER, Failed("unreachable", "down"), lease(tx), NOW, 0.0)
    pushes.failed(tx, OTHER, Failed("unreachable", "down"), lease(tx, name=OTHER), NOW + 7, 0.0)
    assert pushes.next_retry(tx, NOW) == NOW + 1000
    assert pushes.next_retry(tx, NOW + 1000) == NOW + 1007
    assert pushes.next_retry(tx, NOW + 1007) is None


def test_a_peer_that_was_heard_from_is_tried_at_once_but_not_well_yet(tx):
    add_peer(tx)
    add_peer(tx, OTHER)
    assert pushes.wake(tx, PEER) is False
    for name in (PEER, OTHER):
        pushes.failed(tx, name, Failed("unreachable", "down"), lease(tx, name=name), NOW, 0.0)
    assert pushes.wake(tx, PEER) is True
    assert due(tx) == [PEER]
    assert state(tx).failures == 1
    assert pushes.wake(tx, PEER) is pushes.wake(tx, "nobody") is False


# --- how far behind ------------------------------------------------------------------------------------


def test_who_has_taken_all_is_not_behind(tx):
    add_peer(tx)
    supersede(tx, 5)
    assert progress.lag(tx, OURS, state(tx)) == (0, None)
    bind(tx, 1)
    take(tx, batch(tx))
    assert progress.lag(tx, OURS, state(tx)) == (0, None)


def test_a_peer_is_behind_with_what_it_has_not_taken_since_the_oldest_of_it(tx):
    add_peer(tx)
    bind(tx, 1, 3)
    unbind(tx, 2, 4)
    assert progress.lag(tx, OURS, state(tx)) == (4, NOW + 1)
    take(tx, batch(tx, 1))
    assert progress.lag(tx, OURS, state(tx)) == (3, NOW + 2)
    take(tx, batch(tx, 2))
    assert progress.lag(tx, OURS, state(tx)) == (1, NOW + 4)


def test_nothing_has_waited_for_a_peer_before_there_was_one(tx):
    bind(tx, 1, ts=NOW - DAY)
    add_peer(tx)
    assert progress.lag(tx, OURS, state(tx)) == (1, NOW)
    peers.start_over(tx, PEER, NOW + 5)
    assert progress.lag(tx, OURS, state(tx)) == (1, NOW + 5)


def test_what_is_parked_is_behind_and_counted_once(tx):
    add_peer(tx)
    bind(tx, 1, 2, 3)
    park(tx, 1, 2)
    assert progress.lag(tx, OURS, state(tx)) == (3, NOW + 1)
    take(tx, batch(tx))
    assert progress.lag(tx, OURS, state(tx)) == (2, NOW + 1)
    bind(tx, 9)
    assert progress.lag(tx, OURS, state(tx)) == (3, NOW + 1)


def test_what_was_parked_and_is_superseded_is_not_what_has_waited_longest(tx):
    add_peer(tx, now_ms=NOW - DAY)
    bind(tx, 1, 2, 3)
    park(tx, 1, 2)
    take(tx, batch(tx))
    supersede(tx, 1)
    assert progress.lag(tx, OURS, state(tx))[1] == NOW + 2
    supersede(tx, 2)
    assert progress.lag(tx, OURS, state(tx))[1] is None
    bind(tx, 4)
    assert progress.lag(tx, OURS, state(tx))[1] == NOW + 4


def test_a_report_has_all_peers(tx):
    assert progress.report(tx, OURS) == []
    add_peer(tx)
    add_peer(tx, OTHER)
    bind(tx, 1, 2)
    park(tx, 1)
    take(tx, batch(tx))
    assert progress.report(tx, OURS) == [
        progress.PeerReport(state(tx, OTHER), behind=2, waiting_since_ts=NOW + 1, parked=0),
        progress.PeerReport(state(tx), behind=1, waiting_since_ts=NOW + 1, parked=1),
    ]
