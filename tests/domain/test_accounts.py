import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.accounts import (
    ACCESS_TOKEN_BYTES,
    Account,
    HomeserverPolicy,
    hash_secret,
    opaque_token,
    openid_token,
    same_hash,
)
from sydentish.domain.errors import Forbidden, InvalidParam
from sydentish.domain.ids import opaque


@given(st.binary(min_size=1, max_size=64))
def test_random_bytes_become_a_string_that_fits_the_grammar_of_a_sid(random_bytes):
    token = opaque_token(random_bytes)
    assert opaque("sid", token) == token
    assert re.fullmatch(r"[0-9A-Za-z_-]+", token), "needs no encoding in a header, a query or a path"


@given(
    st.binary(min_size=ACCESS_TOKEN_BYTES, max_size=ACCESS_TOKEN_BYTES),
    st.binary(min_size=ACCESS_TOKEN_BYTES, max_size=ACCESS_TOKEN_BYTES),
)
def test_different_random_bytes_make_different_tokens(left, right):
    assert (opaque_token(left) == opaque_token(right)) == (left == right)


def test_access_tokens_have_at_least_128_bits():
    assert ACCESS_TOKEN_BYTES * 8 >= 128


def test_secrets_are_kept_as_sha_256_in_hexadecimal():
    assert hash_secret("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_every_string_can_be_hashed_even_with_lone_surrogates(secret):
    expected = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
    assert hash_secret(secret) == expected


@given(st.text(), st.text())
def test_hashes_are_the_same_exactly_when_the_secrets_are(left, right):
    assert same_hash(hash_secret(left), hash_secret(right)) == (left == right)


@pytest.mark.parametrize("flipped", [0, 31, 63])
def test_one_wrong_digit_makes_another_hash_wherever_it_stands(flipped):
    right = hash_secret("secret")
    wrong = right[:flipped] + ("0" if right[flipped] != "0" else "1") + right[flipped + 1 :]
    assert not same_hash(right, wrong)
    assert same_hash(right, right)


@pytest.mark.parametrize("value", ["a", "x" * 4096, "syt_YWxpY2U_ÄÖ", "with blank", "!\"#$%&'()"])
def test_printable_openid_tokens_are_taken_as_they_are(value):
    assert openid_token("access_token", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 4097,
        "a\nb",
        "a\r\nHost: evil",
        "a\tb",
        "a\0b",
        "\x7f",
        "\x85",
        "\ud800",
        "a\udfffb",
        "\u2028",
        "\u200b",
    ],
)
def test_openid_tokens_that_cannot_be_sent_are_refused_by_name_without_being_shown(value):
    with pytest.raises(InvalidParam) as caught:
        openid_token("access_token", value)
    assert caught.value.name == "access_token"
    assert caught.value.message == "access_token: must be 1 to 4096 printable characters"


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=40))
def test_an_accepted_openid_token_is_valid_unicode_without_controls(value):
    try:
        accepted = openid_token("access_token", value)
    except InvalidParam:
        return
    assert accepted.encode()
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in accepted)


def admitted(policy, server_name):
    try:
        policy.check(server_name)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("name", ["example.org", "example.org:8448", "[::1]:1", "192.0.2.1"])
def test_without_lists_every_homeserver_is_admitted(name):
    assert admitted(HomeserverPolicy(), name)


@pytest.mark.parametrize("name", ["example.org", "hs.example.org", "[::1]"])
def test_an_empty_allow_list_admits_nobody(name):
    assert not admitted(HomeserverPolicy(allow=frozenset()), name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.org", True),
        ("EXAMPLE.Org", True),
        ("example.org:8448", False),
        ("evil-example.org", False),
        ("hs.example.org", False),
        ("a.example.com", True),
        ("a.b.Example.com", True),
        ("example.com", False),
        ("evilexample.com", False),
        ("a.example.com.evil.net", False),
        ("example.net:443", True),
        ("example.net", False),
        ("[::1]", True),
        ("[0:0::0:1]", True),
    ],
)
def test_allow_admits_what_it_names_and_what_lies_below_its_wildcards(name, expected):
    allow = frozenset({"example.org", "*.example.com", "example.net:443", "[::1]"})
    assert admitted(HomeserverPolicy(allow=allow), name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "evil.org",
        "EVIL.ORG",
        "evil.org.",
        "evil.org:8448",
        "evil.org.:1",
        "a.evil.net",
        "a.b.evil.net",
        "a.evil.net:443",
        "A.evil.NET.",
        "[::1]",
        "[0:0:0::1]:8448",
        "half.org:8448",
        "half.org.:8448",
    ],
)
def test_deny_cannot_be_evaded_by_case_port_root_dot_or_another_spelling(name):
    policy = HomeserverPolicy(deny=frozenset({"evil.org", "*.evil.net", "[::1]", "half.org:8448"}))
    assert not admitted(policy, name)


@pytest.mark.parametrize("name", ["devil.org", "org", "a.evil.org", "evil.net", "half.org", "half.org:8449"])
def test_deny_refuses_nobody_else(name):
    policy = HomeserverPolicy(deny=frozenset({"evil.org", "*.evil.net", "half.org:8448"}))
    assert admitted(policy, name)


def test_deny_wins_over_allow():
    policy = HomeserverPolicy(allow=frozenset({"*.example.org"}), deny=frozenset({"bad.example.org"}))
    assert admitted(policy, "good.example.org")
    assert not admitted(policy, "bad.example.org")


def test_accounts_are_values():
    assert Account("@alice:example.org", 1) == Account("@alice:example.org", 1)
    with pytest.raises(AttributeError):
        Account("@alice:example.org", 1).user_id = "@eve:example.org"
