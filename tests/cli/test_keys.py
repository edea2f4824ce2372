"""`keys`: the commands as an operator has them, with real files, a real database, a terminal and a server."""

import fcntl
import itertools
import json
import os
import pty
import signal
import subprocess

import pytest
import pytest_twisted
from click.testing import CliRunner
from daemons import COMMAND, SECONDS, Daemon, Process
from standins.certificates import Authority, weak_certificate
from store_tools import START_MS
from twisted.internet import reactor
from unprivileged import unprivileged_folder

from sydentish.cli import main
from sydentish.domain.peers import Peer
from sydentish.keyfiles import generate_key, inventory
from sydentish.store import peers as peer_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx, connect

US, PEER, OTHER_PEER = "id.example.org", "id.example.net", "id.example.com"
PEERS_KEY = "KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8"
USAGE = 2
TAKEN_UP = "A running server takes this up on SIGHUP: systemctl reload sydentish, or kill -HUP and its PID"
SURE = "nothing was changed: if that is what you want, say so with --yes"


class House:
    """A configuration and its keys, and the commands on them; no command ever shows a private key."""

    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "sydentish.conf"
        self.key_dir = folder / "data" / "keys"
        (folder / "data").mkdir()
        self.conf.write_text(
            f"[general]\nserver_name = {US}\npublic_base_url = https://matrix.example.org\n"
            f"data_dir = {folder}/data\n"
        )

    def run(self, *arguments):
        """Status and lines of a command in this process."""
        done = CliRunner().invoke(main, [*arguments, "-c", str(self.conf)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, self.safe(done.output).splitlines()

    def process(self, *arguments, **options):
        """The same in a process of its own, as the database needs it; the streams apart."""
        done = subprocess.run(
            [COMMAND, *arguments, "-c", str(self.conf)],
            **({"stdin": subprocess.DEVNULL} | options),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, self.safe(done.stdout), self.safe(done.stderr)

    def safe(self, output):
        for path in self.key_dir.rglob("*.key"):
            assert path.read_text().split()[2] not in output
        return output

    def configure_peer(self):
        self.certify()
        with self.conf.open("a") as file:
            file.write(f"[peer {PEER}]\nurl = https://127.0.0.1:1\nkeys = ed25519:0 {PEERS_KEY}\n")

    def certify(self):
        authority = Authority()
        authority.write_ca(self.folder / "ca.pem")
        authority.issue(US).write(self.folder / "own.pem")
        (self.folder / "own.pem").chmod(0o600)
        with self.conf.open("a") as file:
            file.write(
                f"[replication]\nlisteners = tcp:4434\ncertificate_file = {self.folder}/own.pem\n"
                f"ca_file = {self.folder}/ca.pem\n"
            )

    def add_peer(self, name):
        """As a peer that was added on the command line, once the server was started."""
        path = self.folder / "data" / "sydentish.db"
        migrate_sqlite(path, 5000, START_MS, shipped_steps())
        connection = connect(path, 5000)
        peer = Peer(name, f"https://{name}", {"ed25519:0": PEERS_KEY}, (name,))
        connection.execute("BEGIN IMMEDIATE")
        peer_rows.add(SqliteTx(connection), peer, START_MS)
        connection.execute("COMMIT")
        connection.close()

    @property
    def states(self):
        return {file.key.key_id: file.key.state.value for file in inventory(self.key_dir)}

    def public_key(self, key_id):
        return next(file.key.public_key for file in inventory(self.key_dir) if file.key.key_id == key_id)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def keyed(house):
    assert house.run("keys", "generate")[0] == 0
    return house


# --- making and listing -----------------------------------------------------------------------------------


def test_from_the_first_key_to_a_revoked_one(house):
    path = house.key_dir / "ed25519_0.key"
    status, (line,) = house.run("keys", "generate")
    assert (status, line) == (0, f"{path}: ed25519:0, public key {house.public_key('ed25519:0')}")
    status, lines = house.run("keys", "generate", "--next")
    path = house.key_dir / "next" / "ed25519_1.key"
    assert (status, lines) == (
        0,
        [
            f"{path}: ed25519:1, public key {house.public_key('ed25519:1')}",
            TAKEN_UP,
            "It signs after: sydentish keys rotate",
        ],
    )
    assert house.run("keys", "rotate") == (
        0,
        [
            f"ed25519:1 is the active key, public key {house.public_key('ed25519:1')}",
            "ed25519:0 is retired: what it has signed stays valid",
            TAKEN_UP,
        ],
    )
    assert house.run("keys", "revoke", "ed25519:0", "--yes") == (
        0,
        [
            "ed25519:0: what it has signed will be valid no more; this cannot be taken back",
            "ed25519:0: is revoked",
            TAKEN_UP,
        ],
    )
    assert house.run("keys", "revoke", "ed25519:0") == (0, ["ed25519:0: was revoked already"])
    assert house.states == {"ed25519:0": "revoked", "ed25519:1": "active"}


def test_keys_are_listed(keyed):
    keyed.run("keys", "generate", "--next")
    os.utime(keyed.key_dir / "ed25519_0.key", (0, 1_700_000_000))
    (keyed.key_dir / "ed25519_0.key").chmod(0o644)
    status, lines = keyed.run("keys", "list")
    assert status == 0
    assert [line.split()[:3] for line in lines[:3]] == [
        ["ID", "STATE", "PUBLIC"],
        ["ed25519:1", "next", keyed.public_key("ed25519:1")],
        ["ed25519:0", "active", keyed.public_key("ed25519:0")],
    ]
    assert "2023-11-14 22:13:20 UTC" in lines[2]
    assert lines[2].endswith(str(keyed.key_dir / "ed25519_0.key"))
    assert lines[3].startswith(f"warning: {keyed.key_dir}/ed25519_0.key: its mode 0644 lets others")
    assert len(lines) == 4


def test_keys_are_listed_as_json(keyed):
    keyed.run("keys", "generate", "--next")
    os.utime(keyed.key_dir / "ed25519_0.key", (0, 1_700_000_000))
    status, lines = keyed.run("keys", "list", "--json")
    ahead, active = json.loads("\n".join(lines))["keys"]
    assert (status, ahead["id"], ahead["state"]) == (0, "ed25519:1", "next")
    assert active == {
        "id": "ed25519:0",
        "state": "active",
        "public_key": keyed.public_key("ed25519:0"),
        "file": str(keyed.key_dir / "ed25519_0.key"),
        "made_ts": 1_700_000_000_000,
        "warnings": [],
    }


def test_keys_with_which_no_server_starts_are_listed_all_the_same(house):
    told = f"{house.key_dir}: there is no signing key; make one, as the server's user, with: sydentish keys generate"
    assert house.run("keys", "list") == (os.EX_CONFIG, [f"{told} -c {house.conf}"])
    house.run("keys", "generate")
    text = (house.key_dir / "ed25519_0.key").read_text().replace(" 0 ", " other ")
    (house.key_dir / "other.key").write_text(text)
    status, lines = house.run("keys", "list")
    assert status == os.EX_CONFIG
    assert [line.split()[0] for line in lines[:3]] == ["ID", "ed25519:0", "ed25519:other"]
    assert "sydentish keys retire KEYID" in lines[-1]
    assert house.run("keys", "rotate") == (os.EX_CONFIG, lines[-1:])
    assert house.run("keys", "retire", "ed25519:other") == (
        0,
        ["ed25519:other: is retired: it signs nothing, and what it has signed stays valid", TAKEN_UP],
    )
    assert house.run("keys", "retire", "ed25519:other") == (0, ["ed25519:other: was retired already"])
    assert house.run("keys", "list")[0] == 0


def test_a_file_that_is_no_key_is_told_of_without_what_is_in_it(keyed):
    (keyed.key_dir / "x.key").write_text("ed25519 x secret!")
    for command in (
        ["list"],
        ["rotate"],
        ["retire", "ed25519:0"],
        ["revoke", "ed25519:0"],
        ["generate", "--next"],
    ):
        status, (line,) = keyed.run("keys", *command)
        assert status == os.EX_CONFIG
        assert line.startswith(f"{keyed.key_dir}/x.key: the seed of a signing key is")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["generate"],
            "it is never overwritten: replace it with: sydentish keys rotate; or make the one that ",
        ),
        (["generate", "--next", "--version", "0"], "another key has or had the version 0"),
        (["rotate", "--version", "0"], "another key has or had the version 0"),
        (["retire", "ed25519:0"], "sydentish keys rotate"),
        (["retire", "ed25519:7"], "see sydentish keys list"),
        (["revoke", "ed25519:0"], "sydentish keys revoke --rotate ed25519:0"),
        (["revoke", "ed25519:7"], "see sydentish keys list"),
        (["revoke", "ed25519:0", "--rotate"], SURE),
    ],
)
def test_what_cannot_be_done_is_told_with_the_way_that_goes(keyed, command, told):
    status, out, err = keyed.process("keys", *command)
    assert (status, out) == (1, "")
    assert told in err
    assert keyed.states == {"ed25519:0": "active"}


