"""Invitations as rows: which wait, which are on their way, and whose key accepts which."""

import sqlite3

import pytest

from sydentish.domain.invites import Invitation
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import invites, keys, outbox

ALICE, BOB = "@alice:hs.example.org", "@bob:other.example.org"
ADDRESS = Threepid(EMAIL, "carol@example.org")
NOW, END = 1000, 9000


def invitation(token="t1", *, threepid=ADDRESS, sender=ALICE, created_ts=NOW, expires_ts=END):
    return Invitation(token, threepid, f"!{token}:hs.example.org", sender, created_ts, expires_ts)


def add(tx, token="t1", **how):
    made = invitation(token, **how)
    invites.add(tx, made, f"key of {token}".encode())
    return made


def send(tx, token, key):
    """An invitation on its way, and the number of its row."""
    number = outbox.add(
        tx, kind="onbind", destination="hs.example.org", idempotency_key=key, payload="{}", now_ms=NOW
    )
    invites.hand_over(tx, token, number)
    return number


def lease(tx):
    (taken,) = outbox.lease(tx, "onbind", NOW, 1000, 1, failing=False)
    return taken


def waiting(tx, threepid=ADDRESS, now_ms=NOW):
    return [each.token for each in invites.waiting(tx, threepid, now_ms)]


def test_an_invitation_waits_as_it_was_stored(tx):
    made = add(tx)
    assert invites.waiting(tx, ADDRESS, NOW) == [made]


def test_invitations_wait_for_their_own_address_the_oldest_first(tx):
    for token, created_ts in (("c", 3), ("b", 1), ("a", 3)):
        add(tx, token, created_ts=created_ts)
    add(tx, "other address", threepid=Threepid(EMAIL, "dave@example.org"))
    add(tx, "other medium", threepid=Threepid("msisdn", "carol@example.org"))
    assert waiting(tx) == ["b", "a", "c"]


def test_an_invitation_waits_until_it_expires(tx):
    add(tx)
    assert waiting(tx, now_ms=END - 1) == ["t1"]
    assert waiting(tx, now_ms=END) == []


def test_a_token_is_used_once(tx):
    add(tx)
    with pytest.raises(sqlite3.IntegrityError):
        add(tx)


def test_what_is_on_its_way_waits_no_more_until_it_is_taken_back(tx):
    for token in ("a", "b", "c"):
        add(tx, token)
    first, second = send(tx, "a", "k1"), send(tx, "b", "k2")
    assert waiting(tx) == ["c"]
    invites.take_back(tx, [first, second, 4711])
    assert waiting(tx) == ["a", "b", "c"]
    invites.take_back(tx, [])
    send(tx, "a", "k3")
    invites.take_back(tx, [first])
    assert waiting(tx) == ["b", "c"]


def test_an_invitation_that_was_delivered_is_gone_and_its_key_is_not(tx):
    add(tx)
    send(tx, "t1", "k")
    outbox.delivered(tx, "onbind", lease(tx), "POST")
    assert tx.rows("SELECT * FROM invitations") == []
    assert invites.sender_of(tx, "t1", b"key of t1", NOW) == ALICE
    assert keys.is_ephemeral_valid(tx, b"key of t1", NOW)


def test_an_invitation_that_was_given_up_stays_and_waits_no_more(tx):
    add(tx)
    number = send(tx, "t1", "k")
    outbox.bury(tx, "onbind", lease(tx), "HTTP 403", NOW, answered=True)
    assert tx.rows("SELECT token, outbox_id FROM invitations") == [("t1", number)]
    assert waiting(tx) == []
    # An operator drops it.
    tx.run("DELETE FROM outbox")
    assert tx.rows("SELECT * FROM invitations") == []


def test_an_invitation_goes_with_no_row_that_there_is_not(tx):
    add(tx)
    with pytest.raises(sqlite3.IntegrityError):
        invites.hand_over(tx, "t1", 4711)


