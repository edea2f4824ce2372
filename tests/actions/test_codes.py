"""Telephone numbers: codes, how often one may guess, and where nothing is sent."""

import pytest
import pytest_twisted
from fixtures import DAY_MS, SERVER_NAME
from store_tools import START_MS, contents, rows
from twisted.internet.defer import Deferred, DeferredList

from sydentish.actions.accounts import NOBODY
from sydentish.actions.associations import Unbind
from sydentish.actions.messages import TokenRequest
from sydentish.actions.ports import Style
from sydentish.actions.validation import Credentials, Validated
from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import (
    DestinationRejected,
    InvalidAddress,
    LimitExceeded,
    NoValidSession,
    SendError,
    SessionExpired,
    SessionNotValidated,
    TokenIncorrect,
    UnknownToken,
)
from sydentish.domain.ratelimit import Budgets, Rate
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, parse_phone_number
from sydentish.domain.validation import hash_code

ALICE = "@alice:hs.example.org"
SECRET = "s3cret"
NUMBER = parse_phone_number("GB", "07700 900001")
OTHER = parse_phone_number("FR", "06 12 34 56 78")


@pytest_twisted.async_yield_fixture
async def caller(house):
    yield await house.log_in(ALICE)


def asking(attempt=1, *, number=NUMBER, secret=SECRET, **how):
    return TokenRequest(Threepid(MSISDN, number.msisdn), secret, attempt, None, number=number, **how)


async def ask(house, caller, attempt=1, **how):
    return await house.validation.request_token(caller, asking(attempt, **how))


def begin(house, caller, attempt=1, **how):
    """Asks without waiting for the SMS."""
    return Deferred.fromCoroutine(ask(house, caller, attempt, **how))


async def submit(house, sid, code=None, *, secret=SECRET, caller=NOBODY):
    code = house.codes.last_code() if code is None else code
    return await house.validation.submit_token(caller, Credentials(sid, secret), code)


async def said(house, sid, code):
    """What a code comes to: True, False, or `refused` without a look at it."""
    try:
        await submit(house, sid, code)
    except TokenIncorrect:
        return False
    except LimitExceeded:
        return "refused"
    return True


def codes(house):
    return [code for _, code, _ in house.codes.sent]


def wrong_codes(house, count):
    """Codes that were never sent."""
    return [code for code in map("{:06}".format, range(1000)) if code not in codes(house)][:count]


async def guess_wrong(house, sid, times):
    return [await said(house, sid, code) for code in wrong_codes(house, times)]


def guesses(house):
    return rows(house.path, "SELECT wrong_guesses FROM validation_tokens")


# --- what is sent, and what it proves ------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_code_of_six_digits_goes_to_the_number_and_proves_it(house, caller):
    style = Style("acme", ("fr",))
    sid = await ask(house, caller, style=style)
    ((number, code, sent_style),) = house.codes.sent
    assert (number, sent_style) == (NUMBER, style)
    assert len(code) == 6
    assert code.isdigit()
    assert house.sender.mails == []
    credentials = Credentials(sid, SECRET)
    with pytest.raises(SessionNotValidated):
        await house.validation.validated(caller, credentials)
    assert await submit(house, sid) is None
    proved = Validated(Threepid(MSISDN, "447700900001"), START_MS)
    assert await house.validation.validated(caller, credentials) == proved
    assert await house.validation.validated(NOBODY, credentials) == proved


@pytest_twisted.ensureDeferred
async def test_a_homeserver_without_a_token_has_numbers_proved_for_its_users(house):
    sid = await ask(house, NOBODY)
    await submit(house, sid)
    assert (await house.validation.validated(NOBODY, Credentials(sid, SECRET))).threepid.medium == MSISDN


@pytest.mark.parametrize("form", ["{}", " {} ", "\t{}\n", "\u00a0{}"])
@pytest_twisted.ensureDeferred
async def test_blanks_around_a_code_do_not_matter(house, caller, form):
    sid = await ask(house, caller)
    await submit(house, sid, form.format(house.codes.last_code()))


