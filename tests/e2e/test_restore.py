"""A server that is set back to a backup, as processes over mutual TLS: what its peers know of it comes back."""

import re

import pytest_twisted
from daemons import SECONDS, Process
from e2e.mesh import ELSEWHERE, A, B, C, Mesh, people
from standins.certificates import Authority
from twisted.internet import reactor

ALICE, BOB = f"@alice:{ELSEWHERE}", f"@bob:{ELSEWHERE}"


@pytest_twisted.async_yield_fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path, Authority(), [])
    yield mesh
    await mesh.clean_up()


async def run(member, *arguments, status=0):
    """What a command of a server's operator says."""
    process = Process(*arguments, "-c", str(member.config))
    assert await process.ended.addTimeout(SECONDS, reactor) == status, process.output
    return process.output


def lose(member):
    """Its disk breaks."""
    for file in (member.folder / "data").glob("sydentish.db*"):
        file.unlink()


def users(number):
    return f"u{number}@example.org", f"@u{number}:{ELSEWHERE}"


@pytest_twisted.ensureDeferred
async def test_what_was_stated_since_the_backup_comes_back_from_the_peers(mesh):
    a, b, c = mesh.of(A, B, C)
    await mesh.start()
    await a.bind_all(people(20))
    await b.bind_all(people(20, where="example.net"))
    await mesh.agree()
    backup = mesh.folder / "backup.db"
    assert "40 associations" in await run(a, "backup", str(backup))

    # On all servers, and of all kinds: what is bound, unbound, and bound to another one.
    await a.bind_all(people(700, where="example.com"))
    for number in range(5):
        await a.unbind(*users(number))
    await a.unbind("u0@example.net", f"@u0:{ELSEWHERE}")
    await a.bind("u6@example.org", BOB)
    await b.bind("new@example.net", ALICE)
    await b.unbind(*users(7))
    await b.unbind("u1@example.net", f"@u1:{ELSEWHERE}")
    await c.unbind(*users(8))
    await c.bind("u2@example.net", BOB)
    known = await mesh.agree()
    addresses = {address: mxid for *_, address, mxid in known if address}
    assert await a.end() == 0
    await b.bind("meanwhile@example.net", ALICE)
    await c.unbind("u9@example.org", f"@u9:{ELSEWHERE}")
    lose(a)
    said = await run(a, "restore", str(backup))
    assert re.search(rf"^{re.escape(B)}: 701 binds of this server", said, re.MULTILINE), said
    await a.start()
    expected = addresses | {"meanwhile@example.net": ALICE}
    del expected["u9@example.org"]
    await mesh.exchange()

    # Alike on all, though A does not know of all that was unbound before it could have heard of it.
    for member in (a, b, c):
        assert {address: mxid for *_, address, mxid in member.known() if address} == expected
    for _, _, _, address, mxid in a.known():
        if address:
            assert await a.owner(address) == mxid
    # And no number is used twice.
    await a.bind("after@example.org", ALICE)
    for member in (b, c):
        await member.comes_to_know("after@example.org", ALICE)
    assert "No peer is to be asked" in await run(a, "peers", "recall")


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_away_is_asked_later_beside_the_server(mesh):
    a, b, c = mesh.of(A, B, C)
    await mesh.start()
    await a.bind("kept@example.org", ALICE)
    await mesh.agree()
    backup = mesh.folder / "backup.db"
    await run(a, "backup", str(backup))
    # B alone hears of it, and is away when A asks.
    assert await c.end() == 0
    await a.bind("lost@example.org", ALICE)
    await a.unbind("kept@example.org", ALICE)
    await b.comes_to_know("lost@example.org", ALICE)
    await b.comes_to_know("kept@example.org", None)
    assert await a.end() == 0
    assert await b.end() == 0
    await c.start()
    said = await run(a, "restore", "--yes", str(backup), status=1)
    assert f"{B}: could not be asked: " in said
    assert "peers recall" in said
    await a.start()
    assert await a.owner("kept@example.org") == ALICE
    await a.bind("fresh@example.org", BOB)
    await c.comes_to_know("fresh@example.org", BOB)

    await b.start()
    said = await run(a, "peers", "recall")
    assert f"{B}: 1 binds of this server that were lost here" in said
    for member in (a, b, c):
        await member.comes_to_know("kept@example.org", None)
        await member.comes_to_know("lost@example.org", ALICE)
        await member.comes_to_know("fresh@example.org", BOB)
    await mesh.agree()


@pytest_twisted.ensureDeferred
async def test_a_server_that_runs_is_not_restored(mesh):
    (a,) = mesh.of(A)
    await a.start()
    await a.bind("now@example.org", ALICE)
    backup = mesh.folder / "backup.db"
    await run(a, "backup", str(backup))
    await a.bind("later@example.org", ALICE)
    said = await run(a, "restore", "--yes", str(backup), status=1)
    assert "is in use; stop the server" in said
    assert await a.owner("later@example.org") == ALICE
    assert await a.end() == 0
    said = await run(a, "restore", "--yes", str(backup))
    assert "is kept as" in said
    await a.start()
    assert await a.owner("later@example.org") is None
    assert await a.owner("now@example.org") == ALICE