def test_each_key_accepts_its_own_invitation_until_it_expires(tx):
    add(tx, "a", sender=ALICE)
    add(tx, "b", sender=BOB, expires_ts=END + 1)
    assert invites.sender_of(tx, "a", b"key of a", END - 1) == ALICE
    assert invites.sender_of(tx, "b", b"key of b", END) == BOB
    assert invites.sender_of(tx, "a", b"key of a", END) is None
    assert invites.sender_of(tx, "a", b"key of b", NOW) is None
    assert invites.sender_of(tx, "b", b"key of a", NOW) is None
    assert invites.sender_of(tx, "", b"", NOW) is None


def test_an_invitation_is_known_until_it_expires(tx):
    add(tx)
    assert invites.is_known(tx, "t1", END - 1)
    assert not invites.is_known(tx, "t1", END)
    assert not invites.is_known(tx, "t", NOW)
    assert not invites.is_known(tx, "\ud800", NOW)


def test_tokens_of_invitations_do_not_stand_with_their_keys(tx):
    add(tx, "canary")
    assert "canary" not in repr(tx.rows("SELECT * FROM ephemeral_keys"))


def test_the_first_to_expire_are_the_first_to_go_and_none_that_has_not(tx):
    for number in range(5):
        add(tx, f"t{number}", expires_ts=NOW + number)
    assert invites.expired(tx, NOW + 3, 2) == ["t0", "t1"]
    assert invites.expired(tx, NOW + 3, 9) == ["t0", "t1", "t2", "t3"]
    assert invites.delete_expired_keys(tx, NOW + 3, 2) == 2
    assert invites.delete_expired_keys(tx, NOW + 3, 9) == 2
    assert tx.row("SELECT count(*) FROM ephemeral_keys") == (1,)


def test_an_invitation_that_expires_on_its_way_goes_and_its_row_does_not(tx):
    add(tx)
    number = send(tx, "t1", "k")
    assert invites.expired(tx, END, 9) == ["t1"]
    assert invites.delete(tx, "t1", handed_over=True)
    assert tx.rows("SELECT token FROM invitations") == []
    assert outbox.rows_of(tx, "k") == [number]


def test_all_are_walked_in_batches_with_how_far_each_has_come(tx):
    made = [add(tx, token) for token in ("c", "a", "b", "d")]
    sent, given_up = send(tx, "a", "k1"), send(tx, "d", "k2")
    tx.run("UPDATE outbox SET state = 'dead' WHERE outbox_id = ?", (given_up,))
    walked, token = [], ""
    while batch := invites.after(tx, token, 3):
        walked += batch
        token = batch[-1].invitation.token
    by_token = {each.token: each for each in made}
    assert walked == [
        invites.Kept(by_token["a"], sent, "pending"),
        invites.Kept(by_token["b"], None, None),
        invites.Kept(by_token["c"], None, None),
        invites.Kept(by_token["d"], given_up, "dead"),
    ]


def test_what_is_deleted_cannot_be_accepted(tx):
    for token in "ab":
        add(tx, token)
    assert invites.delete(tx, "a", handed_over=False)
    assert not invites.delete(tx, "a", handed_over=False)
    assert waiting(tx) == ["b"]
    assert not invites.is_known(tx, "a", NOW)
    assert not keys.is_ephemeral_valid(tx, b"key of a", NOW)
    assert keys.is_ephemeral_valid(tx, b"key of b", NOW)


def test_what_is_handed_over_is_deleted_only_if_that_is_meant(tx):
    add(tx)
    send(tx, "t1", "k")
    assert not invites.delete(tx, "t1", handed_over=False)
    assert keys.is_ephemeral_valid(tx, b"key of t1", NOW)
    assert invites.delete(tx, "t1", handed_over=True)
    assert not keys.is_ephemeral_valid(tx, b"key of t1", NOW)


def test_what_has_expired_is_found_and_left_over_keys_go(tx):
    for number in range(4):
        add(tx, f"t{number}", expires_ts=END + number)
    assert invites.expired(tx, END + 2, 10) == ["t0", "t1", "t2"]
    assert invites.expired(tx, END + 2, 2) == ["t0", "t1"]
    assert invites.delete_expired_keys(tx, END + 2, 2) == 2
    assert invites.delete_expired_keys(tx, END + 2, 2) == 1
    assert keys.is_ephemeral_valid(tx, b"key of t3", END)
