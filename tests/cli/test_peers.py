"""`peers`: the commands as processes, with a real database, and real peers where there is one to talk to."""

import json
import os
import sqlite3
from contextlib import closing

import pytest
import pytest_twisted
from cli.home import ANN
from cli.house import PEERS_KEY, US, BareHouse
from daemons import SECONDS, Daemon, Process
from replication.listening_peer import Node
from replication.mutual import PeerServer
from standins.behaviours import answer
from store_tools import START_MS, address, rows
from twisted.internet import reactor

from sydentish.cli.printing import age
from sydentish.domain.peers import Failed, Peer
from sydentish.replication.tls import PeerTls
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.migrate import shipped_steps

NAME = "id.example.net"
ADD = ["peers", "add", NAME, "--url", "https://id.example.net:4434/", "--key", f"ed25519:0 {PEERS_KEY}"]
USAGE = 2


class House(BareHouse):
    """A server with keys and a certificate, and the commands on it.

    Attributes:
        authority: who has issued its certificate.
    """

    def __init__(self, folder):
        super().__init__(folder)
        self.authority = self.certify()
        self.make_keys()

    def bind(self, tx, number):
        self.statements.bind(tx, address(number), ANN, START_MS)

    def unbind(self, tx, number):
        assert self.statements.unbind(tx, address(number), ANN, START_MS)

    def lines(self, *arguments):
        """Status and lines of a command in a process of its own."""
        status, out, err = self.run(*arguments)
        return status, [*out.splitlines(), *err.splitlines()]

    async def talk(self, *arguments):
        """Status, and all that a command says that talks to somebody in this process."""
        process = Process(*arguments, "-c", str(self.conf))
        status = await process.ended.addTimeout(SECONDS, reactor)
        assert "Traceback" not in process.output, process.output
        return status, process.output


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def server(house):
    """One whose server was started before."""
    house.migrate()
    return house


def listed(house):
    return {peer["name"]: peer for peer in house.json("peers", "list")["peers"]}


def put(tx, name, source="command"):
    peer = Peer(name, f"https://{name}", {"ed25519:0": PEERS_KEY}, (name,))
    if source == "command":
        peer_rows.add(tx, peer, START_MS)
    else:
        peer_rows.configure(tx, [peer], START_MS)
    return peer


# --- before the server was started ------------------------------------------------------------------------


def test_without_a_database_those_of_the_configuration_are_listed(house):
    house.configure(NAME)
    status, lines = house.ask("peers", "list")
    assert (status, [line.split() for line in lines[:2]]) == (
        0,
        [
            ["NAME", "STATE", "BEHIND", "WAITING", "PARKED", "SENT", "RECEIVED", "LAST", "FAILURE"],
            [NAME, "not", "in", "use", "yet", *"------"],
        ],
    )
    assert lines[2:] == [f"{NAME}: not in use yet: restart the server"]
    assert not house.path.exists()
    status, lines = house.ask("peers", "show", NAME, "--json")
    assert json.loads("\n".join(lines))["behind"] is None


def test_without_any_peer_the_way_to_one_is_told(house):
    assert house.ask("peers", "list") == (0, ["There are no peers; see sydentish peers add --help"])
    assert house.ask("peers", "list", "--json") == (0, ["{", '  "peers": []', "}"])


@pytest.mark.parametrize(
    "command", [ADD, ["peers", "pause", NAME], ["peers", "test", NAME], ["peers", "resync", NAME]]
)
def test_without_a_database_nothing_else_can_be_done(house, command):
    told = f"{house.path}: there is no database yet: start the server first: sydentish serve"
    assert house.ask(*command) == (1, [told])
    assert not house.path.exists()


def test_a_database_of_another_version_is_left_alone(house):
    house.migrate(shipped_steps()[:-1])
    before = house.path.read_bytes()
    status, (line,) = house.ask(*ADD)
    newest = shipped_steps()[-1].number
    told = f"{house.path}: has schema {newest - 1}, this version needs {newest}: start the server with this version"
    assert (status, line) == (1, f"{told} first: sydentish serve")
    assert house.path.read_bytes() == before
    with closing(sqlite3.connect(house.path)) as connection:
        connection.execute("INSERT INTO schema_steps VALUES (9999, 'from_the_future', 0)")
        connection.commit()
    assert "was used by a newer version" in house.ask("peers", "list")[1][0]


