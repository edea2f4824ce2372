import dataclasses
from base64 import b64encode, urlsafe_b64encode

import nacl.signing
import pytest
import signedjson.key
import signedjson.sign
from canonicaljson import encode_canonical_json
from hypothesis import assume, given
from hypothesis import strategies as st

from sydentish.domain.keys import KeyRing, KeyState, decode_base64, is_version, make_key, parse_key

SEEDS = st.binary(min_size=32, max_size=32)
VERSIONS = st.from_regex(r"[a-zA-Z0-9_]{1,64}", fullmatch=True)
# What canonical JSON can hold: no floats, whole numbers that JavaScript can, valid Unicode.
JSON_TEXTS = st.text(max_size=10)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | JSON_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(JSON_TEXTS, JSON_VALUES, max_size=5).filter(
    lambda value: not {"signatures", "unsigned"} & set(value)
)
# The specification's appendices, "Cryptographic Test Vectors".
SPEC_SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
SEED = bytes(range(32))
# A key whose base64 has both letters that the alphabets write differently.
BOTH_LETTERS = next(
    seed
    for seed in (bytes([n]) * 32 for n in range(256))
    if {"-", "_"} <= set(urlsafe_b64encode(bytes(nacl.signing.SigningKey(seed).verify_key)).decode())
)


def key(version="0", seed=SEED, state=KeyState.ACTIVE):
    return parse_key(make_key(version, seed), state)


@given(VERSIONS, SEEDS)
def test_a_key_file_that_was_made_is_read_again_by_us_and_by_signedjson(version, seed):
    text = make_key(version, seed)
    ours = parse_key(text)
    (theirs,) = signedjson.key.read_signing_keys(text.splitlines())
    assert bytes(ours.signing_key) == bytes(theirs) == seed
    assert ours.key_id == f"{theirs.alg}:{theirs.version}" == f"ed25519:{version}"
    assert decode_base64(ours.public_key) == bytes(nacl.signing.SigningKey(seed).verify_key)
    assert "=" not in text + ours.public_key
    assert text.endswith("\n")


def test_the_key_of_the_specification_has_its_public_key():
    assert parse_key(f"ed25519 1 {SPEC_SEED}").public_key == "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"


@pytest.mark.parametrize(
    "text",
    [
        f"ed25519 1 {SPEC_SEED}",
        f"ed25519 1 {SPEC_SEED}\r\n",
        f"\n  ed25519\t1   {SPEC_SEED}  \n\n",
        f"ed25519 1 {SPEC_SEED}=",
        f"ed25519 1 {SPEC_SEED.replace('+', '-')}",
    ],
)
def test_blanks_padding_and_alphabet_of_a_key_file_do_not_matter(text):
    assert parse_key(text).public_key == "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        SPEC_SEED,
        f"ed25519 {SPEC_SEED}",
        f"ed25519 1 {SPEC_SEED} more",
        f"ed25519 1 {SPEC_SEED}\ned25519 2 {SPEC_SEED}",
        f"rsa 1 {SPEC_SEED}",
        f"ED25519 1 {SPEC_SEED}",
        f"ed25519 a-b {SPEC_SEED}",
        f"ed25519 a:b {SPEC_SEED}",
        f"ed25519 ä {SPEC_SEED}",
        f"ed25519 {'v' * 65} {SPEC_SEED}",
        f"ed25519 1 {SPEC_SEED[:-2]}",
        f"ed25519 1 {SPEC_SEED}AA",
        f"ed25519 1 {SPEC_SEED[:-1]}",
        f"ed25519 1 {SPEC_SEED}!!!!",
        f"ed25519 1 {SPEC_SEED[:20]}####{SPEC_SEED[20:]}",
        f"ed25519 1 {SPEC_SEED[:-1]}é",
        f"ed25519 1 {SPEC_SEED[:-1]}\ud800",
        f"ed25519 1 {SPEC_SEED[:20]}={SPEC_SEED[21:]}",
    ],
)
def test_what_is_no_key_file_is_refused_without_showing_the_seed(text):
    with pytest.raises(ValueError, match="signing key") as caught:
        parse_key(text)
    shown = f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r}"
    assert SPEC_SEED[:16] not in shown
    assert SPEC_SEED[-16:-2] not in shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=80))
