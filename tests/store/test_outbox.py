"""The outbox as rows: who may deliver what, and when."""

import pytest

from sydentish.store import outbox

KIND = "onbind"
T0 = 1_000_000
LEASE_MS = 15_000


@pytest.fixture
def add(tx):
    count = 0

    def add(destination="a.example.org", *, key=None, kind=KIND, now_ms=T0):
        nonlocal count
        count += 1
        outbox.add(
            tx,
            kind=kind,
            destination=destination,
            idempotency_key=key or f"key {count}",
            payload=f"payload {count}",
            now_ms=now_ms,
        )

    return add


def lease(tx, now_ms=T0, limit=10, kind=KIND):
    """Those that answer first, then those that failed."""
    well = outbox.lease(tx, kind, now_ms, LEASE_MS, limit, failing=False)
    return well + outbox.lease(tx, kind, now_ms, LEASE_MS, limit - len(well), failing=True)


def payloads(leases):
    return [taken.delivery.payload for taken in leases]


def test_a_row_is_due_at_once_and_comes_as_it_was_written(tx, add):
    add()
    (taken,) = lease(tx)
    assert (taken.created_ts, taken.until_ts) == (T0, T0 + LEASE_MS)
    delivery = taken.delivery
    assert (delivery.destination, delivery.payload) == ("a.example.org", "payload 1")
    assert (delivery.attempts, delivery.method) == (0, None)


def test_a_key_that_is_there_already_changes_nothing(tx, add):
    add(key="k")
    add(key="k")
    add("b.example.org", key="k")
    assert payloads(lease(tx)) == ["payload 1"]
    assert tx.row("SELECT count(*) FROM outbox_destinations") == (1,)


def test_one_row_for_a_destination_at_a_time_the_oldest_first(tx, add):
    add()
    add("b.example.org")
    add()
    first = lease(tx)
    assert payloads(first) == ["payload 1", "payload 2"]
    assert lease(tx) == []
    outbox.delivered(tx, KIND, first[0], "POST")
    assert payloads(lease(tx)) == ["payload 3"]


def test_kinds_do_not_meet(tx, add):
    add(kind="other")
    assert lease(tx) == []
    assert outbox.next_due(tx, KIND, failing=True) is None
    assert not outbox.wake(tx, KIND, "a.example.org", T0)
    assert payloads(lease(tx, kind="other")) == ["payload 1"]


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_no_more_than_the_limit_is_taken_the_longest_due_first(tx, add, limit):
    add("c.example.org", now_ms=T0)
    add("a.example.org", now_ms=T0 + 1)
    add("b.example.org", now_ms=T0 + 2)
    assert payloads(lease(tx, T0 + 5, limit)) == ["payload 1", "payload 2", "payload 3"][:limit]


def test_a_lease_that_runs_out_belongs_to_the_next(tx, add):
    add()
    (mine,) = lease(tx)
    assert outbox.next_due(tx, KIND, failing=True) == T0 + LEASE_MS
    assert lease(tx, T0 + LEASE_MS - 1) == []
    (theirs,) = lease(tx, T0 + LEASE_MS)
    assert theirs.delivery == mine.delivery
    # Who comes too late takes nothing away from the one that has it now.
    outbox.release(tx, KIND, mine)
    assert lease(tx, T0 + LEASE_MS) == []
    outbox.delivered(tx, KIND, mine, "POST")
    outbox.retry(tx, KIND, theirs, T0, "down", T0, 0.0)
    assert lease(tx, 1 << 60) == []
    assert outbox.counts(tx) == []


def test_a_lease_that_is_given_back_is_due_again(tx, add):
    add()
    (taken,) = lease(tx)
    outbox.release(tx, KIND, taken)
    assert payloads(lease(tx)) == ["payload 1"]


def test_a_destination_that_fails_is_left_alone_and_its_row_steps_back(tx, add):
    add()
    add()
    (first,) = lease(tx)
    outbox.retry(tx, KIND, first, T0 + 60_000, "down", T0, 0.0)
    assert outbox.failing(tx, KIND) == {"a.example.org"}
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 1000
    assert lease(tx, T0 + 999) == []
    (second,) = lease(tx, T0 + 1000)
    assert second.delivery.payload == "payload 2"
    outbox.delivered(tx, KIND, second, None)
    assert outbox.failing(tx, KIND) == set()
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 60_000
    (again,) = lease(tx, T0 + 60_000)
    assert (again.delivery.payload, again.delivery.attempts) == ("payload 1", 1)


def test_a_destination_waits_longer_each_time_it_fails(tx, add):
    add()
    now_ms, waits = T0, []
    for _ in range(7):
        (taken,) = lease(tx, now_ms)
        outbox.retry(tx, KIND, taken, now_ms, "down", now_ms, 0.0)
        waits.append(outbox.next_due(tx, KIND, failing=True) - now_ms)
        now_ms += waits[-1]
    assert waits == [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]


def test_a_destination_that_fails_for_an_hour_is_asked_once_an_hour(tx, add):
    add()
    now_ms = T0
    for _ in range(200):
        (taken,) = lease(tx, now_ms)
        outbox.retry(tx, KIND, taken, now_ms, "down", now_ms, 0.0)
        wait, now_ms = (
            outbox.next_due(tx, KIND, failing=True) - now_ms,
            outbox.next_due(tx, KIND, failing=True),
        )
    assert wait == 3600_000


def test_what_is_added_for_a_failing_destination_waits_with_it(tx, add):
    add()
    (taken,) = lease(tx)
    outbox.retry(tx, KIND, taken, T0 + 1000, "down", T0, 0.0)
    add(now_ms=T0 + 1)
    assert lease(tx, T0 + 999) == []
    assert payloads(lease(tx, T0 + 1000)) == ["payload 2"]


