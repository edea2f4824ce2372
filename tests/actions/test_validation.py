"""Validation sessions: when a mail is sent, what proves an address, and how long it counts."""

from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_twisted
from fixtures import BASE_URL, DAY_MS
from store_tools import START_MS, rows
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from sydentish.actions.accounts import NOBODY, Caller
from sydentish.actions.messages import TokenRequest
from sydentish.actions.validation import Credentials, Validated
from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import (
    EmailSendError,
    InvalidParam,
    NoValidSession,
    SessionExpired,
    SessionNotValidated,
    TokenIncorrect,
    UnknownToken,
)
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.domain.validation import NextLinkPolicy

ADDRESS = "alice@example.org"
SECRET = "s3cret"


def asking(attempt=1, *, address=ADDRESS, secret=SECRET, next_link=None):
    return TokenRequest(Threepid(EMAIL, address), secret, attempt, next_link)


@pytest_twisted.async_yield_fixture
async def caller(house):
    yield await house.log_in()


async def ask(house, caller, attempt=1, **how):
    return await house.validation.request_token(caller, asking(attempt, **how))


def begin(house, caller, attempt=1, **how):
    """Asks without waiting for the mail."""
    return Deferred.fromCoroutine(ask(house, caller, attempt, **how))


async def submit(house, sid, token=None, *, secret=SECRET, caller=NOBODY):
    token = house.sender.last_token() if token is None else token
    return await house.validation.submit_token(caller, Credentials(sid, secret), token)


def tokens(house):
    return [parse_qs(urlsplit(link).query)["token"][0] for _, link in house.sender.mails]


async def proves(house, sid, token):
    try:
        await submit(house, sid, token)
    except TokenIncorrect:
        return False
    return True


# --- when a mail is sent -------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_mail_with_a_link_goes_to_the_address(house, caller):
    sid = await ask(house, caller)
    ((address, link),) = house.sender.mails
    assert address == ADDRESS
    assert link.startswith(f"{BASE_URL}/_matrix/identity/v2/validate/email/submitToken?")
    query = parse_qs(urlsplit(link).query)
    assert (query["sid"], query["client_secret"]) == ([sid], [SECRET])
    assert await submit(house, sid, query["token"][0]) is None


@pytest_twisted.ensureDeferred
async def test_secrets_are_stored_as_hashes(house, caller):
    await ask(house, caller, secret="canary-secret")
    assert rows(house.path, "SELECT client_secret_hash FROM validation_sessions") == [
        (hash_secret("canary-secret"),)
    ]
    assert rows(house.path, "SELECT token_hash FROM validation_tokens") == [
        (hash_secret(house.sender.last_token()),)
    ]
    for file in house.path.parent.iterdir():
        assert b"canary-secret" not in file.read_bytes()
        assert house.sender.last_token().encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("attempts", "mails"),
    [([0], 1), ([1, 1, 1], 1), ([1, 2, 3], 3), ([5, 4, 5, 1, 0], 1), ([0, 1, 0, 1, 2**53], 3)],
)
@pytest_twisted.ensureDeferred
async def test_only_an_attempt_above_the_last_sends_a_mail(house, caller, attempts, mails):
    sids = [await ask(house, caller, attempt) for attempt in attempts]
    assert len(set(sids)) == 1
    assert len(house.sender.mails) == mails


@pytest.mark.parametrize("other", [{"address": "bob@example.org"}, {"secret": "other"}])
@pytest_twisted.ensureDeferred
async def test_another_address_or_secret_is_another_session(house, caller, other):
    first, second = await ask(house, caller), await ask(house, caller, **other)
    assert first != second
    assert len(house.sender.mails) == 2
    with pytest.raises((TokenIncorrect, NoValidSession)):
        await submit(house, first)


@pytest_twisted.ensureDeferred
async def test_the_attempt_survives_a_restart(make_house, tmp_path):
    first = await make_house(tmp_path)
    token = await first.token()
    sid = await ask(first, Caller(token), 3)
    await first.stop()
    second = await make_house(tmp_path)
    assert await ask(second, Caller(token), 3) == sid
    assert second.sender.mails == []


@pytest_twisted.ensureDeferred
async def test_a_relay_that_refuses_does_not_use_up_the_attempt(house, caller):
    house.sender.failing = True
    for _ in range(3):
        with pytest.raises(EmailSendError):
            await ask(house, caller)
    assert rows(house.path, "SELECT * FROM validation_tokens") == []
    house.sender.failing = False
    sid = await ask(house, caller)
    assert len(house.sender.mails) == 4
    await submit(house, sid)


