"""Accounts, terms, keys, counters, validation sessions and associations as rows."""

import sqlite3

import pytest

from sydentish.domain.accounts import Account
from sydentish.domain.associations import Association
from sydentish.domain.invites import Invitation
from sydentish.domain.terms import Acceptance
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.domain.validation import NEVER_SENT, Session
from sydentish.store import accounts, associations, invites, keys, terms, validation
from sydentish.store.counters import next_number

ALICE = "@alice:hs.example.org"
ADDRESS = Threepid(EMAIL, "alice@example.org")


def make_session(sid="s1", *, threepid=ADDRESS, secret="hash", changed_ts=100):
    return Session(sid, threepid, secret, NEVER_SENT, "https://a.example", changed_ts, None)


def make_association(address="alice@example.org", mxid=ALICE, number=1):
    return Association(Threepid(EMAIL, address), mxid, 10, 11, 12, "id.example.org", number)


# --- accounts ------------------------------------------------------------------------------------------


def test_a_token_leads_to_its_account_until_it_is_deleted(tx):
    accounts.add_account(tx, ALICE, 1)
    accounts.add_token(tx, "t1", ALICE, 2)
    accounts.add_token(tx, "t2", ALICE, 3)
    assert accounts.account_of(tx, "t1") == Account(ALICE, 2)
    assert accounts.account_of(tx, "t") is None
    assert accounts.delete_token(tx, "t1", 9)
    assert not accounts.delete_token(tx, "t1", 9)
    assert accounts.account_of(tx, "t1") is None
    assert accounts.account_of(tx, "t2") == Account(ALICE, 3)


def test_an_account_is_made_once(tx):
    accounts.add_account(tx, ALICE, 1)
    accounts.add_account(tx, ALICE, 2)
    assert tx.rows("SELECT user_id, created_ts FROM accounts") == [(ALICE, 1)]


def test_the_use_of_one_token_is_noted(tx):
    accounts.add_account(tx, ALICE, 1)
    accounts.add_token(tx, "t1", ALICE, 2)
    accounts.add_token(tx, "t2", ALICE, 2)
    accounts.touch_token(tx, "t1", 9)
    assert [accounts.account_of(tx, token).last_used_ts for token in ("t1", "t2")] == [9, 2]


def seen(tx, user_id=ALICE):
    (found,) = [each.last_seen_ts for each in accounts.accounts_after(tx, "", 10) if each.user_id == user_id]
    return found


def test_an_account_remembers_when_its_user_was_last_seen(tx):
    accounts.add_account(tx, ALICE, 1)
    accounts.add_token(tx, "t1", ALICE, 1)
    accounts.add_token(tx, "t2", ALICE, 1)
    assert seen(tx) == 1
    accounts.touch_token(tx, "t1", 20)
    accounts.touch_token(tx, "t2", 10)  # by a clock that is behind
    accounts.touch_token(tx, "unknown", 99)
    assert seen(tx) == 20
    assert accounts.delete_token(tx, "t1", 30)
    assert not accounts.delete_token(tx, "t1", 99)
    assert seen(tx) == 30
    accounts.add_account(tx, ALICE, 40)
    assert seen(tx) == 40


def test_whom_an_operator_logs_out_was_not_seen_then(tx):
    accounts.add_account(tx, ALICE, 1)
    for name, ts in (("t1", 5), ("t2", 3)):
        accounts.add_token(tx, name, ALICE, ts)
    assert accounts.delete_tokens(tx, ALICE) == 2
    assert seen(tx) == 5
    assert accounts.delete_tokens(tx, ALICE) == 0
    assert accounts.delete_tokens(tx, "@nobody:x.org") is None


def test_accounts_are_gone_through_page_by_page(tx):
    users = [f"@{name}:x.org" for name in "abcde"]
    for number, user in enumerate(users):
        accounts.add_account(tx, user, number)
        for token in range(number % 3):
            accounts.add_token(tx, f"{user}/{token}", user, number)
    walked, last = [], ""
    while page := accounts.accounts_after(tx, last, 2):
        walked += [(each.user_id, each.created_ts, each.tokens) for each in page]
        last = page[-1].user_id
    assert walked == [(user, number, number % 3) for number, user in enumerate(users)]
    assert accounts.logged_in_after(tx, "", 2) == [users[1], users[2]]
    assert accounts.logged_in_after(tx, users[2], 9) == [users[4]]
    assert accounts.delete_account(tx, users[1])
    assert not accounts.delete_account(tx, users[1])
    assert accounts.tokens_of(tx, users[1]) == 0