def test_what_is_added_while_another_is_in_flight_waits_for_it(tx, add):
    add()
    (taken,) = lease(tx)
    add()
    assert lease(tx) == []
    outbox.delivered(tx, KIND, taken, None)
    assert payloads(lease(tx)) == ["payload 2"]


def test_a_buried_row_stays_listed_and_is_never_tried_again(tx, add):
    add()
    add()
    (taken,) = lease(tx)
    outbox.bury(tx, KIND, taken, "HTTP 403", answered=True)
    assert payloads(lease(tx)) == ["payload 2"]
    assert outbox.counts(tx) == [(KIND, "dead", 1, T0), (KIND, "pending", 1, T0)]
    assert tx.row("SELECT attempts, last_error FROM outbox WHERE state = 'dead'") == (1, "HTTP 403")
    assert not outbox.wake(tx, "other", "a.example.org", T0)
    outbox.wake(tx, KIND, "a.example.org", T0)
    assert outbox.counts(tx) == [(KIND, "dead", 1, T0), (KIND, "pending", 1, T0)]


@pytest.mark.parametrize(("answered", "failing"), [(True, set()), (False, {"a.example.org"})])
def test_a_destination_that_refuses_is_well_and_one_that_is_given_up_on_is_not(tx, add, answered, failing):
    add()
    add()
    (taken,) = lease(tx)
    outbox.retry(tx, KIND, taken, T0 + 1000, "down", T0, 0.0)
    (taken,) = lease(tx, T0 + 1000)
    outbox.bury(tx, KIND, taken, "it is over", answered=answered)
    assert outbox.failing(tx, KIND) == failing


def test_a_sign_of_life_makes_everything_of_a_destination_due(tx, add):
    for destination in ("a.example.org", "a.example.org", "b.example.org"):
        add(destination)
    for taken in lease(tx):
        outbox.retry(tx, KIND, taken, T0 + 500_000, "down", T0, 0.0)
    assert lease(tx, T0 + 1) == []
    assert outbox.wake(tx, KIND, "a.example.org", T0 + 1)
    assert outbox.failing(tx, KIND) == {"a.example.org", "b.example.org"}
    (first,) = lease(tx, T0 + 1)
    outbox.delivered(tx, KIND, first, None)
    assert outbox.failing(tx, KIND) == {"b.example.org"}
    (second,) = lease(tx, T0 + 1)
    assert {first.delivery.payload, second.delivery.payload} == {"payload 1", "payload 2"}


@pytest.mark.parametrize("destination", ["a.example.org", "unknown.example.org"])
def test_a_sign_of_life_wakes_nothing_where_nothing_waits(tx, add, destination):
    add()
    (taken,) = lease(tx)
    outbox.delivered(tx, KIND, taken, None)
    assert not outbox.wake(tx, KIND, destination, T0)
    assert outbox.next_due(tx, KIND, failing=True) is None


def test_what_worked_is_remembered_for_the_destination(tx, add):
    for method, remembered in (("PUT", "PUT"), (None, "PUT"), ("POST", "POST")):
        add()
        (taken,) = lease(tx)
        outbox.delivered(tx, KIND, taken, method)
        add()
        (taken,) = lease(tx)
        assert taken.delivery.method == remembered
        outbox.delivered(tx, KIND, taken, None)


def test_a_row_that_an_operator_dropped_is_not_looked_for_again(tx, add):
    add()
    tx.run("DELETE FROM outbox")
    assert lease(tx) == []
    assert outbox.next_due(tx, KIND, failing=True) is None


def test_next_due_is_the_earliest_of_all_destinations(tx, add):
    assert outbox.next_due(tx, KIND, failing=True) is None
    add("a.example.org", now_ms=T0 + 7)
    add("b.example.org", now_ms=T0 + 3)
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 3
    lease(tx, T0 + 3)
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 7


def test_destinations_that_answer_and_those_that_do_not_are_leased_apart(tx, add):
    add("a.example.org")
    add("b.example.org")
    (taken, _) = lease(tx)
    outbox.retry(tx, KIND, taken, T0 + 1000, "down", T0, 0.0)
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 1000
    assert outbox.next_due(tx, KIND, failing=False) == T0 + LEASE_MS
    later = T0 + 60_000
    (well,) = outbox.lease(tx, KIND, later, LEASE_MS, 10, failing=False)
    (failing,) = outbox.lease(tx, KIND, later, LEASE_MS, 10, failing=True)
    assert (well.delivery.destination, well.failing) == ("b.example.org", False)
    assert (failing.delivery.destination, failing.failing) == ("a.example.org", True)


def test_times_that_a_wrong_clock_has_written_hold_nothing_up(tx, add):
    tomorrow = T0 + 24 * 3600 * 1000
    outbox.add(tx, kind=KIND, destination="a.example.org", idempotency_key="k", payload="p", now_ms=tomorrow)
    (taken,) = lease(tx, tomorrow)
    outbox.retry(tx, KIND, taken, tomorrow + 1000, "down", tomorrow, 0.0)
    assert payloads(lease(tx, T0)) == ["p"]
    # A lease that was taken while the clock was wrong is over, too.
    (abandoned,) = lease(tx, tomorrow + 60_000)
    assert abandoned.until_ts > tomorrow
    assert payloads(lease(tx, T0 + 60_000)) == ["p"]


def test_only_what_waits_to_be_delivered_is_pending(tx, add):
    add(key="k")
    assert outbox.is_pending(tx, "k")
    assert not outbox.is_pending(tx, "other")
    (taken,) = lease(tx)
    assert outbox.is_pending(tx, "k")
    outbox.bury(tx, KIND, taken, "refused", answered=True)
    assert not outbox.is_pending(tx, "k")