@pytest.mark.parametrize("code", ["", " ", "wrong", "\0", "\ud800", "0" * 1000])
@pytest_twisted.ensureDeferred
async def test_what_is_no_code_is_a_wrong_one(house, caller, code):
    sid = await ask(house, caller)
    assert await said(house, sid, code) is False
    assert guesses(house) == [(1,)]


@pytest_twisted.ensureDeferred
async def test_only_the_whole_code_with_its_zeros_is_right(house, caller):
    sid = await ask(house, caller)
    code = house.codes.last_code()
    near = [code[1:], code[:5], code + "0", "0" + code, code[:3] + " " + code[3:], f"+{code}"]
    assert [await said(house, sid, each) for each in near] == [False] * 6
    assert await said(house, sid, code) is True


@pytest_twisted.ensureDeferred
async def test_only_an_attempt_above_the_last_sends_an_sms(house, caller):
    sids = {await ask(house, caller, attempt) for attempt in (1, 1, 3, 2, 3, 4)}
    assert len(sids) == 1
    assert len(house.codes.sent) == 3
    assert len(set(codes(house))) == 3


@pytest_twisted.ensureDeferred
async def test_a_mail_and_a_code_of_one_secret_are_two_sessions(house, caller):
    mail = TokenRequest(Threepid(EMAIL, "alice@example.org"), SECRET, 1, None)
    mail_sid, code_sid = await house.validation.request_token(caller, mail), await ask(house, caller)
    assert mail_sid != code_sid
    assert await said(house, mail_sid, house.codes.last_code()) is False
    assert await said(house, code_sid, house.sender.last_token()) is False
    await submit(house, mail_sid, house.sender.last_token())
    await submit(house, code_sid)


@pytest_twisted.ensureDeferred
async def test_a_number_is_bound_found_and_unbound_as_an_address_is(house, caller):
    credentials = Credentials(await ask(house, caller), SECRET)
    await submit(house, credentials.sid)
    signed = await house.associations.bind(caller, credentials, ALICE)
    assert (signed["medium"], signed["address"]) == (MSISDN, "447700900001")
    assert SERVER_NAME in signed["signatures"]
    found = await house.lookup.associations(NOBODY, [Threepid(MSISDN, "+447700900001")])
    assert found == [(MSISDN, "+447700900001", ALICE)]
    unbind = Unbind(Threepid(MSISDN, "+447700900001"), ALICE, credentials)
    await house.associations.unbind(caller, unbind)
    assert rows(house.path, "SELECT * FROM associations") == []


@pytest_twisted.ensureDeferred
async def test_a_session_of_a_number_lives_24_hours(house, caller):
    sid = await ask(house, caller)
    house.advance(DAY_MS + 1)
    with pytest.raises(SessionExpired):
        await submit(house, sid)


@pytest_twisted.ensureDeferred
async def test_a_code_is_stored_so_that_only_the_client_can_find_it_again(house, caller):
    secret = "canary-secret"
    await ask(house, caller, secret=secret)
    code = house.codes.last_code()
    ((stored,),) = rows(house.path, "SELECT token_hash FROM validation_tokens")
    assert stored == hash_code(code, secret)
    # With what else is stored, nobody can try all codes.
    ((known,),) = rows(house.path, "SELECT client_secret_hash FROM validation_sessions")
    assert stored not in {hash_secret(code), hash_code(code, known), hash_code(code, "")}
    for file in house.path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()
        assert code.encode() not in file.read_bytes()


# --- where nothing is sent -----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nothing_goes_to_countries_that_nothing_is_to_go_to(make_house):
    house = await make_house(budgets=Budgets(sms_per_account=Rate(1, DAY_MS)))
    caller = await house.log_in(ALICE)
    house.codes.rejected = frozenset({"FR"})
    before = contents(house.path)
    for _ in range(3):
        with pytest.raises(DestinationRejected):
            await ask(house, caller, number=OTHER)
    assert contents(house.path) == before
    assert house.codes.sent == []
    await ask(house, caller)  # nor did it cost anything


