import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from unpaddedbase64 import decode_base64

from sydentish.domain.signatures import canonical, is_signed

# Specification, appendices, "Cryptographic Test Vectors".
SEED = decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
PUBLIC_KEY = bytes(SigningKey(SEED).verify_key)
EMPTY = "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
ONE_TWO = "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"

NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@pytest.mark.parametrize(("value", "signature"), [({}, EMPTY), ({"one": 1, "two": "Two"}, ONE_TWO)])
def test_the_vectors_of_the_specification(value, signature):
    assert is_signed(canonical(value), decode_base64(signature), PUBLIC_KEY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "{}"),
        ('{ "one": 1, "two": "Two" }', '{"one":1,"two":"Two"}'),
        ('{ "b": "2", "a": "1" }', '{"a":"1","b":"2"}'),
        (
            """{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
            "three_pids": [{"medium": "email", "address": "john.doe@example.org"},
            {"medium": "msisdn", "address": "123456789"}]}}}""",
            (
                '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":['
                '{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
                '"success":true}}'
            ),
        ),
        ('{"a": "日本語"}', '{"a":"日本語"}'),
        ('{ "本": 2, "日": 1 }', '{"日":1,"本":2}'),
        (r'{ "a": "\u65E5" }', '{"a":"日"}'),
        ('{ "a": null }', '{"a":null}'),
        ('{ "a": -0 }', '{"a":0}'),
    ],
)
def test_the_examples_of_canonical_json(text, expected):
    assert canonical(json.loads(text)) == expected.encode()


@given(VALUES)
def test_canonical_json_says_what_the_value_says(value):
    encoded = canonical(value)
    assert json.loads(encoded) == value
    assert canonical(json.loads(encoded)) == encoded


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        10**400,
        "\ud800",
        {"\udfff": 1},
        b"",
        {1.5: 1},
        nested(65),
        nested(5000),
    ],
)
def test_what_has_no_canonical_form(value):
    for each in (value, [value], {"a": [{"b": value}]}):
        with pytest.raises(ValueError, match=r"number|text|nested"):
            canonical(each)


def test_as_deep_as_it_may_be():
    assert canonical(nested(64)).startswith(b'{"a":{"a":')


@given(st.binary(max_size=70), st.binary(max_size=40))
def test_what_is_no_signature_or_no_key_signs_nothing(signature, public_key):
    assert not is_signed(b"message", signature, public_key)
    assert not is_signed(b"message", signature, PUBLIC_KEY)
    assert not is_signed(b"message", bytes(SigningKey(SEED).sign(b"message").signature), public_key)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_signature_is_for_one_message(message, other):
    signature = bytes(SigningKey(SEED).sign(message).signature)
    assert is_signed(message, signature, PUBLIC_KEY)
    assert is_signed(other, signature, PUBLIC_KEY) == (message == other)
