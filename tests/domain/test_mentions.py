"""Finding somebody in texts: all of theirs, and nothing of those who only look alike."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.mentions import Mentions
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, spellings

ADDRESS, NUMBER = Threepid(EMAIL, "ann@example.org"), Threepid(MSISDN, "447700900001")
ANN = "@ann:hs.example.org"
ALL = Mentions([ADDRESS, NUMBER], ANN)


@pytest.mark.parametrize(
    "text",
    [
        "ann@example.org",
        "Ann@Example.ORG",
        "550 <ann@example.org>: no such user",
        "ann@example.org.",
        "447700900001",
        "+447700900001",
        "@ann:hs.example.org",
        "invited by @ann:hs.example.org, who",
        '{"address": "ann@example.org"}',
        '{"invites": [{"signed": {"mxid": "@ann:hs.example.org"}}]}',
        '{"\\u0061nn@example.org": 1}',
        '["x", ["447700900001"]]',
        '{"address": "ann@example.org", cut',
    ],
)
def test_what_is_theirs_is_found(text):
    assert ALL.found_in(text)
    assert ALL.found_in(None, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "joann@example.org",
        "x=ann@example.org",
        "ann@example.organic",
        "ann@example.org.au",
        "ann@example.org-x",
        "1447700900001",
        "4477009000011",
        "@Ann:hs.example.org",
        "@joann:hs.example.org",
        "@ann:hs.example.org:8448",
        "@ann:hs.example.organic",
        '{"ts": 447700900001}',
        "[" * 100_000,
    ],
)
def test_what_only_looks_alike_is_not(text):
    assert not ALL.found_in(text)


def test_a_few_digits_are_a_number_only_where_nothing_else_stands():
    short = Mentions([Threepid(MSISDN, "0"), Threepid(MSISDN, "123456")], None)
    assert short.found_in('{"address": "0"}')
    assert short.found_in('{"address": "+123456"}')
    assert not short.found_in('{"subject": "Room 0 is open since 123456 ms", "ts": "10"}', "room 0")


def test_who_looks_for_nobody_finds_nobody():
    assert not Mentions([], None).found_in("ann@example.org", ANN, "")


@given(
    st.recursive(st.text() | st.integers(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
)
def test_it_is_found_wherever_it_stands_in_json(value):
    assert ALL.found_in(json.dumps([value, {"x": [ADDRESS.address]}]))


def test_an_address_has_a_spelling_for_each_way_to_write_its_domain():
    names = {"ann@b\u00fccher.example", "ann@xn--bcher-kva.example"}
    for name in names:
        assert {each.address for each in spellings(Threepid(EMAIL, name))} == names
    for only in (ADDRESS, NUMBER, Threepid(EMAIL, '"odd one"@exa mple'), Threepid(EMAIL, "a@xn--zzzzzz")):
        assert spellings(only)[0] == only
    assert spellings(NUMBER) == [NUMBER]
