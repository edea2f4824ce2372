from dataclasses import replace

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from signedjson.key import generate_signing_key
from signedjson.sign import sign_json
from standins.behaviours import answer, error
from standins.homeserver import KEYS, published, x_matrix
from twisted.logger import formatEvent
from unpaddedbase64 import encode_base64

from sydentish.actions.ports import SignedRequest
from sydentish.domain.errors import KeysUnavailable, ProofRefused
from sydentish.federation.keyring import HomeserverKeys
from sydentish.federation.proofs import SignedRequests
from sydentish.logs import redact

UNBIND = "/_matrix/identity/v2/3pid/unbind"
NAMES = ("id.example.org", "old.example.org:8090", "[2001:db8::1]:443")
CONTENT = {
    "mxid": "@alice:hs.example.org",
    "threepid": {"medium": "email", "address": "älice@example.org"},
}
NOW_MS = 1_767_225_600_000
STYLES = ["destination_is", "destination"]


@pytest.fixture
def keys(make_client):
    return HomeserverKeys(client=make_client(), now_ms=lambda: NOW_MS, max_fetching=10)


@pytest.fixture
def proofs(keys):
    return SignedRequests(names=NAMES, keys=keys)


def request(*authorizations, method="POST", target=UNBIND, content=CONTENT):
    return SignedRequest(method, target, [each.encode("latin-1") for each in authorizations], content)


def signed(homeserver, destination="id.example.org", named="destination_is"):
    return request(homeserver.authorization("POST", UNBIND, CONTENT, destination, named=named))


def signed_object(homeserver, **changes):
    return {
        "method": "POST",
        "uri": UNBIND,
        "origin": homeserver.server_name,
        "destination_is": "id.example.org",
        "content": CONTENT,
        **changes,
    }


def without_destination(authorization):
    return authorization.rpartition(",destination=")[0]


async def refused(proofs, given, why=""):
    with pytest.raises(ProofRefused) as raised:
        await proofs.origin_of(given)
    assert why in raised.value.message
    assert "example.org" not in raised.value.message or why == "a name of this server"


# --- what proves who it was -------------------------------------------------------------------------------


