"""Accounts, the gate, and the terms."""

from contextlib import closing
from dataclasses import dataclass, field

import pytest
import pytest_twisted
from fixtures import DAY_MS
from store_tools import START_MS, WatchedDatabase, contents, rows
from twisted.internet.defer import Deferred, DeferredList

from sydentish.actions.accounts import NOBODY, Accounts, Caller, Gate
from sydentish.domain.accounts import HomeserverPolicy, hash_secret
from sydentish.domain.errors import (
    Busy,
    Forbidden,
    HomeserverError,
    LogoutUnknownToken,
    OpenIdRefused,
    TermsNotSigned,
    UnknownToken,
)
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.terms import Policy, PolicyText, Terms
from sydentish.store import accounts as account_rows
from sydentish.store.sqlite import connect

ALICE = "@alice:hs.example.org"


def policy(policy_id, version):
    texts = [PolicyText(lang, policy_id, f"https://x/{policy_id}/{version}/{lang}") for lang in ("en", "de")]
    return Policy(policy_id, version, tuple(texts))


TERMS = Terms((policy("privacy", "1"), policy("terms", "1")))


def url(policy_id, version="1", language="en"):
    return f"https://x/{policy_id}/{version}/{language}"


def last_used(house):
    return rows(house.path, "SELECT last_used_ts FROM access_tokens")


@dataclass
class HangingVerifier:
    """A homeserver that takes its time."""

    waiting: list = field(default_factory=list)

    async def user_id_of(self, _server_name, _access_token):
        answer = Deferred()
        self.waiting.append(answer)
        return await answer


def hanging(house, max_registering):
    """Accounts whose homeservers answer when the test says so, and what stands for these."""
    verifier = HangingVerifier()
    accounts = Accounts(
        db=house.db,
        gate=house.gate,
        verifier=verifier,
        policy=HomeserverPolicy(),
        budgets=Budgets(),
        signs_of_life=house.signs,
        max_registering=max_registering,
        on_registered=lambda: None,
        now_ms=house.now_ms,
        random_bytes=house.random,
    )
    return accounts, verifier


@pytest_twisted.ensureDeferred
async def test_one_source_cannot_take_all_the_places_of_those_who_register(house):
    accounts, verifier = hanging(house, max_registering=200)
    greedy = Caller(None, source="192.0.2.1")
    waiting = []
    for _ in range(20):
        waiting.append(Deferred.fromCoroutine(accounts.register(greedy, "slow.example.org", "openid")))
        await house.db.read(lambda _tx: None)
    with pytest.raises(Busy):
        await accounts.register(greedy, "slow.example.org", "openid")
    other = Deferred.fromCoroutine(
        accounts.register(Caller(None, source="192.0.2.2"), "hs.example.org", "openid")
    )
    while len(verifier.waiting) < 21:
        await house.db.read(lambda _tx: None)
    for each in verifier.waiting:
        each.callback("@a:hs.example.org")
    for each in (*waiting, other):
        assert await each
    # The places are free again.
    again = Deferred.fromCoroutine(accounts.register(greedy, "slow.example.org", "openid"))
    while len(verifier.waiting) < 22:
        await house.db.read(lambda _tx: None)
    verifier.waiting[-1].callback("@a:hs.example.org")
    assert await again


@pytest_twisted.ensureDeferred
async def test_only_so_many_registrations_wait_for_homeservers_at_a_time(house):
    accounts, verifier = hanging(house, max_registering=2)
    waiting = [
        Deferred.fromCoroutine(accounts.register(NOBODY, "slow.example.org", "openid")) for _ in range(2)
    ]
    with pytest.raises(Busy):
        await accounts.register(NOBODY, "hs.example.org", "openid")
    first, second = verifier.waiting
    first.callback("@a:slow.example.org")
    second.errback(HomeserverError("The homeserver is away"))
    assert await waiting[0]
    with pytest.raises(HomeserverError):
        await waiting[1]
    again = Deferred.fromCoroutine(accounts.register(NOBODY, "hs.example.org", "openid"))
    verifier.waiting[2].callback("@a:hs.example.org")
    assert await again


