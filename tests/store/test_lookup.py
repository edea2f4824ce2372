"""Peppers and hashes as rows."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sydentish.domain.associations import Association
from sydentish.domain.lookup import Pepper, Peppers, hash_address
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import associations, lookup

ADDRESS = Threepid(EMAIL, "alice@example.org")
ALICE = "@alice:hs.example.org"
HOUR = 3600_000


def first_pepper(tx, pepper="p1", now_ms=100):
    pepper_id = lookup.add_pepper(tx, pepper, now_ms)
    assert lookup.make_current(tx, pepper_id, now_ms)
    return pepper_id


def find(tx, pepper_id, *hashes):
    found = lookup.find_hashes(tx, pepper_id, json.dumps(hashes))
    mappings = json.loads(found.mappings)
    assert found.number == len(mappings)
    return mappings


def test_there_is_no_pepper_before_the_first(tx):
    assert lookup.peppers(tx, HOUR) is None
    assert lookup.current_since(tx) is None
    assert lookup.pepper_in_making(tx) is None


def test_a_pepper_is_given_out_only_when_it_is_made_current(tx):
    first = first_pepper(tx)
    second = lookup.add_pepper(tx, "p2", 200)
    assert lookup.pepper_in_making(tx) == (second, "p2")
    assert lookup.peppers(tx, HOUR) == Peppers(Pepper(first, "p1", None), None, HOUR)
    assert lookup.make_current(tx, second, 300)
    assert lookup.pepper_in_making(tx) is None
    assert lookup.current_since(tx) == 300
    assert lookup.peppers(tx, HOUR) == Peppers(Pepper(second, "p2", None), Pepper(first, "p1", 300), HOUR)


def test_making_a_pepper_current_twice_changes_nothing(tx):
    first_pepper(tx)
    second = lookup.add_pepper(tx, "p2", 200)
    assert lookup.make_current(tx, second, 300)
    before = tx.rows("SELECT * FROM peppers")
    assert not lookup.make_current(tx, second, 400)
    assert tx.rows("SELECT * FROM peppers") == before
    assert lookup.current_since(tx) == 300


def test_two_peppers_are_live_at_a_time(tx):
    for number in range(3):
        lookup.make_current(tx, lookup.add_pepper(tx, f"p{number}", number), number)
    peppers = lookup.peppers(tx, HOUR)
    assert (peppers.current.pepper, peppers.previous.pepper) == ("p2", "p1")


def test_an_address_is_known_under_every_pepper_until_it_is_not(tx):
    first = first_pepper(tx)
    second = lookup.add_pepper(tx, "p2", 200)
    known = {first: hash_address(ADDRESS, "p1"), second: hash_address(ADDRESS, "p2")}
    for mxid in (ALICE, "@bob:hs.example.org"):
        lookup.set_mxid(tx, ADDRESS, mxid)
        for pepper_id, hashed in known.items():
            assert find(tx, pepper_id, hashed) == {hashed: mxid}
    assert find(tx, first, known[second]) == {}
    lookup.set_mxid(tx, ADDRESS, None)
    assert tx.row("SELECT count(*) FROM lookup_hashes") == (0,)


@pytest.mark.parametrize("batch", [1, 2, 5, 6, 100])
def test_hashes_are_dropped_in_batches_and_the_pepper_with_the_last(tx, batch):
    first_pepper(tx)
    for number in range(5):
        lookup.set_mxid(tx, Threepid(EMAIL, f"{number}@example.org"), ALICE)
    second = lookup.add_pepper(tx, "p2", 200)
    lookup.set_mxid(tx, ADDRESS, ALICE)
    lookup.make_current(tx, second, 300)
    assert lookup.drop_hashes(tx, 300, batch) == 0  # retired at this time, not before it
    turns = 1
    while lookup.drop_hashes(tx, 301, batch) == batch:
        turns += 1
    assert turns == 6 // batch + 1
    assert tx.rows("SELECT pepper_id FROM peppers") == [(second,)]
    assert find(tx, second, hash_address(ADDRESS, "p2")) == {hash_address(ADDRESS, "p2"): ALICE}
    assert tx.row("SELECT count(*) FROM lookup_hashes") == (1,)


def test_the_current_pepper_is_never_dropped(tx):
    first = first_pepper(tx)
    lookup.set_mxid(tx, ADDRESS, ALICE)
    assert lookup.drop_hashes(tx, 1 << 60, 100) == 0
    assert lookup.peppers(tx, HOUR).current.pepper_id == first


@pytest.mark.parametrize("mxid", ['@a"b:x.org', "@a\\b:x.org", "@é😀:x.org", "@a/b=c:x.org", "@a'b;--:x.org"])
def test_odd_users_come_back_as_they_are(tx, mxid):
    first = first_pepper(tx)
    lookup.set_mxid(tx, ADDRESS, mxid)
    hashed = hash_address(ADDRESS, "p1")
    assert find(tx, first, hashed) == {hashed: mxid}
    associations.put(tx, Association(ADDRESS, mxid, 1, 1, 1, "id.example.org", 1))
    entries = json.dumps([["alice@example.org email", EMAIL, "alice@example.org"]])
    found = lookup.find_plain(tx, entries)
    assert (json.loads(found.mappings), found.number) == ({"alice@example.org email": mxid}, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(asked=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), unique=True))
def test_only_what_is_asked_for_is_answered(tx, asked):
    tx.run("SAVEPOINT example")
    first = first_pepper(tx, "p")
    for number, hashed in enumerate(asked):
        if number % 2:
            tx.run("INSERT INTO lookup_hashes VALUES (?, ?, ?)", (first, hashed, f"@{number}:x.org"))
    expected = {hashed: f"@{number}:x.org" for number, hashed in enumerate(asked) if number % 2}
    assert find(tx, first, *asked) == expected
    tx.run("ROLLBACK TO example")
