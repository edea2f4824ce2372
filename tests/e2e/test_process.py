"""The daemon as an operator sees it: starting, refusing to start, stopping, and being under strain."""

import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted
import treq
from daemons import COMMAND, SECONDS, Daemon, Process, free_port
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import Agent


def run(*arguments: str, **options) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False, **options
    )


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path):
    daemon = Daemon(tmp_path)
    yield daemon
    await daemon.clean_up()


def test_every_mistake_in_the_configuration_is_told_at_once_with_status_78(tmp_path):
    config = tmp_path / "bad.conf"
    config.write_text("[general]\nserver_name = a b\n[http]\nbody_limit = huge\nlisteneres = x\n[htp]\n")
    for command in ("check-config", "serve"):
        done = run(command, "-c", str(config))
        assert done.returncode == 78
        for line in (2, 4, 5, 6):
            assert f"bad.conf:{line}:" in done.stderr
        assert "public_base_url" in done.stderr
        assert "listeners" in done.stderr
    assert config.read_text().startswith("[general]\nserver_name = a b\n")


def test_a_good_configuration_without_a_key_is_refused_with_the_remedy(tmp_path):
    daemon = Daemon(tmp_path)
    done = run("check-config", "-c", str(daemon.config))
    assert done.returncode == 78
    assert "sydentish keys generate" in done.stderr