# --- register and log out ------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_openid_token_becomes_an_access_token_that_is_stored_as_a_hash(house):
    house.verifier.tokens["openid"] = ALICE
    token = await house.accounts.register(NOBODY, "hs.example.org", "openid")
    assert house.verifier.asked == [("hs.example.org", "openid")]
    assert await house.accounts.user_id(Caller(token)) == ALICE
    assert rows(house.path, "SELECT token_hash, user_id FROM access_tokens") == [(hash_secret(token), ALICE)]
    assert not [file for file in house.path.parent.iterdir() if token.encode() in file.read_bytes()]


@pytest_twisted.ensureDeferred
async def test_each_registration_has_a_token_of_its_own_and_one_account(house):
    tokens = [await house.token(ALICE), await house.token(ALICE)]
    assert len(set(tokens)) == 2
    assert [await house.accounts.user_id(Caller(token)) for token in tokens] == [ALICE, ALICE]
    assert rows(house.path, "SELECT user_id, created_ts FROM accounts") == [(ALICE, START_MS)]


@pytest_twisted.ensureDeferred
async def test_a_registration_is_a_sign_of_life(house):
    await house.token(ALICE)
    assert house.signs.heard == ["hs.example.org"]


@pytest.mark.parametrize("error", [OpenIdRefused("no"), HomeserverError("The homeserver is down")])
@pytest_twisted.ensureDeferred
async def test_a_registration_that_fails_leaves_nothing(house, error):
    house.verifier.tokens["openid"] = error
    with pytest.raises(type(error)):
        await house.accounts.register(NOBODY, "hs.example.org", "openid")
    assert rows(house.path, "SELECT * FROM accounts") == []
    assert house.signs.heard == []