def test_no_text_makes_reading_a_key_file_fail_otherwise(text):
    with pytest.raises(ValueError, match="signing key"):
        parse_key(f"ed25519 0 {text}!")


@pytest.mark.parametrize(
    ("version", "seed"),
    [("", SEED), ("a b", SEED), ("a\n", SEED), ("a", SEED[1:]), ("a", SEED * 2), ("a", b"")],
)
def test_no_key_is_made_of_what_is_no_version_or_no_seed(version, seed):
    with pytest.raises(ValueError, match="a signing key needs"):
        make_key(version, seed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", True),
        ("a_Z9", True),
        ("v" * 64, True),
        ("v" * 65, False),
        ("", False),
        ("a\n", False),
        ("٣", False),
    ],
)
def test_versions(text, expected):
    assert is_version(text) == expected


def test_the_repr_of_a_key_and_of_a_ring_shows_no_secret():
    ring = KeyRing("id.example.org", key(), (key("1", bytes(32), KeyState.RETIRED),))
    shown = repr(ring)
    assert "Key(ed25519:0, active)" in shown
    assert "Key(ed25519:1, retired)" in shown
    for seed in (SEED, bytes(32)):
        for secret in (seed.hex(), repr(seed), b64encode(seed).decode().rstrip("=")):
            assert secret not in shown


def test_keys_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        key().state = KeyState.REVOKED


@given(OBJECTS, SEEDS, VERSIONS)
def test_signatures_verify_with_signedjson_and_by_hand_over_canonical_json(value, seed, version):
    ring = KeyRing("id.example.org", key(version, seed))
    signed = ring.sign(value)
    assert set(signed) == {*value, "signatures"}
    signedjson.sign.verify_signed_json(
        signed, "id.example.org", signedjson.key.get_verify_key(ring.active.signing_key)
    )
    signature = decode_base64(signed["signatures"]["id.example.org"][f"ed25519:{version}"])
    message = encode_canonical_json({name: part for name, part in signed.items() if name != "signatures"})
    nacl.signing.SigningKey(seed).verify_key.verify(message, signature)


def test_the_signed_object_of_the_specification_comes_out():
    ring = KeyRing("domain", parse_key(f"ed25519 1 {SPEC_SEED}"))
    assert ring.sign({"one": 1, "two": "Two"}) == {
        "one": 1,
        "two": "Two",
        "signatures": {
            "domain": {
                "ed25519:1": "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
            }
        },
    }


def test_what_is_unsigned_stays_and_is_not_signed():
    ring = KeyRing("id.example.org", key())
    with_unsigned = ring.sign({"a": 1, "unsigned": {"age": 5}})
    assert with_unsigned["unsigned"] == {"age": 5}
    assert with_unsigned["signatures"] == ring.sign({"a": 1})["signatures"]


def test_signing_leaves_the_given_object_and_its_signatures_alone():
    value = {"a": 1, "signatures": {"id.example.org": {"ed25519:9": "x"}, "other.org": {"ed25519:0": "y"}}}
    signed = KeyRing("id.example.org", key()).sign(value)
    assert value == {
        "a": 1,
        "signatures": {"id.example.org": {"ed25519:9": "x"}, "other.org": {"ed25519:0": "y"}},
    }
    assert set(signed["signatures"]["id.example.org"]) == {"ed25519:0", "ed25519:9"}
    assert signed["signatures"]["other.org"] == {"ed25519:0": "y"}


def test_only_the_active_key_signs():
    ring = KeyRing("id.example.org", key("new"), (key("old", bytes(32), KeyState.RETIRED),))
    assert set(ring.sign({})["signatures"]["id.example.org"]) == {"ed25519:new"}


