"""Peers: whose certificate, whose signature, and what an answer means for what was pushed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from unpaddedbase64 import encode_base64

from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.peers import Accepted, Failed, Peer, Refused, recognised, settled
from sydentish.domain.signatures import canonical

NAME = "peer.example.org"
SEEDS = {version: bytes([number]) * 32 for number, version in enumerate(["0", "a_1", "unknown"], 1)}
RINGS = {version: KeyRing(NAME, parse_key(make_key(version, seed))) for version, seed in SEEDS.items()}
KEYS = {f"ed25519:{version}": RINGS[version].active.public_key for version in ("0", "a_1")}
PEER = Peer(NAME, "https://peer.example.org:1001", KEYS, (NAME,))
VALUE = {"medium": "email", "address": "carol@example.org", "mxid": None, "ts": 5}

TEXTS = st.text(max_size=6) | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**53, 10**400]) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SIGNATURES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {NAME: ANYTHING | st.dictionaries(st.sampled_from([*KEYS, "ed25519:x", "rsa:0", ""]), ANYTHING | st.text("AQ-_=é"))}
    ),
)  # fmt: skip


def signed(version="0", value=None):
    return RINGS[version].sign(VALUE if value is None else value)


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


# --- signatures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0", "a_1"])
def test_a_peer_signs_with_any_key_that_is_known_of_it(version):
    PEER.check_signature(signed(version))


def test_a_signature_is_read_from_json_and_beside_those_of_others():
    value = KeyRing("other.example.org", RINGS["unknown"].active).sign(signed())
    PEER.check_signature(json.loads(canonical(value)))


def test_one_good_signature_is_enough():
    value = signed("unknown", signed("0"))
    value["signatures"][NAME]["ed25519:a_1"] = "A" * 86
    PEER.check_signature(value)


def test_keys_and_signatures_may_be_in_either_alphabet_and_padded():
    value = signed()
    signature = value["signatures"][NAME]["ed25519:0"]
    for each in (signature + "==", signature.replace("+", "-").replace("/", "_")):
        PEER.check_signature({**value, "signatures": {NAME: {"ed25519:0": each}}})
    urlsafe = {key_id: key.replace("+", "-").replace("/", "_") + "=" for key_id, key in KEYS.items()}
    Peer(NAME, PEER.url, urlsafe, (NAME,)).check_signature(value)


def test_what_is_not_signed_may_be_anything():
    PEER.check_signature({**signed(), "unsigned": {"age": 1.5, "\ud800": nested(5000)}})


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        [],
        "x",
        {},
        {"other.example.org": {"ed25519:0": "A" * 86}},
        {NAME.upper(): {"ed25519:0": "A" * 86}},
        {NAME: None},
        {NAME: {}},
        {NAME: []},
        {NAME: "A" * 86},
    ],
)
def test_what_the_peer_has_not_signed_at_all(signatures):
    with pytest.raises(ValueError, match=f"is not signed by {NAME}"):
        PEER.check_signature({**VALUE, "signatures": signatures})


def test_what_has_no_signatures():
    with pytest.raises(ValueError, match=f"is not signed by {NAME}"):
        PEER.check_signature(VALUE)


@pytest.mark.parametrize("key_id", ["ed25519:unknown", "ed25519", "", "rsa:0", "ED25519:0", "ed25519:0 "])
def test_a_key_that_is_not_known_of_it_counts_for_nothing(key_id):
    value = {**VALUE, "signatures": {NAME: {key_id: signed()["signatures"][NAME]["ed25519:0"]}}}
    with pytest.raises(ValueError, match="none of the keys that are known"):
        PEER.check_signature(value)


@pytest.mark.parametrize(
    "wrong", [None, 1, [], {}, "", "=", "A", "A" * 86, "A" * 87, "é" * 86, "\ud800", "A" * 10000]
)
def test_what_is_no_signature(wrong):
    with pytest.raises(ValueError, match=f"has a wrong signature of {NAME}"):
        PEER.check_signature({**VALUE, "signatures": {NAME: {"ed25519:0": wrong}}})


@pytest.mark.parametrize("key", ["", "A", "A" * 43, "é", encode_base64(bytes(32))])
def test_a_key_that_is_none_has_signed_nothing(key):
    peer = Peer(NAME, PEER.url, {"ed25519:0": key}, (NAME,))
    with pytest.raises(ValueError, match="wrong signature"):
        peer.check_signature(signed())


def test_a_signature_of_one_key_under_the_name_of_another():
    value = signed()
    moved = {"ed25519:a_1": value["signatures"][NAME]["ed25519:0"]}
    with pytest.raises(ValueError, match="wrong signature"):
        PEER.check_signature({**value, "signatures": {NAME: moved}})


@pytest.mark.parametrize(
    "fields", [{"ts": 6}, {"mxid": "@eve:example.org"}, {"more": 1}, {"address": "Carol@example.org"}]
)
def test_nothing_that_was_signed_may_be_changed(fields):
    with pytest.raises(ValueError, match="wrong signature"):
        PEER.check_signature({**signed(), **fields})


@pytest.mark.parametrize("odd", [1.5, 2**53, 10**400, "\ud800", nested(64), nested(5000), float("nan")])
def test_what_can_have_no_signature_has_none(odd):
    with pytest.raises(ValueError, match=r"number|text|nested"):
        PEER.check_signature({**signed(), "odd": odd})


@given(st.dictionaries(TEXTS, ANYTHING, max_size=3), SIGNATURES)
def test_nothing_that_somebody_makes_up_is_signed(value, signatures):
    with pytest.raises(ValueError, match=r"sign|number|text"):
        PEER.check_signature({**value, "signatures": signatures})


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 9) | st.none(), max_size=4), SIGNATURES)
def test_what_stands_beside_a_good_signature_does_not_matter(value, others):
    good = RINGS["0"].sign({key: value[key] for key in value if key not in ("signatures", "unsigned")})
    beside = others if isinstance(others, dict) else {}
    own = beside.get(NAME) if isinstance(beside.get(NAME), dict) else {}
    good["signatures"] = {**beside, NAME: {**own, **good["signatures"][NAME]}}
    PEER.check_signature(good)


def test_a_name_that_is_not_the_peers_signs_for_itself_only():
    other = KeyRing("other.example.org", RINGS["0"].active).sign(VALUE)
    with pytest.raises(ValueError, match=f"not signed by {NAME}"):
        PEER.check_signature(other)
    assert SigningKey(SEEDS["0"]).verify_key.encode() == RINGS["0"].active.signing_key.verify_key.encode()


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"signatures": {"other.example.org": {"ed25519:0": "A" * 86}}},
        {"signatures": {"other.example.org": "x", "": None, "id.example.org": [[1]]}},
        {"unsigned": nested(5000)},
        {"unsigned": None},
    ],
)
def test_of_what_a_peer_has_sent_that_is_kept_which_it_has_signed(beside):
    good = signed()
    found = PEER.own_part(
        {**good, **beside, "signatures": {**beside.get("signatures", {}), **good["signatures"]}}
    )
    assert found == good
    PEER.check_signature(found)


@pytest.mark.parametrize("odd", [None, 1, [], {}, [[1]]])
def test_what_is_no_signature_of_its_own_is_not_kept(odd):
    value = signed("a_1", signed())
    mixed = {**value, "signatures": {NAME: {**value["signatures"][NAME], "ed25519:odd": odd}}}
    PEER.check_signature(mixed)
    assert PEER.own_part(mixed) == value


# --- certificates --------------------------------------------------------------------------------------

A = Peer("a.example.org", "https://a", {}, ("a.example.org", "10.0.0.1"))
B = Peer("b.example.org", "https://b", {}, ("replication.b.example.org",))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), None),
        (("c.example.org",), None),
        (("a.example.org",), A),
        (("10.0.0.1",), A),
        (("replication.b.example.org",), B),
        # Not its server name, but what the operator has written is what counts.
        (("b.example.org",), None),
        (("c.example.org", "10.0.0.1"), A),
        (("replication.b.example.org", "a.example.org"), B),
        (("a.example.org", "replication.b.example.org"), A),
        (("*.b.example.org", "b.example.org.", ""), None),
    ],
)
def test_whose_certificate_it_is(names, expected):
    assert recognised(names, [A, B]) == expected
    assert recognised(names, iter([B, A])) == expected


def test_without_peers_nobody_is_one():
    assert recognised(("a.example.org",), []) is None


# --- what an answer means ------------------------------------------------------------------------------

IDS = st.frozensets(st.integers(1, 9))


@pytest.mark.parametrize("outcome", [Accepted(), Failed("status", "HTTP 500")])
@pytest.mark.parametrize("parked", [True, False])
def test_what_is_no_refusal_is_what_it_is(outcome, parked):
    assert settled({1, 2}, outcome, parked=parked) is outcome


@pytest.mark.parametrize(
    ("pushed", "named", "parked", "expected"),
    [
        ([1, 2, 3], {2}, False, {2}),
        ([1, 2, 3], {1, 2}, False, {1, 2}),
        # Names that were not among those that were sent are no news.
        ([1, 2, 3], {2, 7}, False, {2}),
        ([1, 2, 3], {7}, False, None),
        ([1, 2, 3], {1, 2, 3}, False, None),
        ([1, 2, 3], {1, 2, 3, 4}, False, None),
        ([1], {1}, False, None),
        ([1, 2], set(), False, None),
        ([], {1}, False, None),
        ([1], {1}, True, {1}),
        ([1, 2], {1, 2}, True, {1, 2}),
        ([1, 2], {2}, True, {2}),
        ([1, 2], {3}, True, None),
        ([1, 2], set(), True, None),
    ],
)
def test_some_that_are_refused_are_parked_and_a_refusal_of_all_is_a_failure(pushed, named, parked, expected):
    found = settled(pushed, Refused(frozenset(named), "why"), parked=parked)
    assert found == (Failed("refused", "why") if expected is None else Refused(frozenset(expected), "why"))


@given(IDS, IDS, st.booleans())
def test_no_refusal_parks_what_was_not_pushed_and_none_is_overheard(pushed, named, parked):
    found = settled(pushed, Refused(named, "why"), parked=parked)
    assert found.reason == "why"
    if isinstance(found, Refused):
        assert found.origin_ids
        assert found.origin_ids <= pushed & named
        # What is sent next is less, or was tried before.
        assert parked or found.origin_ids < pushed