def test_the_database_of_another_program_is_left_alone(house):
    with closing(sqlite3.connect(house.path)) as connection:
        connection.execute("CREATE TABLE x (y)")
    before = house.path.read_bytes()
    assert house.ask(*ADD) == (1, [f"{house.path}: is the database of another program"])
    assert house.path.read_bytes() == before


# --- ourselves --------------------------------------------------------------------------------------------


def test_what_other_operators_need_is_printed_and_can_be_used(house, tmp_path):
    status, lines = house.ask("peers", "show", US)
    assert status == 0
    key = f"ed25519:0 {house.keys.active.public_key}"
    section = [
        f"[peer {US}]",
        "url = https://matrix.example.org:4434",
        f"keys = {key}",
        f"certificate_names = {US}",
    ]
    assert lines[1:5] == section
    assert lines[-1] == (
        f"sydentish peers add {US} --url https://matrix.example.org:4434 --key '{key}' --certificate-name {US}"
    )
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other")
    text = other.conf.read_text().replace(f"server_name = {US}", f"server_name = {NAME}")
    other.conf.write_text(text + "\n".join(section))
    assert other.ask("peers", "list")[0] == 0


@pytest.mark.parametrize(
    ("listener", "url"),
    [
        ("tcp:port=4435:interface=127.0.0.1", "https://matrix.example.org:4435"),
        (r"tcp6:interface=\:\:1:port=4436", "https://matrix.example.org:4436"),
        ("unix:/run/x.sock", "https://matrix.example.org:PORT"),
        ("", "https://matrix.example.org:PORT"),
    ],
)
def test_the_url_is_guessed_from_the_listeners(house, listener, url):
    house.conf.write_text(house.conf.read_text().replace("listeners = tcp:4434", f"listeners = {listener}"))
    status, lines = house.ask("peers", "show", US, "--json")
    told = json.loads("\n".join(lines))
    assert (status, told["url"], told["certificate_names"]) == (0, url, [US])


def test_without_a_certificate_nothing_can_be_tried(house):
    text = house.conf.read_text()
    house.conf.write_text(text[: text.index("[replication]")])
    told = (
        "[replication] certificate_file, ca_file: must be set: peers are shown a certificate, and show theirs"
    )
    for command in ("test", "resync"):
        assert house.ask("peers", command, NAME) == (os.EX_CONFIG, [told])
    assert "certificate_file is not set" in house.ask("peers", "show", US)[1][-1]


# --- adding, changing and removing ------------------------------------------------------------------------


def test_a_peer_from_its_beginning_to_its_end(server):
    status, lines = server.lines(*ADD)
    assert (status, lines) == (
        0,
        [
            f"{NAME}: is a peer; a running server takes that up within seconds",
            f"Try it: sydentish peers test {NAME}",
        ],
    )
    added = listed(server)[NAME]
    assert (added["url"], added["keys"], added["certificate_names"], added["state"], added["source"]) == (
        "https://id.example.net:4434",
        {"ed25519:0": PEERS_KEY},
        [NAME],
        "new",
        "command",
    )
    assert server.lines("peers", "pause", NAME)[0] == 0
    again = [
        *ADD,
        "--key",
        f"ed25519:b {PEERS_KEY}",
        "--certificate-name",
        "A.example.net",
        "--certificate-name",
        "::1",
    ]
    status, lines = server.lines(*again)
    assert (status, lines[0].split(";")[0]) == (0, f"{NAME}: was a peer already, and has these settings now")
    changed = listed(server)[NAME]
    assert list(changed["keys"]) == ["ed25519:0", "ed25519:b"]
    assert changed["certificate_names"] == ["a.example.net", "::1"]
    # What was said of it before, beside its settings, stays.
    assert changed["state"] == "paused"
    assert server.lines("peers", "resume", NAME)[0] == 0
    assert rows(server.path, "SELECT paused FROM peers") == [(0,)]
    assert server.lines("peers", "remove", NAME)[0] == 0
    assert rows(server.path, "SELECT * FROM peers") == []