def test_a_generated_key_is_readable_by_its_owner_only_and_never_overwritten(tmp_path):
    daemon = Daemon(tmp_path)
    done = run("keys", "generate", "-c", str(daemon.config))
    assert done.returncode == 0
    (key,) = (tmp_path / "data" / "keys").glob("*.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert re.fullmatch(r"ed25519 0 [A-Za-z0-9+/]{43}\n", key.read_text())
    before = key.read_text()
    again = run("keys", "generate", "-c", str(daemon.config))
    assert again.returncode == 1
    assert key.read_text() == before
    assert before.split()[2] not in done.stdout + done.stderr + again.stdout + again.stderr
    assert run("check-config", "-c", str(daemon.config)).returncode == 0


def test_it_runs_as_a_module_and_tells_its_version(tmp_path):
    python = str(Path(COMMAND).with_name("python"))
    done = subprocess.run(
        [python, "-m", "sydentish", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert re.search(r"sydentish, version \d+\.\d+", done.stdout)


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_ends_the_start_with_a_message(daemon):
    with socket.create_server(("127.0.0.1", daemon.port)):
        process = Process("serve", "--init", "-c", str(daemon.config))
        assert await process.ended.addTimeout(SECONDS, reactor) == 1
    assert "cannot listen" in process.output
    assert "Traceback" not in process.output


@pytest_twisted.ensureDeferred
async def test_a_database_of_a_newer_version_is_refused_and_left_alone(daemon):
    await daemon.start()
    assert await daemon.end() == 0
    path = daemon.folder / "data" / "sydentish.db"
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_steps VALUES (9999, 'from_the_future', 0)")
    connection.commit()
    connection.close()
    process = Process("serve", "-c", str(daemon.config))
    assert await process.ended.addTimeout(SECONDS, reactor) == os.EX_CONFIG
    assert "newer version" in process.output
    assert "Traceback" not in process.output


@pytest_twisted.ensureDeferred
async def test_a_database_that_came_without_its_key_gets_no_other_one(daemon):
    await daemon.start()
    assert await daemon.end() == 0
    key_dir = daemon.folder / "data" / "keys"
    (key,) = key_dir.glob("*.key")
    key.unlink()
    process = Process("serve", "--init", "-c", str(daemon.config))
    assert await process.ended.addTimeout(SECONDS, reactor) == os.EX_CONFIG
    assert (
        f"{key_dir}: there is no signing key, but a database; put the key there that belongs to it"
        in process.output
    )
    assert list(key_dir.glob("*.key")) == []


@pytest_twisted.ensureDeferred
async def test_a_database_that_was_used_under_another_name_is_told_of_in_the_log(daemon):
    await daemon.start()
    assert await daemon.end() == 0
    told = "associations in it were stated as old.example.org, and [general] server_name is id.example.org"
    assert told not in daemon.output
    values = "('email', 'u@example.org', '@u:example.org', 1, 1, 2, 'old.example.org', 1, NULL)"
    with closing(
        sqlite3.connect(daemon.folder / "data" / "sydentish.db", isolation_level=None)
    ) as connection:
        connection.execute(f"INSERT INTO associations VALUES {values}")
    await daemon.start()
    assert await daemon.end() == 0
    assert told in daemon.output


@pytest_twisted.ensureDeferred
async def test_the_database_is_readable_by_its_owner_only(daemon):
    await daemon.start()
    for path in (daemon.folder / "data").glob("sydentish.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest_twisted.ensureDeferred
async def test_environment_variables_override_the_file_and_are_checked(tmp_path):
    daemon = Daemon(tmp_path)
    port = free_port()
    env = {"SYDENTISH_HTTP__LISTENERS": f"tcp:{port}:interface=127.0.0.1"}
    process = Process("serve", "--init", "-c", str(daemon.config), env=env)
    await process.ready.addTimeout(SECONDS, reactor)
    response = await treq.get(
        f"http://127.0.0.1:{port}/_matrix/identity/v2", timeout=SECONDS, persistent=False
    )
    assert await response.json() == {}
    process.transport.signalProcess("TERM")
    assert await process.ended.addTimeout(SECONDS, reactor) == 0
    bad = run("check-config", "-c", str(daemon.config), env={**os.environ, "SYDENTISH_HTTP__BODY_LIMIT": "x"})
    assert bad.returncode == 78
    assert "SYDENTISH_HTTP__BODY_LIMIT" in bad.stderr or "body_limit" in bad.stderr


@pytest_twisted.ensureDeferred
async def test_it_listens_on_a_unix_socket_also_after_a_kill(tmp_path):
    where = tmp_path / "public.sock"
    daemon = Daemon(tmp_path)
    daemon.config.write_text(
        daemon.config.read_text().replace(
            f"listeners = tcp:{daemon.port}:interface=127.0.0.1", f"listeners = unix:{where}:mode=660", 1
        )
    )
    for how in (signal.SIGKILL, signal.SIGTERM):
        await daemon.start()
        agent = Agent.usingEndpointFactory(reactor, OverUnix(str(where)))
        response = await treq.client.HTTPClient(agent).get("http://id/_matrix/identity/v2")
        assert await response.json() == {}
        assert stat.S_IMODE(where.stat().st_mode) == 0o660
        await daemon.end(how)


class OverUnix:
    """Connects to a unix socket, whatever the URL says."""

    def __init__(self, path: str) -> None:
        self._path = path

    def endpointForURI(self, _uri):
        return UNIXClientEndpoint(reactor, self._path)


class Silent(Protocol):
    """A mail relay that accepts connections and never says a word."""

    connections = 0

    def connectionMade(self):
        type(self).connections += 1
        if Silent.connections >= self.factory.wanted and not self.factory.all_here.called:
            self.factory.all_here.callback(None)
        self.factory.open.append(self)


@pytest_twisted.ensureDeferred
async def test_fifty_requests_waiting_for_a_silent_relay_delay_nobody(town, tmp_path):
    """Counts, and does not time: all fifty still wait when a hundred others have been answered."""
    Silent.connections = 0
    factory = Factory.forProtocol(Silent)
    factory.wanted, factory.open, factory.all_here = 50, [], Deferred()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    town.daemon.config.write_text(
        town.daemon.config.read_text().replace(
            f"smtp_port = {town.mailbox.port}", f"smtp_port = {port.getHost().port}\nmax_connections = 50"
        )
    )
    await town.register()
    await town.daemon.end()
    await town.daemon.start()
    waiting = [
        Deferred.fromCoroutine(
            town.daemon.ask(
                "POST",
                "/v2/validate/email/requestToken",
                {"client_secret": f"s{number}", "email": f"user{number}@example.org", "send_attempt": 1},
            )
        )
        for number in range(50)
    ]
    await factory.all_here.addTimeout(SECONDS, reactor)
    for _ in range(50):
        assert (await town.daemon.ask("GET", "/v2"))[0] == 200
        assert (await town.daemon.ask("GET", "/v2/hash_details"))[0] == 200
    assert not any(request.called for request in waiting)
    for connection in factory.open:
        connection.transport.abortConnection()
    answers = await gatherResults(waiting)
    assert {(status, answer["errcode"]) for status, answer in answers} == {(400, "M_EMAIL_SEND_ERROR")}
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_sigterm_lets_a_request_finish_closes_idle_connections_and_ends_with_0(town):
    await town.register()
    town.homeserver.behaviours.clear()
    idle = socket.create_connection(("127.0.0.1", town.daemon.port))
    body = {"client_secret": "s", "email": "alice@example.org", "send_attempt": 1}
    status, _ = await town.daemon.ask("POST", "/v2/validate/email/requestToken", body)
    assert status == 200
    assert await town.daemon.end(signal.SIGTERM) == 0
    assert idle.recv(1) == b""
    idle.close()
    assert "stopped" in town.daemon.output
    assert "Traceback" not in town.daemon.output


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["keys", "generate", "--help"], ["check-config", "-h"]]
)
def test_every_command_has_help(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    assert "Usage: sydentish" in done.stdout