def test_a_token_needs_an_account(tx):
    with pytest.raises(sqlite3.IntegrityError):
        accounts.add_token(tx, "t1", ALICE, 1)


def test_tokens_and_terms_go_with_their_account(tx):
    accounts.add_account(tx, ALICE, 1)
    accounts.add_token(tx, "t1", ALICE, 1)
    terms.add_acceptances(tx, ALICE, [Acceptance("privacy", "1", "https://x")], 1)
    tx.run("DELETE FROM accounts")
    assert accounts.account_of(tx, "t1") is None
    assert terms.accepted(tx, ALICE) == set()


# --- terms ---------------------------------------------------------------------------------------------


def test_acceptances_add_up_and_the_first_of_a_version_stays(tx):
    accounts.add_account(tx, ALICE, 1)
    terms.add_acceptances(tx, ALICE, [Acceptance("privacy", "1", "https://en")], 5)
    terms.add_acceptances(
        tx, ALICE, [Acceptance("privacy", "1", "https://de"), Acceptance("privacy", "2", "https://de")], 6
    )
    assert terms.accepted(tx, ALICE) == {("privacy", "1"), ("privacy", "2")}
    assert terms.accepted(tx, "@bob:hs.example.org") == set()
    assert tx.rows("SELECT version, url, accepted_ts FROM accepted_terms ORDER BY version") == [
        ("1", "https://en", 5),
        ("2", "https://de", 6),
    ]


# --- keys and counters ---------------------------------------------------------------------------------


def test_an_ephemeral_key_is_valid_until_its_end(tx):
    invites.add(tx, Invitation("t", ADDRESS, "!r:x.org", ALICE, 0, 100), b"\x00key\xff")
    assert keys.is_ephemeral_valid(tx, b"\x00key\xff", 99)
    assert not keys.is_ephemeral_valid(tx, b"\x00key\xff", 100)
    assert not keys.is_ephemeral_valid(tx, b"\x00key", 0)


def test_each_counter_counts_for_itself_and_never_twice(tx):
    assert [next_number(tx, "a"), next_number(tx, "a"), next_number(tx, "b"), next_number(tx, "a")] == [
        1,
        2,
        1,
        3,
    ]


# --- validation sessions -------------------------------------------------------------------------------


def test_a_session_comes_back_as_it_was_stored(tx):
    validation.add_session(tx, make_session())
    assert validation.session(tx, "s1") == make_session()
    assert validation.session(tx, "s2") is None


def test_the_latest_session_of_an_address_and_secret_is_found(tx):
    validation.add_session(tx, make_session("old", changed_ts=1))
    validation.add_session(tx, make_session("new", changed_ts=3))
    validation.add_session(tx, make_session("other secret", secret="x", changed_ts=9))
    validation.add_session(
        tx, make_session("other address", threepid=Threepid(EMAIL, "b@c.de"), changed_ts=9)
    )
    validation.add_session(
        tx, make_session("other medium", threepid=Threepid("msisdn", "alice@example.org"), changed_ts=9)
    )
    assert validation.latest_session(tx, ADDRESS, "hash").sid == "new"
    assert validation.latest_session(tx, ADDRESS, "unknown") is None


def test_the_newest_tokens_are_kept_and_gaps_do_not_count(tx):
    validation.add_session(tx, make_session())
    numbers = [validation.add_token(tx, "s1", f"h{number}") for number in range(1, 9)]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8]
    validation.delete_token(tx, "s1", 6)
    validation.keep_newest_tokens(tx, "s1", 7, 3)
    # Of 1 to 5 and 7 the newest three, and 8, which is on its way.
    assert sorted(each.token_hash for each in validation.tokens(tx, "s1")) == ["h4", "h5", "h7", "h8"]


