"""Servers that are each other's peers, as processes: what one is told, all know, whatever happened meanwhile."""

import json
import random
from hashlib import sha256

import pytest_twisted
from daemons import SECONDS, Process
from e2e.mesh import ELSEWHERE, A, B, C, Line, Mesh, eventually, people, side_by_side
from e2e.towns import Place
from signedjson.sign import verify_signed_json
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor
from unpaddedbase64 import encode_base64

ALICE, BOB = f"@alice:{ELSEWHERE}", f"@bob:{ELSEWHERE}"
ADDRESS = "alice@example.org"
MAIL = """
[email]
smtp_host = 127.0.0.1
smtp_port = {port}
smtp_security = plain
"""


@pytest_twisted.async_yield_fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path, Authority(), [])
    yield mesh
    await mesh.clean_up()


@pytest_twisted.async_yield_fixture
async def homeserver(mesh):
    homeserver = Homeserver(mesh.authority.issue("localhost"))
    homeserver.start(reactor)
    yield homeserver
    await homeserver.stop()


@pytest_twisted.async_yield_fixture
async def mailbox():
    mailbox = Mailbox(reactor=reactor)
    mailbox.start()
    yield mailbox
    mailbox.stop()


async def found_by_hash(member, address):
    """Whom a client finds that asks for an address without telling it."""
    _, details = await member.ask("GET", "/v2/hash_details")
    text = f"{address} email {details['lookup_pepper']}"
    asked = encode_base64(sha256(text.encode()).digest(), urlsafe=True)
    body = {"algorithm": "sha256", "pepper": details["lookup_pepper"], "addresses": [asked]}
    status, found = await member.ask("POST", "/v2/lookup", body)
    assert status == 200, found
    return found["mappings"].get(asked)


@pytest_twisted.ensureDeferred
async def test_a_bind_and_an_unbind_are_known_on_every_server(mesh, homeserver, mailbox):
    a, b, c = mesh.of(A, B, C)
    await mesh.start()
    mxid = homeserver.log_in("openid", "alice")
    c.token = await Place(c, mailbox).register_with(
        {
            "access_token": "openid",
            "token_type": "Bearer",
            "matrix_server_name": homeserver.server_name,
            "expires_in": 3600,
        }
    )
    await a.bind("Alice@Example.ORG", mxid)
    for member in (b, c):
        await member.comes_to_know(ADDRESS, mxid)
        association = await member.association(ADDRESS)
        assert set(association["signatures"]) == {A, member.name}
        verify_signed_json(association, A, a.verify_key)
        verify_signed_json(association, member.name, member.verify_key)
    assert await found_by_hash(c, ADDRESS) == mxid

    await b.unbind(ADDRESS, mxid)
    for member in (a, b, c):
        await member.comes_to_know(ADDRESS, None)
    assert await found_by_hash(c, ADDRESS) is None
    ((origin, _, _, *who),) = await mesh.agree()
    assert (origin, who) == (B, [None, None])


@pytest_twisted.ensureDeferred
async def test_ten_thousand_associations_reach_a_peer_that_was_down_and_a_new_one(mesh):
    a, b = mesh.of(A, B)
    await a.start()
    everybody = people(10_000)
    await a.bind_all(everybody)

    c = mesh.add(C)
    c.knows(a)
    await mesh.start(b, c)
    # By command, while it serves.
    key = f"ed25519:0 {c.public_key}"
    adding = Process("peers", "add", "-c", str(a.config), C, "--url", c.replication_url, "--key", key)
    assert await adding.ended.addTimeout(SECONDS, reactor) == 0, adding.output
    await side_by_side(b.has_from(A, 1), c.has_from(A, 1))
    await a.bind("late@example.org", ALICE)
    assert await a.owner("late@example.org") == ALICE
    await side_by_side(b.has_from(A, 10_001), c.has_from(A, 10_001))
    for member in (b, c):
        told = {address: mxid for *_, address, mxid in member.known()}
        assert told == everybody | {"late@example.org": ALICE}


@pytest_twisted.ensureDeferred
async def test_what_happens_while_a_server_is_stopped_is_made_up_for_on_both_sides(mesh):
    a, b = mesh.of(A, B)
    await mesh.start()
    await a.bind_all(people(30))
    await b.has_from(A, 30)
    assert await b.end() == 0
    for number in range(10):
        await a.unbind(f"u{number}@example.org", f"@u{number}:{ELSEWHERE}")
        await a.bind(f"u{number + 10}@example.org", BOB)
    await a.bind_all(people(30, where="example.com"))
    await a.process.says(f"a push to {B} failed")
    assert await a.end() == 0
    await b.start()
    await b.unbind("u29@example.org", f"@u29:{ELSEWHERE}")
    await a.start()

    known = await mesh.agree()
    owners = {address: mxid for *_, address, mxid in known if address}
    expected = (
        people(30) | people(30, where="example.com") | {f"u{n}@example.org": BOB for n in range(10, 20)}
    )
    for number in (*range(10), 29):
        del expected[f"u{number}@example.org"]
    assert owners == expected
    assert len(known) == len(expected) + 11


def newest_of(members):
    """Whom each address must belong to in the end: what the newest of all statements says, by the order of them."""
    newest = {}
    for member in members:
        for address, *order, mxid in member.own():
            newest[address] = max(newest.get(address, ((),)), (tuple(order), mxid), key=lambda each: each[0])
    return {address: mxid for address, (_, mxid) in newest.items()}


