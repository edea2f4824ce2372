"""Unbind by the homeserver: `Authorization: X-Matrix` in the place of an access token.

What homeservers take for "cannot unbind at all" (400, 404, 501) makes them forget the binding for good.
"""

import json

import pytest
import pytest_twisted
from fixtures import networks
from twisted.internet.defer import Deferred
from web.cases import BIND, UNBIND
from web.conftest import TERMS
from web.rows import ALICE, PROOF
from web.wire import PREFIX, request
from web.world import BOUND, make_world

from sydentish.actions.budgets import SourceBudget
from sydentish.domain.errors import KeysUnavailable, ProofRefused
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import associations as association_rows
from sydentish.web.admission import PublicAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.sources import Sources

V1_UNBIND = "api/v1/3pid/unbind"
both_versions = pytest.mark.parametrize("path", [UNBIND, V1_UNBIND])


@pytest_twisted.async_yield_fixture
async def world(serve):
    world = await make_world(serve)
    world.server.house.proofs.origins = {PROOF.encode(): "hs.example.org"}
    yield world


def body(**changes):
    return {"mxid": ALICE, "threepid": {"medium": "email", "address": BOUND}} | changes


async def unbind(world, params=None, path=UNBIND, headers=(f"Authorization: {PROOF}",), **options):
    return await world.server.ask("POST", path, params, headers=list(headers), **options)


async def is_bound(world):
    found = await world.server.house.db.read(association_rows.association, Threepid(EMAIL, BOUND))
    return found is not None


# --- what is good --------------------------------------------------------------------------------------


@both_versions
@pytest_twisted.ensureDeferred
async def test_no_token_is_needed(world, path):
    answer = await unbind(world, body(), path)

    assert (answer.status, answer.json) == (200, {})
    assert not await is_bound(world)


@pytest_twisted.ensureDeferred
async def test_nor_are_terms(serve):
    world = await make_world(serve, terms=TERMS)
    world.server.house.proofs.origins = {PROOF.encode(): "hs.example.org"}

    assert (await unbind(world, body())).status == 200


@both_versions
@pytest_twisted.ensureDeferred
async def test_the_proof_is_of_what_was_sent(world, path):
    await unbind(world, body(extra=17), path)
    (asked,) = world.server.house.proofs.asked

    assert (asked.method, asked.target) == ("POST", PREFIX + path)
    assert asked.authorizations == [PROOF.encode()]
    assert asked.content == body(extra=17)


@pytest_twisted.ensureDeferred
async def test_the_query_is_part_of_what_was_signed(world):
    await unbind(world, body(), query="a=b%20c&%C3%A4")

    assert world.server.house.proofs.asked[0].target == f"{PREFIX}{UNBIND}?a=b%20c&%C3%A4"


@pytest_twisted.ensureDeferred
async def test_what_is_not_bound_is_a_success(world):
    for threepid in (
        {"medium": "email", "address": "nobody@example.org"},
        {"medium": "email", "address": "no address"},
        {"medium": "msisdn", "address": "+0"},
        {"medium": "carrier pigeon", "address": "x"},
    ):
        answer = await unbind(world, body(threepid=threepid))
        assert (answer.status, answer.json) == (200, {})
    assert (await unbind(world, body(mxid="@somebody:hs.example.org"))).status == 200
    assert await is_bound(world)


@pytest.mark.parametrize("scheme", ["X-Matrix", "x-matrix", "X-MATRIX"])
@pytest_twisted.ensureDeferred
async def test_the_scheme_is_case_insensitive(world, scheme):
    header = PROOF.replace("X-Matrix", scheme)
    world.server.house.proofs.origins = {header.encode(): "hs.example.org"}

    assert (await unbind(world, body(), headers=[f"Authorization: {header}"])).status == 200


@pytest_twisted.ensureDeferred
async def test_several_headers_all_reach_the_proof(world):
    headers = [
        f"Authorization: {PROOF}",
        'Authorization: X-Matrix origin="a",key="b",sig="c"',
        "Authorization: Bearer x",
    ]
    answer = await unbind(world, body(), headers=headers)

    assert answer.status == 200
    assert world.server.house.proofs.asked[0].authorizations == [
        header.removeprefix("Authorization: ").encode() for header in headers
    ]


