"""`erase`: the command as a process, on a real database."""

import os
import pty
import select
import signal
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cli.home import ANN, Home
from click.testing import CliRunner
from daemons import COMMAND, SECONDS
from store_tools import START_MS, contents, rows
from unprivileged import NOBODY

from sydentish.cli import main
from sydentish.domain.associations import Association
from sydentish.domain.peers import Peer
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.domain.validation import Session
from sydentish.store import accounts, associations, peers, validation
from sydentish.store.sqlite import connect

MAIL, PHONE = "ann.canary@example.org", "447700900001"
PEER = "id.example.net"
USAGE, INTERRUPTED = 2, 130
QUIET = 0.5
SURE = "nothing was changed: if that is what you want, say so with --yes"
# Read by every Python before anything else: tells who opens each database.
WHO = """
import os, sys
def hook(event, _args):
    if event == "sqlite3.connect":
        os.write(2, f"opened by {os.geteuid()}\\n".encode())
sys.addaudithook(hook)
"""


def fill(house):
    def put(tx):
        house.statements.bind(tx, Threepid(EMAIL, MAIL), ANN, START_MS)
        house.statements.bind(tx, Threepid(MSISDN, PHONE), ANN, START_MS)
        session = Session("sid", Threepid(EMAIL, MAIL), "hash", 1, None, START_MS, None)
        validation.add_session(tx, session)
        accounts.add_account(tx, ANN, START_MS)
        accounts.add_token(tx, "t", ANN, START_MS)

    house.write(put)


def on_disk(house):
    """All that the files of the database hold."""
    return b"".join(
        path.read_bytes() for path in house.path.parent.iterdir() if path.name.startswith(house.path.name)
    ).lower()


@pytest.mark.parametrize(
    "given", [MAIL, "ANN.Canary@EXAMPLE.org", f"  {MAIL} "], ids=["as stored", "upper case", "blanks"]
)
def test_after_it_the_address_is_nowhere_on_the_disk(command_house, given):
    fill(command_house)
    assert MAIL.encode() in on_disk(command_house)
    status, out, err = command_house.run("erase", "--address", given, "--yes")
    assert (status, err) == (0, "")
    assert MAIL.encode() not in on_disk(command_house)
    assert PHONE.encode() in on_disk(command_house)
    assert out.splitlines()[:5] == [
        "Erased:",
        "       1  associations",
        "       1  validation sessions",
        "       1  rows of the outbox",
        "What remains:",
    ]
    assert "a keyed hash of 1 addresses" in out
    assert (
        "homeservers have heard of the addresses, if anything; they are not told of this (hs.example.org)"
        in out
    )
    assert MAIL not in out.lower()


@pytest.mark.parametrize("given", [PHONE, f"+{PHONE}", "+44 (7700) 900-001"])
def test_a_telephone_number_is_found_as_people_write_it(command_house, given):
    fill(command_house)
    found = command_house.json("erase", "--address", given, "--yes")
    assert found["erased"]["associations"] == 1
    assert PHONE.encode() not in on_disk(command_house)


@pytest.mark.parametrize("options", [["--yes"], ["--dry-run"]])
@pytest.mark.parametrize("given", ["0044 7700 900001", "07700 900001"])
def test_a_number_without_its_country_code_is_not_said_to_be_erased(command_house, given, options):
    fill(command_house)
    before = contents(command_house.path)
    status, out, err = command_house.run("erase", "--address", given, *options)
    assert (status, out) == (1, "")
    assert "nothing is stored about it, and it is no telephone number with its country code" in err
    found = command_house.json("erase", "--address", given, *options, status=1)
    assert not any(found["erased"].values())
    assert contents(command_house.path) == before