@pytest.mark.parametrize("named", STYLES)
@pytest.mark.parametrize(
    "destination",
    [
        "id.example.org",
        "id.example.org:443",
        "id.example.org:8090",
        "ID.Example.org",
        "ID.Example.org:08448",
        "id.example.org/some/path",
        "id.example.org:8090/some/path",
        "old.example.org",
        "old.example.org:8090",
        "[2001:DB8:0::1]",
        "[2001:db8::1]:443",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_request_that_is_signed_for_one_of_our_names(proofs, homeserver, destination, named):
    assert await proofs.origin_of(signed(homeserver, destination, named)) == homeserver.server_name


@pytest.mark.parametrize("named", STYLES)
@pytest.mark.parametrize(
    ("header", "inside"),
    [
        ("id.example.org:443", "id.example.org"),
        ("id.example.org", "old.example.org:8090"),
        ("id.example.org", "old.example.org"),
        ("ID.example.org:443", "id.example.org:443"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_header_and_signature_may_have_different_names_of_ours(
    proofs, homeserver, header, inside, named
):
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, inside, named=named)
    shown = authorization.replace(f'destination="{inside}"', f'destination="{header}"')
    assert await proofs.origin_of(request(shown)) == homeserver.server_name


@pytest.mark.parametrize("named", STYLES)
@pytest.mark.parametrize("inside", ["id.example.org", "old.example.org", "old.example.org:8090"])
@pytest_twisted.ensureDeferred
async def test_an_older_homeserver_names_the_destination_in_the_signature_only(
    proofs, homeserver, inside, named
):
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, inside, named=named)
    assert await proofs.origin_of(request(without_destination(authorization))) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_an_older_homeserver_writes_its_parameters_without_quotes(proofs, homeserver):
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, "id.example.org")
    parameters = dict(part.split("=", 1) for part in authorization.removeprefix("X-Matrix ").split(","))
    plain = f"X-Matrix origin={homeserver.server_name},key=ed25519:standin,sig={parameters['sig']}"
    assert await proofs.origin_of(request(plain)) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_the_origin_is_given_in_its_canonical_form(proofs, homeserver):
    name = homeserver.server_name.upper()
    authorization = x_matrix(signed_object(homeserver, origin=name), homeserver.signing_key)
    assert await proofs.origin_of(request(authorization)) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_the_method_is_signed_in_capitals(proofs, homeserver):
    lower = replace(signed(homeserver), method="post")
    assert await proofs.origin_of(lower) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_the_query_is_signed_as_it_was_sent(proofs, homeserver):
    target = f"{UNBIND}?b=%C3%A4+1&a"
    authorization = homeserver.authorization("POST", target, CONTENT, "id.example.org")
    assert await proofs.origin_of(request(authorization, target=target)) == homeserver.server_name
    await refused(proofs, request(authorization, target=f"{UNBIND}?b=%c3%a4+1&a"), "sig must be")


@pytest_twisted.ensureDeferred
async def test_another_scheme_beside_the_proof_does_not_matter(proofs, homeserver):
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, "id.example.org")
    given = request("Bearer canary", authorization)
    assert await proofs.origin_of(given) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_the_same_proof_holds_again(proofs, homeserver):
    """An honest homeserver that unbinds again makes the same signature; nothing tells them apart."""
    for _ in range(2):
        assert await proofs.origin_of(signed(homeserver)) == homeserver.server_name
    assert len(homeserver.requests) == 1


# --- several signatures -----------------------------------------------------------------------------------


def two_keys(homeserver):
    new = generate_signing_key("new")
    document = homeserver.key_document(verify_keys=published(homeserver.signing_key, new))
    homeserver.behaviours[KEYS] = answer(200, sign_json(document, homeserver.server_name, new))
    return new


@pytest_twisted.ensureDeferred
async def test_two_keys_in_two_headers(proofs, homeserver):
    new = two_keys(homeserver)
    signatures = [x_matrix(signed_object(homeserver), key) for key in (homeserver.signing_key, new)]
    assert await proofs.origin_of(request(*signatures)) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_one_wrong_signature_of_two_is_one_too_many(proofs, homeserver):
    new = two_keys(homeserver)
    good = x_matrix(signed_object(homeserver), homeserver.signing_key)
    bad = x_matrix(signed_object(homeserver, uri="/other"), new)
    await refused(proofs, request(good, bad), "sig must be")
    await refused(proofs, request(bad, good), "sig must be")


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_not_published_yet_does_not_matter_beside_one_that_is(proofs, homeserver):
    good = x_matrix(signed_object(homeserver), homeserver.signing_key)
    unknown = x_matrix(signed_object(homeserver), generate_signing_key("unpublished"))
    later = good.replace("ed25519:standin", "ed448:1")
    assert await proofs.origin_of(request(unknown, later, good)) == homeserver.server_name


@pytest_twisted.ensureDeferred
async def test_two_headers_of_two_homeservers(proofs, homeserver, start_homeserver, authority):
    other = start_homeserver(authority.issue("other.example.org"), "other.example.org")
    both = [each.authorization("POST", UNBIND, CONTENT, "id.example.org") for each in (homeserver, other)]
    await refused(proofs, request(*both), "the same origin")
    assert homeserver.requests == other.requests == []


# --- what proves nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "destination",
    [
        "other.example.org",
        "id.example.org.evil.example",
        "evil-id.example.org",
        "old.example.org:443",
        "1.2.3.4",
        "[2001:db8::1]:8448",
        "[2001:db8::2]:443",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_request_for_another_server(proofs, homeserver, destination):
    """Else whoever runs one identity server could undo at all others what homeservers undo at his."""
    await refused(proofs, signed(homeserver, destination), "a name of this server")
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, destination)
    shown = authorization.replace(f'destination="{destination}"', 'destination="id.example.org"')
    await refused(proofs, request(shown), "sig must be")
    await refused(proofs, request(without_destination(authorization)), "sig must be")


@pytest.mark.parametrize("destination", ["", "/", "id.example.org:0", "a b", "a@id.example.org", "é"])
@pytest_twisted.ensureDeferred
async def test_a_destination_that_is_no_name(proofs, homeserver, destination):
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, "x")
    await refused(proofs, request(authorization.replace('"x"', f'"{destination}"')), "a server name")
    assert homeserver.requests == []