@pytest_twisted.ensureDeferred
async def test_a_number_must_be_in_its_numbering_plan_only_where_that_is_wanted(make_house):
    possible = parse_phone_number("US", "123 456 7890")
    lenient, strict = await make_house(), await make_house(strict_numbers=True)
    await ask(lenient, NOBODY, number=possible)
    with pytest.raises(InvalidAddress):
        await ask(strict, NOBODY, number=possible)
    assert (len(lenient.codes.sent), len(strict.codes.sent)) == (1, 0)
    assert rows(strict.path, "SELECT * FROM validation_sessions") == []
    await ask(strict, NOBODY, number=OTHER)


@pytest_twisted.ensureDeferred
async def test_who_may_not_ask_learns_just_that(make_house):
    house = await make_house(strict_numbers=True)
    house.codes.rejected = frozenset({"US"})
    caller = type(NOBODY)("unknown")
    with pytest.raises(UnknownToken):
        await ask(house, caller, number=parse_phone_number("US", "123 456 7890"))


@pytest_twisted.ensureDeferred
async def test_a_request_for_a_number_without_the_number_is_a_mistake_of_ours(house, caller):
    with pytest.raises(ValueError, match="needs a telephone number"):
        await house.validation.request_token(
            caller, TokenRequest(Threepid(MSISDN, "447700900001"), SECRET, 1, None)
        )
    assert rows(house.path, "SELECT * FROM validation_sessions") == []


# --- guesses -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nine_wrong_guesses_leave_room_for_the_right_one(house, caller):
    sid = await ask(house, caller)
    assert await guess_wrong(house, sid, 9) == [False] * 9
    assert await said(house, sid, house.codes.last_code()) is True


@pytest_twisted.ensureDeferred
async def test_after_ten_wrong_guesses_every_one_is_refused_also_the_right_one(house, caller):
    sid = await ask(house, caller)
    assert await guess_wrong(house, sid, 13) == [False] * 10 + ["refused"] * 3
    assert await said(house, sid, house.codes.last_code()) == "refused"
    with pytest.raises(LimitExceeded) as refused:
        await submit(house, sid)
    assert refused.value.retry_after_ms > 0
    with pytest.raises(SessionNotValidated):
        await house.validation.validated(caller, Credentials(sid, SECRET))
    # Time alone does not help.
    house.advance(DAY_MS - 1)
    assert await said(house, sid, house.codes.last_code()) == "refused"
    assert guesses(house) == [(10,)]


@pytest_twisted.ensureDeferred
async def test_a_new_code_opens_the_way_again_for_itself_alone(house, caller):
    sid = await ask(house, caller, 1)
    await guess_wrong(house, sid, 11)
    assert await ask(house, caller, 2) == sid
    old, new = codes(house)
    assert [await said(house, sid, code) for code in (old, new)] == [False, True]


@pytest_twisted.ensureDeferred
async def test_a_repeated_request_opens_no_way(house, caller):
    sid = await ask(house, caller, 1)
    await guess_wrong(house, sid, 10)
    await ask(house, caller, 1)
    assert await said(house, sid, house.codes.last_code()) == "refused"


@pytest_twisted.ensureDeferred
async def test_a_new_code_that_could_not_be_sent_opens_no_way(house, caller):
    sid = await ask(house, caller, 1)
    await guess_wrong(house, sid, 10)
    house.codes.failing = True
    with pytest.raises(SendError):
        await ask(house, caller, 2)
    assert [await said(house, sid, code) for code in codes(house)] == ["refused"] * 2
    house.codes.failing = False
    await ask(house, caller, 2)
    assert await said(house, sid, house.codes.last_code()) is True


@pytest_twisted.ensureDeferred
async def test_guesses_survive_a_restart(make_house, tmp_path):
    first = await make_house(tmp_path)
    sid = await ask(first, NOBODY)
    await guess_wrong(first, sid, 10)
    code = first.codes.last_code()
    await first.stop()
    assert await said(await make_house(tmp_path), sid, code) == "refused"


@pytest_twisted.ensureDeferred
async def test_exactly_ten_are_judged_of_many_wrong_guesses_at_the_same_time(make_house, tmp_path):
    houses = [await make_house(tmp_path), await make_house(tmp_path)]  # two processes
    sid = await ask(houses[0], NOBODY)
    wrong = wrong_codes(houses[0], 60)
    asked = [Deferred.fromCoroutine(said(houses[n % 2], sid, code)) for n, code in enumerate(wrong)]
    answers = [answer for _, answer in await DeferredList(asked)]
    assert (answers.count(False), answers.count("refused")) == (10, 50)
    assert guesses(houses[0]) == [(10,)]
    assert await said(houses[1], sid, houses[0].codes.last_code()) == "refused"