@pytest_twisted.ensureDeferred
async def test_a_relay_that_refuses_pushes_out_no_older_link(house, caller):
    for attempt in range(1, 6):
        sid = await ask(house, caller, attempt)
    good = tokens(house)
    house.sender.failing = True
    for attempt in range(6, 13):
        with pytest.raises(EmailSendError):
            await ask(house, caller, attempt)
    assert [await proves(house, sid, token) for token in good] == [True] * 5
    assert [await proves(house, sid, token) for token in tokens(house)[5:]] == [False] * 7


@pytest_twisted.ensureDeferred
async def test_a_refused_mail_beside_one_that_was_sent_pushes_out_no_older_link(house, caller):
    for attempt in range(1, 6):
        sid = await ask(house, caller, attempt)
    house.sender.holding = True
    sixth = begin(house, caller, 6)
    await house.settled()
    seventh = begin(house, caller, 7)
    await house.settled()
    refused, sent = house.sender.held
    refused.errback(EmailSendError("no"))
    with pytest.raises(EmailSendError):
        await sixth
    sent.callback(None)
    await seventh
    # The last five that were sent: attempts 2 to 5, and 7.
    assert [await proves(house, sid, token) for token in tokens(house)] == [
        False,
        True,
        True,
        True,
        True,
        False,
        True,
    ]


@pytest_twisted.ensureDeferred
async def test_the_last_five_links_are_valid_and_the_sixth_is_not(house, caller):
    for attempt in range(1, 9):
        sid = await ask(house, caller, attempt)
    assert len(set(tokens(house))) == 8
    assert [await proves(house, sid, token) for token in tokens(house)] == [False] * 3 + [True] * 5


# --- requests at the same time -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_same_attempt_waits_for_the_mail_on_its_way(house, caller):
    house.sender.holding = True
    waiting = [begin(house, caller) for _ in range(5)]
    await house.settled()
    late = begin(house, caller, 0)
    await house.settled()
    assert len(house.sender.mails) == 1
    assert not any(request.called for request in (*waiting, late))
    house.sender.release()
    sids = [await request for request in (*waiting, late)]
    assert len(set(sids)) == 1
    assert len(house.sender.mails) == 1


@pytest_twisted.ensureDeferred
async def test_who_waits_for_a_mail_hears_that_it_failed(house, caller):
    house.sender.holding = house.sender.failing = True
    waiting = [begin(house, caller) for _ in range(3)]
    await house.settled()
    house.sender.release()
    for request in waiting:
        with pytest.raises(EmailSendError):
            await request
    house.sender.holding = house.sender.failing = False
    await ask(house, caller)
    assert len(house.sender.mails) == 2


@pytest_twisted.ensureDeferred
async def test_a_higher_attempt_goes_ahead(house, caller):
    house.sender.holding = True
    first = begin(house, caller, 1)
    await house.settled()
    second = begin(house, caller, 2)
    await house.settled()
    slow, fast = house.sender.held
    fast.callback(None)
    sid = await second
    assert not first.called
    await submit(house, sid)
    slow.callback(None)
    assert await first == sid
    assert rows(house.path, "SELECT send_attempt FROM validation_sessions") == [(2,)]
    assert [await proves(house, sid, token) for token in tokens(house)] == [True, True]


@pytest_twisted.ensureDeferred
async def test_sessions_do_not_wait_for_one_another(house, caller):
    house.sender.holding = True
    slow = begin(house, caller)
    await house.settled()
    house.sender.holding = False
    await ask(house, caller, address="bob@example.org")
    assert not slow.called
    house.sender.release()
    await slow


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_broken_off_does_not_use_up_the_attempt(house, caller):
    house.sender.holding = True
    request, waiter = begin(house, caller), begin(house, caller)
    await house.settled()
    waiter.cancel()
    request.cancel()
    for broken in (waiter, request):
        with pytest.raises(CancelledError):
            await broken
    assert rows(house.path, "SELECT * FROM validation_tokens") == []
    house.sender.holding = False
    await ask(house, caller)
    assert len(house.sender.mails) == 2


@pytest_twisted.ensureDeferred
async def test_the_link_works_before_the_relay_has_answered(house, caller):
    house.sender.holding = True
    request = begin(house, caller)
    await house.settled()
    sid = parse_qs(urlsplit(house.sender.mails[0][1]).query)["sid"][0]
    await submit(house, sid)
    house.sender.release()
    await request
    assert await house.validation.validated(caller, Credentials(sid, SECRET))


