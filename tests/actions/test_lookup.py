"""Look-ups."""

import os
from contextlib import suppress

import orjson
import pytest
import pytest_twisted
from fixtures import SERVER_NAME, Counting, House, RecordingSigns, public_key_bytes, signing_keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from store_tools import START_MS, InlineDatabase, at_once
from twisted.internet.task import Clock

from sydentish.actions.accounts import NOBODY, Caller, Gate
from sydentish.actions.associations import Provision
from sydentish.actions.lookup import Lookup
from sydentish.actions.peppers import PepperRotation
from sydentish.actions.statements import Statements
from sydentish.domain.accounts import hash_secret
from sydentish.domain.associations import Association
from sydentish.domain.errors import (
    Busy,
    InvalidParam,
    InvalidPepper,
    TermsNotSigned,
    UnknownToken,
    VerificationFailed,
)
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.lookup import hash_address
from sydentish.domain.peers import Peer
from sydentish.domain.terms import Policy, PolicyText, Terms
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.replication.receiver import Receiver
from sydentish.store import accounts as account_rows
from sydentish.store import associations as association_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store import peers as peer_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps

ALICE = "@alice:hs.example.org"
HOUR = 3600_000


async def bind(house, address):
    caller = await house.log_in(ALICE)
    await house.associations.bind(caller, await house.prove(caller, address), ALICE)
    return caller


async def pepper_of(house, caller):
    return (await house.lookup.hash_details(caller))["lookup_pepper"]


def hashed(address, pepper, medium=EMAIL):
    return hash_address(Threepid(medium, address), pepper)


async def look_up(house, caller, addresses, algorithm="sha256", pepper=None):
    pepper = await pepper_of(house, caller) if pepper is None else pepper
    return orjson.loads(await house.lookup.lookup(caller, algorithm, pepper, addresses))


@pytest.mark.parametrize(("allow_none", "offered"), [(True, ["sha256", "none"]), (False, ["sha256"])])
@pytest_twisted.ensureDeferred
async def test_the_details_name_the_algorithms_and_the_pepper(make_house, allow_none, offered):
    house = await make_house(allow_none=allow_none)
    details = await house.lookup.hash_details(await house.log_in())
    assert details["algorithms"] == offered
    assert len(details["lookup_pepper"]) == 32


@pytest_twisted.ensureDeferred
async def test_known_addresses_are_found_by_hash_and_unknown_ones_are_not(house):
    caller = await bind(house, "alice@example.org")
    pepper = await pepper_of(house, caller)
    known, unknown = hashed("alice@example.org", pepper), hashed("bob@example.org", pepper)
    assert await look_up(house, caller, [unknown, known]) == {known: ALICE}
    assert await look_up(house, caller, [hashed("alice@example.org", pepper, "msisdn")]) == {}
    assert await look_up(house, caller, [hashed("alice@example.org", "other pepper")]) == {}


@pytest_twisted.ensureDeferred
async def test_known_addresses_are_found_in_the_clear_as_they_were_asked_for(house):
    caller = await bind(house, "alice@example.org")
    asked = [
        "alice@example.org email",
        "bob@example.org email",
        "alice@example.org msisdn",
        "alice@example.org",
        "alice@example.org  email",
        " email",
        "email",
        "",
    ]
    assert await look_up(house, caller, asked, "none") == {"alice@example.org email": ALICE}


@pytest.mark.parametrize("algorithm", ["sha256", "none"])
@pytest_twisted.ensureDeferred
async def test_asking_for_nothing_answers_nothing(house, algorithm):
    assert await look_up(house, await house.log_in(), [], algorithm) == {}


@pytest.mark.parametrize("algorithm", ["sha256", "none"])
@pytest_twisted.ensureDeferred
async def test_asking_twice_answers_once(house, algorithm):
    caller = await bind(house, "alice@example.org")
    pepper = await pepper_of(house, caller)
    entry = hashed("alice@example.org", pepper) if algorithm == "sha256" else "alice@example.org email"
    answer = await house.lookup.lookup(caller, algorithm, pepper, [entry, entry, "x", "x", entry])
    assert orjson.loads(answer) == {entry: ALICE}
    assert answer.count(entry) == 1


