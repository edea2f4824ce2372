import hashlib
import re
from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sydentish.domain.errors import InvalidParam, InvalidPepper
from sydentish.domain.lookup import (
    PEPPER_BYTES,
    Pepper,
    Peppers,
    algorithms,
    check_algorithm,
    hash_address,
    plain_address,
)
from sydentish.domain.threepids import Threepid

HOUR = 3600_000
CURRENT = Pepper(2, "new", None)
PREVIOUS = Pepper(1, "old", 10 * HOUR)


@pytest.mark.parametrize(
    ("address", "medium", "expected"),
    [
        ("alice@example.com", "email", "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"),
        ("bob@example.com", "email", "LJwSazmv46n0hlMlsb_iYxI0_HXEqy_yj6Jm636cdT8"),
        ("18005552067", "msisdn", "nlo35_T5fzSGZzJApqu8lgIudJvmOQtDaHtr-I4rU7I"),
    ],
)
def test_addresses_hash_as_in_the_example_of_the_specification(address, medium, expected):
    """Identity Service API, "Hashing", with the pepper `matrixrocks`."""
    assert hash_address(Threepid(medium, address), "matrixrocks") == expected


@given(st.text(), st.sampled_from(["email", "msisdn"]), st.text())
def test_a_hash_is_unpadded_url_safe_base64_of_sha_256_of_address_medium_pepper(address, medium, pepper):
    hashed = hash_address(Threepid(medium, address), pepper)
    assert re.fullmatch(r"[0-9A-Za-z_-]{43}", hashed)
    expected = hashlib.sha256(b" ".join(part.encode() for part in (address, medium, pepper))).digest()
    assert urlsafe_b64decode(hashed + "=") == expected


@given(st.text(alphabet="ab", min_size=1), st.text(alphabet="ab", min_size=1))
def test_another_pepper_makes_another_hash(left, right):
    alice = Threepid("email", "alice@example.com")
    assert (hash_address(alice, left) == hash_address(alice, right)) == (left == right)


def test_the_current_pepper_is_accepted_for_ever():
    assert Peppers(CURRENT, None, 0).find("sha256", "new", 2**53) is CURRENT
    assert Peppers(CURRENT, PREVIOUS, HOUR).find("none", "new", 0) is CURRENT


@pytest.mark.parametrize("now_ms", [0, 10 * HOUR, 11 * HOUR - 1, 11 * HOUR])
def test_the_previous_pepper_is_accepted_until_its_grace_time_is_over(now_ms):
    assert Peppers(CURRENT, PREVIOUS, HOUR).find("sha256", "old", now_ms) is PREVIOUS


def test_the_previous_pepper_is_refused_one_millisecond_later():
    with pytest.raises(InvalidPepper):
        Peppers(CURRENT, PREVIOUS, HOUR).find("sha256", "old", 11 * HOUR + 1)


def test_without_grace_time_the_previous_pepper_ends_with_the_millisecond_of_its_replacement():
    assert Peppers(CURRENT, PREVIOUS, 0).find("sha256", "old", 10 * HOUR) is PREVIOUS
    with pytest.raises(InvalidPepper):
        Peppers(CURRENT, PREVIOUS, 0).find("sha256", "old", 10 * HOUR + 1)


@pytest.mark.parametrize("pepper", ["", "NEW", "new ", " new", "ne", "newold", "\ud800"])
@pytest.mark.parametrize("previous", [None, PREVIOUS])
@pytest.mark.parametrize("algorithm", ["sha256", "none"])
def test_any_other_pepper_is_refused_with_what_is_needed_to_try_again(pepper, previous, algorithm):
    with pytest.raises(InvalidPepper) as caught:
        Peppers(CURRENT, previous, HOUR).find(algorithm, pepper, 10 * HOUR)
    assert (caught.value.algorithm, caught.value.lookup_pepper) == (algorithm, "new")


@given(st.text(max_size=4), st.integers(min_value=0, max_value=20 * HOUR), st.booleans())
def test_a_found_pepper_is_always_the_one_that_was_named(pepper, now_ms, rotated):
    try:
        found = Peppers(CURRENT, PREVIOUS if rotated else None, HOUR).find("sha256", pepper, now_ms)
    except InvalidPepper:
        assert pepper != "new"
        return
    assert found.pepper == pepper


def test_peppers_have_at_least_128_bits():
    assert PEPPER_BYTES * 8 >= 128


@pytest.mark.parametrize(("allow_none", "expected"), [(True, ["sha256", "none"]), (False, ["sha256"])])
def test_sha256_is_always_offered_and_none_can_be_switched_off(allow_none, expected):
    assert algorithms(allow_none=allow_none) == expected
    for algorithm in expected:
        assert check_algorithm(algorithm, allow_none=allow_none) == algorithm


@pytest.mark.parametrize(
    ("algorithm", "allow_none"),
    [("none", False), ("", True), ("SHA256", True), ("sha-256", True), ("md5", False), ("sha256 ", True)],
)
def test_an_algorithm_that_is_not_offered_is_refused_with_those_that_are(algorithm, allow_none):
    with pytest.raises(InvalidParam) as caught:
        check_algorithm(algorithm, allow_none=allow_none)
    assert caught.value.name == "algorithm"
    assert caught.value.problem == f"must be one of {', '.join(algorithms(allow_none=allow_none))}"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("alice@example.com email", Threepid("email", "alice@example.com")),
        ("18005552067 msisdn", Threepid("msisdn", "18005552067")),
        ("a b email", Threepid("email", "a b")),
        ("", None),
        ("alice@example.com", None),
        ("alice@example.com ", None),
        (" email", None),
        (" ", None),
    ],
)
def test_an_entry_of_algorithm_none_is_address_blank_medium(entry, expected):
    assert plain_address(entry) == expected


@given(st.text(min_size=1), st.text(min_size=1).filter(lambda medium: " " not in medium))
def test_an_address_in_the_clear_is_read_back_from_its_entry(address, medium):
    assert plain_address(f"{address} {medium}") == Threepid(medium, address)
