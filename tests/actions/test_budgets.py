"""What deeds cost, and that only deeds that do something cost."""

from dataclasses import dataclass, replace

import pytest
import pytest_twisted
from store_tools import WatchedDatabase, contents, rows
from twisted.internet.defer import Deferred

from sydentish.actions.accounts import NOBODY, Caller
from sydentish.actions.budgets import SourceBudget
from sydentish.actions.invites import InviteRequest
from sydentish.actions.messages import TokenRequest
from sydentish.domain.errors import (
    EmailSendError,
    InvalidEmail,
    LimitExceeded,
    NotYourUser,
    OpenIdRefused,
    ThreepidInUse,
    UnknownToken,
    UnrecognizedMedium,
)
from sydentish.domain.invites import InviteDetails
from sydentish.domain.ratelimit import Budgets, Rate
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, parse_phone_number

HOUR = 3600_000
TWO = Rate(2, HOUR)
ALICE, CAROL, BOB = "@alice:hs.example.org", "@carol:HS.example.org", "@bob:other.example.org"
SOURCE, ELSEWHERE = Caller(None, source="192.0.2.1"), Caller(None, source="192.0.2.2")
PHONES = [parse_phone_number("GB", f"0770090000{number}") for number in range(1, 10)]
ABROAD = parse_phone_number("FR", "06 12 34 56 78")


class Asker:
    """Asks for one thing after the other, each another one unless it is said which."""

    def __init__(self, house):
        self.house = house
        self.count = 0
        self.callers = {}

    async def caller(self, who):
        if isinstance(who, Caller):
            return who
        if who not in self.callers:
            self.callers[who] = await self.house.log_in(who)
        return self.callers[who]

    async def mail(self, who, address=None):
        self.count += 1
        threepid = Threepid(EMAIL, address or f"user{self.count}@example.org")
        request = TokenRequest(threepid, f"secret{self.count}", 1, None)
        return await self.house.validation.request_token(await self.caller(who), request)

    async def sms(self, who, number=None):
        self.count += 1
        number = number or PHONES[self.count]
        threepid = Threepid(MSISDN, number.msisdn)
        request = TokenRequest(threepid, f"secret{self.count}", 1, None, number=number)
        return await self.house.validation.request_token(await self.caller(who), request)

    async def invitation(self, who, address=None):
        self.count += 1
        threepid = Threepid(EMAIL, address or f"user{self.count}@example.org")
        caller = await self.caller(who)
        sender = ALICE if isinstance(who, Caller) else who
        request = InviteRequest(threepid, "!r:hs.example.org", sender, InviteDetails(), None, None)
        return await self.house.invites.store(caller, request)

    async def registration(self, who):
        self.house.verifier.tokens["openid"] = ALICE
        return await self.house.accounts.register(who, "hs.example.org", "openid")


async def asker(make_house, **budgets):
    return Asker(await make_house(budgets=Budgets(**budgets)))


def left(house):
    return rows(house.path, "SELECT * FROM budgets ORDER BY budget, key_hash")


def sent(house):
    invitations = rows(house.path, "SELECT * FROM invitations")
    return len(house.sender.mails) + len(house.codes.sent) + len(invitations)


@dataclass(frozen=True)
class Case:
    """A budget, a deed, and who does it: those who use the budget up, who is then refused, and who is not."""

    budget: str
    deed: str
    users: list
    refused: list
    free: list