@pytest.mark.parametrize("algorithm", ["sha256", "none"])
@pytest_twisted.ensureDeferred
async def test_a_nul_ends_no_address(house, algorithm):
    caller = await bind(house, "alice@example.org")
    pepper = await pepper_of(house, caller)
    entries = [hashed("alice@example.org", pepper), "alice@example.org email"]
    asked = [f"{entry}\0{rest}" for entry in entries for rest in ("", "x", " email")]
    assert await look_up(house, caller, [*asked, "alice@example.org\0 email"], algorithm) == {}


@pytest.mark.parametrize(("count", "refused"), [(2, False), (3, True)])
@pytest_twisted.ensureDeferred
async def test_more_addresses_than_allowed_are_refused(make_house, count, refused):
    house = await make_house(max_addresses=2)
    caller = await house.log_in()
    if refused:
        with pytest.raises(InvalidParam, match="addresses: must be at most 2"):
            await look_up(house, caller, ["x"] * count)
    else:
        assert await look_up(house, caller, ["x"] * count) == {}


@pytest_twisted.ensureDeferred
async def test_ten_thousand_addresses_are_looked_up_at_once(house):
    caller = await bind(house, "alice@example.org")
    pepper = await pepper_of(house, caller)
    asked = [hashed(f"{number}@example.org", pepper) for number in range(9_999)]
    known = hashed("alice@example.org", pepper)
    assert await look_up(house, caller, [*asked, known]) == {known: ALICE}


@pytest.mark.parametrize("algorithm", ["", "SHA256", "sha512", "none\0", "none "])
@pytest_twisted.ensureDeferred
async def test_another_algorithm_is_refused(house, algorithm):
    with pytest.raises(InvalidParam, match="algorithm: must be one of sha256, none"):
        await look_up(house, await house.log_in(), [], algorithm)


@pytest_twisted.ensureDeferred
async def test_the_clear_can_be_switched_off(make_house):
    house = await make_house(allow_none=False)
    with pytest.raises(InvalidParam, match=r"algorithm: must be one of sha256$"):
        await look_up(house, await house.log_in(), [], "none")


@pytest.mark.parametrize("algorithm", ["sha256", "none"])
@pytest.mark.parametrize("pepper", ["", "wrong", "\0", "x" * 100_000])
@pytest_twisted.ensureDeferred
async def test_a_wrong_pepper_is_answered_with_the_right_one(house, algorithm, pepper):
    caller = await house.log_in()
    with pytest.raises(InvalidPepper) as refused:
        await look_up(house, caller, [], algorithm, pepper)
    assert refused.value.algorithm == algorithm
    assert refused.value.lookup_pepper == await pepper_of(house, caller)


@pytest_twisted.ensureDeferred
async def test_who_may_not_ask_learns_nothing_else(make_house):
    terms = Terms((Policy("privacy", "1", (PolicyText("en", "Privacy", "https://x"),)),))
    house = await make_house(terms=terms)
    caller = await house.log_in()
    for refused, error in ((Caller("unknown"), UnknownToken), (caller, TermsNotSigned)):
        with pytest.raises(error):
            await house.lookup.lookup(refused, "md5", "wrong", ["x"] * 20_000)
        with pytest.raises(error):
            await house.lookup.hash_details(refused)


@pytest_twisted.ensureDeferred
async def test_a_look_up_is_a_sign_of_life_of_the_homeserver_of_who_asks(house):
    caller = await house.log_in("@a:asking.example.org:8448")
    house.signs.heard.clear()
    await house.lookup.lookup(caller, "sha256", await pepper_of(house, caller), [])
    assert house.signs.heard == ["asking.example.org:8448"]


@pytest_twisted.ensureDeferred
async def test_before_the_first_pepper_it_is_busy(tmp_path):
    house = House(tmp_path)
    house.db.startService()
    caller = await house.log_in()
    with pytest.raises(Busy):
        await house.lookup.hash_details(caller)
    with pytest.raises(Busy):
        await house.lookup.lookup(caller, "sha256", "p", [])
    await house.stop()


