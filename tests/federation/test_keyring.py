import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from standins.behaviours import EndlessBody, Silence, answer, close, error, raw, redirect
from standins.homeserver import KEYS, WELL_KNOWN, published
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import formatEvent

from sydentish.domain.errors import KeysUnavailable
from sydentish.federation.keyring import HomeserverKeys, read_keys

ID = "ed25519:standin"
OTHER = "other.example.org"
MINUTE, DAY = 60, 24 * 3600
NOW_MS = 1_767_225_600_000


def ms(clock):
    return NOW_MS + int(clock.seconds() * 1000)


@pytest.fixture
def make_keys(make_client, clock):
    def make(max_fetching=10, **options):
        return HomeserverKeys(
            client=make_client(), now_ms=lambda: ms(clock), max_fetching=max_fetching, **options
        )

    return make


@pytest.fixture
def keys(make_keys):
    return make_keys()


def public(signing_key):
    return bytes(get_verify_key(signing_key))


def publishes(homeserver, **changes):
    homeserver.behaviours[KEYS] = answer(200, homeserver.key_document(**changes))


async def unavailable(keys, name, key_id=ID):
    with pytest.raises(KeysUnavailable) as raised:
        await keys.key(name, key_id)
    assert raised.value.message.startswith("The homeserver")
    return raised.value.retry_after_ms


@pytest_twisted.ensureDeferred
async def test_a_key_is_fetched_once_and_remembered(keys, homeserver):
    for _ in range(3):
        assert await keys.key(homeserver.server_name, ID) == public(homeserver.signing_key)
    (asked,) = homeserver.requests
    assert (asked.method, asked.path) == ("GET", KEYS)


@pytest_twisted.ensureDeferred
async def test_homeservers_are_found_as_the_specification_says(keys, start_homeserver, authority, internet):
    """8448 without a port in the name; the name in the document is that of the server, not of the port."""
    homeserver = start_homeserver(authority.issue("hs.example.org"), port=8448)
    publishes(homeserver, server_name="hs.example.org")
    assert await keys.key("hs.example.org", ID) == public(homeserver.signing_key)
    assert internet.connected == [("1.2.3.4", 8448)]


@pytest_twisted.ensureDeferred
async def test_a_name_in_another_spelling_is_the_same_name(keys, homeserver):
    publishes(homeserver, server_name=homeserver.server_name.upper())
    assert await keys.key(homeserver.server_name, ID) == public(homeserver.signing_key)


@pytest_twisted.ensureDeferred
async def test_keys_that_have_not_signed_the_document_are_left_out(keys, homeserver):
    """Else whoever can answer for a homeserver for once could add a key that it does not have."""
    new = generate_signing_key("new")
    publishes(homeserver, verify_keys=published(homeserver.signing_key, new))
    assert await keys.key(homeserver.server_name, "ed25519:new") is None
    assert await keys.key(homeserver.server_name, ID) == public(homeserver.signing_key)


@pytest_twisted.ensureDeferred
async def test_several_keys_that_have_all_signed(keys, homeserver):
    new = generate_signing_key("new")
    document = homeserver.key_document(verify_keys=published(homeserver.signing_key, new))
    homeserver.behaviours[KEYS] = answer(200, sign_json(document, homeserver.server_name, new))
    assert await keys.key(homeserver.server_name, "ed25519:new") == public(new)
    assert await keys.key(homeserver.server_name, ID) == public(homeserver.signing_key)


@pytest_twisted.ensureDeferred
async def test_old_keys_are_no_keys(keys, homeserver):
    old = generate_signing_key("old")
    entry = {key_id: {**key, "expired_ts": NOW_MS + 10**9} for key_id, key in published(old).items()}
    document = homeserver.key_document(old_verify_keys=entry)
    homeserver.behaviours[KEYS] = answer(200, sign_json(document, homeserver.server_name, old))
    assert await keys.key(homeserver.server_name, "ed25519:old") is None


