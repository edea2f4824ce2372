import dataclasses
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sydentish.domain.accounts import hash_secret, opaque_token
from sydentish.domain.errors import (
    InvalidParam,
    LimitExceeded,
    NoValidSession,
    SessionExpired,
    SessionNotValidated,
    TokenIncorrect,
)
from sydentish.domain.ids import opaque
from sydentish.domain.threepids import Threepid
from sydentish.domain.validation import (
    CODE_BYTES,
    CODES_KEPT,
    MAIL_TOKENS_KEPT,
    MAX_WRONG_GUESSES,
    NEVER_SENT,
    SID_BYTES,
    TOKEN_BYTES,
    SentToken,
    Session,
    check_live,
    check_token,
    check_validated,
    guessable,
    hash_code,
    is_expired,
    must_send,
    numeric_code,
    send_attempt,
    validation_link,
)

DAY = 24 * 3600 * 1000
START = 1_700_000_000_000
SESSION = Session(
    sid="sid",
    threepid=Threepid("email", "alice@example.org"),
    client_secret_hash=hash_secret("s3cret"),
    send_attempt=NEVER_SENT,
    next_link=None,
    changed_ts=START,
    validated_ts=None,
)
ATTEMPTS = st.integers(min_value=0, max_value=2**53)
GRAMMAR = st.text(alphabet="abcXYZ019.=_-", min_size=1, max_size=255)


def sent(attempt):
    return dataclasses.replace(SESSION, send_attempt=attempt)


def error_of(session, client_secret, now_ms=START):
    with pytest.raises(NoValidSession) as caught:
        check_live(session, client_secret, now_ms, DAY)
    return caught.value


def test_a_session_is_live_for_whoever_knows_its_secret():
    assert check_live(SESSION, "s3cret", START, DAY) is SESSION


@pytest.mark.parametrize("secret", ["", "S3cret", "s3cret ", "s3cre", hash_secret("s3cret"), "\ud800"])
def test_an_unknown_session_and_a_wrong_secret_are_the_same_error(secret):
    unknown, wrong = error_of(None, secret), error_of(SESSION, secret)
    assert type(unknown) is type(wrong)
    assert vars(unknown) == vars(wrong)
    assert (unknown.args, unknown.message) == (wrong.args, wrong.message)


def test_no_secret_opens_a_session_that_does_not_exist():
    """The empty secret is what the comparison is made with when there is no session."""
    assert error_of(None, "").message == error_of(None, "s3cret").message


def test_a_wrong_secret_does_not_even_tell_that_the_session_has_expired():
    assert error_of(SESSION, "wrong", START + 2 * DAY).message == error_of(None, "wrong").message


@pytest.mark.parametrize("now_ms", [0, START - 1, START, START + 1, START + DAY - 1, START + DAY])
def test_a_session_lives_for_its_lifetime_also_when_the_clock_is_set_back(now_ms):
    assert not is_expired(SESSION, now_ms, DAY)
    assert check_live(SESSION, "s3cret", now_ms, DAY) is SESSION


@pytest.mark.parametrize("now_ms", [START + DAY + 1, START + 100 * DAY])
def test_a_session_has_expired_one_millisecond_after_its_lifetime(now_ms):
    assert is_expired(SESSION, now_ms, DAY)
    with pytest.raises(SessionExpired):
        check_live(SESSION, "s3cret", now_ms, DAY)


def test_an_expired_session_stays_so_even_if_it_was_validated():
    validated = dataclasses.replace(SESSION, validated_ts=START)
    with pytest.raises(SessionExpired):
        check_live(validated, "s3cret", START + DAY + 1, DAY)


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.integers(1, 2**40))
def test_a_session_has_expired_exactly_when_more_than_its_lifetime_has_passed(changed_ts, now_ms, lifetime):
    session = dataclasses.replace(SESSION, changed_ts=changed_ts)
    assert is_expired(session, now_ms, lifetime) == (now_ms > changed_ts + lifetime)


def test_a_session_is_validated_at_the_time_at_which_it_was():
    assert check_validated(dataclasses.replace(SESSION, validated_ts=START)) == START
    assert check_validated(dataclasses.replace(SESSION, validated_ts=0)) == 0
    with pytest.raises(SessionNotValidated):
        check_validated(SESSION)


