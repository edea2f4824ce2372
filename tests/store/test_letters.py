"""The rows of the outbox as operators see and change them."""

import pytest

from sydentish.store import letters, outbox
from sydentish.store.letters import Wanted

T0, HOUR = 1_000_000, 3600_000


def add(tx, key, destination="hs.example.org", kind="onbind"):
    return outbox.add(
        tx, kind=kind, destination=destination, idempotency_key=key, payload=f'{{"k": "{key}"}}', now_ms=T0
    )


def lease(tx, now_ms=T0, kind="onbind"):
    found = [outbox.lease(tx, kind, now_ms, 1000, 1, failing=failing) for failing in (False, True)]
    return [*found[0], *found[1]][0]


def bury(tx, now_ms=T0, *, kind="onbind", **options):
    taken = lease(tx, now_ms, kind)
    outbox.bury(tx, kind, taken, "HTTP 403", now_ms, answered=False, **options)
    return taken.delivery.outbox_id


def test_rows_are_listed_by_what_they_are(tx):
    dead = add(tx, "a")
    bury(tx, T0 + 5)
    numbers = [add(tx, "b"), add(tx, "c", "other.example.org"), add(tx, "d", "relay-1", "invite")]

    def listed(limit=10, after=0, **wanted):
        return [each.outbox_id for each in letters.letters_after(tx, Wanted(**wanted), after, limit)]

    assert listed() == [dead, *numbers]
    assert listed(2) == [dead, numbers[0]]
    assert listed(2, numbers[0]) == numbers[1:]
    assert listed(kind="invite") == numbers[2:]
    assert listed(state="dead") == [dead]
    assert listed(destination="hs.example.org", state="pending") == numbers[:1]
    assert listed(died_before_ts=T0 + 5) == []
    assert listed(died_before_ts=T0 + 6) == [dead]
    found = letters.letter(tx, dead)
    assert (found.state, found.died_ts, found.attempts, found.last_error) == ("dead", T0 + 5, 1, "HTTP 403")
    assert letters.letter(tx, 99) is None
    assert letters.count(tx) == 4
    assert '"k"' not in repr(found)
    assert '"k"' not in repr(letters.texts_after(tx, 0, 9))


def test_the_next_try_is_that_of_the_row_or_that_of_its_destination(tx):
    number = add(tx, "a")
    outbox.retry(tx, "onbind", lease(tx), T0 + 10, "down", T0, 0.0)
    assert letters.letter(tx, number).next_try_ts == T0 + 1000
    outbox.wake(tx, "onbind", "hs.example.org", T0 + 5)
    assert letters.letter(tx, number).next_try_ts == T0 + 5


def test_what_was_given_up_begins_anew_and_its_destination_is_tried_at_once(tx):
    number = add(tx, "a")
    waits = add(tx, "b")
    outbox.retry(tx, "onbind", lease(tx), T0 + HOUR, "down", T0, 0.0)
    outbox.retry(tx, "onbind", lease(tx, T0 + 1000), T0 + HOUR, "down", T0 + 1000, 0.0)
    assert bury(tx, T0 + HOUR) == number
    letters.revive(tx, letters.letter(tx, number), T0 + HOUR + 7)
    found = letters.letter(tx, number)
    assert (found.state, found.created_ts, found.due_ts, found.died_ts, found.attempts) == (
        "pending",
        T0 + HOUR + 7,
        T0 + HOUR + 7,
        None,
        0,
    )
    # The other one, which has waited for longer, is still first.
    assert lease(tx, T0 + HOUR + 7).delivery.outbox_id == waits


@pytest.mark.parametrize("is_dead", [False, True])
def test_one_whose_destination_is_missing_is_tried_all_the_same(tx, is_dead):
    number = add(tx, "a")
    if is_dead:
        bury(tx)
    tx.run("DELETE FROM outbox_destinations")
    letters.revive(tx, letters.letter(tx, number), T0 + 7)
    assert lease(tx, T0 + 7).delivery.outbox_id == number


def test_one_that_waits_is_due_and_not_made_younger(tx):
    number = add(tx, "a")
    outbox.retry(tx, "onbind", lease(tx), T0 + HOUR, "down", T0, 0.0)
    letters.revive(tx, letters.letter(tx, number), T0 + 7)
    found = letters.letter(tx, number)
    assert (found.created_ts, found.next_try_ts, found.attempts) == (T0, T0 + 7, 1)


@pytest.mark.parametrize(
    ("method", "stays"), [(None, False), ("POST", False), ("PUT", True)], ids=["none", "usual", "other"]
)
def test_a_destination_is_forgotten_unless_there_is_something_to_remember(tx, method, stays):
    add(tx, "a")
    taken = lease(tx)
    assert letters.purge_destinations(tx, T0 + HOUR, None, 10, ["POST"]) == (0, None)
    outbox.delivered(tx, "onbind", taken, method)
    assert letters.purge_destinations(tx, T0, None, 10, ["POST"]) == (int(not stays), None)
    assert bool(tx.rows("SELECT * FROM outbox_destinations")) == stays


def test_a_destination_that_is_left_alone_is_remembered_until_it_need_not_be(tx):
    number = add(tx, "a")
    outbox.retry(tx, "onbind", lease(tx), T0 + HOUR, "down", T0, 0.0)
    outbox.withdraw(tx, number)
    assert letters.purge_destinations(tx, T0 + 999, None, 10, ["POST"]) == (0, None)
    assert letters.purge_destinations(tx, T0 + 1000, None, 10, ["POST"]) == (1, None)
