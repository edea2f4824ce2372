import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.associations import Association, onbind_body, statement_ts
from sydentish.domain.threepids import Threepid

TIMES = st.integers(min_value=0, max_value=2**53)
ALICE = Association(
    threepid=Threepid("email", "alice@example.org"),
    mxid="@alice:example.org",
    ts=1000,
    not_before=1000,
    not_after=2000,
    origin_server="id.example.org",
    origin_id=7,
)


def test_what_is_signed_has_the_fields_of_the_specification_and_no_others():
    assert ALICE.to_json() == {
        "address": "alice@example.org",
        "medium": "email",
        "mxid": "@alice:example.org",
        "not_after": 2000,
        "not_before": 1000,
        "ts": 1000,
    }


def test_a_homeserver_is_told_of_a_bind_with_an_empty_list_of_invitations():
    assert onbind_body(ALICE) == {**ALICE.to_json(), "invites": []}


def test_a_homeserver_is_told_of_one_invitation_with_the_bind_that_it_has_waited_for():
    invite = {"token": "t", "signed": {}}
    assert onbind_body(ALICE, invite) == {**ALICE.to_json(), "invites": [invite]}


def test_no_two_bodies_share_a_list_of_invitations():
    first = onbind_body(ALICE)
    first["invites"].append("one user's invitation")
    assert onbind_body(ALICE)["invites"] == []


def test_an_association_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALICE.mxid = "@eve:example.org"


@pytest.mark.parametrize(
    ("now_ms", "newest", "expected"),
    [(5, None, 5), (5, 4, 5), (5, 5, 6), (5, 6, 7), (5, 100, 101), (0, 0, 1), (0, None, 0)],
)
def test_a_statement_is_made_now_but_after_the_newest_known_one(now_ms, newest, expected):
    assert statement_ts(now_ms, newest) == expected


@given(st.lists(TIMES, min_size=1))
def test_statements_are_in_order_whatever_the_clock_does(clock):
    made = []
    for now_ms in clock:
        made.append(statement_ts(now_ms, made[-1] if made else None))
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(ts >= now_ms for ts, now_ms in zip(made, clock, strict=True))


@given(TIMES, st.one_of(st.none(), TIMES))
def test_a_clock_ahead_of_all_statements_is_taken_at_its_word(now_ms, newest):
    if newest is None or newest < now_ms:
        assert statement_ts(now_ms, newest) == now_ms