@pytest_twisted.ensureDeferred
async def test_a_signature_that_names_no_destination(proofs, homeserver):
    nothing = signed_object(homeserver)
    del nothing["destination_is"]
    authorization = x_matrix(nothing, homeserver.signing_key)
    await refused(proofs, request(authorization), "sig must be")
    await refused(proofs, request(authorization + ',destination="id.example.org"'), "sig must be")


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"method": "post"},
        {"uri": "/_matrix/identity/v2/3pid/bind"},
        {"uri": UNBIND + "/"},
        {"uri": UNBIND + "?"},
        {"content": {**CONTENT, "mxid": "@bob:hs.example.org"}},
        {"content": {**CONTENT, "more": None}},
        {"content": {}},
        {"content": None},
        {"more": 1},
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_signature_of_another_request(proofs, homeserver, changes):
    authorization = x_matrix(signed_object(homeserver, **changes), homeserver.signing_key)
    await refused(proofs, request(authorization), "sig must be")


@pytest_twisted.ensureDeferred
async def test_a_request_that_was_changed_on_its_way(proofs, homeserver):
    proper = signed(homeserver)
    await refused(proofs, replace(proper, method="PUT"), "sig must be")
    await refused(proofs, replace(proper, target=UNBIND + "?"), "sig must be")
    await refused(proofs, replace(proper, target="/_matrix/identity/v2/3pid/\ud800"), "The path")
    other = {"medium": "email", "address": "bob@example.org"}
    await refused(proofs, replace(proper, content=CONTENT | {"threepid": other}), "sig must be")


@pytest_twisted.ensureDeferred
async def test_a_homeserver_cannot_speak_for_another(proofs, homeserver, start_homeserver, authority):
    evil = start_homeserver(authority.issue("evil.example.org"), "evil.example.org")
    spoofed = x_matrix(signed_object(homeserver), evil.signing_key)
    await refused(proofs, request(spoofed), "sig must be")
    own = evil.authorization("POST", UNBIND, CONTENT, "id.example.org")
    moved = own.replace(evil.server_name, homeserver.server_name)
    await refused(proofs, request(moved), "sig must be")
    assert evil.requests == []
    assert len(homeserver.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_key_that_the_homeserver_does_not_have(proofs, homeserver):
    unknown = x_matrix(signed_object(homeserver), generate_signing_key("unpublished"))
    await refused(proofs, request(unknown), "key must be")
    good = homeserver.authorization("POST", UNBIND, CONTENT, "id.example.org")
    await refused(proofs, request(good.replace("ed25519:standin", "ed448:standin")), "key must be")
    await refused(proofs, request(good.replace("ed25519:standin", "ed25519:")), "key must be")
    assert len(homeserver.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_retired_key(proofs, homeserver):
    retired = homeserver.signing_key
    authorization = homeserver.authorization("POST", UNBIND, CONTENT, "id.example.org")
    homeserver.signing_key = generate_signing_key("new")
    entry = {key_id: key | {"expired_ts": NOW_MS + 10**9} for key_id, key in published(retired).items()}
    document = homeserver.key_document(old_verify_keys=entry)
    homeserver.behaviours[KEYS] = answer(200, sign_json(document, homeserver.server_name, retired))
    await refused(proofs, request(authorization), "key must be")


@pytest.mark.parametrize("length", [0, 1, 63, 65])
@pytest_twisted.ensureDeferred
async def test_a_signature_of_another_length(proofs, homeserver, length):
    header = f'X-Matrix origin="{homeserver.server_name}",key="ed25519:standin",sig="%s"'
    await refused(proofs, request(header % encode_base64(bytes(length))), "sig must be")


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1.0},
        {"a": float("nan")},
        {"a": [float("-inf")]},
        {"a": 2**53},
        {"a": "\ud800"},
        {"\ud800": 1},
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_cannot_have_been_signed(proofs, homeserver, content):
    await refused(proofs, replace(signed(homeserver), content=content), "cannot have been signed")
    assert homeserver.requests == []


@pytest.mark.parametrize("authorizations", [[], ["Bearer x"], ["X-Matrix x"], ["X-Matrix é"], [""]])
@pytest_twisted.ensureDeferred
async def test_no_proof_at_all(proofs, authorizations):
    await refused(proofs, request(*authorizations), "X-Matrix")


@given(st.text(max_size=40), st.text(max_size=40))
def test_who_can_sign_may_say_anything_as_long_as_it_is_for_us(method, target):
    """Whatever a request is like, it is refused or waits for keys: nothing else goes wrong."""
    authorization = 'X-Matrix origin="hs.example.org",key="ed448:x",sig="AAAA"'
    checking = SignedRequests(names=NAMES, keys=None).origin_of(
        request(authorization, method=method, target=target)
    )
    with pytest.raises(ProofRefused):
        checking.send(None)


# --- trouble that will pass -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour", [error(404, "M_NOT_FOUND"), error(500, "M_UNKNOWN"), answer(200, b"<html>"), answer(200, {})]
)
@pytest_twisted.ensureDeferred
async def test_keys_that_cannot_be_had_now_are_no_refusal(proofs, homeserver, behaviour):
    homeserver.behaviours[KEYS] = behaviour
    with pytest.raises(KeysUnavailable) as raised:
        await proofs.origin_of(signed(homeserver))
    assert raised.value.message.startswith("The homeserver")
    assert raised.value.retry_after_ms == 10_000