@pytest.mark.parametrize("command", ["generate", "rotate"])
def test_a_version_that_cannot_be_one_is_a_mistake_of_usage(house, command):
    status, lines = house.run("keys", command, "--version", "a-b")
    assert status == USAGE
    assert "must be 1 to 64 characters of a-z A-Z 0-9 _" in lines[-1]


def test_a_key_can_be_given_a_version(keyed):
    assert keyed.run("keys", "rotate", "--version", "autumn")[0] == 0
    assert keyed.run("keys", "generate", "--next")[0] == 0
    assert keyed.states == {"ed25519:0": "retired", "ed25519:autumn": "active", "ed25519:1": "next"}


def test_the_active_key_is_refused_without_the_lock_for_changes(keyed):
    lock = os.open(keyed.key_dir, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        # Whoever has the lock, may be rotating: after that, it would be another question.
        status, out, err = keyed.process("keys", "revoke", "ed25519:0")
    finally:
        os.close(lock)
    assert (status, out) == (1, "")
    assert "sydentish keys revoke --rotate ed25519:0" in err


def test_the_active_key_is_revoked_after_another_one_signs(keyed):
    status, lines = keyed.run("keys", "revoke", "ed25519:0", "--rotate", "--yes")
    assert status == 0
    assert lines[1].startswith("ed25519:1 is the active key, public key ")
    assert lines[-2:] == ["ed25519:0: is revoked", TAKEN_UP]
    assert keyed.states == {"ed25519:0": "revoked", "ed25519:1": "active"}


def test_keys_that_cannot_be_written_are_listed_but_not_changed():
    with unprivileged_folder() as (folder, unprivileged):
        house = House(folder)
        for ahead in (False, True):
            generate_key(house.key_dir, None, os.urandom(32), ahead=ahead)
        parts = [house.key_dir, *house.key_dir.rglob("*")]
        for path in (house.folder / "data", *parts):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with unprivileged(*(path for path in parts if path.is_dir())):
            assert house.run("keys", "list")[0] == 0
            for command in (["rotate"], ["retire", "ed25519:1"], ["revoke", "ed25519:1", "--yes"]):
                status, lines = house.run("keys", *command)
                assert status == 1
                assert lines[-1].startswith(
                    f"{house.key_dir}: the keys cannot be written: Permission denied; "
                )


# --- interrupted ------------------------------------------------------------------------------------------


def test_an_interrupted_rotation_is_finished_by_the_next_one(keyed):
    former = keyed.key_dir / "ed25519_0.key"
    text = former.read_text()
    keyed.run("keys", "rotate")
    former.write_text(text)
    former.chmod(0o600)
    status, lines = keyed.run("keys", "list")
    assert (status, lines[-1]) == (
        0,
        f"warning: {former}: is another copy of ed25519:0; the next change removes it",
    )
    status, lines = keyed.run("keys", "rotate")
    assert (status, lines[0], lines[-1]) == (
        0,
        "A rotation had been interrupted, and is finished now; nothing else was changed.",
        TAKEN_UP,
    )
    assert keyed.states == {"ed25519:0": "retired", "ed25519:1": "active"}
    assert not former.exists()


# --- peers ------------------------------------------------------------------------------------------------


def test_what_peers_need_of_the_next_key_is_told_when_it_is_made(keyed):
    keyed.configure_peer()
    status, lines = keyed.run("keys", "generate", "--next")
    keys = [f"{key_id} {keyed.public_key(key_id)}" for key_id in ("ed25519:0", "ed25519:1")]
    assert status == 0
    assert f"Give this to the operators of your peers: {PEER}" in lines
    assert f"keys = {', '.join(keys)}" in lines
    command = "sydentish peers add id.example.org --url https://matrix.example.org:4434"
    assert f"{command} --key '{keys[0]}' --key '{keys[1]}' --certificate-name {US}" in lines
    shown = keyed.run("peers", "show", US)[1]
    assert lines[3:-1] == shown
    told = json.loads("\n".join(keyed.run("peers", "show", US, "--json")[1]))
    assert [f"{key_id} {key}" for key_id, key in told["keys"].items()] == keys


def test_a_peer_takes_what_it_is_told(keyed, tmp_path):
    keyed.certify()
    keyed.run("keys", "generate", "--next")
    lines = keyed.run("peers", "show", US)[1]
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other")
    other.certify()
    text = other.conf.read_text().replace(f"server_name = {US}", f"server_name = {PEER}")
    other.conf.write_text(text + "\n".join(itertools.takewhile(bool, lines)))
    told = json.loads("\n".join(other.run("peers", "show", US, "--json")[1]))
    assert told["keys"] == {key_id: keyed.public_key(key_id) for key_id in ("ed25519:0", "ed25519:1")}


@pytest.mark.parametrize("ahead", [True, False])
def test_rotating_with_peers_must_be_wanted(keyed, ahead):
    keyed.configure_peer()
    keyed.add_peer(OTHER_PEER)
    if ahead:
        assert keyed.process("keys", "generate", "--next")[0] == 0
    before = keyed.states
    status, out, err = keyed.process("keys", "rotate")
    lines = err.splitlines()
    assert (status, lines[0], lines[-1]) == (
        1,
        f"warning: these peers check what this server signs: {OTHER_PEER}, {PEER}",
        SURE,
    )
    assert "A Sydent knows a key of ours as ed25519:0 only" in err
    assert ("sydentish keys generate --next" in err) is not ahead
    assert ("keys = ed25519:0 " in out) is ahead
    assert keyed.states == before
    status, out, err = keyed.process("keys", "rotate", "--yes")
    assert (status, keyed.states) == (0, {"ed25519:0": "retired", "ed25519:1": "active"})
    assert f"ed25519:1 {keyed.public_key('ed25519:1')}" in out
    assert ("to the operators of your peers at once" in out) is not ahead
    assert TAKEN_UP in out.splitlines()


def test_without_a_certificate_that_can_be_used_the_keys_are_told(keyed):
    keyed.configure_peer()
    (keyed.folder / "own.pem").write_bytes(weak_certificate())
    status, lines = keyed.run("keys", "generate", "--next")
    assert status == 0
    assert any("own.pem: cannot be used for TLS" in line for line in lines)
    assert f"ed25519:1 {keyed.public_key('ed25519:1')}" in lines


def test_the_operators_of_peers_take_a_revoked_key_out(keyed):
    keyed.configure_peer()
    status, lines = keyed.run("keys", "revoke", "ed25519:0", "--rotate", "--yes")
    assert status == 0
    assert f"warning: these peers check what this server signs: {PEER}" in lines
    assert lines[-1] == f"Have the operators of your peers take it out, if they have it: {PEER}"


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1)])
@pytest.mark.parametrize("command", [["rotate"], ["revoke", "ed25519:1"]])
def test_on_a_terminal_one_is_asked(keyed, command, answer, status):
    keyed.configure_peer()
    keyed.run("keys", "generate", "--next")
    before = keyed.states
    ours, its = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    try:
        done, _, err = keyed.process("keys", *command, stdin=its)
    finally:
        os.close(ours)
        os.close(its)
    assert done == status
    assert "? [y/N]:" in err
    assert (keyed.states == before) is (answer == "n")