CASES = [
    Case("mails_per_account", "mail", [(ALICE,), (ALICE,)], [(ALICE,)], [(CAROL,), (SOURCE,)]),
    Case("mails_per_homeserver", "mail", [(ALICE,), (CAROL,)], [(ALICE,), (CAROL,)], [(BOB,), (SOURCE,)]),
    Case("mails_per_source", "mail", [(SOURCE,)] * 2, [(SOURCE,)], [(ELSEWHERE,), (NOBODY,), (ALICE,)]),
    Case(
        "mails_per_address",
        "mail",
        [(ALICE, "target@example.org"), (SOURCE, "target@example.org")],
        [(BOB, "target@example.org"), (NOBODY, "target@example.org")],
        [(ALICE,), (SOURCE,)],
    ),
    Case("sms_per_account", "sms", [(ALICE,), (ALICE,)], [(ALICE,)], [(CAROL,), (SOURCE,)]),
    Case("sms_per_homeserver", "sms", [(ALICE,), (CAROL,)], [(ALICE,), (CAROL,)], [(BOB,), (SOURCE,)]),
    Case("sms_per_source", "sms", [(SOURCE,)] * 2, [(SOURCE,)], [(ELSEWHERE,), (NOBODY,), (ALICE,)]),
    Case(
        "sms_per_number",
        "sms",
        [(ALICE, PHONES[0]), (NOBODY, PHONES[0])],
        [(BOB, PHONES[0]), (SOURCE, PHONES[0])],
        [(ALICE,), (NOBODY,)],
    ),
    Case("sms_per_country", "sms", [(ALICE,), (NOBODY,)], [(BOB,), (SOURCE,)], [(ALICE, ABROAD)]),
    Case("invitations_per_sender", "invitation", [(ALICE,), (SOURCE,)], [(ALICE,), (NOBODY,)], [(CAROL,)]),
    Case("invitations_per_homeserver", "invitation", [(ALICE,), (CAROL,)], [(CAROL,), (SOURCE,)], [(BOB,)]),
    Case(
        "invitations_per_address",
        "invitation",
        [(ALICE, "target@example.org"), (BOB, "TARGET@example.org")],
        [(CAROL, "target@example.org"), (SOURCE, "Target@example.org")],
        [(ALICE,)],
    ),
    Case("mails_per_source", "invitation", [(SOURCE,)] * 2, [(SOURCE,)], [(ELSEWHERE,), (NOBODY,), (BOB,)]),
    Case("registrations_per_source", "registration", [(SOURCE,)] * 2, [(SOURCE,)], [(ELSEWHERE,), (NOBODY,)]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.deed}-{case.budget}")
@pytest_twisted.ensureDeferred
async def test_who_has_used_a_budget_up_waits_and_others_do_not(make_house, case):
    asking = await asker(make_house, **{case.budget: TWO})
    house, do = asking.house, getattr(asking, case.deed)
    for who in {each[0] for each in (*case.users, *case.refused, *case.free)}:
        await asking.caller(who)
    for arguments in case.users:
        await do(*arguments)
    before, messages = contents(house.path), sent(house)
    for arguments in case.refused:
        with pytest.raises(LimitExceeded) as limit:
            await do(*arguments)
        assert limit.value.retry_after_ms == HOUR // 2
    # Of what was refused nothing remains, and nothing leaves.
    assert contents(house.path) == before
    assert sent(house) == messages
    for arguments in case.free:
        await do(*arguments)
    house.advance(HOUR // 2)
    await do(*case.refused[0])
    with pytest.raises(LimitExceeded):
        await do(*case.refused[-1])


@pytest_twisted.ensureDeferred
async def test_the_users_of_a_homeserver_register_so_often_together(make_house):
    house = await make_house(budgets=Budgets(registrations_per_homeserver=TWO))
    for user_id in (ALICE, CAROL):
        await house.token(user_id)
    with pytest.raises(LimitExceeded):
        await house.token(ALICE)
    assert len(rows(house.path, "SELECT * FROM access_tokens")) == 2
    await house.token(BOB)
    house.advance(HOUR // 2)
    await house.token(ALICE)


@pytest_twisted.ensureDeferred
async def test_a_registration_is_counted_before_a_homeserver_is_asked(make_house):
    house = await make_house(budgets=Budgets(registrations_per_source=TWO))
    house.verifier.tokens["bad"] = OpenIdRefused("The homeserver does not know this token")
    for _ in range(2):
        with pytest.raises(OpenIdRefused):
            await house.accounts.register(SOURCE, "hs.example.org", "bad")
    with pytest.raises(LimitExceeded):
        await house.accounts.register(SOURCE, "hs.example.org", "bad")
    assert len(house.verifier.asked) == 2


@pytest_twisted.ensureDeferred
async def test_who_is_refused_by_a_homeserver_costs_that_homeserver_nothing(make_house):
    house = await make_house(budgets=Budgets(registrations_per_homeserver=TWO))
    house.verifier.tokens["bad"] = OpenIdRefused("The homeserver does not know this token")
    for _ in range(5):
        with pytest.raises(OpenIdRefused):
            await house.accounts.register(NOBODY, "hs.example.org", "bad")
    assert left(house) == []


# --- what costs, and what does not ---------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_attempt_that_sends_nothing_costs_nothing(make_house):
    house = await make_house(budgets=Budgets(mails_per_account=Rate(3, HOUR)))
    caller = await house.log_in(ALICE)
    for attempt in (1, 1, 1, 2, 1, 2, 3, 3, 2, 1):
        request = TokenRequest(Threepid(EMAIL, "alice@example.org"), "secret", attempt, None)
        await house.validation.request_token(caller, request)
    assert len(house.sender.mails) == 3
    request = TokenRequest(Threepid(EMAIL, "alice@example.org"), "secret", 4, None)
    with pytest.raises(LimitExceeded):
        await house.validation.request_token(caller, request)
    # What was sent before stays valid, and can still be asked about.
    await house.validation.request_token(caller, TokenRequest(request.threepid, "secret", 3, None))
    assert rows(house.path, "SELECT count(*) FROM validation_tokens") == [(3,)]


@pytest_twisted.ensureDeferred
async def test_who_waits_for_a_mail_on_its_way_pays_for_none(make_house):
    house = await make_house(budgets=Budgets(mails_per_address=TWO))
    house.sender.holding = True

    def begin(attempt):
        request = TokenRequest(Threepid(EMAIL, "alice@example.org"), "secret", attempt, None)
        return Deferred.fromCoroutine(house.validation.request_token(NOBODY, request))

    async def settled():
        for _ in range(4):
            await house.db.write(lambda _tx: None)

    # One after the other, and several in one transaction of the store.
    waiting = [begin(1)]
    await settled()
    waiting += [begin(1) for _ in range(5)]
    await settled()
    waiting += [begin(2) for _ in range(5)]
    await settled()
    assert len(house.sender.mails) == 2
    assert not any(request.called for request in waiting)
    house.sender.release()
    assert len({await request for request in waiting}) == 1
    with pytest.raises(LimitExceeded):
        await begin(3)


@pytest_twisted.ensureDeferred
async def test_who_waits_for_a_message_that_is_too_much_hears_so_too(make_house):
    house = await make_house(budgets=Budgets(mails_per_address=Rate(1, HOUR)))
    request = TokenRequest(Threepid(EMAIL, "alice@example.org"), "secret", 1, None)
    await house.validation.request_token(NOBODY, request)
    again = TokenRequest(request.threepid, "secret", 2, None)
    asked = [Deferred.fromCoroutine(house.validation.request_token(NOBODY, again)) for _ in range(3)]
    for each in asked:
        with pytest.raises(LimitExceeded):
            await each
    assert len(house.sender.mails) == 1
    house.advance(HOUR)
    await house.validation.request_token(NOBODY, again)
    assert len(house.sender.mails) == 2


@pytest_twisted.ensureDeferred
async def test_a_relay_that_refuses_is_tried_no_more_often_than_one_that_does_not(make_house):
    house = await make_house(budgets=Budgets(mails_per_account=TWO))
    caller = await house.log_in(ALICE)
    house.sender.failing = True
    request = TokenRequest(Threepid(EMAIL, "alice@example.org"), "secret", 1, None)
    for _ in range(2):
        with pytest.raises(EmailSendError):
            await house.validation.request_token(caller, request)
    with pytest.raises(LimitExceeded):
        await house.validation.request_token(caller, request)
    assert len(house.sender.mails) == 2


@pytest_twisted.ensureDeferred
async def test_an_invitation_that_is_not_taken_costs_nothing(make_house):
    asking = await asker(make_house, invitations_per_sender=TWO, invitations_per_address=TWO)
    house, caller = asking.house, await asking.caller(ALICE)
    credentials = await house.prove(caller, "bound@example.org")
    await house.associations.bind(caller, credentials, ALICE)

    async def invite(caller, sender, threepid):
        request = InviteRequest(threepid, "!r:x.org", sender, InviteDetails(), None, None)
        await house.invites.store(caller, request)

    for who, sender, threepid, error in (
        (Caller("unknown"), ALICE, Threepid(EMAIL, "a@example.org"), UnknownToken),
        (caller, BOB, Threepid(EMAIL, "a@example.org"), NotYourUser),
        (caller, ALICE, Threepid(MSISDN, "447700900001"), UnrecognizedMedium),
        (caller, ALICE, Threepid(EMAIL, "no address"), InvalidEmail),
        (caller, ALICE, Threepid(EMAIL, "bound@example.org"), ThreepidInUse),
    ):
        with pytest.raises(error):
            await invite(who, sender, threepid)
    assert left(house) == []


@pytest_twisted.ensureDeferred
async def test_nothing_is_counted_where_every_budget_is_off(make_house):
    asking = await asker(make_house)
    for who in (ALICE, SOURCE):
        await asking.mail(who)
        await asking.sms(who)
        await asking.invitation(who)
    await asking.registration(SOURCE)
    assert left(asking.house) == []


@pytest_twisted.ensureDeferred
async def test_budgets_survive_a_restart_and_hold_for_all_processes(make_house, tmp_path):
    budgets = Budgets(mails_per_address=Rate(3, HOUR))
    request = TokenRequest(Threepid(EMAIL, "alice@example.org"), "secret", 0, None)

    async def ask(house, attempt):
        await house.validation.request_token(NOBODY, replace(request, send_attempt=attempt))

    first = await make_house(tmp_path, budgets=budgets)
    beside = await make_house(tmp_path, budgets=budgets)
    await ask(first, 1)
    await ask(beside, 2)
    await first.stop()
    after = await make_house(tmp_path, budgets=budgets)
    await ask(after, 3)
    for house in (after, beside):
        with pytest.raises(LimitExceeded):
            await ask(house, 4)


@pytest_twisted.ensureDeferred
async def test_nobodys_address_stands_in_the_budgets(make_house):
    every = dict.fromkeys(Budgets.__slots__, TWO)
    asking = await asker(make_house, **every)
    await asking.mail(ALICE, "canary@example.org")
    await asking.mail(SOURCE)
    await asking.sms(ALICE)
    await asking.invitation(ALICE, "canary@example.org")
    found = repr(left(asking.house))
    assert len(left(asking.house)) > 8
    for name in ("canary", "alice", "example", "192.0.2", PHONES[1].msisdn, PHONES[3].msisdn):
        assert name not in found


# --- requests as such ----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_requests_are_counted_by_where_they_come_from(house):
    budget = SourceBudget(db=house.db, budgets=Budgets(v1_requests_per_source=TWO), now_ms=house.now_ms)
    for _ in range(2):
        await budget.charge("192.0.2.1")
    with pytest.raises(LimitExceeded) as refused:
        await budget.charge("192.0.2.1")
    assert refused.value.retry_after_ms == HOUR // 2
    await budget.charge("192.0.2.2")
    for _ in range(10):
        await budget.charge("")
    house.advance(HOUR // 2)
    await budget.charge("192.0.2.1")


@pytest.mark.parametrize(("rate", "source"), [(None, "192.0.2.1"), (TWO, "")])
@pytest_twisted.ensureDeferred
async def test_what_is_not_counted_costs_no_trip_to_the_database(house, rate, source):
    db = WatchedDatabase(house.db)
    budget = SourceBudget(db=db, budgets=Budgets(v1_requests_per_source=rate), now_ms=house.now_ms)
    for _ in range(5):
        await budget.charge(source)
    assert (db.reads, db.writes) == (0, 0)