@pytest_twisted.ensureDeferred
async def test_a_session_of_somebody_is_not_looked_at(world):
    answer = await unbind(world, body(**world.session("unknown")))

    assert answer.status == 200
    assert not await is_bound(world)


# --- what is not ---------------------------------------------------------------------------------------


async def refused(world, answer, errcode="M_FORBIDDEN"):
    assert (answer.status, answer.errcode) == (403, errcode)
    assert BOUND not in answer.body.decode()
    assert await is_bound(world)


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_proof_that_is_wrong_is_403(world, path):
    world.server.house.proofs.origins[PROOF.encode()] = ProofRefused("sig: is wrong")

    await refused(world, await unbind(world, body(), path))


@both_versions
@pytest_twisted.ensureDeferred
async def test_keys_that_cannot_be_had_are_503_and_when_to_come_again(world, path):
    world.server.house.proofs.origins[PROOF.encode()] = KeysUnavailable("The keys cannot be had", 12_001)
    answer = await unbind(world, body(), path)

    assert (answer.status, answer.errcode) == (503, "M_UNKNOWN")
    assert answer.headers["retry-after"] == "13"
    assert answer.json["retry_after_ms"] == 12_001
    assert await is_bound(world)


@pytest.mark.parametrize(
    "mxid",
    [
        "@alice:evil-hs.example.org",
        "@alice:hs.example.org.evil.org",
        "@alice:example.org",
        "@alice:hs.example.org:8448",
        "@alice:",
        "@:hs.example.org:1:2",
        "alice:hs.example.org",
        "@alice",
        "",
        "hs.example.org",
        "@alice:hs.example.org\n",
        "\0",
    ],
)
@pytest_twisted.ensureDeferred
async def test_another_homeservers_user_and_none_at_all_are_403(world, mxid):
    await refused(world, await unbind(world, body(mxid=mxid)))


@both_versions
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"17", b'"text"', b"[" * 10_000, b"mxid=a&threepid=b"]
)
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_no_json_object_is_403(world, raw, content_type, path):
    world.server.house.proofs.origins = {}  # nothing that is signed is like this
    headers = [f"Authorization: {PROOF}", f"Content-Type: {content_type}"]

    await refused(world, await unbind(world, raw=raw, path=path, headers=headers))