def links(tokens):
    return [SentToken(number, hash_secret(token), used=False) for number, token in enumerate(tokens)]


@pytest.mark.parametrize("position", range(MAIL_TOKENS_KEPT))
def test_the_right_token_is_found_wherever_it_stands_among_those_that_were_sent(position):
    tokens = [f"token {number}" for number in range(MAIL_TOKENS_KEPT)]
    assert check_token(hash_secret(tokens[position]), links(tokens)).number == position


@pytest.mark.parametrize(
    "token", ["", "token 5", "TOKEN 0", "token 0 ", hash_secret("token 0"), "\ud800", "\0"]
)
def test_a_token_that_was_not_sent_is_incorrect_and_not_repeated(token):
    with pytest.raises(TokenIncorrect) as caught:
        check_token(hash_secret(token), links(f"token {number}" for number in range(MAIL_TOKENS_KEPT)))
    assert caught.value.message == "The token is incorrect"


@pytest.mark.parametrize("token", ["", "anything"])
def test_without_a_token_sent_none_is_right(token):
    with pytest.raises(TokenIncorrect):
        check_token(token, [])


@given(st.text(), st.lists(st.text(), max_size=MAIL_TOKENS_KEPT))
def test_a_token_is_right_exactly_when_it_was_sent(token, sent_tokens):
    try:
        check_token(hash_secret(token), links(sent_tokens))
        right = True
    except TokenIncorrect:
        right = False
    assert right == (token in sent_tokens)


def test_sids_and_tokens_have_at_least_128_bits_and_fit_where_they_go():
    for size in (SID_BYTES, TOKEN_BYTES):
        assert size * 8 >= 128
        assert opaque("sid", opaque_token(bytes(size)))


def test_a_token_that_was_used_is_told_from_one_that_was_not():
    tokens = [SentToken(1, hash_secret("old"), used=True), SentToken(2, hash_secret("new"), used=False)]
    assert check_token(hash_secret("old"), tokens).used
    assert not check_token(hash_secret("new"), tokens).used


# --- codes ---------------------------------------------------------------------------------------------


@given(st.binary(min_size=CODE_BYTES, max_size=CODE_BYTES))
@example(bytes(CODE_BYTES))
@example(b"\xff" * CODE_BYTES)
def test_a_code_has_six_digits_whatever_it_is_made_from(random_bytes):
    code = numeric_code(random_bytes)
    assert len(code) == 6
    assert set(code) <= set("0123456789")


def test_a_code_can_begin_with_zeros():
    assert numeric_code(bytes(CODE_BYTES)) == "000000"
    assert numeric_code((42).to_bytes(CODE_BYTES)) == "000042"
    assert numeric_code((999_999).to_bytes(CODE_BYTES)) == "999999"
    assert numeric_code((1_000_000).to_bytes(CODE_BYTES)) == "000000"


def test_no_code_is_likelier_than_another():
    surplus = 256**CODE_BYTES % 10**6
    assert surplus / 256**CODE_BYTES < 2**-64


def test_only_one_code_is_valid_and_few_guesses_are_judged():
    assert (CODES_KEPT, MAX_WRONG_GUESSES) == (1, 10)


@given(st.from_regex(r"[0-9]{6}", fullmatch=True), GRAMMAR, GRAMMAR)
def test_a_stored_code_depends_on_a_secret_that_is_not_stored(code, client_secret, other):
    stored = hash_code(code, client_secret)
    assert stored == hash_code(code, client_secret)
    assert (stored == hash_code(code, other)) == (client_secret == other)
    # What is stored beside it does not help to try all codes.
    assert stored not in (hash_secret(code), hash_code(code, hash_secret(client_secret)), hash_code(code, ""))


def test_a_code_of_odd_characters_is_only_wrong():
    with pytest.raises(TokenIncorrect):
        check_token(hash_code("\ud800", "secret"), [SentToken(1, hash_code("123456", "secret"), used=False)])


def guessed(*wrong):
    return [
        SentToken(number, f"hash {number}", used=False, wrong_guesses=each)
        for number, each in enumerate(wrong)
    ]