# --- a server ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_running_server_takes_keys_up_and_publishes_them_until_they_are_revoked(tmp_path):
    daemon = Daemon(tmp_path)

    async def change(*arguments, then):
        command = Process("keys", *arguments, "-c", str(daemon.config))
        assert await command.ended.addTimeout(SECONDS, reactor) == 0
        assert TAKEN_UP in command.output.splitlines()
        daemon.process.transport.signalProcess("HUP")
        await daemon.process.says(f"signing keys: {then}")

    async def published():
        """Of the first two keys: what is asked by ID, and whether the key is valid."""
        found = []
        for file in sorted(inventory(tmp_path / "data" / "keys"), key=lambda file: file.key.key_id):
            status, _ = await daemon.ask("GET", f"/v2/pubkey/{file.key.key_id}")
            query = {"public_key": file.key.public_key}
            _, answer = await daemon.ask("GET", "/v2/pubkey/isvalid", params=query)
            found.append((status, answer["valid"]))
        return found

    try:
        await daemon.start()
        await change("generate", "--next", then="ed25519:0 is active, ed25519:1 is next")
        assert await published() == [(200, True), (200, True)]
        await change("rotate", then="ed25519:1 is active, ed25519:0 is retired")
        assert await published() == [(200, True), (200, True)]
        await change("revoke", "ed25519:0", "--yes", then="ed25519:1 is active, ed25519:0 is revoked")
        assert await published() == [(404, False), (200, True)]
        assert await daemon.end(signal.SIGTERM) == 0
    finally:
        await daemon.clean_up()


@pytest.mark.parametrize("command", ["list", "generate", "rotate", "retire", "revoke"])
def test_every_command_has_an_example(command):
    done = CliRunner().invoke(main, ["keys", command, "--help"])
    assert done.exit_code == 0
    assert f"Example: sydentish keys {command}" in done.output


@pytest_twisted.ensureDeferred
async def test_a_pipe_in_the_place_of_a_key_holds_up_neither_a_reload_nor_the_end(tmp_path):
    daemon = Daemon(tmp_path)
    await daemon.start()
    os.mkfifo(tmp_path / "data" / "keys" / "zz.key")
    daemon.process.transport.signalProcess("HUP")
    await daemon.process.says("it is no regular file")
    assert await daemon.end() == 0