# --- whatever is asked ---------------------------------------------------------------------------------


@pytest.fixture
def inline(tmp_path):
    """A look-up over a database without threads, in which a few odd addresses are bound."""
    path = tmp_path / "inline.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    db = InlineDatabase(path)
    now = {"clock": Clock(), "now_ms": lambda: START_MS, "random_bytes": Counting()}
    at_once(PepperRotation(db=db, interval_ms=None, grace_ms=HOUR, **now).ensure_pepper())

    def fill(tx):
        account_rows.add_account(tx, ALICE, START_MS)
        account_rows.add_token(tx, hash_secret("token"), ALICE, START_MS)
        for number, address in enumerate(BOUND):
            threepid = Threepid(EMAIL, address)
            association_rows.put(tx, Association(threepid, ALICE, 1, 1, 2, "id.example.org", number))
            lookup_rows.set_mxid(tx, threepid, ALICE)

    at_once(_write(db, fill))
    lookup = Lookup(
        gate=Gate(db=db, terms=Terms(), now_ms=lambda: START_MS),
        keys=signing_keys(),
        allow_none=True,
        max_addresses=None,
        pepper_grace_ms=HOUR,
        signs_of_life=RecordingSigns(),
        on_lookup=lambda *_: None,
        now_ms=lambda: START_MS,
    )
    yield lookup
    db.connection.close()


async def _write(db, fn):
    return await db.write(fn)


