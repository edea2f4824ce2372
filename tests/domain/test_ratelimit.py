from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sydentish.domain.ratelimit import Budgets, Charge, Granted, Rate, Refused, withdraw
from sydentish.domain.threepids import PhoneNumber, Threepid

NOW = 1_767_225_600_000
MINUTE = 60_000
HOUR = 60 * MINUTE
RATES = st.builds(Rate, count=st.integers(1, 60), period_ms=st.integers(1, 1_000_000))
TIMES = st.none() | st.integers(0, 2 * NOW)
MOMENTS = st.integers(0, 2 * NOW)


class Bucket:
    """A budget as it is kept: the answers change it, and a refusal does not."""

    def __init__(self, rate, full_ts=None):
        self.rate = rate
        self.full_ts = full_ts

    def take(self, now_ms):
        answer = withdraw(self.full_ts, self.rate, now_ms)
        if isinstance(answer, Granted):
            self.full_ts = answer.full_ts
        return answer

    def takes(self, now_ms):
        return isinstance(self.take(now_ms), Granted)


def test_a_burst_and_then_one_at_a_time():
    bucket = Bucket(Rate(3, HOUR))
    assert [bucket.take(NOW) for _ in range(4)] == [
        Granted(NOW + HOUR // 3),
        Granted(NOW + HOUR // 3 * 2),
        Granted(NOW + HOUR),
        Refused(HOUR // 3),
    ]
    assert bucket.take(NOW + HOUR // 3 - 1) == Refused(1)
    assert bucket.take(NOW + HOUR // 3) == Granted(NOW + HOUR // 3 * 4)
    assert bucket.take(NOW + HOUR // 3) == Refused(HOUR // 3)


def test_a_bucket_that_is_full_again_is_as_good_as_new():
    assert withdraw(NOW, Rate(3, HOUR), NOW) == withdraw(None, Rate(3, HOUR), NOW)
    assert withdraw(NOW - 10 * HOUR, Rate(3, HOUR), NOW) == withdraw(None, Rate(3, HOUR), NOW)


@pytest.mark.parametrize("ahead_ms", [HOUR + MINUTE + 1, 1000 * HOUR, 2**62])
def test_a_time_from_a_wrong_clock_is_mended_by_the_first_who_comes(ahead_ms):
    bucket = Bucket(Rate(3, HOUR), NOW + ahead_ms)
    assert bucket.take(NOW) == Granted(NOW + HOUR)
    assert bucket.take(NOW) == Refused(HOUR // 3)
    assert bucket.takes(NOW + HOUR // 3)


def test_a_time_from_a_clock_that_is_a_little_ahead_gives_nothing_away():
    bucket = Bucket(Rate(3, HOUR), NOW + HOUR + MINUTE)
    assert bucket.take(NOW) == Refused(HOUR // 3 + MINUTE)
    assert bucket.takes(NOW + HOUR // 3 + MINUTE)


def test_a_smaller_rate_holds_at_once():
    bucket = Bucket(Rate(60, HOUR))
    for _ in range(30):
        bucket.take(NOW)
    bucket.rate = Rate(2, HOUR)
    assert bucket.take(NOW + HOUR // 2) == Granted(NOW + HOUR // 2 * 2)


@given(RATES, MOMENTS)
def test_a_full_bucket_gives_exactly_what_the_rate_says(rate, now_ms):
    bucket = Bucket(rate)
    assert [bucket.takes(now_ms) for _ in range(rate.count + 1)] == [True] * rate.count + [False]


@given(TIMES, RATES, MOMENTS)
@example(None, Rate(7, 10), 0)
def test_a_refusal_says_exactly_when_to_come_again(full_ts, rate, now_ms):
    bucket = Bucket(rate, full_ts)
    answer = bucket.take(now_ms)
    if isinstance(answer, Refused):
        assert answer.retry_after_ms >= 1
        assert bucket.take(now_ms + answer.retry_after_ms - 1) == Refused(1)
        assert bucket.takes(now_ms + answer.retry_after_ms)


@given(TIMES, RATES, MOMENTS)
def test_nobody_waits_longer_than_one_share_of_the_period_and_clocks_differ(full_ts, rate, now_ms):
    answer = withdraw(full_ts, rate, now_ms)
    if isinstance(answer, Refused):
        assert answer.retry_after_ms <= -(-rate.period_ms // rate.count) + MINUTE


@given(TIMES, RATES, MOMENTS)
def test_what_is_granted_is_ahead_of_now_but_not_by_more_than_the_period(full_ts, rate, now_ms):
    answer = withdraw(full_ts, rate, now_ms)
    if isinstance(answer, Granted):
        assert now_ms < answer.full_ts < now_ms + rate.period_ms + rate.count


@given(RATES, MOMENTS, st.lists(st.integers(0, 200_000), max_size=200))
def test_in_any_time_no_more_is_granted_than_a_burst_and_what_has_filled_since(rate, start, waits):
    bucket, now_ms, granted = Bucket(rate), start, []
    for wait in waits:
        now_ms += wait
        if bucket.takes(now_ms):
            granted.append(now_ms)
    for first, since in enumerate(granted):
        for last in range(first, len(granted)):
            filled = (granted[last] - since) * rate.count / rate.period_ms
            assert last - first + 1 <= rate.count + filled


@given(RATES, MOMENTS)
def test_after_the_period_it_is_full_again(rate, now_ms):
    bucket = Bucket(rate)
    while bucket.takes(now_ms):
        pass
    later = now_ms + rate.period_ms + rate.count
    assert [bucket.takes(later) for _ in range(rate.count)] == [True] * rate.count


@given(RATES, MOMENTS, MOMENTS)
def test_a_clock_that_is_set_back_holds_nobody_up(rate, now_ms, then_ms):
    bucket = Bucket(rate)
    while bucket.takes(max(now_ms, then_ms)):
        pass
    earlier = min(now_ms, then_ms)
    answer = bucket.take(earlier)
    assert isinstance(answer, Granted) or bucket.takes(earlier + answer.retry_after_ms)


# --- whose budgets a deed is taken from -------------------------------------------------------------------

ALICE, ADDRESS, SOURCE = "@alice:HS.example.org", "alice@example.org", "192.0.2.1"
NUMBER = PhoneNumber("447700900001", "+44 7700 900001", "GB")
# A rate of its own for each, so that none can be taken for another.
BUDGETS = Budgets(**{each.name: Rate(count, HOUR) for count, each in enumerate(fields(Budgets), 1)})


@pytest.mark.parametrize(
    ("charges", "expected"),
    [
        (
            BUDGETS.mail(ALICE, SOURCE, ADDRESS),
            {
                "mails_per_account": ALICE,
                "mails_per_homeserver": "hs.example.org",
                "mails_per_address": ADDRESS,
            },
        ),
        (
            BUDGETS.mail(None, SOURCE, ADDRESS),
            {"mails_per_source": SOURCE, "mails_per_address": ADDRESS},
        ),
        (BUDGETS.mail(None, "", ADDRESS), {"mails_per_address": ADDRESS}),
        (
            BUDGETS.sms(ALICE, SOURCE, NUMBER),
            {
                "sms_per_account": ALICE,
                "sms_per_homeserver": "hs.example.org",
                "sms_per_number": "447700900001",
                "sms_per_country": "GB",
            },
        ),
        (
            BUDGETS.sms(None, SOURCE, PhoneNumber("80012345678", "+800 1234 5678", None)),
            {"sms_per_source": SOURCE, "sms_per_number": "80012345678", "sms_per_country": ""},
        ),
        (
            BUDGETS.invitation(ALICE, "", ADDRESS),
            {
                "invitations_per_sender": ALICE,
                "invitations_per_homeserver": "hs.example.org",
                "invitations_per_address": ADDRESS,
            },
        ),
        (
            BUDGETS.invitation(ALICE, SOURCE, ADDRESS),
            {
                "invitations_per_sender": ALICE,
                "invitations_per_homeserver": "hs.example.org",
                "invitations_per_address": ADDRESS,
                "mails_per_source": SOURCE,
            },
        ),
        (BUDGETS.registration(SOURCE), {"registrations_per_source": SOURCE}),
        (BUDGETS.registration(""), {}),
        (BUDGETS.account(ALICE), {"registrations_per_homeserver": "hs.example.org"}),
        (BUDGETS.guess(Threepid("email", ADDRESS)), {"guesses_per_address": f"email:{ADDRESS}"}),
        (BUDGETS.v1_request(SOURCE), {"v1_requests_per_source": SOURCE}),
        (BUDGETS.v1_request(""), {}),
    ],
)
def test_each_deed_is_charged_to_those_who_can_do_too_much_of_it(charges, expected):
    assert {charge.budget: charge.key for charge in charges} == expected
    assert len(charges) == len(expected)
    assert [charge.rate for charge in charges] == [getattr(BUDGETS, name) for name in expected]


def test_every_budget_is_off_unless_it_has_a_rate():
    assert Budgets().guess(Threepid("email", ADDRESS)) == [
        Charge("guesses_per_address", f"email:{ADDRESS}", None)
    ]


@pytest.mark.parametrize(
    "other",
    [
        "victim+1@bücher.example",
        "victim+@bücher.example",
        "victim+a+b@xn--bcher-kva.example",
        "victim@xn--bcher-kva.example",
    ],
)
def test_spellings_of_one_mailbox_share_its_budgets(other):
    budgets = Budgets(mails_per_address=Rate(1, 1000), invitations_per_address=Rate(1, 1000))
    for charges in (budgets.mail, lambda _user, source, address: budgets.invitation("@a:b", source, address)):
        mine, others = (
            [each.key for each in charges(None, "", address) if each.budget.endswith("_per_address")]
            for address in ("victim@bücher.example", other)
        )
        assert mine == others


def test_a_homeserver_is_one_on_all_its_ports():
    budgets = Budgets(registrations_per_homeserver=Rate(1, 1000))
    assert {budgets.account(f"@a:hs.example.org{port}")[0].key for port in ("", ":1", ":8448")} == {
        "hs.example.org"
    }
