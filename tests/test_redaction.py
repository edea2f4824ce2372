"""Nothing personal or secret survives on its way into the log; the rest does."""

import io
import json
import string
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from log_tools import logged, logged_failure
from twisted.logger import Logger

from sydentish.domain.invite_links import sign_url
from sydentish.domain.threepids import MSISDN, PhoneNumber, Threepid
from sydentish.logs import LogFile, RedactingObserver, redact

locals_ = st.text(string.ascii_letters + string.digits + "!#$%*+-?^_`|~.äßж", min_size=1, max_size=64)
labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
addresses = st.builds("{}@{}.{}".format, locals_, labels, labels)
secrets = st.text(string.ascii_letters + string.digits + "_-.~", min_size=12, max_size=60)
odd_secrets = st.text(string.ascii_letters + string.digits + " ,;(){}[]=&<>:/", min_size=12, max_size=60)
localparts = st.text(string.ascii_lowercase + string.digits + "._=-+/", min_size=1, max_size=30)
user_ids = st.builds("@{}:{}.{}".format, localparts, labels, labels)
NAMES = [
    "token",
    "access_token",
    "id_access_token",
    "client_secret",
    "private_key",
    "password",
    "sid",
    "Authorization",
    "TOKEN",
]


ORIGIN = "https://id.example.org"
PLACEHOLDER = "0123456789" * 2


def only_secret(secret, shape):
    """Refuses a secret that is a word which the text or the log has in any case."""
    assume(secret not in logged_failure(ValueError(shape(PLACEHOLDER))))


# --- what must not be in it ----------------------------------------------------------------------------


@given(
    addresses,
    st.sampled_from(
        ["{}", "to <{}>", "'{}'", '"{}"', "mailto:{}", "({})", "email={}", "RCPT TO:<{}>:", "a,{},b"]
    ),
)
@example("o'brien@example.org", "{}")
@example('"al ice"@example.org', "{}")
@example("a/b=c@example.org", "x={}")
@example("alice@[192.0.2.1]", "{}")
def test_no_address_survives(address, around):
    text = around.format(address)

    assert address not in redact(text)
    assert address not in logged("{value}", value=text)
    assert address not in logged_failure(ValueError(text))
    assert quote(address) not in redact(f"GET /a?address={quote(address)}&b=c")


@given(
    secrets,
    st.sampled_from(NAMES),
    st.sampled_from(
        [
            "{name}={value}",
            "{name}: {value}",
            "{name} = {value},",
            "'{name}': '{value}'",
            '"{name}":"{value}"',
            '{{"{name}": "{value}"}}',
            "https://id.example.org/a?x=y&{name}={value}&z=1",
            "/a%3F{name}%3D{value}",
            "{{b'{name}': [b'{value}']}}",
            "{name}: Bearer {value}",
            "{name}=('{value}',)",
            r'"{{\"{name}\": \"{value}\"}}"',
        ]
    ),
)
def test_no_named_secret_survives(secret, name, shape):
    only_secret(secret, lambda value: shape.format(name=name, value=value))
    text = "before " + shape.format(name=name, value=secret) + " after"

    assert secret not in redact(text)
    assert secret not in logged("{value}", value=text)
    assert secret not in logged_failure(ValueError(text))


@given(odd_secrets.map(str.strip).filter(lambda secret: len(secret) > 8), st.sampled_from(NAMES))
def test_no_quoted_secret_survives_whatever_it_is_made_of(secret, name):
    only_secret(secret, lambda value: json.dumps({name: value}))
    for text in (repr({name: secret}), repr({name.encode(): [secret.encode()]}), json.dumps({name: secret})):
        assert secret not in redact(text)


@given(
    secrets,
    st.sampled_from(["Bearer {}", "bearer {}", "BEARER  {}", "Authorization: Bearer {}", "[b'Bearer {}']"]),
)
def test_no_bearer_token_survives(token, shape):
    only_secret(token, shape.format)

    assert token not in redact(shape.format(token))
    assert token not in logged_failure(ValueError(shape.format(token)))


