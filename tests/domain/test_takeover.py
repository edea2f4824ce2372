"""Which of a Sydent's rows count, and which key belongs to which invitation."""

import json
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.associations import Association
from sydentish.domain.statements import Tombstone, order_of
from sydentish.domain.takeover import OldRow, fold, settle
from sydentish.domain.takeover_invites import OldInvitation, OldKey, pair

US = "id.example.org"
SPELLINGS = ("ann@example.org", "Ann@Example.org", "ANN@EXAMPLE.ORG")


def row(origin, number, ts, mxid, address=SPELLINGS[0], *, row_id=None):
    until = None if mxid is None else ts + 1
    not_before = None if mxid is None else ts
    return OldRow("email", address, mxid, ts, not_before, until, origin, number, row_id)


def settled(rows):
    signed = {
        each.row_id: json.dumps(each.fields | {"signatures": {each.origin_server: {"ed25519:0": "A"}}})
        for each in rows
        if each.row_id is not None
    }
    return settle(rows, US, signed.get)


statements = st.tuples(
    st.sampled_from([US, "a.example.net", "z.example.net"]),
    st.integers(0, 50),
    st.sampled_from(["@ann:hs", "@bob:hs"]),
    st.sampled_from(SPELLINGS),
)


@given(st.lists(statements, max_size=5), st.none() | st.integers(0, 50), st.randoms())
def test_the_newest_statement_counts_in_whatever_order_the_rows_stand(binds, unbound_ts, random):
    rows = [
        row(origin, number, ts, mxid, address, row_id=number)
        for number, (origin, ts, mxid, address) in enumerate(binds, 1)
    ]
    if unbound_ts is not None:
        rows.append(row(None, 99, unbound_ts, None))
    shuffled = random.sample(rows, len(rows))
    found = settled(shuffled)

    if not rows:
        assert found.statement is None
        return
    newest = max((each.ts, each.origin_server or US, each.origin_id) for each in rows)
    assert (order_of(found.statement).ts, found.statement.origin_server, found.statement.origin_id) == newest
    assert isinstance(found.statement, Tombstone) == (newest == (unbound_ts, US, 99))
    assert len(found.others) == len(rows) - 1
    assert settled(rows) == found or set(settled(rows).others) == set(found.others)


@given(st.lists(statements, min_size=1, max_size=5))
def test_a_conflict_is_told_exactly_when_spellings_and_users_differ(binds):
    rows = [
        row(origin, number, ts, mxid, address, row_id=number)
        for number, (origin, ts, mxid, address) in enumerate(binds, 1)
    ]
    found = settled(rows)
    differ = len({each.address for each in rows}) > 1 and len({each.mxid for each in rows}) > 1

    assert (found.conflict is not None) == differ
    if found.conflict:
        assert {found.conflict.kept, *found.conflict.lost} == {each.mxid for each in rows}


def test_what_stands_in_both_tables_is_one_statement():
    found = settled([row(US, 1, 5, "@ann:hs", row_id=1), row(None, 1, 5, "@ann:hs")])

    assert isinstance(found.statement, Association)
    assert found.others == ()


def test_what_stands_in_the_log_alone_is_remembered_and_told_nobody():
    found = settled([row(None, 1, 5, "@ann:hs")])

    assert found.statement == Tombstone(found.statement.threepid, 5, US, 1)
    assert not found.is_told


@pytest.mark.parametrize(
    "bad", [{"ts": "x"}, {"origin_id": -1}, {"mxid": "ann"}, {"medium": "fax"}, {"address": "a\nb@c"}]
)
def test_a_row_that_cannot_be_used_is_told_and_the_next_one_counts(bad):
    good, other = row(US, 1, 5, "@ann:hs", row_id=1), row(US, 2, 9, "@bob:hs", row_id=2)
    found = settled([good, replace(other, **bad)])

    assert found.statement.mxid == "@ann:hs"
    assert len(found.unusable) == len(found.others) == 1


@given(st.sampled_from(["email", "msisdn"]), st.text())
def test_folding_twice_is_folding_once(medium, address):
    once = fold(medium, address)
    if medium == "email":
        assert fold(medium, once) == once


# --- invitations and their keys ------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), max_size=30))
def test_each_invitation_gets_its_own_key_whichever_others_were_deleted(steps):
    """A key is stored right before its invitation; some invitations are delivered, and so deleted, later."""
    now, invitations, keys = 100, [], []
    for number, (pause, crosses, is_deleted) in enumerate(steps, 1):
        now += pause
        keys.append(OldKey(number, f"key{number}", now))
        now += crosses
        if not is_deleted:
            invitations.append(
                OldInvitation(number, "email", "a@b.org", "!r", "@a:b", f"key{number}", now, is_sent=False)
            )
    found = list(pair(invitations, keys))

    assert [each.token for each, _ in found if each] == [each.token for each in invitations]
    assert all(key.public_key == each.token for each, key in found if each)
    assert sorted(key.row_id for _, key in found if key) == [key.row_id for key in keys]


def test_an_invitation_without_a_key_near_it_gets_none():
    invitation = OldInvitation(1, "email", "a@b.org", "!r", "@a:b", "t", 100, is_sent=False)
    for order in permutations([OldKey(1, "early", 98), OldKey(2, "late", 101)]):
        found = list(pair([invitation], sorted(order, key=lambda key: key.made_s)))

        assert (invitation, None) in found
        assert {key.public_key for _, key in found if key} == {"early", "late"}