@pytest_twisted.ensureDeferred
async def test_the_guesses_of_one_session_do_not_count_for_another(house, caller):
    first, second = await ask(house, caller), await ask(house, caller, secret="other")
    await guess_wrong(house, first, 10)
    await house.validation.submit_token(NOBODY, Credentials(second, "other"), house.codes.last_code())


@pytest_twisted.ensureDeferred
async def test_who_does_not_know_the_session_cannot_use_up_its_guesses(house, caller):
    sid = await ask(house, caller)
    for _ in range(20):
        with pytest.raises(NoValidSession):
            await submit(house, sid, "000000", secret="wrong")
    assert guesses(house) == [(0,)]
    assert await said(house, sid, house.codes.last_code()) is True


@pytest_twisted.ensureDeferred
async def test_links_of_mails_can_be_opened_wrongly_more_than_ten_times(make_house):
    house = await make_house(budgets=Budgets(guesses_per_address=Rate(1, DAY_MS)))
    mail = TokenRequest(Threepid(EMAIL, "alice@example.org"), SECRET, 1, None)
    sid = await house.validation.request_token(NOBODY, mail)
    assert await guess_wrong(house, sid, 30) == [False] * 30
    assert await said(house, sid, house.sender.last_token()) is True


# --- a new code voids the old one ----------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_new_code_voids_the_old_one(house, caller):
    for attempt in range(1, 4):
        sid = await ask(house, caller, attempt)
    assert [await said(house, sid, code) for code in codes(house)] == [False, False, True]


@pytest_twisted.ensureDeferred
async def test_a_code_that_could_not_be_sent_leaves_the_old_one_valid(house, caller):
    sid = await ask(house, caller, 1)
    house.codes.failing = True
    for attempt in (2, 3):
        with pytest.raises(SendError):
            await ask(house, caller, attempt)
    assert [await said(house, sid, code) for code in codes(house)] == [True, False, False]


@pytest_twisted.ensureDeferred
async def test_a_code_on_its_way_is_valid_and_the_old_one_until_it_is_handed_over(house, caller):
    sid = await ask(house, caller, 1)
    house.codes.holding = True
    second = begin(house, caller, 2)
    await house.settled()
    assert [await said(house, sid, code) for code in codes(house)] == [True, True]
    house.codes.held.pop().callback(None)
    await second
    assert [await said(house, sid, code) for code in codes(house)] == [False, True]


@pytest_twisted.ensureDeferred
async def test_a_guess_while_a_code_is_on_its_way_is_one_at_both(house, caller):
    sid = await ask(house, caller, 1)
    await guess_wrong(house, sid, 4)
    house.codes.holding = True
    second = begin(house, caller, 2)
    await house.settled()
    assert await guess_wrong(house, sid, 6) == [False] * 6
    assert guesses(house) == [(10,), (6,)]
    # The old one is worth nothing now, and trying it is a guess at the new one.
    assert await said(house, sid, codes(house)[0]) is False
    assert await guess_wrong(house, sid, 2) == [False] * 2
    assert guesses(house)[1] == (9,)
    house.codes.held.pop().callback(None)
    await second
    assert guesses(house) == [(9,)]
    assert await said(house, sid, codes(house)[1]) is True


@pytest_twisted.ensureDeferred
async def test_codes_on_their_way_give_no_guesses_beyond_ten_at_each(house, caller):
    sid = await ask(house, caller, 1)
    house.codes.holding = True
    second = begin(house, caller, 2)
    await house.settled()
    assert await guess_wrong(house, sid, 11) == [False] * 10 + ["refused"]
    assert [await said(house, sid, code) for code in codes(house)] == ["refused"] * 2
    house.codes.held.pop().callback(None)
    await second
    assert await said(house, sid, codes(house)[1]) == "refused"