@pytest.mark.parametrize(
    "broken",
    [
        "X-Matrix",
        "X-Matrix ",
        "x-matrix origin",
        'X-Matrix origin="',
        "X-Matrix \x7f",
        "X-Matrix=",
        "X-Matrix\tkey=a",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_broken_header_is_refused_but_never_with_what_means_no_unbind(world, broken):
    answer = await unbind(world, body(), headers=[f"Authorization: {broken}"])

    assert answer.status in (401, 403)
    assert await is_bound(world)


@pytest_twisted.ensureDeferred
async def test_an_access_token_does_not_help_a_wrong_proof(world):
    headers = ["Authorization: X-Matrix wrong", f"Authorization: Bearer {world.token}"]

    await refused(world, await unbind(world, body(), headers=headers))


@pytest_twisted.ensureDeferred
async def test_a_good_proof_does_not_stand_for_a_session_of_others(world):
    """What is signed by one homeserver says nothing about users of another, whatever session it names."""
    params = body(mxid="@bob:other.example.org", **world.session("bound"))

    await refused(world, await unbind(world, params))


@pytest.mark.parametrize(
    "path", [BIND, "v2/3pid/getValidated3pid", "v2/account", "v2/store-invite", "v2/lookup"]
)
@pytest_twisted.ensureDeferred
async def test_a_signature_opens_nothing_else(world, path):
    method = "GET" if path in ("v2/account", "v2/3pid/getValidated3pid") else "POST"
    answer = await world.server.ask(method, path, body(), headers=[f"Authorization: {PROOF}"])

    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")
    assert world.server.house.proofs.asked == []


@pytest_twisted.ensureDeferred
async def test_a_form_cannot_say_other_things_than_what_was_signed(world):
    """The proof is of JSON, so JSON it is that counts."""
    raw = json.dumps(body()).encode()
    headers = [f"Authorization: {PROOF}", "Content-Type: application/x-www-form-urlencoded"]

    assert (await unbind(world, raw=raw, headers=headers)).status == 200
    assert world.server.house.proofs.asked[0].content == body()


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_not_read(world):
    answer = await unbind(world, body(padding="x" * 70_000))

    assert answer.status == 413
    assert world.server.house.proofs.asked == []


# --- how many at a time --------------------------------------------------------------------------------


class SlowProofs:
    """Waits for keys until it is told of them."""

    def __init__(self):
        self.waiting = []

    async def origin_of(self, _request):
        waiting = Deferred()
        self.waiting.append(waiting)
        await waiting
        return "hs.example.org"


@pytest_twisted.async_yield_fixture
async def slow(make_house, listen):
    """A server that asks homeservers which don't answer; a proxy stands before it."""
    house = await make_house()
    proofs = SlowProofs()
    admission = PublicAdmission(
        gate=house.gate,
        sources=Sources(networks(["127.0.0.1"]), []),
        budget=SourceBudget(db=house.db, budgets=Budgets(), now_ms=house.now_ms),
        proofs=proofs,
        token_in_query=True,
    )
    server = await listen(
        Dispatcher(
            routes=house.routes,
            prefix=PREFIX,
            admission=admission,
            pages=None,
            limits=RequestLimits(65536, 65536, None),
            clock=house.clock,
            new_request_id=lambda: "1",
            log=house.requests,
        ),
        house.clock,
    )
    server.proofs = proofs
    yield server


async def begin(server, number, client="203.0.113.9"):
    """So many requests whose proofs are waited for."""
    wires = []
    for _ in range(number):
        wires.append(await server.connect())
        headers = [f"Authorization: {PROOF}", f"X-Forwarded-For: {client}"]
        wires[-1].send(request("POST", PREFIX + UNBIND, body=json.dumps(body()).encode(), headers=headers))
    return wires


@pytest_twisted.ensureDeferred
async def test_of_one_source_so_many_are_checked_at_a_time_and_others_are_not_held_up(slow):
    wires = await begin(slow, 20)
    while len(slow.proofs.waiting) < 20:
        await slow.ask("GET", "v2")
    (refused,) = await begin(slow, 1)
    answer = await refused.answer()
    others = await begin(slow, 1, "203.0.113.10")
    while len(slow.proofs.waiting) < 21:
        await slow.ask("GET", "v2")
    for waiting in slow.proofs.waiting:
        waiting.callback(None)
    answers = [await wire.answer() for wire in [*wires, *others]]
    (again,) = await begin(slow, 1)
    while len(slow.proofs.waiting) < 22:
        await slow.ask("GET", "v2")
    slow.proofs.waiting[-1].callback(None)

    assert (answer.status, answer.errcode, answer.headers["retry-after"]) == (503, "M_UNKNOWN", "1")
    assert [found.status for found in answers] == [200] * 21
    assert (await again.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_those_that_fail_make_room_too(slow):
    for _ in range(2):
        wires = await begin(slow, 20)
        while len(slow.proofs.waiting) < 20:
            await slow.ask("GET", "v2")
        while slow.proofs.waiting:
            slow.proofs.waiting.pop().errback(KeysUnavailable("none"))
        assert {(await wire.answer()).status for wire in wires} == {503}


@both_versions
@pytest.mark.parametrize("missing", ["mxid", "threepid"])
@pytest_twisted.ensureDeferred
async def test_what_is_missing_from_a_signed_request_is_no_400(world, path, missing):
    params = body()
    del params[missing]

    answer = await unbind(world, params, path)

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")
    assert missing in answer.json["error"]
    assert await is_bound(world)