@pytest_twisted.ensureDeferred
async def test_servers_that_were_cut_off_agree_when_they_are_joined_again(mesh):
    """They are told different things of the same addresses: binds, binds to others, unbinds, and again."""
    members = [mesh.add(name) for name in (A, B, C)]
    lines = []
    for member in members:
        for other in members:
            if other is not member:
                lines.append(Line(other.replication_port))
                member.knows(other, at=lines[-1].url)
    for line in lines:
        line.join()
    await mesh.start()
    addresses = [f"shared{number}@example.org" for number in range(12)]
    await members[0].bind_all(dict.fromkeys(addresses[:6], ALICE))
    await side_by_side(*(member.has_from(A, 6) for member in members[1:]))
    await side_by_side(*(line.cut() for line in lines))

    chance = random.Random(4)
    for address in addresses:
        for member in chance.choices(members, k=4):
            owner = await member.owner(address)
            if owner and chance.random() < 0.5:
                await member.unbind(address, owner)
            else:
                await member.bind(address, f"@{chance.choice('xyz')}:{ELSEWHERE}")
    # Who is told last of all is right.
    await members[1].bind(addresses[0], ALICE)
    await members[2].bind(addresses[0], BOB)
    await members[0].bind(addresses[1], ALICE)
    await members[0].unbind(addresses[1], ALICE)
    apart = [[await member.owner(address) for address in addresses] for member in members]
    expected = newest_of(members)
    for line in lines:
        line.join()
    await mesh.agree()

    assert apart[0] != apart[1] != apart[2] != apart[0]
    assert (expected[addresses[0]], expected[addresses[1]]) == (BOB, None)
    for member in members:
        assert {address: await member.owner(address) for address in expected} == expected
    await side_by_side(*(line.cut() for line in lines))


@pytest_twisted.ensureDeferred
async def test_an_invitation_is_woken_by_a_bind_at_a_peer(mesh, homeserver, mailbox):
    a, b = mesh.of(A, B, sections=[MAIL.format(port=mailbox.port)])
    await mesh.start()
    mxid = homeserver.log_in("openid", "alice")
    rooms = {f"!room{number}:{homeserver.server_name}" for number in range(3)}
    for room in rooms:
        body = {"medium": "email", "address": ADDRESS, "room_id": room, "sender": f"@carol:{ELSEWHERE}"}
        status, _ = await b.ask("POST", "/api/v1/store-invite", body)
        assert status == 200
    await a.bind(ADDRESS, mxid)
    calls = [json.loads((await homeserver.next_onbind().addTimeout(SECONDS, reactor)).body) for _ in range(4)]
    from_b = [call for call in calls if B in call["signatures"]]
    (from_a,) = [call for call in calls if A in call["signatures"]]

    assert from_a["invites"] == []
    assert [len(call["invites"]) for call in from_b] == [1, 1, 1]
    assert {call["invites"][0]["room_id"] for call in from_b} == rooms
    for call in from_b:
        verify_signed_json(call, B, b.verify_key)
        verify_signed_json(call["invites"][0]["signed"], B, b.verify_key)
        assert call["mxid"] == call["invites"][0]["signed"]["mxid"] == mxid

    async def all_is_told():
        return await b.figure("sydentish_outbox_rows", kind="onbind", state="pending") == 0

    await eventually(all_is_told, b.last_words)
    assert len(homeserver.requests) == 4


@pytest_twisted.ensureDeferred
async def test_an_address_is_gone_from_all_disks_once_all_have_heard_of_its_unbind(mesh):
    a, b, c = mesh.of(A, B, C)
    await mesh.start()
    await a.bind("secretive@example.org", ALICE)
    await a.bind("gossip@example.org", ALICE)
    await side_by_side(*(member.has_from(A, 2) for member in (b, c)))
    await c.end()
    await a.unbind("secretive@example.org", ALICE)
    await b.comes_to_know("secretive@example.org", None)
    await a.process.says(f"a push to {C} failed")
    assert "secretive@example.org" in [address for address, *_ in a.own()]

    await c.start()
    known = await mesh.agree()
    assert await mesh.agree() == known
    for member in (a, b, c):
        assert await member.end() == 0
        files = [path for path in (member.folder / "data").rglob("*") if path.is_file()]
        assert any(b"gossip@example.org" in path.read_bytes() for path in files)
        assert not [path for path in files if b"secretive" in path.read_bytes()]
        assert "secretive" not in member.output


@pytest_twisted.ensureDeferred
async def test_metrics_tell_how_far_behind_a_peer_is_and_that_it_is_not_any_more(mesh):
    a, b = mesh.of(A, B)
    await a.start()
    await a.bind_all(people(7))
    await a.process.says(f"a push to {B} failed")

    async def is_behind():
        return await a.figure("sydentish_replication_lag_seconds", peer=B) > 0

    await eventually(is_behind, "the oldest has waited for some time")
    assert a.lag(B) == 7
    assert await a.figure("sydentish_replication_last_success_timestamp_seconds", peer=B) == 0
    assert await a.figure("sydentish_replication_pushes_total", outcome="unreachable", peer=B) >= 1, (
        await a.metrics()
    )

    await b.start()
    await mesh.agree()

    async def is_up_to_date():
        return await a.figure("sydentish_replication_last_success_timestamp_seconds", peer=B) > 0

    await eventually(is_up_to_date, "it has acknowledged something")
    assert await a.figure("sydentish_replication_lag_seconds", peer=B) == 0
    assert await a.figure("sydentish_replication_parked_entries", peer=B) == 0
    assert await a.figure("sydentish_replication_pushes_total", outcome="accepted", peer=B) >= 1
    assert await a.figure("sydentish_replication_push_duration_seconds_count", peer=B) >= 1
    assert await b.figure("sydentish_replication_received_statements_total", outcome="new", peer=A) == 7
