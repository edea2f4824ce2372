"""Statements: which of two is the newer one, and what is read from what a peer has signed."""

import dataclasses
import functools
import hmac
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.associations import Association
from sydentish.domain.signatures import canonical
from sydentish.domain.statements import (
    MAX_ORIGIN_ID,
    Order,
    Tombstone,
    UnusableStatement,
    erased_key,
    order_of,
    read_origin_id,
    read_statement,
)
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, normalise

PEER = "peer.example.org"
CAROL = "@carol:hs.example.org"
ADDRESS = Threepid(EMAIL, "carol@example.org")
ASSOCIATION = Association(ADDRESS, CAROL, 1000, 1000, 2000, PEER, 7)
TOMBSTONE = Tombstone(ADDRESS, 1000, PEER, 7)

TIMES = st.integers(0, 2**53 - 1)
ORIGIN_IDS = st.integers(0, MAX_ORIGIN_ID)
THREEPIDS = st.one_of(
    st.builds(
        lambda local, domain: normalise(EMAIL, f"{local}@{domain}.example.org"),
        st.text(min_size=1, max_size=5),
        st.from_regex(r"[A-Za-z]{1,4}", fullmatch=True),
    ),
    st.builds(lambda digits: normalise(MSISDN, f"+{digits}"), st.integers(1000, 10**15 - 1)),
).filter(bool)
STATEMENTS = st.one_of(
    st.builds(
        Association,
        THREEPIDS,
        st.sampled_from([CAROL, "@:hs.example.org", "@Ünïcode/x:[::1]:8448"]),
        TIMES,
        TIMES,
        TIMES,
        st.just(PEER),
        ORIGIN_IDS,
    ),
    st.builds(Tombstone, THREEPIDS, TIMES, st.just(PEER), ORIGIN_IDS),
)
ORDERS = st.builds(
    Order, st.integers(0, 3), st.sampled_from(["a.org", "b.org", "b.org:1"]), st.integers(0, 3)
)
TEXTS = st.text(max_size=8) | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**400])
    | st.floats()
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "medium": st.sampled_from([EMAIL, MSISDN]) | ANYTHING,
        "address": st.sampled_from([ADDRESS.address, "447700900001", "+1", "a b@c", "\ud800@x", "\0@x"]) | ANYTHING,
        "mxid": st.none() | st.sampled_from([CAROL, "@\ud800:x", "@a:b\n", "@a b:c", "@a:x:99999"]) | ANYTHING,
        "ts": TIMES | ANYTHING,
        "not_before": TIMES | ANYTHING,
        "not_after": TIMES | ANYTHING,
        "signatures": ANYTHING,
    },
)  # fmt: skip


def read(value, number=7):
    return read_statement(value, PEER, number)


def changed(statement, **fields):
    return {**statement.to_json(), **fields}


# --- the order of statements ---------------------------------------------------------------------------


def test_the_order_is_by_time_then_by_server_then_by_number():
    ordered = [
        Order(1, "b.org", 9),
        Order(2, "a.org", 5),
        Order(2, "a.org", 10),
        Order(2, "b.org", 1),
        Order(3, "a.org", 1),
    ]
    assert all(earlier < later for earlier, later in pairwise(ordered))


@given(st.lists(ORDERS, min_size=1).flatmap(lambda heard: st.tuples(st.just(heard), st.permutations(heard))))
def test_whoever_keeps_the_newest_has_heard_the_same_whatever_came_first(heard_by_two):
    first, second = (functools.reduce(max, heard) for heard in heard_by_two)
    assert first == second == max(heard_by_two[0])
    assert not [each for each in heard_by_two[0] if each > first]


@given(ORDERS, ORDERS)
def test_two_statements_are_the_same_or_one_is_newer(one, other):
    assert [one < other, one == other, one > other].count(True) == 1


@given(STATEMENTS)
def test_a_statement_stands_where_its_time_its_server_and_its_number_say(statement):
    assert order_of(statement) == Order(statement.ts, PEER, statement.origin_id)


# --- what is signed, and read again --------------------------------------------------------------------


def test_an_unbind_is_an_association_with_nobody():
    assert TOMBSTONE.to_json() == {
        "medium": EMAIL,
        "address": "carol@example.org",
        "mxid": None,
        "ts": 1000,
        "not_before": None,
        "not_after": None,
    }
    assert ASSOCIATION.to_json().keys() == TOMBSTONE.to_json().keys()


def test_a_tombstone_cannot_be_changed_and_shows_no_address():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TOMBSTONE.ts = 1
    assert "carol" not in repr(TOMBSTONE)


@given(STATEMENTS)
def test_what_a_server_of_this_kind_states_is_read_as_it_was_meant(statement):
    value = json.loads(canonical(statement.to_json()))
    assert read_statement(value, PEER, statement.origin_id) == statement


def test_what_else_is_signed_with_a_statement_does_not_matter():
    assert read(changed(ASSOCIATION, more=[1.5], signatures={})) == ASSOCIATION
    # As Sydent, or another one, may have it: times that mean nothing.
    assert read(changed(TOMBSTONE, not_before=5, not_after="x")) == TOMBSTONE