@pytest.mark.parametrize("changes", [{"server_name": "other.example.org"}, {"valid_until_ts": NOW_MS - 1}])
@pytest_twisted.ensureDeferred
async def test_keys_that_cannot_be_used_now_are_no_refusal(proofs, homeserver, changes):
    homeserver.behaviours[KEYS] = answer(200, homeserver.key_document(**changes))
    with pytest.raises(KeysUnavailable):
        await proofs.origin_of(signed(homeserver))


@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_is_away_is_no_refusal(proofs, homeserver):
    given = signed(homeserver)
    await homeserver.stop()
    with pytest.raises(KeysUnavailable):
        await proofs.origin_of(given)


# --- what is told and what is not -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_log_tells_who_was_refused_and_why_and_no_more(proofs, homeserver, quiet_log):
    authorization = homeserver.authorization("POST", UNBIND, {}, "id.example.org")
    await refused(proofs, request(authorization))
    await refused(proofs, signed(homeserver, "other.example.org"), "a name of this server")
    await refused(proofs, request("X-Matrix canary"))
    lines = [formatEvent(event) for event in quiet_log if "reason" in event]
    assert lines == [
        (
            f"a request signed in the name of {homeserver.server_name} was refused: "
            "X-Matrix: sig must be the signature of this request, for this server"
        ),
        (
            f"a request signed in the name of {homeserver.server_name} was refused: "
            "X-Matrix: destination must be a name of this server, which other.example.org is not"
        ),
        (
            'a signed request was refused: X-Matrix: parameters must have the form name="value", '
            "with commas between"
        ),
    ]
    assert [redact(line) for line in lines] == lines
    signature = authorization.partition('sig="')[2].partition('"')[0]
    assert signature not in repr([request(authorization), lines])


def test_our_names_must_be_names(keys):
    with pytest.raises(ValueError, match="a server name is"):
        SignedRequests(names=["id.example.org", "not a name"], keys=keys)


@pytest_twisted.ensureDeferred
async def test_however_many_names_we_have_those_in_the_header_are_tried_first(keys, homeserver):
    proofs = SignedRequests(names=[f"{n}.example.org" for n in range(200)], keys=keys)
    for named in STYLES:
        assert await proofs.origin_of(signed(homeserver, "199.example.org:443", named))


@pytest_twisted.ensureDeferred
async def test_no_more_than_so_many_names_are_tried(keys, homeserver):
    """Else a few bytes could keep us busy for long."""
    proofs = SignedRequests(names=[f"{n}.example.org" for n in range(200)], keys=keys)
    for number, is_tried in ((0, True), (31, True), (32, False), (199, False)):
        authorization = homeserver.authorization("POST", UNBIND, CONTENT, f"{number}.example.org")
        given = request(without_destination(authorization))
        if is_tried:
            assert await proofs.origin_of(given) == homeserver.server_name
        else:
            await refused(proofs, given, "sig must be")