# --- what proves an address ----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_session_is_valid_once_its_token_was_submitted(house, caller):
    credentials = Credentials(await ask(house, caller), SECRET)
    with pytest.raises(SessionNotValidated):
        await house.validation.validated(caller, credentials)
    house.advance(5000)
    await submit(house, credentials.sid, caller=caller)
    assert await house.validation.validated(caller, credentials) == Validated(
        Threepid(EMAIL, ADDRESS), START_MS + 5000
    )


@pytest.mark.parametrize("token", ["", "wrong", "\0", "\ud800", "x" * 1000])
@pytest_twisted.ensureDeferred
async def test_a_wrong_token_proves_nothing(house, caller, token):
    sid = await ask(house, caller)
    with pytest.raises(TokenIncorrect):
        await submit(house, sid, token)
    with pytest.raises(SessionNotValidated):
        await house.validation.validated(caller, Credentials(sid, SECRET))


@pytest_twisted.ensureDeferred
async def test_the_token_of_another_session_proves_nothing(house, caller):
    first = await ask(house, caller)
    await ask(house, caller, address="bob@example.org")
    with pytest.raises(TokenIncorrect):
        await submit(house, first)


@pytest_twisted.ensureDeferred
async def test_an_unknown_session_and_a_wrong_secret_are_one_error(house, caller):
    sid = await ask(house, caller)
    told = set()
    for credentials in (Credentials("unknown", SECRET), Credentials(sid, "wrong"), Credentials(sid, "")):
        for deed in (
            lambda c: house.validation.validated(caller, c),
            lambda c: house.validation.submit_token(NOBODY, c, house.sender.last_token()),
        ):
            with pytest.raises(NoValidSession) as error:
                await deed(credentials)
            told.add(str(error.value))
    assert len(told) == 1


@pytest_twisted.ensureDeferred
async def test_submitting_with_an_unknown_access_token_proves_nothing(house, caller):
    sid = await ask(house, caller)
    with pytest.raises(UnknownToken):
        await submit(house, sid, caller=Caller("unknown"))
    with pytest.raises(SessionNotValidated):
        await house.validation.validated(caller, Credentials(sid, SECRET))


# --- 24 hours ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_session_lives_24_hours_and_not_a_moment_longer(house, caller):
    sid = await ask(house, caller)
    token = house.sender.last_token()
    house.advance(DAY_MS)
    await submit(house, sid, token)
    house.advance(DAY_MS)
    credentials = Credentials(sid, SECRET)
    # The validation renewed it.
    assert (await house.validation.validated(caller, credentials)).validated_ts == START_MS + DAY_MS
    house.advance(1)
    with pytest.raises(SessionExpired):
        await house.validation.validated(caller, credentials)
    with pytest.raises(SessionExpired):
        await submit(house, sid, token)
    with pytest.raises(NoValidSession):  # whose it was is still checked first
        await submit(house, sid, token, secret="wrong")


@pytest_twisted.ensureDeferred
async def test_another_mail_renews_a_session_and_a_repeated_request_does_not(house, caller):
    sid = await ask(house, caller, 1)
    house.advance(DAY_MS)
    assert await ask(house, caller, 2) == sid
    house.advance(DAY_MS)
    assert await ask(house, caller, 2) == sid
    house.advance(1)
    with pytest.raises(SessionExpired):
        await submit(house, sid)


@pytest.mark.parametrize("attempt", [1, 2])
@pytest_twisted.ensureDeferred
async def test_an_expired_session_does_not_come_to_life_again(house, caller, attempt):
    old = await house.prove(caller, ADDRESS, SECRET)
    house.advance(DAY_MS + 1)
    sid = await ask(house, caller, attempt)
    assert sid != old.sid
    assert len(house.sender.mails) == 2  # the new session begins to count anew
    with pytest.raises(SessionExpired):
        await house.validation.validated(caller, old)
    with pytest.raises(SessionNotValidated):
        await house.validation.validated(caller, Credentials(sid, SECRET))
    await submit(house, sid)
    assert await ask(house, caller, attempt) == sid


@pytest_twisted.ensureDeferred
async def test_a_link_that_is_opened_again_is_a_success_but_proves_nothing_new(house, caller):
    credentials = await house.prove(caller)
    house.advance(DAY_MS - 1)
    await submit(house, credentials.sid)
    assert (await house.validation.validated(caller, credentials)).validated_ts == START_MS
    house.advance(2)
    with pytest.raises(SessionExpired):
        await house.validation.validated(caller, credentials)


