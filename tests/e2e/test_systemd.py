"""The daemon as systemd runs it: started by the command of its unit, with a stand-in for its manager."""

import shutil
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import pytest_twisted
from daemons import COMMAND, SECONDS
from standins.certificates import Authority
from standins.ports import free_port
from standins.systemd import Manager, Service, Unit
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from sydentish.domain.keys import make_key

SCRIPTS = Path(__file__).parents[2] / "scripts"
UNIT = Unit.read(SCRIPTS / "sydentish.service")
STATUS = "/_matrix/identity/v2"
# Else there would be a line for each request.
SILENT = "[log]\nlevel = error\n"
KEYS = "/_matrix/identity/v2/pubkey/ed25519:"
CONFIG = """\
[general]
server_name = id.example.org
public_base_url = https://id.example.org
data_dir = {folder}/data
[http]
listeners = {listeners}
trusted_proxies = 127.0.0.1
stop_timeout = 30s
"""


class Place:
    """A folder with all that a service needs, and its manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "sydentish.conf"
        self.keys = folder / "data" / "keys"
        self.manager: Manager | None = None
        self.loads: list[Load] = []
        (folder / "data").mkdir(mode=0o700)
        self.add_key(0)

    def add_key(self, number: int, where: str = ".") -> None:
        """A signing key, whose seed is made of its number."""
        self.keys.joinpath(where).mkdir(mode=0o700, exist_ok=True)
        path = self.keys / where / f"ed25519_{number}.key"
        path.write_text(make_key(str(number), bytes([number]) * 32))
        path.chmod(0o600)

    def configure(self, listeners: str, more: str = "") -> None:
        self.config.write_text(CONFIG.format(folder=self.folder, listeners=listeners) + more)
        self.config.chmod(0o600)

    def managed(self, **options: object) -> Manager:
        """Who starts the service, with what stands in the unit for this place."""
        replacements = {"/usr/bin/sydentish": COMMAND, "/etc/sydentish/sydentish.conf": str(self.config)}
        self.manager = Manager(UNIT, self.folder, reactor, replacements=replacements, **options)
        return self.manager

    def load(self, *where: int | str) -> "Load":
        """Clients, who are gone when the test ends."""
        self.loads.append(Load(*where))
        return self.loads[-1]

    async def clean_up(self) -> None:
        for load in self.loads:
            load.stop()
        if self.manager is not None:
            await self.manager.clean_up()
        for load in self.loads:
            await load.end()


@pytest_twisted.async_yield_fixture
async def place(tmp_path: Path):
    place = Place(tmp_path)
    yield place
    await place.clean_up()


def get(where: int | str, path: str = STATUS, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """The status and the body of an answer; `where` is a port or a unix socket. Takes a thread."""
    family, address = (
        (socket.AF_INET, ("127.0.0.1", where)) if isinstance(where, int) else (socket.AF_UNIX, where)
    )
    with socket.socket(family) as plain:
        plain.settimeout(SECONDS)
        plain.connect(address)
        with tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n".encode())
            parts = iter(lambda: connection.recv(65536), b"")
            head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


class Load:
    """Clients, one for each place, that ask one thing after the other on new connections until they are told to stop.

    Each goes away once something has gone wrong.
    """

    def __init__(self, *where: int | str) -> None:
        self._stop = threading.Event()
        self.answers: list[object] = []
        self._clients = [deferToThread(self._ask, each) for each in where]

    def _ask(self, where: int | str) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(get(where)[0])
            except Exception as error:  # noqa: BLE001 - all that goes wrong is to be told
                self.answers.append(repr(error))
                return

    def stop(self) -> None:
        self._stop.set()

    async def end(self) -> None:
        self.stop()
        await gatherResults(self._clients)


# --- starting and stopping --------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_manager_hears_of_its_start_its_life_and_its_end(place, abstract):
    port = free_port()
    place.configure(f"tcp:{port}:interface=127.0.0.1")
    service = await place.managed(abstract=abstract).start_and_wait()

    # It listens when it says that it is ready.
    assert await deferToThread(get, port) == (200, b"{}")
    (ready,) = service.messages(READY="1")
    assert ready["STATUS"] == "serving as id.example.org, signing with ed25519:0"
    await service.tells(WATCHDOG="1")
    assert service.messages(STATUS="bringing the database up to date")
    assert await service.end("TERM") == 0
    (stopping,) = service.messages(STOPPING="1")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 30_000_000


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_comes_again_and_again(place):
    place.configure(f"tcp:{free_port()}:interface=127.0.0.1")
    service = await place.managed(environ={"WATCHDOG_USEC": "200000"}).start_and_wait()
    await service.tells(5, WATCHDOG="1")


@pytest_twisted.ensureDeferred
async def test_without_a_manager_it_runs_as_well(place):
    place.configure(f"tcp:{free_port()}:interface=127.0.0.1")
    service = place.managed(environ={"NOTIFY_SOCKET": "", "WATCHDOG_USEC": ""}).start()
    await service.says("is ready")
    assert await service.end("TERM") == 0
    assert service.told == []


@pytest_twisted.ensureDeferred
async def test_who_asks_twice_does_not_wait(place):
    port = free_port()
    place.configure(f"tcp:{port}:interface=127.0.0.1")
    service = await place.managed().start_and_wait()
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /_matrix/identity/v2/lookup HTTP/1.1\r\nHost: id\r\nContent-Length: 9\r\n")
        # It has read what was sent when it has answered somebody who came later.
        assert await deferToThread(get, port) == (200, b"{}")
        service.signal("TERM")
        await service.tells(STOPPING="1")
        assert not service.ended.called
        assert await service.end("TERM") == -signal.SIGTERM


# --- credentials ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_keys_and_secrets_can_be_credentials(place):
    shutil.rmtree(place.keys)
    port, internal = free_port(), free_port()
    more = f"internal_listeners = tcp:{internal}:interface=127.0.0.1\n"
    more += (
        "internal_token_file = credential:sydentish.internal-token\n[general]\nkey_dir = credential:keys\n"
    )
    place.configure(f"tcp:{port}:interface=127.0.0.1", more)
    manager = place.managed()
    service = manager.start()
    assert await service.ended == 78
    assert "names a credential, which systemd hands over to the service alone" in service.output
    manager.credential("sydentish.internal-token", "s3cret\n")
    service = manager.start()
    assert await service.ended == 78
    assert "add LoadCredential=keys:" in service.output
    # As systemd hands over a directory with a directory in it.
    manager.credential("keys_ed25519_1.key", make_key("1", bytes([1]) * 32))
    manager.credential("keys_retired_ed25519_0.key", make_key("0", bytes(32)))
    service = await manager.start_and_wait()

    assert "signing with ed25519:1" in service.messages(READY="1")[0]["STATUS"]
    for number in (0, 1):
        assert (await deferToThread(get, port, f"{KEYS}{number}"))[0] == 200
    assert (await deferToThread(get, internal, "/_matrix/identity/internal/bind"))[0] in (401, 405)
    assert "s3cret" not in service.output


# --- sockets that are there before and after ---------------------------------------------------------------


def listening_sockets(folder: Path) -> tuple[list[tuple[str, socket.socket]], list[int | str]]:
    """Two of a name and one of another, as a socket unit makes them, and where to reach them."""
    inet = socket.create_server(("127.0.0.1", 0), backlog=1024)
    also = socket.create_server(("127.0.0.1", 0), backlog=1024)
    unix = socket.socket(socket.AF_UNIX)
    path = str(folder / "public.sock")
    unix.bind(path)
    Path(path).chmod(0o600)
    unix.listen(1024)
    ports = [each.getsockname()[1] for each in (inet, also)]
    return [("public", inet), ("private", unix), ("public", also)], [*ports, path]


def shown_mode(path: str) -> str:
    return stat.filemode(Path(path).stat().st_mode)


@pytest_twisted.ensureDeferred
async def test_nobody_is_refused_while_it_restarts_under_load(place):
    sockets, where = listening_sockets(place.folder)
    place.configure("systemd:name=public\n  systemd:index=1", SILENT)
    manager = place.managed(sockets=sockets)
    # Nobody listens yet, and everybody can ask.
    load = place.load(*where)
    for turn in count(1):
        service = await manager.start_and_wait()
        for each in where:
            assert (await deferToThread(get, each))[0] == 200
        if turn > 2:
            break
        assert await service.end("TERM") == 0
    await load.end()

    assert set(load.answers) == {200}
    assert shown_mode(where[-1]) == "srw-------"


@pytest_twisted.ensureDeferred
async def test_a_socket_that_is_missing_is_told_and_so_is_one_too_many(place):
    sockets, _ = listening_sockets(place.folder)
    place.configure("systemd:name=web")
    manager = place.managed(sockets=sockets)
    service = manager.start()
    assert await service.ended == 1
    assert (
        "systemd:name=web: systemd has handed over no such socket, but public (0), private (1)"
        in service.output
    )
    place.configure("systemd:name=public")
    service = await manager.start_and_wait()
    await service.says("no listener uses the inherited socket private")
    assert "listening on systemd:name=public (127.0.0.1:" in service.output


@pytest_twisted.ensureDeferred
async def test_the_internal_api_is_served_on_no_inherited_socket_that_others_reach(place):
    reachable = socket.create_server(("0.0.0.0", 0))
    more = "internal_listeners = systemd:name=internal\n"
    place.configure(f"tcp:{free_port()}:interface=127.0.0.1", more)
    service = place.managed(sockets=[("internal", reachable)]).start()
    assert await service.ended == 1
    assert (
        "systemd:name=internal: must be a unix socket or have a loopback address, and not 0.0.0.0:"
        in service.output
    )


# --- SIGHUP -----------------------------------------------------------------------------------------------


async def reload(manager: Manager) -> dict[str, str]:
    """Has everything read again; what the manager is told in the end."""
    service = manager.service
    before = len(service.messages(READY="1"))
    manager.reload()
    await service.tells(before + 1, READY="1")
    assert "MONOTONIC_USEC" in service.messages(RELOADING="1")[-1]
    return service.messages(READY="1")[-1]


@pytest_twisted.ensureDeferred
async def test_what_can_change_changes_without_a_restart_and_what_cannot_is_told(place):
    port, log = free_port(), place.folder / "a.log"
    listeners = f"tcp:{port}:interface=127.0.0.1"
    place.configure(listeners, f"[log]\nfile = {log}\n")
    manager = place.managed()
    await manager.start_and_wait()
    place.add_key(0, "retired")
    (place.keys / "ed25519_0.key").unlink()
    place.add_key(1)
    log.rename(place.folder / "a.log.1")
    place.configure(
        f"{listeners}\n  tcp:{free_port()}:interface=127.0.0.1",
        f"body_limit = 1M\n[log]\nfile = {log}\nlevel = debug\n"
        "[policy privacy]\nversion = 1\nen.name = Privacy\nen.url = https://example.org/privacy\n",
    )
    ready = await reload(manager)

    assert ready["STATUS"] == "serving as id.example.org, signing with ed25519:1"
    assert (await deferToThread(get, port, f"{KEYS}1"))[0] == 200
    assert b"privacy" in (await deferToThread(get, port, "/_matrix/identity/v2/terms"))[1]
    assert await manager.service.end("TERM") == 0
    lines = log.read_text()
    for line in (
        "signing keys: ed25519:1 is active, ed25519:0 is retired",
        "[log] level: taken up",
        "[policy privacy]: taken up",
        "[http] listeners: needs a restart",
        "[http] body_limit: needs a restart",
        "the log file: opened again",
        "logger=log_legacy",
        "stopped",
    ):
        assert line in lines
    assert "is ready" in (place.folder / "a.log.1").read_text()
    assert "stopped" not in (place.folder / "a.log.1").read_text()


@pytest_twisted.ensureDeferred
async def test_what_is_broken_changes_nothing(place):
    port = free_port()
    listeners = f"tcp:{port}:interface=127.0.0.1"
    place.configure(listeners)
    manager = place.managed()
    service = await manager.start_and_wait()
    # All of it is good, but for one thing.
    place.configure(
        listeners,
        "[log]\nlevel = debug\n[policy privacy]\nversion = 1\nen.name = P\nen.url = https://a.org/p\n",
    )
    place.add_key(1)
    ready = await reload(manager)
    assert ready["STATUS"].endswith("; what was changed could not be taken up: see the log")
    await service.says("nothing was taken up: ")
    assert "only one key can be active" in service.output
    assert b"privacy" not in (await deferToThread(get, port, "/_matrix/identity/v2/terms"))[1]
    assert (await deferToThread(get, port, f"{KEYS}1"))[0] == 404

    (place.keys / "ed25519_0.key").unlink()
    good = place.config.read_text()
    place.config.write_text(good.replace("stop_timeout = 30s", "stop_timeout = soon"))
    await reload(manager)
    await service.says("[http] stop_timeout: must be a duration")
    assert (await deferToThread(get, port, f"{KEYS}1"))[0] == 404
    assert "log_legacy" not in service.output
    assert "taken up\n" not in service.output.replace("nothing was taken up", "")

    place.config.write_text(good)
    assert (await reload(manager))["STATUS"].endswith("signing with ed25519:1")
    assert b"privacy" in (await deferToThread(get, port, "/_matrix/identity/v2/terms"))[1]
    assert await service.end("TERM") == 0


def shown_by(port: int, ca: Path) -> bytes:
    """The certificate that a listener shows. Takes a thread."""
    context = ssl.create_default_context(cafile=str(ca))
    plain = socket.create_connection(("127.0.0.1", port), SECONDS)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
        return secured.getpeercert(binary_form=True)


@pytest_twisted.ensureDeferred
async def test_new_connections_are_shown_new_certificates_and_old_ones_go_on(place):
    authority, port = Authority(), free_port()
    ca, pem = authority.write_ca(place.folder / "ca.pem"), place.folder / "own.pem"
    authority.issue("127.0.0.1").write(pem)
    place.configure(f"ssl:{port}:interface=127.0.0.1:privateKey={pem}")
    manager = place.managed()
    service = await manager.start_and_wait()
    before = await deferToThread(shown_by, port, ca)
    context = ssl.create_default_context(cafile=str(ca))
    plain = socket.create_connection(("127.0.0.1", port), SECONDS)
    with closing(await deferToThread(context.wrap_socket, plain, server_hostname="127.0.0.1")) as kept:
        # A key that is another certificate's.
        other = authority.issue("127.0.0.1").pem
        key, _, _ = pem.read_bytes().partition(b"-----BEGIN CERTIFICATE")
        _, mark, chain = other.partition(b"-----BEGIN CERTIFICATE")
        pem.write_bytes(key + mark + chain)
        await reload(manager)
        await service.says("nothing was taken up: ssl:")
        assert await deferToThread(shown_by, port, ca) == before
        pem.write_bytes(other)
        await reload(manager)
        assert await deferToThread(shown_by, port, ca) != before
        await service.says("the certificate of its file now")
        kept.sendall(f"GET {STATUS} HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n".encode())
        assert (await deferToThread(kept.recv, 4096)).startswith(b"HTTP/1.1 200")


PEER = """\
[peer {name}]
url = https://127.0.0.1:{port}
keys = ed25519:0 KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8
"""


@pytest_twisted.ensureDeferred
async def test_peers_and_the_certificate_that_they_are_shown_can_change(place):
    authority, port, ours = Authority(), free_port(), free_port()
    ca, pem = authority.write_ca(place.folder / "ca.pem"), place.folder / "own.pem"

    def configure(*peers: str) -> None:
        place.configure(
            f"tcp:{port}:interface=127.0.0.1",
            f"[replication]\nlisteners = tcp:{ours}:interface=127.0.0.1\ncertificate_file = {pem}\nca_file = {ca}\n"
            + "".join(PEER.format(name=name, port=free_port()) for name in peers),
        )

    authority.issue("127.0.0.1", common_name="id.example.org").write(pem)
    configure("one.example.net")
    manager = place.managed()
    service = await manager.start_and_wait()

    def shown() -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", ours), timeout=SECONDS))

    def known() -> dict[str, str]:
        with closing(sqlite3.connect(place.folder / "data" / "sydentish.db")) as database:
            return dict(database.execute("SELECT name, source FROM peers"))

    before = await deferToThread(shown)
    authority.issue("127.0.0.1", common_name="id.example.org").write(pem)
    configure("two.example.net")
    await reload(manager)
    await service.says("the peer one.example.net is no longer in the configuration")
    assert known() == {"one.example.net": "gone", "two.example.net": "configuration"}
    assert "[peer two.example.net]: taken up" in service.output
    assert "[replication] certificates: those of the files now" in service.output
    assert await deferToThread(shown) != before
    assert await service.end("TERM") == 0


@pytest_twisted.ensureDeferred
async def test_a_reload_drops_no_request(place):
    sockets, where = listening_sockets(place.folder)
    place.configure("systemd:name=public\n  systemd:name=private", SILENT)
    manager = place.managed(sockets=sockets)
    await manager.start_and_wait()
    load = place.load(*where)
    for number in range(1, 4):
        place.add_key(number)
        (place.keys / f"ed25519_{number - 1}.key").unlink()
        assert (await reload(manager))["STATUS"].endswith(f"ed25519:{number}")
    await load.end()

    assert set(load.answers) == {200}
    assert await manager.service.end("TERM") == 0


@pytest_twisted.ensureDeferred
async def test_sighup_is_harmless_at_any_time(place):
    """Early, several at once, and while it ends."""
    place.configure(f"tcp:{free_port()}:interface=127.0.0.1")
    manager = place.managed()
    service = manager.start()
    # The first that it tells: it has not begun to serve yet.
    await service.tells(STATUS="bringing the database up to date")
    manager.reload()
    await service.tells(2, READY="1")
    for _ in range(5):
        manager.reload()
    await service.tells(3, READY="1")
    assert all("see the log" not in each["STATUS"] for each in service.messages(READY="1"))
    service.signal("TERM")
    await service.tells(STOPPING="1")
    if not service.ended.called:
        manager.reload()
    assert await service.ended == 0
    assert "Traceback" not in service.output


# --- the sandbox ------------------------------------------------------------------------------------------


def status_of(service: Service) -> str:
    """What the kernel says of its process."""
    return Path(f"/proc/{service.transport.pid}/status").read_text()


@pytest_twisted.ensureDeferred
async def test_it_runs_in_the_sandbox_of_its_unit_as_far_as_that_can_be_made_here(place):
    """The filter of system calls, no capabilities, and TLS, for which libraries make code while they run."""
    authority, port = Authority(), free_port()
    ca, pem = authority.write_ca(place.folder / "ca.pem"), place.folder / "own.pem"
    authority.issue("127.0.0.1", common_name="id.example.org").write(pem)
    place.configure(
        f"tcp:{port}:interface=127.0.0.1",
        f"[replication]\nlisteners = unix:{place.folder}/peers.sock\ncertificate_file = {pem}\nca_file = {ca}\n"
        + PEER.format(name="one.example.net", port=free_port()),
    )
    unit = str(SCRIPTS / "sydentish.service")
    wrapper = [sys.executable, str(SCRIPTS / "standins" / "sandbox.py"), unit]
    manager = place.managed(wrapper=wrapper, environ={"PYTHONPATH": str(SCRIPTS)})
    service = await manager.start_and_wait()
    status = status_of(service)

    assert "Seccomp:\t2\n" in status
    assert "CapEff:\t0000000000000000\n" in status
    assert await deferToThread(get, port) == (200, b"{}")
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    context.load_cert_chain(pem)
    assert (await deferToThread(get, f"{place.folder}/peers.sock", STATUS, context))[0] == 404
    place.add_key(0, "retired")
    await reload(manager)
    assert await service.end("TERM") == 0
    assert "Traceback" not in service.output
    assert "Operation not permitted" not in service.output


def test_the_sandbox_is_one():
    done = subprocess.run(
        [
            *(sys.executable, str(SCRIPTS / "standins" / "sandbox.py"), str(SCRIPTS / "sydentish.service")),
            *(sys.executable, "-c", "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
        ],
        env={"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert "PermissionError" in done.stderr
