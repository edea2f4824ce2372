"""The daemon where its surroundings are poor: nobody reads its log, few files may be open, nothing may be written."""

import http.client
import os
import re
import socket
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemons import BASE, COMMAND, SECONDS, Daemon

REQUESTS = 3000
# Without these a process of root's may do as little with other files as anybody's.
POWERS = "-dac_override,-dac_read_search"
AS_ANYBODY = ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}"] if os.geteuid() == 0 else []


class Running:
    """A server whose standard error is a pipe that is read when a test wants to."""

    def __init__(self, daemon: Daemon, *before: str) -> None:
        self.daemon = daemon
        self.lines: list[str] = []
        # Unbuffered: what is not asked for stays in the pipe.
        self.process = subprocess.Popen(
            [*before, COMMAND, "serve", "--init", "-c", str(daemon.config)], stderr=subprocess.PIPE, bufsize=0
        )
        while not self.lines or "is ready" not in self.lines[-1]:
            line = self.process.stderr.readline().decode()
            assert line, self.lines
            self.lines.append(line)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(SECONDS)

    def rest(self) -> list[str]:
        """What it says until its end."""
        self.lines += self.process.stderr.read().decode().splitlines(keepends=True)
        return self.lines

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        self.process.stderr.close()

    def get(self, number: int) -> None:
        """So many requests on one connection, each answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=SECONDS)
        for _ in range(number):
            connection.request("GET", f"{BASE}/v2")
            with connection.getresponse() as response:
                assert (response.status, response.read()) == (200, b"{}")
        connection.close()


# --- the log -------------------------------------------------------------------------------------------


def test_a_log_that_nobody_reads_holds_no_request_up_and_keeps_what_it_can(tmp_path):
    with Running(Daemon(tmp_path)) as running:
        running.get(REQUESTS)
        running.process.terminate()
        lines = running.rest()
        assert running.process.wait(SECONDS) == 0

    assert sum("request_id=" in line for line in lines) == REQUESTS
    assert any(line.endswith("stopped logger=sydentish.cli.running_server\n") for line in lines[-3:])


def test_a_log_that_nobody_ever_reads_keeps_nobody_from_stopping(tmp_path):
    with Running(Daemon(tmp_path)) as running:
        running.get(REQUESTS)
        assert running.stop() == 0
        running.rest()

    assert "Traceback" not in "".join(running.lines)
    assert "Fatal" not in "".join(running.lines)


def test_a_server_without_a_standard_error_answers(tmp_path):
    daemon = Daemon(tmp_path)
    log = tmp_path / "log"
    daemon.config.write_text(daemon.config.read_text() + f"file = {log}\n")
    os.mkfifo(log)
    command = [COMMAND, "serve", "--init", "-c", str(daemon.config)]
    with subprocess.Popen(["/bin/sh", "-c", 'exec "$0" "$@" 2>&-', *command]) as process:
        with log.open() as lines:
            assert any("is ready" in line for line in lines)
            process.terminate()
            assert "stopped" in lines.read()
        assert process.wait(SECONDS) == 0


# --- open files ----------------------------------------------------------------------------------------


def test_connections_leave_enough_open_files_for_the_rest(tmp_path):
    limit = 1000
    with (
        Running(
            Daemon(tmp_path), "/bin/sh", "-c", f'ulimit -Sn 50; ulimit -Hn {limit}; exec "$0" "$@"'
        ) as running,
        ExitStack() as open_now,
    ):
        (warning,) = [line for line in running.lines if "LimitNOFILE" in line]
        told = re.search(
            r"limit of (\d+) open files .* 10000 connections .* each public listener \(1\) and (\d+) files beside "
            r"them: each holds (\d+) connections at most. Set LimitNOFILE=(\d+)",
            warning,
        )
        seen, reserved, bound, remedy = map(int, told.groups())
        assert seen == limit
        assert reserved >= 256
        assert bound == limit - min(reserved, limit // 2)
        assert remedy == 10_000 + reserved
        held = [open_now.enter_context(connect(running)) for _ in range(bound)]
        # Accepted in their order: the last of them is there once it is answered.
        held[-1].sendall(f"GET {BASE}/v2 HTTP/1.1\r\nHost: id\r\n\r\n".encode())
        assert held[-1].recv(12) == b"HTTP/1.1 200"
        with connect(running) as one_too_many:
            assert one_too_many.recv(1) == b""
        held.pop().close()
        assert running.stop() == 0


def connect(running):
    return socket.create_connection(("127.0.0.1", running.daemon.port), timeout=SECONDS)


def test_enough_open_files_are_not_spoken_of_and_the_limit_is_raised(tmp_path):
    daemon = Daemon(tmp_path)
    daemon.config.write_text(daemon.config.read_text().replace("[http]", "[http]\nmax_connections = 100"))
    with Running(daemon, "/bin/sh", "-c", 'ulimit -Sn 60; ulimit -Hn 1000; exec "$0" "$@"') as running:
        limits = Path(f"/proc/{running.process.pid}/limits").read_text()
        assert re.search(r"Max open files +1000 +1000 ", limits)
        assert not any("LimitNOFILE" in line for line in running.lines)
        assert running.stop() == 0


# --- what may not be read or written -------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path):
    """One that has run: with a key, and a database."""
    daemon = Daemon(tmp_path)
    with Running(daemon) as running:
        assert running.stop() == 0
    return daemon


def refusal(daemon, *options, status=os.EX_CONFIG):
    """What `serve` says instead of starting: one line."""
    said = refusals(daemon, *options, status=status)
    assert len(said) == 1, said
    return said[0]


def refusals(daemon, *options, status=os.EX_CONFIG):
    done = subprocess.run(
        [*AS_ANYBODY, COMMAND, "serve", *options, "-c", str(daemon.config)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if " WARN " not in line and " INFO " not in line]


@pytest.mark.parametrize("mode", [0o000, 0o400])
@pytest.mark.parametrize("name", ["sydentish.db", "sydentish.db-wal", "sydentish.db-shm"])
def test_a_database_that_may_not_be_used_is_named(daemon, name, mode):
    path = daemon.folder / "data" / name
    path.touch()
    path.chmod(mode)

    may_not = "write" if mode else "read or write"
    assert f"[database] path: {path}: Permission denied: " in (said := refusal(daemon))
    assert f" may not {may_not} it; its owner is " in said


def test_a_data_directory_that_may_not_be_written_is_named(daemon):
    folder = daemon.folder / "data"
    folder.chmod(0o500)
    try:
        assert f"[general] data_dir: {folder}: Permission denied: " in refusal(daemon)
    finally:
        folder.chmod(0o700)


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    daemon = Daemon(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert refusal(daemon, "--init") == f"{tmp_path / 'data'}: Permission denied"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("what", ["keys", "keys/ed25519_0.key"])
def test_a_key_that_may_not_be_read_is_named(daemon, what):
    path = daemon.folder / "data" / what
    path.chmod(0)
    try:
        assert refusal(daemon) == f"{path}: cannot be read: Permission denied"
        assert refusal(daemon, "--init").startswith(str(path))
    finally:
        path.chmod(0o700)


def test_a_configuration_that_may_not_be_read_is_named(daemon):
    daemon.config.chmod(0)

    assert refusals(daemon)[0] == f"{daemon.config}: cannot be read: Permission denied"


def test_a_log_file_that_may_not_be_written_is_named(daemon):
    path = daemon.folder / "log"
    path.touch(0o400)
    daemon.config.write_text(daemon.config.read_text() + f"file = {path}\n")

    assert f"[log] file: {path}: Permission denied: " in refusal(daemon)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("none/log", "none: there is no such directory: make it"), ("file/log", "file: is no directory")],
)
def test_a_log_file_without_a_directory_is_named(tmp_path, place, reason):
    daemon = Daemon(tmp_path)
    (tmp_path / "file").touch()
    daemon.config.write_text(daemon.config.read_text() + f"file = {tmp_path / place}\n")

    assert refusal(daemon, "--init").endswith(f": [log] file: {tmp_path}/{reason}")


# --- listeners -----------------------------------------------------------------------------------------


def listening_on(daemon, where):
    daemon.config.write_text(
        re.sub("(?m)^listeners = .*$", lambda _: f"listeners = {where}", daemon.config.read_text())
    )


def test_a_certificate_of_another_key_is_told_of_with_its_listener(daemon, tmp_path):
    trustme = pytest.importorskip("trustme")
    for name in ("one", "other"):
        pair = trustme.CA().issue_cert("id.example.org")
        pair.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        pair.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    where = f"ssl:{daemon.port}:privateKey={tmp_path / 'one.key'}:certKey={tmp_path / 'other.pem'}"
    listening_on(daemon, where)

    assert refusal(daemon, status=1).startswith(f"{where}: cannot be used: ")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("tcp:0:interface=192.0.2.1", r"cannot listen on 192\.0\.2\.1:0: .*assign"),
        ("unix:{folder}/" + "x" * 120, "x{120}: .*too long"),
    ],
)
def test_where_nobody_can_listen_is_told(daemon, where, reason):
    listening_on(daemon, where.format(folder=daemon.folder))
    said = refusal(daemon, status=1)

    assert "cannot start" in said
    assert re.search(reason, said)


def test_a_unix_socket_without_a_directory_is_named(daemon):
    listening_on(daemon, f"unix:{daemon.folder}/none/socket")

    assert refusal(daemon).endswith(
        f": [http] listeners: {daemon.folder}/none: there is no such directory: make it"
    )


def test_a_unix_socket_without_a_mode_is_for_its_owner_and_group(daemon):
    where = daemon.folder / "public.sock"
    listening_on(daemon, f"unix:{where}")
    with Running(daemon) as running:
        assert stat.S_IMODE(where.stat().st_mode) == 0o660
        assert running.stop() == 0


# --- keys ----------------------------------------------------------------------------------------------


def test_a_key_that_others_can_read_is_warned_of(daemon):
    (key,) = (daemon.folder / "data" / "keys").iterdir()
    key.chmod(0o644)
    warning = f"{key}: its mode 0644 lets others read or change the signing key: chmod 600 {key}"
    checked = subprocess.run(
        [COMMAND, "check-config", "-c", str(daemon.config)], capture_output=True, text=True, check=True
    )
    assert f"warning: {warning}" in checked.stderr.splitlines()
    with Running(daemon) as running:
        assert sum(f" WARN {warning} logger=" in line for line in running.lines) == 1
        assert running.stop() == 0