def test_such_a_number_is_erased_where_another_server_has_stated_it(command_house):
    number = Threepid(MSISDN, "07700900001")

    def peer_states(tx):
        peers.add(tx, Peer(PEER, f"https://{PEER}", {"ed25519:0": "key"}, (PEER,)), START_MS)
        associations.put(tx, Association(number, ANN, 5, 0, 9, PEER, 7), "{}")

    command_house.write(peer_states)
    asked = ("erase", "--address", "07700 900001")
    assert command_house.run(*asked, "--dry-run")[0] == 0
    assert command_house.json(*asked, "--yes")["erased"]["associations_of_peers"] == 1
    # Only that it was there is known by now, which is enough.
    again = command_house.json(*asked, "--yes")
    assert not any(again["erased"].values())
    command_house.write(lambda tx: peers.remove(tx, PEER))
    assert command_house.run(*asked, "--yes")[0] == 0


def test_of_other_addresses_it_is_a_success_that_nothing_is_stored(command_house):
    for given in (MAIL, PHONE):
        status, out, err = command_house.run("erase", "--address", given, "--yes")
        assert (status, out, err) == (0, "Erased: nothing, since nothing is stored\n", "")


def test_a_user_goes_with_every_address(command_house):
    fill(command_house)
    found = command_house.json("erase", "--mxid", ANN, "--yes")
    assert {kind: number for kind, number in found["erased"].items() if number} == {
        "associations": 2,
        "sessions": 1,
        "outbox_rows": 2,
        "accounts": 1,
        "access_tokens": 1,
    }
    assert found["remains"] == {
        "addresses_waiting_for_peers": 0,
        "peers": [],
        "hashed_addresses": 2,
        "homeservers_not_told": ["hs.example.org"],
        "left_the_disk": True,
        "copies": [],
    }
    for text in (MAIL, PHONE, ANN):
        assert text.encode() not in on_disk(command_house)
    again = command_house.json("erase", "--mxid", ANN, "--yes")
    assert not any(again["erased"].values())
    assert (
        command_house.run("erase", "--mxid", ANN, "--yes")[1] == "Erased: nothing, since nothing is stored\n"
    )


def test_a_dry_run_asks_nothing_and_changes_nothing(command_house):
    fill(command_house)
    before = contents(command_house.path)
    status, out, _ = command_house.run("erase", "--mxid", ANN, "--dry-run")
    assert (status, out.splitlines()[0]) == (0, "Would be erased:")
    found = command_house.json("erase", "--mxid", ANN, "--dry-run")
    assert (found["dry_run"], found["remains"]["left_the_disk"]) == (True, None)
    assert contents(command_house.path) == before
    assert command_house.json("erase", "--mxid", ANN, "--yes")["erased"] == found["erased"]


@pytest.mark.parametrize(("answer", "status", "left"), [(b"n\n", 1, 2), (b"", 1, 2), (b"y\n", 0, 0)])
def test_it_asks_before_it_erases(command_house, answer, status, left):
    fill(command_house)
    found, out, err = command_house.run("erase", "--mxid", ANN, stdin=answer)
    assert found == status
    assert f"Erase all that is stored about {ANN} and every address of theirs, for good?" in err
    assert bool(out) == (left == 0)
    assert (err.splitlines()[-1] == SURE) == (left > 0)
    assert len(rows(command_house.path, "SELECT * FROM associations")) == left


