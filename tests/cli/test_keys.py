"""`keys`: the commands as an operator has them, with real files, a real database, a terminal and a server."""

import fcntl
import itertools
import json
import os
import pty
import signal

import pytest
import pytest_twisted
from cli.house import PEERS_KEY, US, BareHouse
from click.testing import CliRunner
from daemons import SECONDS, Daemon, Process
from standins.certificates import weak_certificate
from store_tools import START_MS
from twisted.internet import reactor
from unprivileged import unprivileged_folder

from sydentish.cli import main
from sydentish.domain.peers import Peer
from sydentish.keyfiles import generate_key, inventory
from sydentish.store import peers as peer_rows

PEER, OTHER_PEER = "id.example.net", "id.example.com"
USAGE = 2
TAKEN_UP = "A running server takes this up on SIGHUP: systemctl reload sydentish, or kill -HUP and its PID"
SURE = "nothing was changed: if that is what you want, say so with --yes"


class House(BareHouse):
    """As that, and its keys; no command ever shows a private one."""

    def ask(self, *arguments):
        status, lines = super().ask(*arguments)
        self.check("\n".join(lines))
        return status, lines

    def run(self, *arguments, **options):
        status, out, err = super().run(*arguments, **options)
        self.check(out + err)
        return status, out, err

    def check(self, output):
        for path in self.key_dir.rglob("*.key"):
            assert path.read_text().split()[2] not in output

    def configure_peer(self):
        self.certify()
        self.configure(PEER)

    def add_peer(self, name):
        """As a peer that was added on the command line, once the server was started."""
        self.migrate()
        peer = Peer(name, f"https://{name}", {"ed25519:0": PEERS_KEY}, (name,))
        self.write(lambda tx: peer_rows.add(tx, peer, START_MS))

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
    house.make_keys()
    return house


# --- making and listing -----------------------------------------------------------------------------------


def test_from_the_first_key_to_a_revoked_one(house):
    path = house.key_dir / "ed25519_0.key"
    status, (line,) = house.ask("keys", "generate")
    assert (status, line) == (0, f"{path}: ed25519:0, public key {house.public_key('ed25519:0')}")
    status, lines = house.ask("keys", "generate", "--next")
    path = house.key_dir / "next" / "ed25519_1.key"
    assert (status, lines) == (
        0,
        [
            f"{path}: ed25519:1, public key {house.public_key('ed25519:1')}",
            TAKEN_UP,
            "It signs after: sydentish keys rotate",
        ],
    )
    assert house.ask("keys", "rotate") == (
        0,
        [
            f"ed25519:1 is the active key, public key {house.public_key('ed25519:1')}",
            "ed25519:0 is retired: what it has signed stays valid",
            TAKEN_UP,
        ],
    )
    assert house.ask("keys", "revoke", "ed25519:0", "--yes") == (
        0,
        [
            "ed25519:0: what it has signed will be valid no more; this cannot be taken back",
            "ed25519:0: is revoked",
            TAKEN_UP,
        ],
    )
    assert house.ask("keys", "revoke", "ed25519:0") == (0, ["ed25519:0: was revoked already"])
    assert house.states == {"ed25519:0": "revoked", "ed25519:1": "active"}


def test_keys_are_listed(keyed):
    keyed.ask("keys", "generate", "--next")
    os.utime(keyed.key_dir / "ed25519_0.key", (0, 1_700_000_000))
    (keyed.key_dir / "ed25519_0.key").chmod(0o644)
    status, lines = keyed.ask("keys", "list")
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
    keyed.ask("keys", "generate", "--next")
    os.utime(keyed.key_dir / "ed25519_0.key", (0, 1_700_000_000))
    status, lines = keyed.ask("keys", "list", "--json")
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
    assert house.ask("keys", "list") == (os.EX_CONFIG, [f"{told} -c {house.conf}"])
    house.ask("keys", "generate")
    text = (house.key_dir / "ed25519_0.key").read_text().replace(" 0 ", " other ")
    (house.key_dir / "other.key").write_text(text)
    status, lines = house.ask("keys", "list")
    assert status == os.EX_CONFIG
    assert [line.split()[0] for line in lines[:3]] == ["ID", "ed25519:0", "ed25519:other"]
    assert "sydentish keys retire KEYID" in lines[-1]
    assert house.ask("keys", "rotate") == (os.EX_CONFIG, lines[-1:])
    assert house.ask("keys", "retire", "ed25519:other") == (
        0,
        ["ed25519:other: is retired: it signs nothing, and what it has signed stays valid", TAKEN_UP],
    )
    assert house.ask("keys", "retire", "ed25519:other") == (0, ["ed25519:other: was retired already"])
    assert house.ask("keys", "list")[0] == 0


def test_a_file_that_is_no_key_is_told_of_without_what_is_in_it(keyed):
    (keyed.key_dir / "x.key").write_text("ed25519 x secret!")
    for command in (
        ["list"],
        ["rotate"],
        ["retire", "ed25519:0"],
        ["revoke", "ed25519:0"],
        ["generate", "--next"],
    ):
        status, (line,) = keyed.ask("keys", *command)
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
    status, out, err = keyed.run("keys", *command)
    # One version of click writes a blank behind its question, and not to where it writes this.
    assert (status, out.strip()) == (1, "")
    assert told in err
    assert keyed.states == {"ed25519:0": "active"}