def ring_of_all():
    others = (
        key("retired", b"r" * 32, KeyState.RETIRED),
        key("revoked", b"v" * 32, KeyState.REVOKED),
        key("both", BOTH_LETTERS, KeyState.RETIRED),
        key("next", b"n" * 32, KeyState.NEXT),
    )
    return KeyRing("id.example.org", key("active"), others)


@pytest.mark.parametrize(
    ("version", "seed"),
    [("active", SEED), ("retired", b"r" * 32), ("both", BOTH_LETTERS), ("next", b"n" * 32)],
)
def test_next_active_and_retired_keys_are_served_and_valid(version, seed):
    public_key = key(version, seed).public_key
    assert ring_of_all().public_key(f"ed25519:{version}") == public_key
    assert ring_of_all().is_valid(public_key)


def test_a_revoked_key_is_neither_served_nor_valid():
    assert ring_of_all().public_key("ed25519:revoked") is None
    assert not ring_of_all().is_valid(key("revoked", b"v" * 32).public_key)


def test_a_revoked_key_is_not_valid_even_where_it_stands_as_the_active_one():
    ring = KeyRing("id.example.org", key(state=KeyState.REVOKED))
    assert ring.public_key("ed25519:0") is None
    assert not ring.is_valid(key().public_key)


def test_a_revoked_key_is_not_valid_under_another_version_either():
    again = key("again", b"v" * 32, KeyState.RETIRED)
    ring = KeyRing("id.example.org", key("active"), (again, key("revoked", b"v" * 32, KeyState.REVOKED)))
    assert ring.public_key("ed25519:again") is None
    assert not ring.is_valid(again.public_key)


def test_the_active_key_and_the_next_one_are_announced():
    assert [each.key_id for each in ring_of_all().announced] == ["ed25519:active", "ed25519:next"]
    rotated = KeyRing("id.example.org", key("next", b"n" * 32), (key("active", SEED, KeyState.RETIRED),))
    assert [each.key_id for each in rotated.announced] == ["ed25519:next"]


@pytest.mark.parametrize(
    "key_id",
    ["", "active", "ed25519:", "ed25519:other", "ED25519:active", "ed25519:active ", "ed25519:ACTIVE"],
)
def test_an_unknown_key_id_has_no_key(key_id):
    assert ring_of_all().public_key(key_id) is None


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["", "="])
def test_a_public_key_is_known_in_both_alphabets_padded_or_not(encode, padding):
    raw = bytes(nacl.signing.SigningKey(BOTH_LETTERS).verify_key)
    assert ring_of_all().is_valid(encode(raw).decode().rstrip("=") + padding)


@given(st.binary(max_size=64), st.sampled_from([b64encode, urlsafe_b64encode]), st.booleans())
def test_base64_of_either_alphabet_is_decoded(raw, encode, padded):
    text = encode(raw).decode()
    assert decode_base64(text if padded else text.rstrip("=")) == raw


@pytest.mark.parametrize("spoil", ["!{}", "{}!", "{} ", "{}\n", "<{}>", "é{}", "\ud800{}", "{}A", "{}=A"])
@pytest.mark.parametrize("seed", [SEED, BOTH_LETTERS])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_a_public_key_with_anything_added_is_not_ours(spoil, seed, encode):
    text = encode(bytes(nacl.signing.SigningKey(seed).verify_key)).decode().rstrip("=")
    assert ring_of_all().is_valid(text)
    assert not ring_of_all().is_valid(spoil.format(text))


@pytest.mark.parametrize("text", ["A", "AAAAA", "A A", "AA=A", "ä", "\ud800", "AAA*", "-_-_-"])
def test_what_is_not_base64_is_no_key(text):
    assert decode_base64(text) is None
    assert not ring_of_all().is_valid(text)


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_any_other_text_is_no_key_of_ours_and_no_error(text):
    assume(decode_base64(text) is None or len(text) < 43)
    assert not ring_of_all().is_valid(text)
