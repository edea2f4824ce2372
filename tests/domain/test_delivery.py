from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.delivery import Dead, RetryAt, backoff_ms, verdict

SECOND = 1000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
FAILURES = st.integers(min_value=1, max_value=10**6)
FAILING_FOR = st.integers(min_value=0, max_value=30 * DAY)
JITTER = st.floats(min_value=-1, max_value=1)


@pytest.mark.parametrize(
    ("failures", "failing_for_ms", "expected"),
    [
        (1, 0, 1 * SECOND),
        (2, 1 * SECOND, 2 * SECOND),
        (3, 3 * SECOND, 4 * SECOND),
        (4, 7 * SECOND, 8 * SECOND),
        (5, 15 * SECOND, 16 * SECOND),
        (6, 31 * SECOND, 30 * SECOND),
        (100, HOUR - 1, 30 * SECOND),
        (100, HOUR, HOUR),
        (12, HOUR, 2048 * SECOND),
        (13, HOUR, HOUR),
        (10**9, 14 * DAY, HOUR),
    ],
)
def test_waits_double_from_a_second_to_30_seconds_in_the_first_hour_and_an_hour_later(
    failures, failing_for_ms, expected
):
    assert backoff_ms(failures, failing_for_ms, 0) == expected


@given(FAILURES, FAILING_FOR, JITTER)
def test_a_wait_is_within_ten_per_cent_of_its_middle(failures, failing_for_ms, jitter):
    middle = backoff_ms(failures, failing_for_ms, 0)
    assert 0.9 * middle - 1 <= backoff_ms(failures, failing_for_ms, jitter) <= 1.1 * middle + 1


@given(FAILURES, FAILING_FOR)
def test_jitter_reaches_both_ends(failures, failing_for_ms):
    middle = backoff_ms(failures, failing_for_ms, 0)
    assert backoff_ms(failures, failing_for_ms, -1) == round(0.9 * middle)
    assert backoff_ms(failures, failing_for_ms, 1) == round(1.1 * middle)


@given(FAILURES, FAILING_FOR, JITTER)
def test_a_wait_is_never_shorter_than_the_first_nor_longer_than_the_cap(failures, failing_for_ms, jitter):
    cap = 30 * SECOND if failing_for_ms < HOUR else HOUR
    assert 0.9 * SECOND <= backoff_ms(failures, failing_for_ms, jitter) <= 1.1 * cap


@given(FAILURES, FAILING_FOR, st.integers(min_value=0, max_value=DAY))
def test_waits_never_become_shorter_as_failing_goes_on(failures, failing_for_ms, later):
    waits = [
        backoff_ms(failures, failing_for_ms, 0),
        backoff_ms(failures + 1, failing_for_ms, 0),
        backoff_ms(failures + 1, failing_for_ms + later, 0),
    ]
    assert waits == sorted(waits)


@given(FAILURES, st.integers(min_value=-DAY, max_value=-1), JITTER)
def test_a_clock_that_was_set_back_waits_as_in_the_first_hour(failures, failing_for_ms, jitter):
    assert backoff_ms(failures, failing_for_ms, jitter) == backoff_ms(failures, 0, jitter)


def decide(**given_values):
    values = {
        "permanent": False,
        "failures": 1,
        "created_ts": 1000,
        "now_ms": 1000,
        "retry_for_ms": 14 * DAY,
        "jitter": 0,
    }
    return verdict(**values | given_values)


def test_the_first_failure_is_tried_again_after_a_second():
    assert decide() == RetryAt(2000)


@given(FAILURES, st.integers(min_value=0, max_value=20 * DAY), JITTER)
def test_what_is_permanent_is_dead_at_once(failures, age, jitter):
    assert decide(permanent=True, failures=failures, now_ms=1000 + age, jitter=jitter) == Dead()


def test_a_row_is_dead_at_its_age_to_the_millisecond():
    assert isinstance(decide(now_ms=1000 + 14 * DAY - 1), RetryAt)
    assert decide(now_ms=1000 + 14 * DAY) == Dead()


@given(FAILURES, st.integers(min_value=-DAY, max_value=14 * DAY - 1), JITTER)
def test_a_retry_lies_in_the_future_by_the_wait(failures, age, jitter):
    now_ms = 1000 + age
    decided = decide(failures=failures, now_ms=now_ms, jitter=jitter)
    assert decided == RetryAt(now_ms + backoff_ms(failures, age, jitter))
    assert decided.due_ts > now_ms


def test_a_row_of_14_days_is_tried_often_at_first_then_hourly_and_dies():
    """The whole life of a row whose destination never answers, played through."""
    tries, now_ms, created_ts = [], 0, 0
    while True:
        tries.append(now_ms)
        decided = verdict(
            permanent=False,
            failures=len(tries),
            created_ts=created_ts,
            now_ms=now_ms,
            retry_for_ms=14 * DAY,
            jitter=0,
        )
        if isinstance(decided, Dead):
            break
        now_ms = decided.due_ts
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps[:7] == [1000, 2000, 4000, 8000, 16000, 30000, 30000]
    assert all(gap <= 30 * SECOND for start, gap in zip(tries, gaps, strict=False) if start < HOUR)
    assert gaps[-1] == HOUR
    assert 14 * DAY <= tries[-1] <= 14 * DAY + HOUR, "given up at the first try after the deadline"