@pytest_twisted.ensureDeferred
async def test_guesses_while_a_code_that_could_not_be_sent_was_on_its_way_count_for_the_old_one(
    house, caller
):
    sid = await ask(house, caller, 1)
    house.codes.holding = True
    second = begin(house, caller, 2)
    await house.settled()
    await guess_wrong(house, sid, 10)
    house.codes.held.pop().errback(SendError("no"))
    with pytest.raises(SendError):
        await second
    assert await said(house, sid, codes(house)[0]) == "refused"


@pytest_twisted.ensureDeferred
async def test_there_is_never_more_than_one_code_on_its_way(house, caller):
    house.codes.holding = True
    asked = [begin(house, caller, attempt) for attempt in (1, 2, 3)]
    await house.settled()
    for sent in (1, 2):
        assert len(house.codes.sent) == sent, "the others wait for it"
        house.codes.held.pop().callback(None)
        await house.settled()
        await house.settled()
    house.codes.holding = False
    while house.codes.held:
        house.codes.held.pop().callback(None)
    (sid,) = {await each for each in asked}
    *older, newest = codes(house)
    assert [await said(house, sid, code) for code in older] == [False] * len(older)
    assert await said(house, sid, newest)


@pytest_twisted.ensureDeferred
async def test_a_code_that_cannot_be_sent_lets_the_next_one_go(house, caller):
    house.codes.holding = True
    first = begin(house, caller, 1)
    await house.settled()
    second = begin(house, caller, 2)
    await house.settled()
    house.codes.holding = False
    house.codes.held.pop().errback(SendError("no"))
    with pytest.raises(SendError):
        await first
    sid = await second
    assert await said(house, sid, codes(house)[-1])


# --- the daily budget of an address --------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_only_so_many_guesses_are_judged_for_a_number_in_all_its_sessions(make_house):
    house = await make_house(budgets=Budgets(guesses_per_address=Rate(50, DAY_MS)))
    answers = []
    for session in range(6):
        sid = await ask(house, NOBODY, secret=f"secret{session}")
        for code in wrong_codes(house, 10):
            try:
                await submit(house, sid, code, secret=f"secret{session}")
            except (TokenIncorrect, LimitExceeded) as error:
                answers.append(type(error))
    assert answers == [TokenIncorrect] * 50 + [LimitExceeded] * 10
    # Also the right one is judged no more, and nothing of it is counted.
    with pytest.raises(LimitExceeded) as refused:
        await submit(house, sid, secret="secret5")
    assert refused.value.retry_after_ms == DAY_MS // 50
    assert guesses(house) == [(10,)] * 5 + [(0,)]
    # Another number has a day of its own.
    other = await ask(house, NOBODY, number=OTHER)
    await submit(house, other)
    # The day goes on.
    house.advance(DAY_MS // 50)
    await submit(house, sid, codes(house)[-2], secret="secret5")


@pytest_twisted.ensureDeferred
async def test_a_new_code_does_not_renew_the_day(make_house):
    house = await make_house(budgets=Budgets(guesses_per_address=Rate(15, DAY_MS)))
    sid = await ask(house, NOBODY, 1)
    assert await guess_wrong(house, sid, 10) == [False] * 10
    await ask(house, NOBODY, 2)
    assert await guess_wrong(house, sid, 7) == [False] * 5 + ["refused"] * 2


@pytest_twisted.ensureDeferred
async def test_guesses_that_are_refused_cost_nothing_of_the_day(make_house):
    house = await make_house(budgets=Budgets(guesses_per_address=Rate(11, DAY_MS)))
    sid = await ask(house, NOBODY, 1)
    await guess_wrong(house, sid, 10)
    before = contents(house.path)
    await guess_wrong(house, sid, 30)
    assert contents(house.path) == before
    await ask(house, NOBODY, 2)
    assert await said(house, sid, house.codes.last_code()) is True


@pytest_twisted.ensureDeferred
async def test_the_day_survives_a_restart(make_house, tmp_path):
    budgets = Budgets(guesses_per_address=Rate(5, DAY_MS))
    first = await make_house(tmp_path, budgets=budgets)
    sid = await ask(first, NOBODY)
    await guess_wrong(first, sid, 5)
    code = first.codes.last_code()
    await first.stop()
    assert await said(await make_house(tmp_path, budgets=budgets), sid, code) == "refused"