@pytest.mark.parametrize("number", ["+441632960000", "+49 30 123456", "+1-202-555-0143", "+44.1632.960"])
def test_no_telephone_number_survives(number):
    assert number not in redact(f"to {number}, now")
    assert number[1:] not in redact(f"https://sms.example.org/send?to={quote(number, safe='')}&text=x")


@given(st.from_regex("[1-9][0-9]{6,14}", fullmatch=True))
def test_no_named_digits_of_a_telephone_number_survive(digits):
    for text in (
        repr(Threepid(MSISDN, digits)),
        repr(PhoneNumber(digits, f"+{digits}", "GB")),
        json.dumps({"phone_number": digits}),
        json.dumps(json.dumps({"msisdn": digits})),
        f"/lookup?medium=msisdn&address={digits}",
        f"destination: {digits}",
    ):
        assert digits not in redact(text)


@given(secrets, st.sampled_from(["Basic {}", "basic {}", "X-Matrix {}"]))
def test_no_credentials_of_a_header_survive(secret, shape):
    only_secret(secret, "Authorization: {}".format)
    header = f"Authorization: {shape.format(secret)}"

    assert secret not in redact(header)
    assert secret not in logged_failure(ValueError(repr({b"Authorization": [shape.format(secret).encode()]})))


@given(secrets, secrets)
def test_the_link_of_an_invitation_accepts_nothing_once_it_is_in_the_log(token, private_key):
    for secret in (token, private_key):
        only_secret(secret, lambda value: f"https://app.example.org/#/{sign_url(ORIGIN, value, value)}")
    signing = sign_url(ORIGIN, token, private_key)
    for text in (
        signing,
        quote(signing, safe=""),
        f"https://app.example.org/#/room/x?signurl={quote(signing)}",
    ):
        assert private_key not in redact(text)
        assert token not in redact(text)


def test_the_fields_of_chained_exceptions_are_redacted_too():
    def chained():
        raise RuntimeError("token=abcdefgh") from ValueError("alice@example.org")

    stream = io.StringIO()
    log = Logger("tests", observer=RedactingObserver(LogFile(stream, json=True)))
    try:
        chained()
    except RuntimeError:
        log.failure("broke for {who}", who="bob@example.org")

    for canary in ("alice@", "abcdefgh", "bob@"):
        assert canary not in stream.getvalue()
    assert "RuntimeError" in stream.getvalue()


# --- what must stay ------------------------------------------------------------------------------------


@given(user_ids, st.sampled_from(["{}", "for {},", "'{}'", "mxid={}", "({})", "<{}>", "mxid: {}"]))
def test_user_ids_survive(user_id, around):
    # `token:` announces a secret, also as the name of a user.
    assume(not any(word in user_id for word in ("code", "secret", *map(str.lower, NAMES))))

    assert around.format(user_id) in redact(around.format(user_id))


@pytest.mark.parametrize(
    "text",
    [
        "listening on tcp:8090:interface=127.0.0.1",
        "id.example.org is ready, signing with ed25519:0",
        "the homeserver hs.example.org:8448 answered 502",
        "TokenIncorrect: The token is incorrect",
        "sydentish.domain.errors.UnknownToken: Unrecognised access token",
        "M_INVALID_PARAM: sid must be 1 to 255 characters",
        "errcode=M_TOKEN_INCORRECT",
        "  File '/usr/lib/python3/dist-packages/x.py', line 17, in <module>",
        "12.5 ms, 2026-01-01T00:00:00+00:00",
        "considered tokens inside consideration",
        "address=192.168.100.200 port=8448",
        "the address of 1234567 bytes, destination=hs.example.org",
    ],
)
def test_normal_text_survives(text):
    assert redact(text) == text


@given(st.text())
def test_any_text_can_be_redacted_and_twice_is_as_once_or_less(text):
    once = redact(text)

    assert len(redact(once)) <= len(once) + len(text)


@pytest.mark.parametrize(
    "piece", ["a", "token", '"', "token='\\", "token=", "%40", "a@", "+1", ' "', "token= ", "a_", "bearer "]
)
def test_a_long_text_costs_no_more_than_its_length(piece):
    # Were it the square of the length, this would take hours.
    assert redact(piece * 300_000)
