"""The internal API of a server process: on a unix socket, for whoever knows the token in a file."""

import http.client
import json
import socket
import stat

import pytest_twisted
from daemons import BASE, SECONDS
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

TOKEN = "0123456789abcdef"
ALICE = {"medium": "email", "address": "alice@example.org"}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, as curl speaks it."""

    def __init__(self, path):
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


@pytest_twisted.async_yield_fixture
async def internal(town):
    """The socket of a server that was told to listen there, and to ask for a token."""
    await town.daemon.end()
    where, token_file = town.daemon.folder / "internal.sock", town.daemon.folder / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    with town.daemon.config.open("a") as config:
        config.write(f"\n[http]\ninternal_listeners = unix:{where}\ninternal_token_file = {token_file}\n")
    await town.daemon.start()
    yield where


async def ask(where, path, body, token=TOKEN):
    """Status and body of an answer."""

    def in_thread():
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = UnixConnection(where)
        try:
            connection.request("POST", f"{BASE}/internal/{path}", body=body, headers=headers)
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()

    return await deferToThread(in_thread)


@pytest_twisted.ensureDeferred
async def test_what_is_bound_there_is_found_and_told_to_the_homeserver(town, internal):
    mxid = await town.register()
    assert await ask(internal, "bind", json.dumps(ALICE | {"mxid": mxid})) == (200, b"{}")
    call = await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    _, details = await town.daemon.ask("GET", "/v2/hash_details")
    asked = {
        "algorithm": "none",
        "pepper": details["lookup_pepper"],
        "addresses": ["alice@example.org email"],
    }
    _, found = await town.daemon.ask("POST", "/v2/lookup", asked)
    assert await ask(internal, "unbind", json.dumps(ALICE | {"mxid": mxid})) == (200, b"{}")
    _, gone = await town.daemon.ask("POST", "/v2/lookup", asked)

    assert json.loads(call.body)["mxid"] == mxid
    assert found == {"mappings": {"alice@example.org email": mxid}}
    assert gone == {"mappings": {}}


@pytest_twisted.ensureDeferred
async def test_thousands_of_lines_at_once(town, internal):
    mxid = await town.register()
    lines = [json.dumps({"medium": "email", "address": f"u{n}@a.org", "mxid": mxid}) for n in range(3000)]
    lines[1500] = "nonsense"
    status, answer = await ask(internal, "bulk", "\n".join(lines).encode())
    answers = answer.splitlines()

    assert status == 200
    assert [n for n, each in enumerate(answers) if each != b"{}"] == [1500]
    assert len(answers) == 3000


@pytest_twisted.ensureDeferred
async def test_only_the_token_opens_it_and_only_there(town, internal):
    body = json.dumps(ALICE | {"mxid": "@alice:example.org"})
    mode = stat.S_IMODE(internal.stat().st_mode)
    missing = await ask(internal, "bind", body, token=None)
    wrong = await ask(internal, "bind", body, token=TOKEN[:-1])
    town.daemon.token = TOKEN
    public = await town.daemon.ask("POST", "/internal/bind", json.loads(body))

    assert mode == 0o660
    assert (missing[0], wrong[0]) == (401, 401)
    assert (public[0], public[1]["errcode"]) == (404, "M_UNRECOGNIZED")
    assert await town.daemon.end() == 0
    assert TOKEN not in town.daemon.output