BOUND = ["alice@example.org", "a'b@example.org", "é@example.org", "{}@example.org", "a%b@example.org"]
ODD = st.sampled_from(
    ['"', "\\", "\n", "\0", "'", "[]", "{}", "null", "1", "1e9", "%", " email", "\ud7ff", "😀"]
)
ENTRIES = st.one_of(
    st.sampled_from([f"{address} email" for address in BOUND]),
    st.text(st.characters(codec="utf-8")),
    st.builds(lambda *parts: "".join(parts), st.sampled_from(BOUND), ODD, st.sampled_from([" email", ""])),
    ODD,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(entries=st.lists(ENTRIES), data=st.data())
def test_whatever_is_asked_only_what_is_bound_and_asked_for_is_answered(inline, entries, data):
    caller = Caller("token")
    pepper = at_once(inline.hash_details(caller))["lookup_pepper"]
    answer = orjson.loads(at_once(inline.lookup(caller, "none", pepper, entries)))
    assert answer == {entry: ALICE for entry in entries if entry in {f"{known} email" for known in BOUND}}
    hashes = [hashed(entry.removesuffix(" email"), pepper) for entry in entries]
    asked = data.draw(st.permutations([*entries, *hashes]))
    answer = orjson.loads(at_once(inline.lookup(caller, "sha256", pepper, asked)))
    assert answer == {entry: ALICE for entry in asked if entry in {hashed(known, pepper) for known in BOUND}}


# --- look-ups of v1 ------------------------------------------------------------------------------------

PROVISIONED = [
    Threepid(EMAIL, "alice@example.org"),
    Threepid(EMAIL, "bob@example.org"),
    Threepid(MSISDN, "447700900001"),
]
UNKNOWN = [
    Threepid(EMAIL, "nobody@example.org"),
    Threepid(MSISDN, "447700900002"),
    Threepid(MSISDN, "alice@example.org"),
    Threepid("odd", "alice@example.org"),
    Threepid(EMAIL, "no address"),
    Threepid(EMAIL, ""),
    Threepid("", ""),
    Threepid(EMAIL, "\ud800"),
    Threepid(EMAIL, "\0"),
]


async def provisioned(house):
    await house.associations.provision([Provision(each, ALICE, bound=True) for each in PROVISIONED])


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (PROVISIONED[0], PROVISIONED[0]),
        (Threepid(EMAIL, "ALICE@Example.org"), PROVISIONED[0]),
        (PROVISIONED[2], PROVISIONED[2]),
        (Threepid(MSISDN, "+447700900001"), PROVISIONED[2]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_association_of_an_address_is_answered_whole_and_signed(house, asked, stored):
    await provisioned(house)
    signed = await house.lookup.association(NOBODY, asked)
    assert (signed["medium"], signed["address"], signed["mxid"]) == (stored.medium, stored.address, ALICE)
    assert signed["not_before"] == signed["ts"] == START_MS
    assert signed.keys() == {"medium", "address", "mxid", "ts", "not_before", "not_after", "signatures"}
    verify_signed_json(signed, SERVER_NAME, decode_verify_key_bytes("ed25519:0", public_key_bytes()))


@pytest.mark.parametrize("asked", UNKNOWN)
@pytest_twisted.ensureDeferred
async def test_the_association_of_another_address_is_an_empty_object(house, asked):
    await provisioned(house)
    assert await house.lookup.association(NOBODY, asked) == {}


@pytest_twisted.ensureDeferred
async def test_many_addresses_are_answered_in_the_order_and_the_spelling_in_which_they_were_asked_for(house):
    await provisioned(house)
    asked = [
        UNKNOWN[0],
        Threepid(EMAIL, "BOB@example.org"),
        *UNKNOWN[1:],
        PROVISIONED[0],
        Threepid(MSISDN, "+447700900001"),
    ]
    assert await house.lookup.associations(NOBODY, asked) == [
        (EMAIL, "BOB@example.org", ALICE),
        (EMAIL, "alice@example.org", ALICE),
        (MSISDN, "+447700900001", ALICE),
    ]
    assert await house.lookup.associations(NOBODY, []) == []


@pytest_twisted.ensureDeferred
async def test_no_more_are_answered_at_a_time_than_allowed(make_house):
    house = await make_house(max_addresses=3)
    await provisioned(house)
    assert len(await house.lookup.associations(NOBODY, PROVISIONED)) == 3
    with pytest.raises(InvalidParam, match="threepids"):
        await house.lookup.associations(NOBODY, [*PROVISIONED, PROVISIONED[0]])


@pytest_twisted.ensureDeferred
async def test_an_access_token_that_is_given_is_looked_at(house):
    with pytest.raises(UnknownToken):
        await house.lookup.association(Caller("unknown"), PROVISIONED[0])
    with pytest.raises(UnknownToken):
        await house.lookup.associations(Caller("unknown"), PROVISIONED)


@pytest_twisted.ensureDeferred
async def test_what_is_unbound_is_answered_no_more(house):
    await provisioned(house)
    await house.associations.provision([Provision(PROVISIONED[0], ALICE, bound=False)])
    assert await house.lookup.association(NOBODY, PROVISIONED[0]) == {}
    assert [address for _, address, _ in await house.lookup.associations(NOBODY, PROVISIONED)] == [
        "bob@example.org",
        "447700900001",
    ]


# --- what peers have stated, in look-ups of v1 ---------------------------------------------------------

PEER = "peer.example.org"
PEER_KEYS = KeyRing(PEER, parse_key(make_key("p", b"p" * 32)))
REPLICATED = Association(PROVISIONED[0], ALICE, START_MS + 5, START_MS + 4, START_MS + 9, PEER, 7)


async def replicated(house, **fields):
    """An association that a peer has pushed here, with other fields that it has signed or not."""
    peer = Peer(PEER, "https://x", {"ed25519:p": PEER_KEYS.active.public_key}, ())
    await house.db.write(peer_rows.add, peer, START_MS)
    receiver = Receiver(
        db=house.db,
        keys=house.keys,
        taker=Statements(keys=house.keys, validity_ms=HOUR, random_bytes=os.urandom),
        pusher=RecordingSigns(),
        on_taken=lambda _taken: None,
        on_received=lambda _peer, _counts: None,
        max_statements=10,
        max_future_ms=HOUR,
        now_ms=house.now_ms,
    )
    beside = fields.pop("signatures", {})
    signed = PEER_KEYS.sign({**REPLICATED.to_json(), **fields})
    signed["signatures"] = {**beside, **signed["signatures"]}
    await receiver.receive(PEER, {"7": signed})
    return signed


def verify_both(found):
    verify_signed_json(found, SERVER_NAME, decode_verify_key_bytes("ed25519:0", public_key_bytes()))
    public_key = bytes(PEER_KEYS.active.signing_key.verify_key)
    verify_signed_json(found, PEER, decode_verify_key_bytes("ed25519:p", public_key))


@pytest.mark.parametrize("more", [{}, {"more": {"signed": [1, "é"]}}])
@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_stated_is_answered_with_its_signature_and_ours(house, more):
    await provisioned(house)
    signed = await replicated(house, **more)
    found = await house.lookup.association(NOBODY, Threepid(EMAIL, "ALICE@example.org"))
    verify_both(found)
    assert found["signatures"].keys() == {SERVER_NAME, PEER}
    assert found["signatures"][PEER] == signed["signatures"][PEER]
    assert {**found, "signatures": None} == {**REPLICATED.to_json(), **more, "signatures": None}
    # What we have stated ourselves, we sign alone.
    own = await house.lookup.association(NOBODY, PROVISIONED[1])
    assert own["signatures"].keys() == {SERVER_NAME}
    # Also in its place.
    await house.associations.provision([Provision(PROVISIONED[0], "@bob:hs.example.org", bound=True)])
    assert (await house.lookup.association(NOBODY, PROVISIONED[0]))["signatures"].keys() == {SERVER_NAME}


@pytest.mark.parametrize(
    "beside",
    [
        {"other.example.org": {"ed25519:x": "AAAA"}},
        {SERVER_NAME: {"ed25519:0": "forged", "ed25519:old": "AAAA"}},
        {SERVER_NAME: []},
        {SERVER_NAME: "AAAA"},
        {SERVER_NAME: None},
        {"other.example.org": None, "": 5},
        {"other.example.org": "AAAA"},
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_stands_beside_the_signature_of_a_peer_the_look_up_answers(house, beside):
    with suppress(VerificationFailed):
        await replicated(house, signatures=beside)
        verify_both(await house.lookup.association(NOBODY, PROVISIONED[0]))
    assert await house.lookup.association(NOBODY, PROVISIONED[2]) == {}


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("unsigned", [{"age": 1.5}, [float("nan")], "x", nested(300), nested(1000)])
@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_not_signed_breaks_neither_the_push_nor_the_look_up(house, unsigned):
    with suppress(VerificationFailed):
        await replicated(house, unsigned=unsigned)
        found = await house.lookup.association(NOBODY, PROVISIONED[0])
        verify_both(found)
        assert orjson.loads(orjson.dumps(found))["mxid"] == ALICE


@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_stated_is_found_by_hash_and_in_the_clear_until_it_is_unbound(house):
    await replicated(house)
    caller = await house.log_in(ALICE)
    pepper = await pepper_of(house, caller)
    entry = hashed("alice@example.org", pepper)
    assert await look_up(house, caller, [entry]) == {entry: ALICE}
    assert await look_up(house, caller, ["alice@example.org email"], "none") == {
        "alice@example.org email": ALICE
    }
    await house.associations.provision([Provision(PROVISIONED[0], ALICE, bound=False)])
    assert await look_up(house, caller, [entry]) == {}
    assert await house.lookup.association(NOBODY, PROVISIONED[0]) == {}


# --- what the operator is told -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_how_many_were_asked_for_and_found_is_told(house):
    await house.associations.provision(
        [Provision(Threepid(EMAIL, f"{name}@example.org"), ALICE, bound=True) for name in ("alice", "bob")]
    )
    alice = await house.log_in(ALICE)
    pepper = (await house.lookup.hash_details(alice))["lookup_pepper"]
    asked = ["alice@example.org email", "bob@example.org email", "nobody@example.org email", "nonsense"]
    await house.lookup.lookup(alice, "none", pepper, asked)
    hashes = [hash_address(Threepid(EMAIL, f"{name}@example.org"), pepper) for name in ("alice", "carol")]
    await house.lookup.lookup(alice, "sha256", pepper, hashes)
    await house.lookup.association(alice, Threepid(EMAIL, "bob@example.org"))
    await house.lookup.associations(
        alice, [Threepid(EMAIL, "bob@example.org"), Threepid(EMAIL, "x@example.org")]
    )
    assert house.lookups == [("none", 4, 2), ("sha256", 2, 1), ("none", 1, 1), ("none", 2, 1)]