@pytest.mark.parametrize("command", ["show", "pause", "remove", "test", "resync"])
def test_a_peer_that_there_is_not(server, command):
    status, (line,) = server.lines("peers", command, NAME)
    assert status == 1
    assert line.startswith(f"{NAME}: the")
    assert "no such peer; see sydentish peers list" in line


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("a b", [], "must be a server name"),
        (NAME, ["--url", "http://id.example.net"], "must be an https URL"),
        (NAME, ["--key", "ed25519:1 c2hvcnQ"], "number 2 is none"),
        (NAME, ["--key", f"ed25519:0 {PEERS_KEY}"], "number 2 has the ID of an earlier one"),
        (NAME, ["--certificate-name", "*.example.net"], "must be a host name or an IP address"),
    ],
)
def test_what_is_wrong_with_a_new_peer_is_told_as_in_the_configuration(server, name, more, told):
    status, lines = server.ask(*ADD[:2], name, *ADD[3:], *more)
    assert status == USAGE
    assert told in lines[-1]
    assert rows(server.path, "SELECT * FROM peers") == []


def test_a_key_is_never_repeated_in_a_message(server):
    private = "c2VjcmV0IGtleSB0aGF0IGlzIHRvbyBsb25nIGZvciBpdA"
    _, lines = server.ask(*ADD[:5], "--key", f"ed25519:0 {private}")
    assert private not in "\n".join(lines)


def test_who_cannot_be_added(server):
    server.configure("one.example.net")
    server.write(lambda tx: put(tx, "two.example.net"))
    for name, more, told in (
        (US.upper(), [], "is this server itself"),
        ("one.example.net", [], "stands in the configuration, [peer one.example.net]: change it there"),
        (NAME, ["--certificate-name", "one.example.net"], "is a certificate name of one.example.net, too"),
        (NAME, ["--certificate-name", "two.example.net"], "is a certificate name of two.example.net, too"),
    ):
        status, (line,) = server.lines(*ADD[:2], name, *ADD[3:], *more)
        assert status == 1
        assert told in line
    assert rows(server.path, "SELECT name FROM peers") == [("two.example.net",)]


def test_without_a_certificate_a_peer_is_added_with_a_warning(server):
    text = server.conf.read_text()
    server.conf.write_text(text[: text.index("[replication]")])
    status, lines = server.lines(*ADD)
    assert (status, lines[-1]) == (
        0,
        "warning: [replication] certificate_file is not set: nothing is exchanged",
    )


def test_removing_a_peer_erases_what_only_it_has_not_heard(server):
    def fill(tx):
        for name in (NAME, "two.example.net"):
            put(tx, name)
        for number in range(3):
            server.bind(tx, number)
        for number in range(2):
            server.unbind(tx, number)
        lease = push_rows.lease(tx, "two.example.net", START_MS, 1000)
        push_rows.acknowledged(tx, "two.example.net", push_rows.Batch((), 9, moves_on=True), lease, START_MS)

    server.write(fill)
    assert server.write(statement_rows.unerased) == 2
    told = f"{NAME}: is forgotten; 2 addresses that were kept only for it are erased"
    assert server.lines("peers", "remove", NAME) == (0, [told])
    assert server.write(statement_rows.unerased) == 0


def test_a_peer_of_the_configuration_is_removed_there(server):
    server.configure(NAME)
    server.write(lambda tx: put(tx, NAME, "configuration"))
    status, (line,) = server.lines("peers", "remove", NAME)
    assert (status, line) == (
        1,
        f"{NAME}: stands in the configuration, [peer {NAME}]: take that out, restart the server, and then remove it",
    )
    assert rows(server.path, "SELECT name FROM peers") == [(NAME,)]


def test_a_peer_that_the_server_does_not_know_yet_cannot_be_paused(server):
    server.configure(NAME)
    assert server.lines("peers", "pause", NAME) == (1, [f"{NAME}: is not in use yet: restart the server"])


# --- listing and showing ----------------------------------------------------------------------------------


