"""Figures: what is counted as what."""

from store_tools import START_MS

from sydentish.domain.associations import Association
from sydentish.domain.invites import Invitation
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import accounts, associations, figures, invites, outbox
from sydentish.store.figures import Invitations, Sessions
from sydentish.store.migrate import shipped_steps

ANN, BOB = "@ann:hs.example.org", "@bob:hs.example.org"


def test_an_empty_database_has_nothing(tx):
    assert figures.associations_by_medium(tx) == figures.associations_by_origin(tx) == {}
    assert figures.users(tx) == figures.accounts(tx) == figures.access_tokens(tx) == 0
    assert figures.sessions(tx, START_MS, 1000) == Sessions(0, 0, 0)
    assert figures.invitations(tx, START_MS) == Invitations(0, 0, 0)
    assert figures.all_invitations(tx) == figures.erased_addresses(tx) == 0
    assert figures.schema(tx) == shipped_steps()[-1].number


def test_associations_are_counted_by_medium_origin_and_user(tx):
    for number, (medium, mxid, origin) in enumerate(
        [(EMAIL, ANN, "a"), (EMAIL, BOB, "a"), (EMAIL, ANN, "b"), (MSISDN, ANN, "b")]
    ):
        associations.put(tx, Association(Threepid(medium, f"u{number}"), mxid, 1, 1, 1, origin, number))
    assert figures.associations_by_medium(tx) == {EMAIL: 3, MSISDN: 1}
    assert figures.associations_by_origin(tx) == {"a": 2, "b": 2}
    assert figures.users(tx) == 2


def test_accounts_and_tokens_are_counted(tx):
    for user, tokens in ((ANN, ("a", "b")), (BOB, ())):
        accounts.add_account(tx, user, START_MS)
        for token in tokens:
            accounts.add_token(tx, token, user, START_MS)
    assert (figures.accounts(tx), figures.access_tokens(tx)) == (2, 2)


def test_sessions_expire_as_their_rule_says(tx):
    lifetime = 1000
    for number, (changed_ts, validated_ts) in enumerate(
        [(0, None), (0, 0), (START_MS - lifetime, None), (START_MS, None), (START_MS, 1), (START_MS + 5, 1)]
    ):
        tx.run(
            "INSERT INTO validation_sessions VALUES (?, 'email', 'a', 'secret', 1, NULL, ?, ?)",
            (f"s{number}", changed_ts, validated_ts),
        )
    # On the last millisecond it is still live: see `is_expired`.
    assert figures.sessions(tx, START_MS, lifetime) == Sessions(open=2, validated=2, expired=2)


def test_invitations_wait_are_handed_over_or_have_expired(tx):
    for token, expires_ts in (("a", START_MS + 1), ("b", START_MS), ("c", START_MS + 1), ("d", START_MS)):
        invites.add(tx, Invitation(token, Threepid(EMAIL, "a"), "!r:x", ANN, 0, expires_ts), token.encode())
    for token in "cd":
        number = outbox.add(
            tx, kind="onbind", destination="x", idempotency_key=token, payload="{}", now_ms=START_MS
        )
        invites.hand_over(tx, token, number)
    assert figures.invitations(tx, START_MS) == Invitations(waiting=1, handed_over=2, expired=1)
    assert figures.all_invitations(tx) == 4
