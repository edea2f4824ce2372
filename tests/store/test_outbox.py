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
        return outbox.add(
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
    outbox.bury(tx, KIND, taken, "HTTP 403", T0, answered=True)
    assert payloads(lease(tx)) == ["payload 2"]
    assert outbox.counts(tx) == [(KIND, "dead", 1, T0), (KIND, "pending", 1, T0)]
    found = tx.row("SELECT attempts, last_error, died_ts FROM outbox WHERE state = 'dead'")
    assert found == (1, "HTTP 403", T0)
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
    outbox.bury(tx, KIND, taken, "it is over", T0, answered=answered)
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
    number = add(key="k")
    assert outbox.rows_of(tx, "k") == [number]
    assert outbox.rows_of(tx, "other") == []
    (taken,) = lease(tx)
    assert outbox.rows_of(tx, "k") == [number]
    outbox.bury(tx, KIND, taken, "refused", T0, answered=True)
    assert outbox.rows_of(tx, "k") == []


def test_what_is_added_has_a_number_of_its_own_and_nothing_has_none(tx, add):
    first, again, second = add(key="a"), add(key="a"), add(key="b")
    assert again is None
    assert first is not None
    assert second > first
    assert tx.rows("SELECT outbox_id FROM outbox ORDER BY outbox_id") == [(first,), (second,)]
    # Not even when its row is gone does another one get it.
    outbox.withdraw(tx, second)
    assert add(key="c") > second


def test_a_cause_has_the_rows_whose_keys_begin_with_it(tx, add):
    cause = "onbind:id.example.org:1"
    mine = [add(key=key) for key in (cause, f"{cause}:1", f"{cause}:2", f"{cause}:10", f"{cause}:")]
    for other in (
        "onbind:id.example.org:10",
        "onbind:id.example.org:",
        f"{cause};",
        f"{cause}0",
        f"{cause}9:1",
        cause[:-1],
    ):
        add(key=other)
    assert sorted(outbox.rows_of(tx, cause)) == mine
    assert outbox.rows_of(tx, "onbind:id.example.org:2") == []
    assert outbox.rows_of(tx, "") == []


def test_what_is_withdrawn_is_not_delivered_and_holds_nothing_up(tx, add):
    add(key="kept", now_ms=T0 + 5)
    number = add(key="gone", now_ms=T0)
    assert outbox.next_due(tx, KIND, failing=True) == T0
    outbox.withdraw(tx, number)
    assert outbox.rows_of(tx, "gone") == []
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 5
    assert payloads(lease(tx, T0 + 5)) == ["payload 1"]
    outbox.withdraw(tx, number)
    outbox.withdraw(tx, 4711)


def test_the_last_row_of_a_destination_that_is_withdrawn_leaves_nothing_due(tx, add):
    outbox.withdraw(tx, add())
    assert outbox.next_due(tx, KIND, failing=True) is None
    assert lease(tx) == []


@pytest.mark.parametrize("end", ["delivered", "bury", "retry", "release"])
def test_what_is_withdrawn_on_its_way_can_end_as_it_likes(tx, add, end):
    number = add()
    add()
    (taken,) = lease(tx)
    outbox.withdraw(tx, number)
    # Its lease still holds for the destination: one thing at a time.
    assert lease(tx) == []
    ends = {
        "delivered": lambda: outbox.delivered(tx, KIND, taken, "POST"),
        "bury": lambda: outbox.bury(tx, KIND, taken, "refused", T0, answered=True),
        "retry": lambda: outbox.retry(tx, KIND, taken, T0 + 1000, "down", T0, 0.0),
        "release": lambda: outbox.release(tx, KIND, taken),
    }
    ends[end]()
    assert outbox.counts(tx) == [(KIND, "pending", 1, T0)]
    assert payloads(lease(tx, T0 + 2000)) == ["payload 2"]


@pytest.mark.parametrize(("keeps", "payload"), [(True, "payload 1"), (False, "")])
def test_what_was_given_up_keeps_its_payload_only_where_it_may(tx, add, keeps, payload):
    add()
    (taken,) = lease(tx)
    outbox.bury(tx, KIND, taken, "refused", T0, answered=True, keeps_payload=keeps)
    assert tx.rows("SELECT state, payload FROM outbox") == [("dead", payload)]


def test_a_destination_that_is_well_all_the_same_is_given_the_next_at_once(tx, add):
    add()
    add()
    (first,) = lease(tx)
    outbox.retry(tx, KIND, first, T0 + 60_000, "greylisted", T0, None)
    assert outbox.failing(tx, KIND) == set()
    (second,) = outbox.lease(tx, KIND, T0, LEASE_MS, 10, failing=False)
    assert second.delivery.payload == "payload 2"
    outbox.delivered(tx, KIND, second, None)
    assert outbox.next_due(tx, KIND, failing=False) == T0 + 60_000
    assert lease(tx, T0 + 59_999) == []
    (again,) = lease(tx, T0 + 60_000)
    assert (again.delivery.payload, again.delivery.attempts) == ("payload 1", 1)


def test_a_destination_that_answers_is_well_again_whatever_it_says_of_one_row(tx, add):
    add()
    (taken,) = lease(tx)
    outbox.retry(tx, KIND, taken, T0 + 1000, "down", T0, 0.0)
    assert outbox.failing(tx, KIND) == {"a.example.org"}
    (taken,) = lease(tx, T0 + 1000)
    outbox.retry(tx, KIND, taken, T0 + 5000, "greylisted", T0 + 1000, None)
    assert outbox.failing(tx, KIND) == set()
    (taken,) = lease(tx, T0 + 5000)
    outbox.retry(tx, KIND, taken, T0 + 6000, "down", T0 + 5000, 0.0)
    # Its back-off begins anew.
    assert outbox.next_due(tx, KIND, failing=True) == T0 + 6000