@pytest.mark.parametrize(
    ("policy", "server_name"),
    [
        (HomeserverPolicy(allow=frozenset({"good.example.org"})), "hs.example.org"),
        (HomeserverPolicy(allow=frozenset()), "hs.example.org"),
        (HomeserverPolicy(deny=frozenset({"hs.example.org"})), "hs.example.org"),
        (HomeserverPolicy(deny=frozenset({"hs.example.org"})), "HS.Example.ORG"),
        (HomeserverPolicy(deny=frozenset({"hs.example.org"})), "hs.example.org:8448"),
        (HomeserverPolicy(deny=frozenset({"hs.example.org"})), "hs.example.org."),
        (HomeserverPolicy(deny=frozenset({"*.example.org"})), "hs.example.org"),
        (HomeserverPolicy(deny=frozenset({"*.example.org"})), "hs.example.org:443"),
        (HomeserverPolicy(allow=frozenset({"*.example.org"})), "example.org"),
        (HomeserverPolicy(allow=frozenset({"*.example.org"})), "evilexample.org"),
        (HomeserverPolicy(frozenset({"hs.example.org"}), frozenset({"hs.example.org"})), "hs.example.org"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_may_not_register_is_not_even_asked(make_house, policy, server_name):
    house = await make_house(policy=policy)
    with pytest.raises(Forbidden):
        await house.accounts.register(NOBODY, server_name, "openid")
    assert house.verifier.asked == []


@pytest.mark.parametrize("name", ["hs.example.org", "HS.example.org"])
@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_is_allowed_registers(make_house, name):
    house = await make_house(policy=HomeserverPolicy(frozenset({"hs.example.org"}), frozenset({"x.org"})))
    house.verifier.tokens["openid"] = ALICE
    assert await house.accounts.register(NOBODY, name, "openid")


@pytest_twisted.ensureDeferred
async def test_logging_out_ends_this_token_and_no_other(house):
    first, second = await house.log_in(), await house.log_in()
    await house.accounts.log_out(first)
    with pytest.raises(UnknownToken):
        await house.accounts.user_id(first)
    with pytest.raises(LogoutUnknownToken):
        await house.accounts.log_out(first)
    assert await house.accounts.user_id(second) == ALICE


# --- the gate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "unknown", "\0", "\ud800", "' OR 1=1 --", "x" * 100_000])
@pytest_twisted.ensureDeferred
async def test_an_unknown_token_is_one_whatever_it_looks_like(house, token):
    await house.log_in()
    with pytest.raises(UnknownToken):
        await house.accounts.user_id(Caller(token))
    with pytest.raises(LogoutUnknownToken):
        await house.accounts.log_out(Caller(token))


@pytest_twisted.ensureDeferred
async def test_the_stored_hash_is_no_token(house):
    await house.log_in()
    ((token_hash,),) = rows(house.path, "SELECT token_hash FROM access_tokens")
    with pytest.raises(UnknownToken):
        await house.accounts.user_id(Caller(token_hash))


@pytest.mark.parametrize("kind", ["read", "write", "read_for_anybody", "write_for_anybody"])
@pytest_twisted.ensureDeferred
async def test_who_may_not_act_does_not(make_house, kind):
    house = await make_house(terms=TERMS)
    acted = []
    caller = await house.log_in()
    for refused, error in ((Caller("unknown"), UnknownToken), (caller, TermsNotSigned)):
        with pytest.raises(error):
            await getattr(house.gate, kind)(refused, lambda _tx, account: acted.append(account))
    assert acted == []


@pytest.mark.parametrize("kind", ["read_for_anybody", "write_for_anybody"])
@pytest_twisted.ensureDeferred
async def test_who_needs_no_token_acts_without_an_account_and_costs_one_trip(house, kind):
    caller = await house.log_in()
    db = WatchedDatabase(house.db)
    act = getattr(Gate(db=db, terms=TERMS, now_ms=house.now_ms), kind)
    for nobody in (NOBODY, Caller(None, source="192.0.2.1")):
        assert await act(nobody, lambda _tx, account, *rest, **more: (account, rest, more), 1, two=2) == (
            None,
            (1,),
            {"two": 2},
        )
    assert (db.reads, db.writes) == ((2, 0) if kind.startswith("read") else (0, 2))
    # A token that is there counts all the same.
    account = await act(Caller(caller.token, needs_terms=False), lambda _tx, account: account)
    assert account.user_id == ALICE
    with pytest.raises(UnknownToken):
        await act(Caller(""), lambda _tx, account: account)


@pytest_twisted.ensureDeferred
async def test_nobody_has_the_account_that_needs_one(house):
    await house.log_in()
    for kind in ("read", "write"):
        with pytest.raises(UnknownToken):
            await getattr(house.gate, kind)(NOBODY, lambda _tx, account: account)
    with pytest.raises(LogoutUnknownToken):
        await house.accounts.log_out(NOBODY)


@pytest.mark.parametrize("kind", ["read", "write", "read_for_anybody", "write_for_anybody"])
@pytest_twisted.ensureDeferred
async def test_the_use_of_a_token_is_noted_once_a_day(house, kind):
    caller = await house.log_in()
    for later, noted in ((0, START_MS), (DAY_MS, START_MS), (1, START_MS + DAY_MS + 1)):
        house.advance(later)
        await getattr(house.gate, kind)(caller, lambda _tx, account: account)
        assert last_used(house) == [(noted,)]


@pytest_twisted.ensureDeferred
async def test_a_use_that_cannot_be_noted_does_not_spoil_a_read(house):
    caller = await house.log_in()
    house.advance(2 * DAY_MS)
    db = WatchedDatabase(house.db)
    gate = Gate(db=db, terms=Terms(), now_ms=house.now_ms)
    db.refuse_writes = 1
    assert (await gate.check(caller)).user_id == ALICE
    assert last_used(house) == [(START_MS,)]
    await gate.check(caller)
    assert last_used(house) == [(START_MS + 2 * DAY_MS,)]


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest_twisted.ensureDeferred
async def test_the_check_and_the_deed_are_one_transaction(house, kind):
    caller = await house.log_in()
    with closing(connect(house.path, 5000)) as other:

        def act(tx, account):
            # Somebody logs out between the check and the deed: not seen, or not possible.
            if kind == "read":
                other.execute("DELETE FROM access_tokens")
            return account_rows.account_of(tx, hash_secret(caller.token)) == account

        assert await getattr(house.gate, kind)(caller, act)


@pytest_twisted.ensureDeferred
async def test_a_deed_costs_one_trip_to_a_thread(house):
    caller = await house.log_in()
    db = WatchedDatabase(house.db)
    gate = Gate(db=db, terms=TERMS, now_ms=house.now_ms)
    await gate.write(Caller(caller.token, needs_terms=False), lambda _tx, _account: None)
    await gate.read(Caller(caller.token, needs_terms=False), lambda _tx, _account: None)
    assert (db.writes, db.reads) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_a_deed_that_fails_is_undone_with_everything_beside_it(house):
    caller = await house.log_in()
    house.advance(2 * DAY_MS)
    before = contents(house.path)

    def act(tx, _account):
        account_rows.add_account(tx, "@half:x.org", 1)
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        await house.gate.write(caller, act)
    assert contents(house.path) == before


@pytest_twisted.ensureDeferred
async def test_a_token_that_is_logged_out_admits_nobody_who_comes_after(house):
    caller = await house.log_in()
    out = house.db.write(account_rows.delete_token, hash_secret(caller.token), house.now_ms())
    late = [house.db.write(lambda tx: house.gate._admit(tx, caller)) for _ in range(3)]
    results = await DeferredList([out, *late], consumeErrors=True)
    assert [success for success, _ in results] == [True, False, False, False]


def test_the_token_is_not_in_what_is_printed():
    assert "canary" not in repr(Caller("canary"))


# --- terms ---------------------------------------------------------------------------------------------


async def may_act(house, caller):
    try:
        await house.gate.check(caller)
    except TermsNotSigned:
        return False
    return True


@pytest_twisted.ensureDeferred
async def test_every_policy_must_be_accepted_in_any_language(make_house):
    house = await make_house(terms=TERMS)
    caller = await house.log_in()
    before = Caller(caller.token, needs_terms=False)
    assert await house.accounts.user_id(before) == ALICE
    assert not await may_act(house, caller)
    await house.terms.accept(before, [url("privacy", language="de")])
    assert not await may_act(house, caller)
    await house.terms.accept(before, [url("terms")])
    assert await may_act(house, caller)


@pytest.mark.parametrize(
    "urls", [[], ["https://x/unknown"], [url("privacy", "0")], [url("privacy")], ["", "\0", "x" * 9999]]
)
@pytest_twisted.ensureDeferred
async def test_other_urls_accept_nothing(make_house, urls):
    house = await make_house(terms=TERMS)
    caller = await house.log_in()
    await house.terms.accept(Caller(caller.token, needs_terms=False), urls)
    assert not await may_act(house, caller)


@pytest_twisted.ensureDeferred
async def test_a_new_version_must_be_accepted_again_and_the_old_one_stays_accepted(make_house, tmp_path):
    house = await make_house(tmp_path, terms=TERMS)
    token = (await house.log_in()).token
    await house.terms.accept(Caller(token, needs_terms=False), [url("privacy"), url("terms")])
    await house.stop()
    newer = await make_house(tmp_path, terms=Terms((policy("privacy", "2"), policy("terms", "1"))))
    assert not await may_act(newer, Caller(token))
    await newer.terms.accept(Caller(token, needs_terms=False), [url("privacy", "2")])
    assert await may_act(newer, Caller(token))
    await newer.stop()
    back = await make_house(tmp_path, terms=TERMS)
    assert await may_act(back, Caller(token))


@pytest_twisted.ensureDeferred
async def test_terms_are_accepted_by_a_user_on_all_devices_and_by_nobody_else(make_house):
    house = await make_house(terms=TERMS)
    phone, laptop = await house.log_in(), await house.log_in()
    bob = await house.log_in("@bob:hs.example.org")
    await house.terms.accept(Caller(phone.token, needs_terms=False), [url("privacy"), url("terms")])
    assert [await may_act(house, caller) for caller in (phone, laptop, bob)] == [True, True, False]


@pytest_twisted.ensureDeferred
async def test_an_unknown_token_accepts_nothing(make_house):
    house = await make_house(terms=TERMS)
    with pytest.raises(UnknownToken):
        await house.terms.accept(Caller("unknown", needs_terms=False), [url("privacy")])
    assert rows(house.path, "SELECT * FROM accepted_terms") == []


@pytest_twisted.ensureDeferred
async def test_without_policies_nothing_needs_to_be_accepted(house):
    assert house.terms.offered() == {"policies": {}}
    assert await may_act(house, await house.log_in())


@pytest_twisted.ensureDeferred
async def test_each_token_that_was_given_is_told(house):
    await house.log_in()
    await house.log_in()
    house.verifier.tokens["bad"] = OpenIdRefused("no")
    with pytest.raises(OpenIdRefused):
        await house.accounts.register(NOBODY, "hs.example.org", "bad")
    assert house.registered == [True, True]