@pytest_twisted.ensureDeferred
async def test_the_link_of_another_mail_proves_anew_with_its_own_time(house, caller):
    credentials = await house.prove(caller)
    house.advance(60_000)
    await ask(house, caller, 2)
    await submit(house, credentials.sid)
    assert (await house.validation.validated(caller, credentials)).validated_ts == START_MS + 60_000
    house.advance(DAY_MS)
    assert (await house.validation.validated(caller, credentials)).validated_ts == START_MS + 60_000


@pytest_twisted.ensureDeferred
async def test_asking_for_mails_keeps_no_proof_young(house, caller):
    credentials = await house.prove(caller)
    for attempt in range(2, 6):
        house.advance(DAY_MS // 4)
        await ask(house, caller, attempt)
    house.advance(1)
    with pytest.raises(SessionExpired):
        await house.validation.validated(caller, credentials)


# --- next_link -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_link_of_the_newest_mail_is_where_a_browser_goes(house, caller):
    sid = await ask(house, caller, 1, next_link="https://one.example/?a=b#c")
    assert await submit(house, sid) == "https://one.example/?a=b#c"
    await ask(house, caller, 2, next_link="https://two.example/")
    assert await submit(house, sid) == "https://two.example/"
    await ask(house, caller, 2, next_link="https://three.example/")  # sends nothing, changes nothing
    assert await submit(house, sid) == "https://two.example/"
    await ask(house, caller, 3)
    assert await submit(house, sid) is None


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "//evil.example", "ftp://x.example", "https://", "x"]
)
@pytest_twisted.ensureDeferred
async def test_a_bad_next_link_is_refused_at_once_but_only_to_who_may_ask(house, caller, link):
    with pytest.raises(UnknownToken):
        await ask(house, Caller("unknown"), next_link=link)
    with pytest.raises(InvalidParam, match="next_link"):
        await ask(house, caller, next_link=link)
    assert house.sender.mails == []
    assert rows(house.path, "SELECT * FROM validation_sessions") == []


@pytest_twisted.ensureDeferred
async def test_only_allowed_sites_are_where_a_browser_goes(make_house):
    house = await make_house(next_links=NextLinkPolicy(frozenset({"https://app.example.org"})))
    caller = await house.log_in()
    with pytest.raises(InvalidParam):
        await ask(house, caller, next_link="https://evil.example/https://app.example.org")
    await ask(house, caller, next_link="https://app.example.org/x")


@pytest_twisted.ensureDeferred
async def test_an_unknown_token_sends_no_mail(house):
    with pytest.raises(UnknownToken):
        await ask(house, Caller("unknown"))
    assert house.sender.mails == []
    assert rows(house.path, "SELECT * FROM validation_sessions") == []


def test_secrets_are_not_in_what_is_printed():
    assert "canary" not in repr(asking(secret="canary")) + repr(Credentials("sid", "canary"))


# --- what the operator is told -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_becomes_of_messages_and_tokens_is_told(house, caller):
    sid = await ask(house, caller)
    await ask(house, caller)
    with pytest.raises(TokenIncorrect):
        await submit(house, sid, "wrong")
    await submit(house, sid)
    for sid_or_not, secret in (("nothing", SECRET), (sid, "wrong")):
        with pytest.raises(NoValidSession):
            await submit(house, sid_or_not, "wrong", secret=secret)
    house.sender.failing = True
    with pytest.raises(EmailSendError):
        await ask(house, caller, 2)
    house.advance(2 * DAY_MS)
    with pytest.raises(SessionExpired):
        await submit(house, sid, "wrong")

    outcomes = ["sent", "repeated", "wrong_token", "validated", "no_session", "not_sent", "expired"]
    assert [each for each in house.outcomes if each[0] == EMAIL] == [(EMAIL, outcome) for outcome in outcomes]
    assert [each for each in house.outcomes if each[0] != EMAIL] == [("unknown", "no_session")]


@pytest_twisted.ensureDeferred
async def test_one_who_waits_for_a_message_on_its_way_has_repeated_it(house, caller):
    house.sender.holding = True
    both = [begin(house, caller), begin(house, caller)]
    while not house.sender.held:
        await house.settled()
    await house.settled()
    house.sender.release()
    await gatherResults(both)
    assert sorted(house.outcomes) == [(EMAIL, "repeated"), (EMAIL, "sent")]


@pytest_twisted.ensureDeferred
async def test_what_is_refused_for_another_reason_tells_nothing(house):
    with pytest.raises(UnknownToken):
        await ask(house, Caller("nobody's"))
    assert house.outcomes == []