@pytest.mark.parametrize("wrong", range(MAX_WRONG_GUESSES))
def test_up_to_ten_wrong_guesses_a_code_may_be_tried(wrong):
    assert guessable(guessed(wrong)) == guessed(wrong)


@pytest.mark.parametrize("wrong", [(10,), (11,), (10, 10), (10, 4711, 12)])
def test_after_ten_wrong_guesses_a_code_is_judged_no_more(wrong):
    with pytest.raises(LimitExceeded) as refused:
        guessable(guessed(*wrong))
    assert refused.value.retry_after_ms > 0
    assert "new one" in refused.value.message


def test_each_code_has_ten_guesses_of_its_own():
    sent = guessed(10, 9, 0, 12)
    assert guessable(sent) == [sent[1], sent[2]]


def test_where_no_code_was_sent_there_is_nothing_to_guess_and_nothing_to_refuse():
    assert guessable([]) == []


@given(ATTEMPTS)
def test_the_first_request_sends_whatever_its_number(attempt):
    assert must_send(SESSION, attempt)


def test_a_client_that_begins_with_0_gets_its_message_once():
    assert must_send(SESSION, 0)
    assert not must_send(sent(0), 0)
    assert must_send(sent(0), 1)


@given(ATTEMPTS, ATTEMPTS)
def test_only_a_number_above_the_last_one_sends(last, attempt):
    assert must_send(sent(last), attempt) == (attempt > last)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1, 1),
        (2**53, 2**53),
        ("0", 0),
        ("1", 1),
        ("007", 7),
        ("0000000000000042", 42),
        ("9007199254740992", 2**53),
    ],
)
def test_an_attempt_is_an_integer_or_its_decimal_form(value, expected):
    result = send_attempt("send_attempt", value)
    assert result == expected
    assert type(result) is int


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        1.0,
        0.5,
        float("inf"),
        float("nan"),
        -1,
        2**53 + 1,
        10**400,
        "",
        " ",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "-1",
        "-0",
        "1.0",
        "1e3",
        "0x1",
        "1_000",
        "٣",
        "²",
        "\uff11",
        "one",
        "true",
        "9007199254740993",
        "9" * 17,
        "0" * 17,
        "9" * 5000,
        [],
        [1],
        {},
        b"1",
    ],
)
def test_anything_else_is_no_attempt(value):
    with pytest.raises(InvalidParam) as caught:
        send_attempt("send_attempt", value)
    assert caught.value.message == "send_attempt: must be a whole number that is not negative"


@given(ATTEMPTS)
def test_both_forms_of_an_attempt_mean_the_same(attempt):
    assert send_attempt("send_attempt", attempt) == send_attempt("send_attempt", str(attempt)) == attempt


@given(
    st.one_of(
        st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers())
    )
)
def test_an_attempt_is_a_number_that_can_be_stored_or_an_invalid_parameter(value):
    try:
        result = send_attempt("send_attempt", value)
    except InvalidParam:
        return
    assert type(result) is int
    assert 0 <= result <= 2**53


@given(GRAMMAR, GRAMMAR, GRAMMAR)
def test_the_link_of_a_mail_carries_its_three_values_and_nothing_else(sid, client_secret, token):
    link = validation_link("https://id.example.org/base", sid, client_secret, token)
    parts = urlsplit(link)
    assert link.startswith("https://id.example.org/base/_matrix/identity/v2/validate/email/submitToken?sid=")
    assert parse_qs(parts.query) == {"sid": [sid], "client_secret": [client_secret], "token": [token]}
    assert not parts.fragment


@given(st.text(), st.text(), st.text())
def test_no_value_can_break_out_of_the_link(sid, client_secret, token):
    parts = urlsplit(validation_link("https://id.example.org", sid, client_secret, token))
    assert (parts.scheme, parts.netloc) == ("https", "id.example.org")
    assert parts.path == "/_matrix/identity/v2/validate/email/submitToken"
    found = parse_qs(parts.query, keep_blank_values=True)
    assert found == {"sid": [sid], "client_secret": [client_secret], "token": [token]}