@pytest_twisted.ensureDeferred
async def test_what_is_unsigned_in_the_document_is_not_signed(keys, homeserver):
    document = homeserver.key_document() | {"unsigned": {"age": 1.5}}
    homeserver.behaviours[KEYS] = answer(200, document)
    assert await keys.key(homeserver.server_name, ID) == public(homeserver.signing_key)


# --- what cannot be fetched or used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        close,
        raw(b"220 smtp"),
        error(404, "M_UNRECOGNIZED"),
        error(429, "M_LIMIT_EXCEEDED"),
        error(500, "M_UNKNOWN"),
        answer(503, b"<html>"),
        answer(200, b"<html>"),
        answer(200, []),
        answer(200, {}),
        answer(200, b"[" * 60_000),
        redirect("https://other.example.org/"),
        EndlessBody(),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_document(keys, homeserver, behaviour, quiet_log):
    homeserver.behaviours[KEYS] = behaviour
    assert await unavailable(keys, homeserver.server_name) == 10_000
    (line,) = [formatEvent(event) for event in quiet_log if "reason" in event]
    assert line.startswith(f"{homeserver.server_name}: its keys cannot be fetched or used: ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"server_name": OTHER}, "another server"),
        ({"server_name": "hs.example.org"}, "another server"),
        ({"server_name": 5}, "another server"),
        ({"server_name": "not a name"}, "a server name is"),
        ({"valid_until_ts": NOW_MS}, "expired"),
        ({"valid_until_ts": 0}, "expired"),
        ({"valid_until_ts": True}, "expired"),
        ({"valid_until_ts": None}, "expired"),
        ({"valid_until_ts": str(NOW_MS * 2)}, "expired"),
        ({"valid_until_ts": NOW_MS * 2.5}, "expired"),
        ({"more": 1.5}, "a number"),
        ({"more": 2**60}, "a number"),
        ({"verify_keys": {}}, "none of them"),
        ({"verify_keys": []}, "none of them"),
        ({"verify_keys": published(generate_signing_key("standin"))}, "none of them"),
        ({"verify_keys": {ID: "x"}}, "none of them"),
        ({"verify_keys": {ID: {}}}, "none of them"),
        ({"verify_keys": {ID: {"key": 5}}}, "none of them"),
        ({"verify_keys": {ID: {"key": "!"}}}, "none of them"),
        ({"verify_keys": {ID: {"key": "AAAA"}}}, "none of them"),
        ({"verify_keys": published(*(generate_signing_key(f"k{i}") for i in range(65)))}, "more than 64"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_document_that_cannot_be_used(keys, homeserver, changes, reason, quiet_log):
    publishes(homeserver, **changes)
    await unavailable(keys, homeserver.server_name)
    assert [event for event in quiet_log if reason in str(event.get("reason"))]


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        {},
        [],
        {"hs.example.org": 5},
        {"hs.example.org": {}},
        {"hs.example.org": {ID: 5}},
        {"hs.example.org": {ID: "?"}},
        {"hs.example.org": {ID: "AAAA"}},
        {"other.example.org": {ID: "A" * 86}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_document_that_is_not_signed(keys, start_homeserver, authority, signatures):
    homeserver = start_homeserver(authority.issue("hs.example.org"), port=8448)
    document = homeserver.key_document(server_name="hs.example.org") | {"signatures": signatures}
    homeserver.behaviours[KEYS] = answer(200, document)
    await unavailable(keys, "hs.example.org")


@pytest_twisted.ensureDeferred
async def test_a_document_that_was_changed_after_it_was_signed(keys, homeserver):
    homeserver.behaviours[KEYS] = answer(200, homeserver.key_document() | {"valid_until_ts": NOW_MS * 2})
    await unavailable(keys, homeserver.server_name)


@pytest_twisted.ensureDeferred
async def test_a_key_of_an_algorithm_that_we_do_not_know(keys, homeserver):
    key = published(homeserver.signing_key)[ID]
    publishes(homeserver, verify_keys={ID: key, "rsa:1": key, "ed25519": key})
    assert await keys.key(homeserver.server_name, "rsa:1") is None
    assert await keys.key(homeserver.server_name, "ed25519") is None


@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_cannot_be_reached(keys, internet):
    internet.names |= {"closed.example.org": ["1.2.3.9"], "inside.example.org": ["127.0.0.1"]}
    for name in ("closed.example.org", "inside.example.org", "absent.example.org", "127.0.0.1"):
        await unavailable(keys, name)


@pytest_twisted.ensureDeferred
async def test_a_homeserver_whose_certificate_does_not_prove_its_name(keys, start_homeserver, authority):
    homeserver = start_homeserver(authority.issue(OTHER))
    await unavailable(keys, homeserver.server_name)
    assert homeserver.requests == []


@pytest_twisted.ensureDeferred
async def test_a_silent_homeserver(keys, homeserver, clock):
    silence = homeserver.behaviours[KEYS] = Silence()
    asking = Deferred.fromCoroutine(unavailable(keys, homeserver.server_name))
    await silence.asked
    clock.advance(10)
    assert await asking == 10_000
    await silence.gone


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["hs", ID, "key", "ed25519:"]), inner, max_size=3)
    ),
)
FIELDS = {
    "server_name": st.just("hs") | JSON,
    "valid_until_ts": st.just(NOW_MS * 2) | JSON,
    "verify_keys": st.just({ID: {"key": "A" * 43}}) | JSON,
    "signatures": st.just({"hs": {ID: "A" * 86}}) | JSON,
    "more": JSON,
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_whatever_the_document_is_nothing_else_goes_wrong(document):
    with pytest.raises(ValueError, match=r"."):
        read_keys(document, "hs", NOW_MS)


# --- how long what is known is used -----------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_keys_are_kept_for_7_days_at_most(keys, homeserver, clock):
    await keys.key(homeserver.server_name, ID)
    clock.advance(7 * DAY - 1)
    await keys.key(homeserver.server_name, ID)
    assert len(homeserver.requests) == 1
    clock.advance(1)
    await keys.key(homeserver.server_name, ID)
    assert len(homeserver.requests) == 2


@pytest_twisted.ensureDeferred
async def test_keys_are_kept_no_longer_than_they_say(keys, homeserver, clock):
    publishes(homeserver, valid_until_ts=NOW_MS + 90_000)
    await keys.key(homeserver.server_name, ID)
    clock.advance(89)
    await keys.key(homeserver.server_name, ID)
    assert len(homeserver.requests) == 1
    clock.advance(1)
    await unavailable(keys, homeserver.server_name)
    assert len(homeserver.requests) == 2


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_not_known_is_looked_for_again_after_a_minute(keys, homeserver, clock):
    name, new = homeserver.server_name, generate_signing_key("new")
    await keys.key(name, ID)
    homeserver.signing_key = new
    clock.advance(MINUTE - 1)
    assert await keys.key(name, "ed25519:new") is None
    assert len(homeserver.requests) == 1
    clock.advance(1)
    assert await keys.key(name, "ed25519:new") == public(new)
    assert await keys.key(name, ID) is None
    assert len(homeserver.requests) == 2


@pytest_twisted.ensureDeferred
async def test_what_is_known_is_used_while_the_homeserver_is_away(keys, homeserver, clock):
    name = homeserver.server_name
    await keys.key(name, ID)
    homeserver.behaviours[KEYS] = error(502, "M_UNKNOWN")
    clock.advance(DAY)
    await unavailable(keys, name, "ed25519:new")
    assert await keys.key(name, ID) == public(homeserver.signing_key)


@pytest_twisted.ensureDeferred
async def test_after_a_failure_it_is_left_alone_for_10_seconds(keys, homeserver, clock):
    name = homeserver.server_name
    homeserver.behaviours[KEYS] = error(502, "M_UNKNOWN")
    assert await unavailable(keys, name) == 10_000
    del homeserver.behaviours[KEYS]
    clock.advance(4)
    assert await unavailable(keys, name) == 6_000
    assert len(homeserver.requests) == 1
    clock.advance(6)
    assert await keys.key(name, ID) == public(homeserver.signing_key)


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_set_back_holds_nothing_up(make_client, homeserver, clock):
    set_back = 0
    keys = HomeserverKeys(client=make_client(), now_ms=lambda: ms(clock) - set_back, max_fetching=1)
    name = homeserver.server_name
    homeserver.behaviours[KEYS] = error(502, "M_UNKNOWN")
    await unavailable(keys, name)
    del homeserver.behaviours[KEYS]
    set_back = DAY * 1000
    await keys.key(name, ID)
    set_back *= 2
    homeserver.signing_key = generate_signing_key("new")
    assert await keys.key(name, "ed25519:new") == public(homeserver.signing_key)


# --- how much is done at a time ---------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_all_who_want_the_same_keys_wait_for_one_answer(make_keys, homeserver, clock):
    keys, silence = make_keys(max_fetching=1), Silence()
    homeserver.behaviours[KEYS] = silence
    waiting = [Deferred.fromCoroutine(unavailable(keys, homeserver.server_name)) for _ in range(20)]
    await silence.asked
    clock.advance(10)
    assert [await each for each in waiting] == [10_000] * 20
    assert len(homeserver.requests) == 1


@pytest_twisted.ensureDeferred
async def test_no_more_homeservers_are_asked_at_a_time_than_the_limit(
    make_keys, homeserver, start_homeserver, authority, internet
):
    keys, silence = make_keys(max_fetching=1), Silence()
    homeserver.behaviours[KEYS] = silence
    other = start_homeserver(authority.issue(OTHER), OTHER)
    asking = Deferred.fromCoroutine(keys.key(homeserver.server_name, ID))
    await silence.asked
    assert await unavailable(keys, other.server_name) == 1000
    assert other.requests == []
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await silence.gone
    # It was not the other's fault, and the one that was given up has left its place.
    assert await keys.key(other.server_name, ID) == public(other.signing_key)
    del homeserver.behaviours[KEYS]
    assert await keys.key(homeserver.server_name, ID) == public(homeserver.signing_key)


@pytest_twisted.ensureDeferred
async def test_failures_give_their_places_back(make_keys, homeserver, internet):
    keys = make_keys(max_fetching=1)
    for number in range(3):
        assert await unavailable(keys, f"absent{number}.example.org") == 10_000
    assert await keys.key(homeserver.server_name, ID)


@pytest_twisted.ensureDeferred
async def test_of_too_many_homeservers_the_one_not_used_for_longest_is_forgotten(
    make_keys, start_homeserver, authority
):
    keys = make_keys(max_servers=2)
    hosts = ["a.example.org", "b.example.org", "c.example.org"]
    servers = [
        start_homeserver(authority.issue(host), host, address=f"1.2.3.{number}")
        for number, host in enumerate(hosts, 10)
    ]
    for index in (0, 1, 0, 2, 0, 1):
        await keys.key(servers[index].server_name, ID)
    assert [len(server.requests) for server in servers] == [1, 2, 1]


@pytest_twisted.ensureDeferred
async def test_of_too_many_failures_the_oldest_is_forgotten(make_keys, homeserver):
    keys = make_keys(max_servers=1)
    homeserver.behaviours[KEYS] = error(502, "M_UNKNOWN")
    await unavailable(keys, homeserver.server_name)
    await unavailable(keys, "absent.example.org")
    await unavailable(keys, homeserver.server_name)
    assert len(homeserver.requests) == 2


@pytest_twisted.ensureDeferred
async def test_a_name_is_asked_for_its_keys_and_nothing_else(keys, homeserver):
    await keys.key(homeserver.server_name, ID)
    assert not any(request.path.startswith(WELL_KNOWN) for request in homeserver.requests)
    assert "authorization" not in homeserver.requests[0].headers