@pytest.mark.parametrize(
    ("medium", "address", "stored"),
    [
        (EMAIL, "Carol@Example.ORG", "carol@example.org"),
        # No mail would be sent there, but others have bound it.
        (EMAIL, "Mrs Carol@Example", "mrs carol@example"),
        (EMAIL, '"C"@Example.org', '"c"@example.org'),
        (EMAIL, "a@b@c", "a@b@c"),
        (EMAIL, "Straße@example.org", "strasse@example.org"),
        (EMAIL, "x" * 488 + "@example.org", "x" * 488 + "@example.org"),
        (MSISDN, "+447700900001", "447700900001"),
        (MSISDN, "447700900001", "447700900001"),
        (MSISDN, "12", "12"),
        (MSISDN, "0" * 20, "0" * 20),
    ],
)
def test_addresses_of_others_are_taken_as_they_are_but_folded(medium, address, stored):
    for statement in (ASSOCIATION, TOMBSTONE):
        found = read(changed(statement, medium=medium, address=address))
        assert found == dataclasses.replace(statement, threepid=Threepid(medium, stored))
        assert read(found.to_json()) == found


@pytest.mark.parametrize(
    "fields",
    [
        {"medium": "im.vector"},
        {"medium": ""},
        {"medium": "\ud800"},
        {"address": ""},
        {"address": "carol"},
        {"address": "carol\0@example.org"},
        {"address": "carol\n@example.org"},
        {"address": "\ud800@example.org"},
        {"address": "x" * 489 + "@example.org"},
        {"address": "é" * 250 + "@x"},
        {"medium": MSISDN},
        {"medium": MSISDN, "address": ""},
        {"medium": MSISDN, "address": "44-7700"},
        {"medium": MSISDN, "address": "1" * 21},
        {"medium": MSISDN, "address": "٤٤٧٧٠٠٩٠٠٠٠١"},
        {"mxid": ""},
        {"mxid": "carol"},
        {"mxid": "@carol"},
        {"mxid": "@carol:"},
        {"mxid": "@carol:-x"},
        {"mxid": "@ca rol:hs.example.org"},
        {"mxid": "@carol:hs.example.org\n"},
        {"mxid": "@\ud800:hs.example.org"},
        {"mxid": "@" + "x" * 250 + ":hs.example.org"},
    ],
)
def test_what_is_of_no_use_here_is_told_from_what_is_no_statement(fields):
    with pytest.raises(UnusableStatement, match=r"^(medium|address|mxid): ") as unusable:
        read(changed(ASSOCIATION, **fields))
    assert not any(
        text and text in str(unusable.value) for text in (fields.get("address"), "carol@example.org")
    )


@pytest.mark.parametrize("name", ["medium", "address", "mxid"])
@pytest.mark.parametrize("wrong", [1, True, [], {}, ["email"]])
def test_a_text_must_be_one(name, wrong):
    with pytest.raises(ValueError, match=f"^{name}: must be a text") as refused:
        read(changed(ASSOCIATION, **{name: wrong}))
    assert not isinstance(refused.value, UnusableStatement)


@pytest.mark.parametrize("name", ["ts", "not_before", "not_after"])
@pytest.mark.parametrize("wrong", [None, True, "1000", 1000.0, -1, 2**53, 10**400, [1000], float("nan")])
def test_a_time_must_be_one(name, wrong):
    with pytest.raises(ValueError, match=f"^{name}: must be a time in ms") as refused:
        read(changed(ASSOCIATION, **{name: wrong}))
    assert not isinstance(refused.value, UnusableStatement)


@pytest.mark.parametrize("name", ["medium", "address", "ts", "not_before", "not_after"])
def test_nothing_may_be_missing_from_an_association(name):
    value = ASSOCIATION.to_json()
    del value[name]
    with pytest.raises(ValueError, match=f"^{name}: "):
        read(value)


@given(OBJECTS, ORIGIN_IDS)
def test_whatever_is_sent_is_a_statement_that_can_be_stored_and_signed_or_refused(value, number):
    try:
        statement = read_statement(value, PEER, number)
    except ValueError:
        return
    assert (statement.origin_server, statement.origin_id) == (PEER, number)
    assert isinstance(statement, Tombstone) == (value.get("mxid") is None)
    assert json.loads(canonical(statement.to_json())) == statement.to_json()
    assert read_statement(statement.to_json(), PEER, number) == statement


# --- numbers -------------------------------------------------------------------------------------------


@given(ORIGIN_IDS)
def test_a_number_is_read_as_it_is_written(number):
    assert read_origin_id(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "01", "007", "1.0", "1e3", " 1", "1\n", "\u0661", "0x1", "1_0", str(2**63), "9" * 19, "9" * 5000],
)  # fmt: skip
def test_what_is_no_number_of_a_statement(text):
    with pytest.raises(ValueError, match="decimal number of at most 63 bits"):
        read_origin_id(text)


@given(TEXTS | st.text(st.sampled_from("0123456789+-_. \n\u0663")))
def test_each_number_has_one_spelling(text):
    try:
        number = read_origin_id(text)
    except ValueError:
        return
    assert str(number) == text
    assert 0 <= number <= MAX_ORIGIN_ID


# --- what stays of an address --------------------------------------------------------------------------


def test_what_stays_of_an_address_is_its_hmac():
    expected = hmac.new(b"key", b"email\0carol@example.org", "sha256").hexdigest()
    assert erased_key(b"key", ADDRESS) == expected


@given(st.lists(THREEPIDS, unique=True, max_size=5), st.binary(min_size=32, max_size=32))
def test_no_two_addresses_leave_the_same_behind_and_no_two_servers_keep_the_same(threepids, key):
    left = [erased_key(each, threepid) for threepid in threepids for each in (key, key[::-1] + b"\1")]
    assert len(set(left)) == len(left)
    assert not any(
        threepid.address in each for threepid in threepids for each in left if len(threepid.address) > 8
    )


def test_a_medium_does_not_run_into_its_address():
    assert erased_key(b"key", Threepid("email", "x")) != erased_key(b"key", Threepid("emai", "lx"))
