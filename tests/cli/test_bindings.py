"""`bindings`: the commands as processes, on a real database."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing

import pytest
import pytest_twisted
from cli.house import US, CommandHouse
from click.testing import CliRunner
from daemons import COMMAND, SECONDS, Process
from hypothesis import given
from hypothesis import strategies as st
from store_tools import START_MS, contents, rows
from twisted.internet import reactor

from sydentish.actions.associations import Provision
from sydentish.cli import main
from sydentish.cli.bindings.exporting import export_line
from sydentish.cli.bindings.importing import _Lines
from sydentish.domain.associations import Association
from sydentish.domain.errors import InvalidEmail, NotJson, TooLarge
from sydentish.domain.peers import Peer
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, normalise_email
from sydentish.store import associations, outbox, peers
from sydentish.web.lines import read_line

ANN, BOB = "@ann:hs.example.org", "@bob:hs.example.net"
MAIL = "ann@example.org"
PHONE = "447700900001"
PEER = "id.example.net"
USAGE = 2


def bound(house):
    """Who has which address."""
    return dict(rows(house.path, "SELECT address, mxid FROM associations"))


def line(address=MAIL, mxid=ANN, medium=EMAIL, **more):
    return json.dumps({"medium": medium, "address": address, "mxid": mxid, **more}).encode() + b"\n"


def add_peer(tx, name=PEER):
    peers.add(tx, Peer(name, f"https://{name}", {"ed25519:0": "key"}, (name,)), START_MS)


def stated_by_peer(tx, address, mxid=BOB, number=7):
    association = Association(Threepid(EMAIL, address), mxid, START_MS, 0, START_MS * 2, PEER, number)
    associations.put(tx, association, "{}")


# --- one at a time -----------------------------------------------------------------------------------------


def test_an_address_is_bound_shown_and_unbound(command_house):
    bind = ("bindings", "bind", "--address", "Ann@Example.ORG", "--mxid", ANN)
    status, out, err = command_house.run(*bind)
    assert (status, err) == (0, "")
    assert out.startswith(f"{MAIL}: is bound to {ANN}; a running server tells")
    assert command_house.run(*bind)[:2] == (0, f"{MAIL}: is bound to {ANN} already\n")
    assert rows(command_house.path, "SELECT count(*) FROM outbox") == [(1,)]
    status, out, _ = command_house.run("bindings", "show", "--address", MAIL)
    shown = [row.split(":", 1) for row in out.splitlines()]
    assert status == 0
    assert {name: value.strip() for name, value in shown if name != "since"} == {
        "address": MAIL,
        "medium": EMAIL,
        "user": ANN,
        "stated by": f"{US}, statement 1",
        "homeserver": "is to be told: outbox 1",
        "peers behind": "none",
    }
    unbind = ("bindings", "unbind", "--address", MAIL)
    assert command_house.run(*unbind)[1].startswith(f"{MAIL}: is unbound from {ANN}; ")
    assert (bound(command_house), rows(command_house.path, "SELECT * FROM outbox")) == ({}, [])
    assert command_house.run(*unbind) == (0, f"{MAIL}: is not bound to anybody\n", "")
    status, out, err = command_house.run("bindings", "show", "--address", MAIL)
    assert (status, out) == (1, "")
    assert err.startswith(f"{MAIL}: nothing is bound; {US} unbound it ")


def test_what_was_never_bound_is_unknown(command_house):
    asked = ("bindings", "show", "--address", PHONE)
    assert command_house.run(*asked) == (1, "", f"{PHONE}: nothing is bound\n")
    assert command_house.json(*asked, status=1) == {"bindings": []}
    assert command_house.run("bindings", "show", "--mxid", ANN) == (1, "", f"{ANN}: nothing is bound\n")


def test_an_address_moves_to_another_user(command_house):
    for mxid, written in ((ANN, f"+{PHONE}"), (BOB, "+44 (7700) 900-001")):
        assert command_house.run("bindings", "bind", "--address", written, "--mxid", mxid)[0] == 0
    assert bound(command_house) == {PHONE: BOB}


def test_what_is_bound_to_somebody_else_is_not_unbound(command_house):
    command_house.write(lambda tx: command_house.statements.bind(tx, Threepid(EMAIL, MAIL), ANN, START_MS))
    before = contents(command_house.path)
    status, out, err = command_house.run("bindings", "unbind", "--address", MAIL, "--mxid", BOB)
    assert (status, out) == (1, "")
    assert err == f"--mxid: the address is bound to another user, {ANN}: it is left as it is\n"
    assert contents(command_house.path) == before
    assert command_house.run("bindings", "unbind", "--address", MAIL, "--mxid", ANN)[0] == 0
    assert bound(command_house) == {}


def test_who_has_yet_to_hear_is_shown_of_all_addresses_of_a_user(command_house):
    def make(tx):
        add_peer(tx)
        add_peer(tx, "acknowledged.example.org")
        command_house.statements.bind(tx, Threepid(EMAIL, MAIL), ANN, START_MS)
        command_house.statements.bind(tx, Threepid(MSISDN, PHONE), ANN, START_MS)
        stated_by_peer(tx, "peer@example.org", ANN)
        stated_by_peer(tx, "other@example.org", BOB, 8)
        tx.run("UPDATE peers SET acknowledged_id = 9 WHERE name LIKE 'ack%'")
        tx.run("UPDATE outbox SET state = 'dead' WHERE outbox_id = 2")

    command_house.write(make)
    shown = command_house.json("bindings", "show", "--mxid", ANN)["bindings"]
    told = [
        (each["address"], each["onbind_pending"], each["onbind_dead"], each["peers_behind"]) for each in shown
    ]
    assert told == [(MAIL, [1], [], [PEER]), ("peer@example.org", [], [], None), (PHONE, [], [2], [PEER])]
    assert [(each["origin_server"], each["origin_id"], each["own"]) for each in shown] == [
        (US, 1, True),
        (PEER, 7, False),
        (US, 2, True),
    ]
    status, out, _ = command_house.run("bindings", "show", "--mxid", ANN)
    assert status == 0
    assert [part.splitlines()[5].split(":", 1)[1].strip() for part in out.split("\n\n")] == [
        "is to be told: outbox 1",
        f"hears of it from {PEER}",
        "could not be told: outbox 2",
    ]


def test_that_nothing_is_left_to_tell_a_homeserver_is_all_that_is_said(command_house):
    def make(tx):
        command_house.statements.bind(tx, Threepid(EMAIL, MAIL), ANN, START_MS)
        outbox.withdraw(tx, 1)

    # Whether it was told, or the row was dropped, nobody knows any more.
    command_house.write(make)
    status, out, _ = command_house.run("bindings", "show", "--address", MAIL)
    assert (status, "homeserver:        nothing waits to be told\n" in out) == (0, True), out


@pytest.mark.parametrize(
    "given", ["+44 (0)7700 900001", "+44( 0 ) 7700 900001", "0044 (0\u00a0) 7700/900001"]
)
@pytest.mark.parametrize("command", [["bind", "--mxid", ANN], ["unbind"], ["show"]])
def test_a_zero_in_brackets_is_refused_as_it_may_or_may_not_belong_to_the_number(
    command_house, command, given
):
    asked = ["bindings", *command, "--address", given, "-c", str(command_house.conf)]
    done = CliRunner().invoke(main, asked)
    assert (done.exit_code, bound(command_house)) == (USAGE, {})
    assert "as it is dialled from abroad, without the 0 in brackets" in done.output


@pytest.mark.parametrize("given", ["0044 7700 900001", "07700 900001", "+0044 7700 900001"])
def test_of_a_number_without_its_country_code_it_is_said_what_is_right(command_house, given):
    asked = ["bindings", "show", "--address", given, "-c", str(command_house.conf)]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == USAGE
    assert "a telephone number with its country code, without zeros in front" in done.output


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["bind", "--address", "ann", "--mxid", ANN], "--address"),
        (["bind", "--address", "0770 0900001", "--mxid", ANN], "--address"),
        (["bind", "--address", MAIL, "--medium", "msisdn", "--mxid", ANN], "--address"),
        (["bind", "--address", MAIL, "--medium", "fax", "--mxid", ANN], "--medium"),
        (["bind", "--address", MAIL, "--mxid", "ann"], "--mxid"),
        (["bind", "--address", MAIL], "--mxid"),
        (["bind", "--mxid", ANN], "--address"),
        (["unbind"], "--address"),
        (["show"], "--mxid"),
        (["show", "--address", MAIL, "--mxid", ANN], "--mxid"),
        (["export", "--own", "--origin", PEER], "--origin"),
        (["export", "--origin", "not a name"], "--origin"),
        (["import", "no.such.file"], "FILE"),
        (["import"], "FILE"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_of_usage(command_house, command, option):
    done = CliRunner().invoke(main, ["bindings", *command, "-c", str(command_house.conf)])
    assert (done.exit_code, option in done.output.splitlines()[-1]) == (USAGE, True), done.output
    assert MAIL not in done.output


# --- import ------------------------------------------------------------------------------------------------


def test_a_file_is_imported_and_what_is_wrong_is_told_with_its_line(command_house):
    file = command_house.folder / "in.ndjson"
    file.write_bytes(
        line("Ann@example.org")
        + b"\n"
        + b"rubbish\n"
        + line("no address")
        + line(PHONE, BOB, MSISDN)
        + line(action="unbind", mxid=BOB)
        + line(PHONE, BOB, MSISDN, action="unbind")
        + b"[]\n"
        + b'{"medium": "email"}\n'
        + line("x" * 70_000)
        + line("last@example.org").rstrip()
    )
    status, out, err = command_house.run("bindings", "import", file)
    assert (status, out) == (1, "bound 3, unbound 1, unchanged 1, refused 5\n")
    assert err.splitlines() == [
        "line 3: The line must be JSON in UTF-8",
        "line 4: address: must be an e-mail address, or the digits of a telephone number",
        "line 8: The line must be a JSON object",
        "line 9: Missing parameters: address, mxid",
        "line 10: The line must have less than 65536 bytes",
    ]
    assert bound(command_house) == {MAIL: ANN, "last@example.org": ANN}


def test_a_file_that_is_imported_again_changes_nothing(command_house):
    lines = b"".join(line(f"u{number}@example.org") for number in range(350))
    assert command_house.run("bindings", "import", "-", stdin=lines) == (
        0,
        "bound 350, unbound 0, unchanged 0, refused 0\n",
        "",
    )
    before = contents(command_house.path)
    status, out, _ = command_house.run("bindings", "import", "-", "--json", stdin=lines)
    assert (status, json.loads(out)) == (0, {"bound": 0, "unbound": 0, "unchanged": 350, "refused": 0})
    assert contents(command_house.path) == before


def test_a_rehearsal_changes_nothing_and_tells_what_would_be(command_house):
    command_house.write(lambda tx: stated_by_peer(tx, "known@example.org"))
    before = contents(command_house.path)
    lines = line() + line("known@example.org", BOB) + line("known@example.org", BOB, action="unbind") + b"?\n"
    status, out, err = command_house.run("bindings", "import", "--dry-run", "-", stdin=lines)
    told = "nothing was changed; it would be: bound 1, unbound 1, unchanged 1, refused 1\n"
    assert (status, out, err) == (1, told, "line 4: The line must be JSON in UTF-8\n")
    assert contents(command_house.path) == before


def test_an_import_that_cannot_go_on_says_where(command_house):
    command_house.conf.write_text(f"{command_house.conf.read_text()}[database]\nbusy_timeout = 10ms\n")
    with closing(sqlite3.connect(command_house.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        status, out, err = command_house.run("bindings", "import", "-", stdin=b"\n" + line())
        other.execute("ROLLBACK")
    assert (status, out) == (1, "")
    assert "what stands before line 2 is done: import the same file again" in err.splitlines()[-1]


@pytest.mark.parametrize(("how", "rehearsed"), [("INT", False), ("TERM", False), ("TERM", True)])
@pytest_twisted.ensureDeferred
async def test_an_import_from_a_silent_pipe_can_be_stopped(command_house, how, rehearsed):
    options = ["--dry-run"] if rehearsed else []
    process = Process("bindings", "import", "-", *options, "-c", str(command_house.conf))
    process.transport.write(line() + b"rubbish\n" + line(PHONE, BOB, MSISDN) + line()[:9])
    await process.says("line 2: ")
    process.transport.signalProcess(how)
    assert await process.ended.addTimeout(SECONDS, reactor) == 130
    assert "bound 2, unbound 0, unchanged 0, refused 1\n" in process.output
    assert process.output.endswith("stopped\n")
    assert "Traceback" not in process.output
    assert bound(command_house) == ({} if rehearsed else {MAIL: ANN, PHONE: BOB})


@given(
    st.lists(st.sampled_from([b"", b" ", b"x", b"x" * 99, b"x" * 65_535, b"x" * 65_536, b"x" * 200_000])),
    st.sampled_from([1000, 4096, 65_536]),
)
def test_lines_are_the_same_however_they_arrive(texts, size):
    lines, data = _Lines(), b"\n".join(texts)
    found = [
        each for start in range(0, len(data), size) for each in lines.feed(data[start : start + size])
    ] + lines.end()
    assert [(each.number, type(each.wanted)) for each in found] == [
        (number, TooLarge if len(text) > 65_535 else NotJson)
        for number, text in enumerate(texts, 1)
        if text.strip()
    ]


# --- export ------------------------------------------------------------------------------------------------


def exported(text):
    return [json.loads(each) for each in text.splitlines()]


def test_all_is_exported_in_the_order_of_the_addresses(command_house):
    def make(tx):
        command_house.statements.bind(tx, Threepid(MSISDN, PHONE), ANN, START_MS)
        for name in "bca":
            command_house.statements.bind(tx, Threepid(EMAIL, f"{name}@example.org"), ANN, START_MS)
        stated_by_peer(tx, "bb@example.org")

    command_house.write(make)
    status, out, err = command_house.run("bindings", "export")
    assert (status, err) == (0, "exported 5 bindings\n")
    assert [each["address"] for each in exported(out)] == [
        *("a@example.org", "b@example.org", "bb@example.org", "c@example.org"),
        PHONE,
    ]
    of_peer = {"medium": EMAIL, "address": "bb@example.org", "mxid": BOB}
    assert exported(out)[2] == of_peer | {"ts": START_MS, "origin_server": PEER, "origin_id": 7}
    _, own, _ = command_house.run("bindings", "export", "--own")
    _, theirs, _ = command_house.run("bindings", "export", "--origin", PEER)
    assert {each["origin_server"] for each in exported(own)} == {US}
    assert sorted(own.splitlines() + theirs.splitlines()) == sorted(out.splitlines())


def test_a_file_is_whole_and_for_its_owner_alone(command_house):
    file = command_house.folder / "out.ndjson"
    file.write_text("before")
    file.chmod(0o644)
    command_house.write(lambda tx: stated_by_peer(tx, MAIL))
    assert command_house.run("bindings", "export", file) == (0, "exported 1 bindings\n", "")
    assert [each["address"] for each in exported(file.read_text())] == [MAIL]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in command_house.folder.glob("out*")] == ["out.ndjson"]


def test_a_file_that_cannot_be_written_is_told_of(command_house):
    file = command_house.folder / "no" / "out.ndjson"
    told = f"{file}: cannot be written: No such file or directory\n"
    assert command_house.run("bindings", "export", file) == (1, "", told)


def test_an_export_that_fails_leaves_the_file_as_it_was(command_house):
    file = command_house.folder / "out.ndjson"
    file.write_text("before")
    # The table is read only when the file is open already.
    command_house.write(lambda tx: tx.run("ALTER TABLE associations RENAME COLUMN origin_id TO lost"))
    done = subprocess.run(
        [COMMAND, "bindings", "export", file, "-c", command_house.conf],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode
    assert file.read_text() == "before"
    assert [path.name for path in command_house.folder.glob("out*")] == ["out.ndjson"]


def test_who_has_read_enough_may_go(command_house):
    def make(tx):
        for number in range(3000):
            stated_by_peer(tx, f"u{number}@example.org", number=number)

    command_house.write(make)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [COMMAND, "bindings", "export", "-c", command_house.conf],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=SECONDS,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# --- there and back ----------------------------------------------------------------------------------------

LETTERS = st.characters(categories=("L", "N", "S", "P"), exclude_characters="@")


@st.composite
def emails(draw):
    """An address as it is stored."""
    domain = draw(st.sampled_from(["example.org", "bücher.example", "a-b.c.example"]))
    local = draw(st.text(LETTERS, min_size=1, max_size=12))
    try:
        return Threepid(EMAIL, normalise_email(f"{local}@{domain}"))
    except InvalidEmail:
        return Threepid(EMAIL, f"plain+{len(local)}@{domain}")


ADDRESSES = emails() | st.from_regex(r"[1-9][0-9]{3,14}", fullmatch=True).map(
    lambda text: Threepid(MSISDN, text)
)
USERS = st.text(LETTERS.filter(lambda c: c != ":"), max_size=20).map(lambda name: f"@{name}:hs.example.org")


@given(ADDRESSES, USERS, st.integers(0, 2**53))
def test_a_line_that_was_exported_says_the_same_when_it_is_imported(threepid, mxid, number):
    written = export_line(Association(threepid, mxid, number, 0, 0, PEER, number))
    assert written.count(b"\n") == 1
    assert read_line(written) == Provision(threepid, mxid, bound=True)


def test_what_one_server_exports_another_imports(command_house, tmp_path_factory):
    def make(tx):
        for number in range(1200):
            threepid = (
                Threepid(MSISDN, f"44770090{number:04}")
                if number % 3
                else Threepid(EMAIL, f"é{number}@x.org")
            )
            association = Association(threepid, f"@u{number}:hs{number % 7}.org", 1, 1, 1, PEER, number)
            associations.put(tx, association, "{}")

    command_house.write(make)
    other = CommandHouse(tmp_path_factory.mktemp("other"))
    _, out, _ = command_house.run("bindings", "export")
    status, told, _ = other.run("bindings", "import", "-", stdin=out.encode())
    assert (status, told) == (0, "bound 1200, unbound 0, unchanged 0, refused 0\n")
    assert bound(other) == bound(command_house)