def test_how_peers_fare_is_listed(server):
    names = [
        f"{name}.example.net"
        for name in ("behind", "failing", "gone", "left", "new", "ok", "paused", "waits")
    ]
    behind, failing, gone, left, new, ok, paused, waits = names
    server.configure(waits)

    def fill(tx):
        put(tx, gone, "configuration")
        put(tx, left, "configuration")
        for name in (behind, failing, new, ok, paused):
            put(tx, name)
        for number in range(3):
            server.bind(tx, number)
        peer_rows.pause(tx, paused, paused=True)
        for name, until_id in ((ok, 3), (behind, 3), (failing, 1)):
            lease = push_rows.lease(tx, name, START_MS, 1000)
            push_rows.acknowledged(tx, name, push_rows.Batch((), until_id, moves_on=True), lease, START_MS)
        push_rows.hold_back(tx, behind, [2], "is odd", START_MS)
        for _ in range(4):
            push_rows.failed(
                tx, failing, Failed("unreachable", "connection refused"), 0, START_MS + 5000, 0.0
            )

    server.write(fill)
    found = listed(server)
    assert {name: peer["state"] for name, peer in found.items()} == {
        behind: "behind",
        failing: "failing",
        gone: "gone",
        left: "new",
        new: "new",
        ok: "ok",
        paused: "paused",
        waits: "not in use yet",
    }
    assert {name: peer["note"] for name, peer in found.items() if peer["note"]} == {
        gone: f"no longer in the configuration: sydentish peers remove {gone}, or put it back",
        left: "no longer in the configuration, but still in use: restart the server",
        waits: "not in use yet: restart the server",
    }
    assert (found[failing]["behind"], found[failing]["waiting_since_ts"]) == (2, START_MS)
    assert (found[failing]["failures"], found[failing]["last_failure"]) == (4, "connection refused")
    assert (found[behind]["behind"], found[behind]["parked"]) == (1, 1)
    status, lines = server.lines("peers", "list")
    assert status == 0
    row = next(line for line in lines if line.startswith(f"{failing} "))
    assert row.endswith(" ago: connection refused")
    # The columns stand below one another.
    assert len({line.index(" " + found[line.split()[0]]["state"]) for line in lines[1:9]}) == 1
    status, lines = server.lines("peers", "show", behind)
    assert status == 0
    assert lines[-2:] == ["parked:            1", "                   2: is odd"]
    status, lines = server.lines("peers", "show", behind, "--json")
    assert json.loads("\n".join(lines))["parked_statements"] == [{"id": 2, "reason": "is odd"}]


def test_a_peer_that_the_configuration_says_something_else_of_is_marked(server):
    server.configure(NAME, "https://elsewhere.example.net:4434")
    server.write(lambda tx: put(tx, NAME, "configuration"))
    assert listed(server)[NAME]["note"] == "the configuration says something else by now: restart the server"


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (-5, "0 s"),
        (1999, "1 s"),
        (119_000, "119 s"),
        (120_000, "2 min"),
        (7_199_000, "119 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2 d"),
    ],
)
def test_times_are_told_roughly(ms, told):
    assert age(ms) == told


# --- talking to a peer ------------------------------------------------------------------------------------


def now_ms():
    return int(reactor.seconds() * 1000)


@pytest_twisted.async_yield_fixture
async def there(tmp_path, house):
    """A peer that knows us."""
    node = Node(tmp_path, NAME, 2, now_ms=now_ms)
    await node.start()
    keys = {house.keys.active.key_id: house.keys.active.public_key}
    await node.knows(Peer(US, "https://id.example.org", keys, (US,)))
    house.authority.issue(NAME).write(tmp_path / "there.pem")
    await node.listen(PeerTls.load(tmp_path / "there.pem", None, tmp_path / "ca.pem"))
    yield node
    await node.stop()


def adding(node):
    key = node.keys.active
    peer = node.as_peer()
    return ["peers", "add", NAME, "--url", peer.url, "--key", f"{key.key_id} {key.public_key}"]


@pytest_twisted.ensureDeferred
async def test_a_configured_peer_is_tried_before_the_server_was_started(house, there):
    house.configure(NAME, there.as_peer().url)
    text = house.conf.read_text()
    house.conf.write_text(text.replace(PEERS_KEY, there.keys.active.public_key))
    status, output = await house.talk("peers", "test", NAME)
    assert status == 0, output
    assert [line.split(":")[0] for line in output.splitlines()] == ["ok"] * 7
    assert not house.path.exists()
    # With another key of it, one step fails, and with it the command.
    house.conf.write_text(text)
    status, output = await house.talk("peers", "test", NAME)
    assert status == 1
    (line,) = [line for line in output.splitlines() if not line.startswith("ok: ")]
    assert line.startswith(f"failed: what it answers has a wrong signature of {NAME}; ask its operator")
    status, output = await house.talk("peers", "test", NAME, "--json")
    told = json.loads(output)
    assert (status, told["peer"], told["ok"]) == (1, NAME, False)
    assert [step["step"] for step in told["steps"] if step["remedy"]] == ["its key"]