def test_tokens_of_other_sessions_are_left_alone(tx):
    for sid in ("s1", "s2"):
        validation.add_session(tx, make_session(sid))
        assert validation.add_token(tx, sid, f"{sid}-1") == 1
        assert validation.add_token(tx, sid, f"{sid}-2") == 2
    validation.keep_newest_tokens(tx, "s1", 2, 1)
    validation.delete_token(tx, "s1", 1)
    assert [each.token_hash for each in validation.tokens(tx, "s1")] == ["s1-2"]
    assert [each.token_hash for each in validation.tokens(tx, "s2")] == ["s2-1", "s2-2"]


def test_a_token_needs_a_session(tx):
    with pytest.raises(sqlite3.IntegrityError):
        validation.add_token(tx, "s1", "h")


@pytest.mark.parametrize(("attempt", "stored"), [(3, 3), (2, 2), (1, 2)])
def test_only_a_higher_attempt_is_noted(tx, attempt, stored):
    validation.add_session(tx, make_session())
    validation.set_sent(tx, "s1", 2, "https://first.example", 200)
    validation.set_sent(tx, "s1", attempt, None, 300)
    found = validation.session(tx, "s1")
    assert found.send_attempt == stored
    assert (found.next_link, found.changed_ts) == (
        (None, 300) if attempt > 2 else ("https://first.example", 200)
    )


def test_a_validation_changes_the_session(tx):
    validation.add_session(tx, make_session())
    for token_hash in ("first", "second"):
        validation.add_token(tx, "s1", token_hash)
    validation.set_validated(tx, "s1", 1, 700)
    found = validation.session(tx, "s1")
    assert (found.validated_ts, found.changed_ts) == (700, 700)
    assert {(each.token_hash, each.used) for each in validation.tokens(tx, "s1")} == {
        ("first", True),
        ("second", False),
    }


def test_a_wrong_guess_is_one_at_every_token_that_the_session_has(tx):
    for sid in ("s1", "s2"):
        validation.add_session(tx, make_session(sid))
        validation.add_token(tx, sid, "first")
    validation.add_wrong_guess(tx, "s1")
    validation.add_wrong_guess(tx, "unknown")
    validation.add_token(tx, "s1", "second")
    validation.add_wrong_guess(tx, "s1")
    # Neither what was handed over nor what was proved makes less of them.
    validation.set_sent(tx, "s1", 2, None, 200)
    validation.set_validated(tx, "s1", 1, 400)
    found = {
        sid: [(each.token_hash, each.wrong_guesses) for each in validation.tokens(tx, sid)]
        for sid in ("s1", "s2")
    }
    assert found == {"s1": [("first", 2), ("second", 1)], "s2": [("first", 0)]}


def test_a_mail_gives_new_time_to_a_session_but_not_to_a_proof(tx):
    validation.add_session(tx, make_session())
    validation.set_sent(tx, "s1", 1, None, 600)
    assert validation.session(tx, "s1").changed_ts == 600
    validation.set_validated(tx, "s1", 1, 700)
    validation.set_sent(tx, "s1", 2, None, 800)
    assert validation.session(tx, "s1").changed_ts == 700


# --- associations --------------------------------------------------------------------------------------


def test_an_address_has_one_association_which_a_newer_one_replaces(tx):
    associations.put(tx, make_association())
    newer = Association(ADDRESS, "@bob:example.org", 20, 21, 22, "other.example.org", 7)
    associations.put(tx, newer)
    assert associations.association(tx, ADDRESS) == newer
    assert tx.row("SELECT count(*) FROM associations") == (1,)
    associations.delete(tx, ADDRESS)
    assert associations.association(tx, ADDRESS) is None
    associations.delete(tx, ADDRESS)


def test_all_associations_are_walked_in_batches(tx):
    addresses = sorted(f"{name}@example.org" for name in ("a", "b", "c", "d", "é", "z", "zz"))
    made = [make_association(address, f"@{n}:x.org", n) for n, address in enumerate(addresses)]
    for each in reversed(made):
        associations.put(tx, each)
    walked, position = [], None
    while batch := associations.after(tx, position, 3):
        walked += batch
        position = batch[-1].threepid
    assert walked == made


def test_the_associations_of_a_user_are_found(tx):
    made = [make_association(f"{name}@example.org", "@both:x.org") for name in "ab"]
    for each in (made[1], make_association("c@example.org", "@other:x.org"), made[0]):
        associations.put(tx, each)
    assert associations.of_user(tx, "@both:x.org") == made
    assert associations.of_user(tx, "@nobody:x.org") == []