def at_terminal(house, *arguments, act):
    """Status, and what a command writes to its terminal; `act` is done when it has asked, and waits."""
    ours, theirs = pty.openpty()
    command = [COMMAND, *arguments, "-c", str(house.conf)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        # It fails when nobody has the other side any more.
        with suppress(OSError):
            while True:
                if select.select([ours], [], [], QUIET)[0]:
                    written += os.read(ours, 65536)
                elif b"[y/N]: " in written and b"Aborted!" not in written:
                    # Again, if need be: a signal between the question and the wait for an answer is lost on Python.
                    act(process, ours)
        os.close(ours)
        status = process.wait(SECONDS)
    return status, written.decode()


@pytest.mark.parametrize(
    ("act", "status", "left"),
    [
        (lambda process, _: process.send_signal(signal.SIGINT), INTERRUPTED, 2),
        (lambda _, terminal: os.write(terminal, b"\x04"), INTERRUPTED, 2),
        (lambda _, terminal: os.write(terminal, b"n\n"), 1, 2),
        (lambda _, terminal: os.write(terminal, b"y\n"), 0, 0),
    ],
    ids=["Ctrl-C", "Ctrl-D", "no", "yes"],
)
def test_at_a_terminal_a_stop_is_told_from_a_no(command_house, act, status, left):
    fill(command_house)
    found, written = at_terminal(command_house, "erase", "--mxid", ANN, act=act)
    assert (found, written.splitlines()[-1] == "Aborted!") == (status, left > 0), written
    assert SURE not in written
    assert len(rows(command_house.path, "SELECT * FROM associations")) == left


def test_what_remains_with_peers_and_in_copies_is_told(command_house):
    fill(command_house)
    folder = command_house.path.parent
    copies = [folder / name for name in ("sydentish.db.before-0005", "sydentish.db.before-restore")]
    for copy in copies:
        copy.write_bytes(b"old")
    for name in (".sydentish.db.abcdefgh.part", "import-sydent-abcdefgh"):
        (folder / name).mkdir()
        copies.append(folder / name)

    def peer_states(tx):
        peers.add(tx, Peer(PEER, f"https://{PEER}", {"ed25519:0": "key"}, (PEER,)), START_MS)
        stated = Association(Threepid(EMAIL, "theirs@example.org"), ANN, 5, 0, 9, PEER, 7)
        associations.put(tx, stated, "{}")

    command_house.write(peer_states)
    status, out, _ = command_house.run("erase", "--mxid", ANN, "--yes")
    assert status == 0
    assert "       1    of these stated by peers" in out.splitlines()
    assert f"3 addresses, until every peer has acknowledged that they are unbound ({PEER})" in out
    assert f"to be deleted by you: {', '.join(sorted(map(str, copies)))}" in out
    assert "your own backups" in out
    assert len(rows(command_house.path, "SELECT * FROM tombstones")) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_root_opens_the_database_as_its_owner_only():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "sitecustomize.py").write_text(WHO)
        home = Home(folder)
        home.bind(1)
        for path in (home.path.parent, *home.path.parent.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        paths = os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": paths}
        status, said = home.told("erase", "--mxid", ANN, "--yes", env=env)
    opened = {line for line in said.splitlines() if line.startswith("opened by ")}
    assert (status, opened) == (0, {f"opened by {NOBODY}"})


def test_beside_whoever_reads_the_traces_are_told_of(command_house):
    fill(command_house)
    with closing(connect(command_house.path, 5000, read_only=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM associations").fetchone()
        status, out, _ = command_house.run("erase", "--address", MAIL, "--yes")
        assert status == 0
        assert "traces in the database file, which is in use" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--address", MAIL, "--mxid", ANN],
        ["--address", "nobody"],
        ["--address", "+44 (0)7700 900001"],
        ["--address", "+44 (0)7700 900001", "--dry-run"],
        ["--mxid", "ann"],
        ["--address", MAIL, "--medium", "fax"],
        ["--address", MAIL, "--medium", "msisdn"],
    ],
)
def test_what_is_asked_must_be_clear(command_house, arguments):
    done = CliRunner().invoke(main, ["erase", *arguments, "--yes", "-c", str(command_house.conf)])
    assert done.exit_code == USAGE
    assert "canary" not in done.output


def test_without_keys_it_says_how_to_get_them(command_house):
    for path in (command_house.folder / "data" / "keys").iterdir():
        path.unlink()
    status, _, err = command_house.run("erase", "--address", MAIL, "--yes")
    assert status == os.EX_CONFIG
    assert "sydentish keys generate" in err