@pytest_twisted.ensureDeferred
async def test_an_added_peer_is_tried_and_sent_what_it_lacks(house, there):
    house.migrate()
    house.write(lambda tx: [house.bind(tx, number) for number in range(40)])
    assert (await house.talk(*adding(there)))[0] == 0
    status, output = await house.talk("peers", "test", NAME)
    assert status == 0, output
    status, output = await house.talk("peers", "resync", NAME)
    assert (status, output) == (0, f"{NAME}: 40 statements compared, 40 sent again\n")
    status, output = await house.talk("peers", "resync", NAME, "--json")
    assert (status, json.loads(output)) == (
        0,
        {
            "peer": NAME,
            "compared": 40,
            "sent": 0,
            "refused": [],
            "erased": 0,
            "outdated": 0,
            "gone": 0,
            "superseded": 0,
            "foreign": 0,
            "starts_over": False,
            "failure": None,
        },
    )
    # Whatever was sent, the server goes on where it was.
    assert rows(house.path, "SELECT acknowledged_id FROM peers") == [(0,)]
    await there.db.write(peer_rows.remove, US)
    status, output = await house.talk("peers", "resync", NAME)
    assert status == 1
    assert output.splitlines()[-1] == (
        f"{NAME}: broke off: it was asked what it knows, and answers HTTP 403 M_UNKNOWN_PEER; "
        f"see sydentish peers test {NAME}"
    )


@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_missed_while_it_was_removed_is_told(house, there):
    house.migrate()
    house.write(lambda tx: [house.bind(tx, number) for number in range(4)])
    assert (await house.talk(*adding(there)))[0] == 0
    assert (await house.talk("peers", "resync", NAME))[0] == 0
    assert (await house.talk("peers", "remove", NAME))[0] == 0
    house.write(lambda tx: [house.unbind(tx, number) for number in range(2)])
    house.write(lambda tx: house.bind(tx, 9) or house.unbind(tx, 9))
    assert (await house.talk(*adding(there)))[0] == 0
    # Two are of users that another server has stated something newer of, or of which nothing is known at all.
    house.write(
        lambda tx: tx.run(
            "UPDATE associations SET origin_server = 'c.example.net', ts = ts + 9 WHERE origin_id = 3"
        )
    )
    house.write(lambda tx: tx.run("DELETE FROM associations WHERE origin_id = 4"))
    status, output = await house.talk("peers", "resync", NAME)
    assert (status, output.splitlines()) == (
        0,
        [
            f"{NAME}: 3 statements compared, 2 sent again",
            "2 that it still had, though unbound and erased here, are erased there now",
            "1 known to it, but outdated: whoever has stated what is newer sends that",
            "1 known to it, but no longer here: was this database set back?",
        ],
    )
    assert rows(there.path, "SELECT origin_id FROM associations ORDER BY origin_id") == [(3,), (4,)]


@pytest_twisted.async_yield_fixture
async def sydent(tmp_path, house):
    """A peer that answers as a Sydent does, with a page, what it does not know."""
    server = PeerServer()
    server.behaviour = answer(404, b"<html>No Such Resource</html>")
    house.authority.issue(NAME).write(tmp_path / "there.pem")
    await server.listen(PeerTls.load(tmp_path / "there.pem", None, tmp_path / "ca.pem"))
    yield server
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_who_is_taken_for_a_sydent_is_told(house, sydent):
    house.migrate()
    added = [*ADD[:4], f"https://127.0.0.1:{sydent.port}", *ADD[5:]]
    assert (await house.talk(*added))[0] == 0
    status, output = await house.talk("peers", "resync", NAME)
    assert status == 0
    assert output == (
        f"{NAME}: answers 404 without JSON, and is taken for a Sydent, which cannot be compared with: the server pushes "
        f"everything to it again; if it is none: sydentish peers test {NAME}\n"
    )


@pytest_twisted.ensureDeferred
async def test_a_running_server_takes_an_added_peer_up(tmp_path, house, there):
    daemon = Daemon(
        tmp_path, f"[replication]\ncertificate_file = {tmp_path}/own.pem\nca_file = {tmp_path}/ca.pem\n"
    )
    house.conf = daemon.config
    await daemon.start()
    try:
        assert (await house.talk(*adding(there)))[0] == 0
        await there.received.count(1)
        assert (await house.talk("peers", "pause", NAME))[0] == 0
    finally:
        await daemon.clean_up()