@pytest.mark.parametrize("command", ["generate", "rotate"])
def test_a_version_that_cannot_be_one_is_a_mistake_of_usage(house, command):
    status, lines = house.ask("keys", command, "--version", "a-b")
    assert status == USAGE
    assert "must be 1 to 64 characters of a-z A-Z 0-9 _" in lines[-1]


def test_a_key_can_be_given_a_version(keyed):
    assert keyed.ask("keys", "rotate", "--version", "autumn")[0] == 0
    assert keyed.ask("keys", "generate", "--next")[0] == 0
    assert keyed.states == {"ed25519:0": "retired", "ed25519:autumn": "active", "ed25519:1": "next"}


def test_the_active_key_is_refused_without_the_lock_for_changes(keyed):
    lock = os.open(keyed.key_dir, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        # Whoever has the lock, may be rotating: after that, it would be another question.
        status, out, err = keyed.run("keys", "revoke", "ed25519:0")
    finally:
        os.close(lock)
    assert (status, out) == (1, "")
    assert "sydentish keys revoke --rotate ed25519:0" in err


def test_the_active_key_is_revoked_after_another_one_signs(keyed):
    status, lines = keyed.ask("keys", "revoke", "ed25519:0", "--rotate", "--yes")
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
            assert house.ask("keys", "list")[0] == 0
            for command in (["rotate"], ["retire", "ed25519:1"], ["revoke", "ed25519:1", "--yes"]):
                status, lines = house.ask("keys", *command)
                assert status == 1
                assert lines[-1].startswith(
                    f"{house.key_dir}: the keys cannot be written: Permission denied; "
                )


# --- interrupted ------------------------------------------------------------------------------------------


def test_an_interrupted_rotation_is_finished_by_the_next_one(keyed):
    former = keyed.key_dir / "ed25519_0.key"
    text = former.read_text()
    keyed.ask("keys", "rotate")
    former.write_text(text)
    former.chmod(0o600)
    status, lines = keyed.ask("keys", "list")
    assert (status, lines[-1]) == (
        0,
        f"warning: {former}: is another copy of ed25519:0; the next change removes it",
    )
    status, lines = keyed.ask("keys", "rotate")
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
    status, lines = keyed.ask("keys", "generate", "--next")
    keys = [f"{key_id} {keyed.public_key(key_id)}" for key_id in ("ed25519:0", "ed25519:1")]
    assert status == 0
    assert f"Give this to the operators of your peers: {PEER}" in lines
    assert f"keys = {', '.join(keys)}" in lines
    command = "sydentish peers add id.example.org --url https://matrix.example.org:4434"
    assert f"{command} --key '{keys[0]}' --key '{keys[1]}' --certificate-name {US}" in lines
    shown = keyed.ask("peers", "show", US)[1]
    assert lines[3:-1] == shown
    told = json.loads("\n".join(keyed.ask("peers", "show", US, "--json")[1]))
    assert [f"{key_id} {key}" for key_id, key in told["keys"].items()] == keys


def test_a_peer_takes_what_it_is_told(keyed, tmp_path):
    keyed.certify()
    keyed.ask("keys", "generate", "--next")
    lines = keyed.ask("peers", "show", US)[1]
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other")
    other.certify()
    text = other.conf.read_text().replace(f"server_name = {US}", f"server_name = {PEER}")
    other.conf.write_text(text + "\n".join(itertools.takewhile(bool, lines)))
    told = json.loads("\n".join(other.ask("peers", "show", US, "--json")[1]))
    assert told["keys"] == {key_id: keyed.public_key(key_id) for key_id in ("ed25519:0", "ed25519:1")}


@pytest.mark.parametrize("ahead", [True, False])
def test_rotating_with_peers_must_be_wanted(keyed, ahead):
    keyed.configure_peer()
    keyed.add_peer(OTHER_PEER)
    if ahead:
        assert keyed.run("keys", "generate", "--next")[0] == 0
    before = keyed.states
    status, out, err = keyed.run("keys", "rotate")
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
    status, out, err = keyed.run("keys", "rotate", "--yes")
    assert (status, keyed.states) == (0, {"ed25519:0": "retired", "ed25519:1": "active"})
    assert f"ed25519:1 {keyed.public_key('ed25519:1')}" in out
    assert ("to the operators of your peers at once" in out) is not ahead
    assert TAKEN_UP in out.splitlines()


def test_without_a_certificate_that_can_be_used_the_keys_are_told(keyed):
    keyed.configure_peer()
    (keyed.folder / "own.pem").write_bytes(weak_certificate())
    status, lines = keyed.ask("keys", "generate", "--next")
    assert status == 0
    assert any("own.pem: cannot be used for TLS" in line for line in lines)
    assert f"ed25519:1 {keyed.public_key('ed25519:1')}" in lines


def test_the_operators_of_peers_take_a_revoked_key_out(keyed):
    keyed.configure_peer()
    status, lines = keyed.ask("keys", "revoke", "ed25519:0", "--rotate", "--yes")
    assert status == 0
    assert f"warning: these peers check what this server signs: {PEER}" in lines
    assert lines[-1] == f"Have the operators of your peers take it out, if they have it: {PEER}"


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1)])
@pytest.mark.parametrize("command", [["rotate"], ["revoke", "ed25519:1"]])
def test_on_a_terminal_one_is_asked(keyed, command, answer, status):
    keyed.configure_peer()
    keyed.ask("keys", "generate", "--next")
    before = keyed.states
    ours, its = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    try:
        done, _, err = keyed.run("keys", *command, stdin=its)
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
