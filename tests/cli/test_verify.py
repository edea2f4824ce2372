"""`verify`: the command as a process; each kind of damage is made, and found."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from cli.home import ANN, Home, address
from daemons import SECONDS
from replication.mesh import A, peer, ring
from store_tools import START_MS, contents, rows

from sydentish.domain.associations import Association
from sydentish.domain.invites import Invitation
from sydentish.domain.peers import Peer
from sydentish.domain.signatures import canonical
from sydentish.store import invites
from sydentish.store import peers as peer_rows
from sydentish.store.integrity import PAGE, Checks
from sydentish.store.sqlite import SqliteTx, connect

NOT_A_KEY = "g" * 64


@pytest.fixture
def home(tmp_path):
    """A server with associations of its own, and of a peer."""
    home = Home(tmp_path)
    home.make_pepper()
    home.write(lambda tx: peer_rows.add(tx, peer(), START_MS))
    home.bind(*range(5))
    home.unbind(4)
    for number in (10, 11):
        take(home, number)
    return home


def take(home, number, keys=None):
    """A peer states an association."""
    keys = keys or ring(A)
    bound = Association(address(number), ANN, START_MS, 0, START_MS, keys.server_name, number)
    signed = canonical(keys.sign(bound.to_json())).decode()
    home.write(lambda tx: home.statements.take(tx, bound, signed, START_MS))


def verify(home, *options):
    """Status, and what `--json` says."""
    status, said = home.told("verify", "--json", *options)
    return status, json.loads(said)


def change(home, *statements):
    """Something changes a database that is not supposed to."""
    with closing(sqlite3.connect(home.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)


def test_a_sound_database_is_found_sound_and_nothing_is_changed(home):
    before = contents(home.path)
    status, said = home.told("verify")
    # By chance, some are picked twice, and are looked at once.
    assert (status, said.startswith("ok: "), "@" in said) == (0, True, False)
    assert home.told("verify", "--all") == (0, "ok: 6 associations were looked at\n")
    assert verify(home, "--all") == (0, {"ok": True, "associations": 6, "unknown": 0, "findings": []})
    assert verify(home, "--sample", "0") == (0, {"ok": True, "associations": 0, "unknown": 0, "findings": []})
    assert contents(home.path) == before


def test_an_empty_database_is_sound(tmp_path):
    assert Home(tmp_path).told("verify") == (0, "ok: 0 associations were looked at\n")


@pytest.mark.parametrize(
    ("damage", "check", "problem"),
    [
        ("DROP INDEX associations_by_mxid", "schema", "associations_by_mxid is missing"),
        ("DROP TABLE budgets", "schema", "budgets is missing"),
        ("CREATE TABLE mine (x)", "schema", "mine is not of this program"),
        ("CREATE INDEX mine ON associations (ts)", "schema", "mine is not of this program"),
        ("ALTER TABLE associations ADD COLUMN mine", "schema", "associations is not as it should be"),
        (
            "INSERT INTO access_tokens VALUES ('h', '@nobody:hs.example.org', 1, 1)",
            "references",
            "1 rows of access_tokens refer to something that is not there",
        ),
        (
            "DELETE FROM lookup_hashes WHERE hash = (SELECT min(hash) FROM lookup_hashes)",
            "hashes",
            "1 associations are not found by their hashes",
        ),
        (
            "UPDATE lookup_hashes SET mxid = '@x:y'",
            "hashes",
            "6 associations have another user by their hashes",
        ),
        (
            "INSERT INTO lookup_hashes SELECT pepper_id, 'x', '@x:y' FROM peppers",
            "hashes",
            "6 associations have 7 hashes with pepper 1",
        ),
        (
            "UPDATE associations SET signed = replace(signed, '\"ts\":17', '\"ts\":18')",
            "signatures",
            "2 associations of peers have no signature of theirs that is good",
        ),
        (
            "UPDATE associations SET signed = NULL",
            "signatures",
            "2 associations of peers have no signature of theirs that is good",
        ),
        (
            "UPDATE associations SET signed = 'rubbish' WHERE origin_id = 10",
            "signatures",
            "1 associations of peers have no signature of theirs that is good",
        ),
        (
            "UPDATE associations SET not_after = not_after + 1",
            "signatures",
            "2 associations of peers are not what these have signed",
        ),
        (
            "UPDATE counters SET value = 3 WHERE name = 'statement'",
            "numbers",
            "our statements have numbers up to 6, but the next one would get 4",
        ),
        (
            "UPDATE associations SET origin_server = 'old.example.org' WHERE signed IS NULL AND origin_id > 1",
            "names",
            "associations in it were stated as old.example.org, and [general] server_name is id.example.org",
        ),
        (
            "UPDATE outbox_destinations SET next_due_ts = NULL",
            "outbox",
            "of 1 destinations it is not known right when something is due",
        ),
        (
            "DELETE FROM outbox_destinations",
            "outbox",
            "of 1 destinations it is not known right when something is due",
        ),
        (
            f"INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES ('{NOT_A_KEY}', 1)",
            "ephemeral keys",
            "1 are no keys",
        ),
    ],
)
def test_what_is_wrong_is_found_with_a_remedy(home, damage, check, problem):
    change(home, damage)
    status, found = verify(home, "--all")
    assert (status, found["ok"]) == (1, False)
    told = {(each["check"], each["problem"]) for each in found["findings"]}
    assert (check, problem) in told
    assert all(each["remedy"] for each in found["findings"])
    status, said = home.told("verify", "--all")
    assert status == 1
    assert f"failed: {check}: {problem}; " in said
    assert "@" not in said


def test_numbers_that_would_be_used_twice_are_mended_as_it_says(home):
    change(home, "UPDATE counters SET value = 3 WHERE name = 'statement'")
    (finding,) = verify(home)[1]["findings"]
    change(home, finding["remedy"].split(": ", 1)[1])
    assert verify(home)[1]["ok"]


@pytest.mark.parametrize(
    "damage", ["DELETE FROM outbox_destinations", "UPDATE outbox_destinations SET next_due_ts = NULL"]
)
def test_what_nobody_knows_to_be_due_is_mended_as_it_says(home, damage):
    change(home, damage)
    (finding,) = verify(home)[1]["findings"]
    command = finding["remedy"].split(",")[0].removeprefix("sydentish ").split()
    (waits, *_) = json.loads(home.told("outbox", "list", "--json")[1])["rows"]
    said = home.told(*command, "--kind", waits["kind"], "--destination", waits["destination"])
    assert said[0] == 0, said
    assert verify(home)[1]["ok"]


def test_an_address_that_is_bound_and_unbound_is_found(home):
    (row,) = rows(home.path, "SELECT * FROM associations WHERE origin_id = 1")
    home.unbind(0)
    home.write(lambda tx: tx.run(f"INSERT INTO associations VALUES ({', '.join('?' * len(row))})", row))
    told = {each["problem"] for each in verify(home, "--all")[1]["findings"]}
    assert "1 addresses are bound, and unbound at the same time" in told


def test_an_invitation_without_its_key_is_found(home):
    def invite(tx):
        for token in ("kept", "lost", "over"):
            later = 10**15 if token != "over" else START_MS
            invitation = Invitation(token, address(9), "!r:hs.example.org", ANN, START_MS, later)
            invites.add(tx, invitation, token.encode().ljust(32))

    home.write(invite)
    home.write(
        lambda tx: tx.run("DELETE FROM ephemeral_keys WHERE public_key LIKE ?", (f"{b'lost'.hex()}%",))
    )
    home.write(
        lambda tx: tx.run("DELETE FROM ephemeral_keys WHERE public_key LIKE ?", (f"{b'over'.hex()}%",))
    )
    (finding,) = verify(home)[1]["findings"]
    assert finding["problem"].startswith("1 invitations have no key")


def test_what_unknown_servers_or_keys_have_signed_is_only_counted(home):
    stranger = ring("stranger.example.org", seed=7)
    take(home, 20, stranger)
    replaced = ring(A, seed=8, version="1")
    home.write(lambda tx: peer_rows.add(tx, peer(keys=replaced), START_MS))
    status, found = verify(home, "--all")
    assert (status, found["associations"], found["unknown"]) == (0, 7, 3)
    assert (
        "3 of them were signed by servers, or with keys, that are not known here"
        in home.told("verify", "--all")[1]
    )
    # With the same ID, but another key, it is none of theirs.
    forged = Peer(A, "https://a", {"ed25519:0": replaced.active.public_key}, (A,))
    home.write(lambda tx: peer_rows.add(tx, forged, START_MS))
    assert verify(home, "--all")[0] == 1


def test_hashes_that_are_being_made_or_dropped_are_no_mistake(home):
    home.write(lambda tx: tx.run("INSERT INTO peppers VALUES (7, 'making', ?, NULL, NULL)", (START_MS,)))
    home.write(lambda tx: tx.run("INSERT INTO peppers VALUES (0, 'over', 1, 1, 2)"))
    assert verify(home, "--all")[0] == 0


def test_damaged_pages_are_found(home):
    home.bind(*range(100, 400))
    with closing(sqlite3.connect(home.path)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'associations'"
        ).fetchone()
    with home.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    status, said = home.told("verify")
    assert status == 1
    assert "malformed" in said or "is damaged" in said
    assert "restore a backup (sydentish restore)" in said


def test_with_all_an_index_that_lacks_something_is_found(home):
    (definition,) = rows(home.path, "SELECT sql FROM sqlite_master WHERE name = 'associations_by_mxid'")
    change(
        home,
        "UPDATE sqlite_master SET sql = 'CREATE INDEX associations_by_mxid ON associations (mxid) WHERE ts < 0' "
        "WHERE name = 'associations_by_mxid'",
    )
    change(home, "REINDEX associations_by_mxid")
    change(home, f"UPDATE sqlite_master SET sql = '{definition[0]}' WHERE name = 'associations_by_mxid'")
    (finding,) = verify(home, "--all")[1]["findings"]
    assert finding["check"] == "structure"
    # Only because that index is counted in, something else shows without.
    assert "structure" not in {each["check"] for each in verify(home)[1]["findings"]}
    assert "missing from index associations_by_mxid" in finding["problem"]


def test_without_a_database_there_is_nothing_to_verify(home):
    for file in home.path.parent.glob("sydentish.db*"):
        file.unlink()
    status, said = home.told("verify")
    assert status == 1
    assert f"{home.path}: there is no database yet" in said
    assert home.told("verify", "--sample", "-1")[0] == 2


def test_many_are_looked_at_page_by_page_beside_a_server_that_writes(home):
    home.bind(*range(1000, 1000 + 2 * PAGE))
    program = """
import sys
from pathlib import Path
from sydentish.store.sqlite import connect
connection = connect(Path(sys.argv[1]), 5000)
connection.execute("BEGIN IMMEDIATE")
print("writes", flush=True)
sys.stdin.read(1)
"""
    # In the middle of a transaction, which only those that write wait for.
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "writes\n"
        status, found = verify(home, "--all")
        writer.communicate("x", timeout=SECONDS)
    assert (status, found["associations"]) == (0, 6 + 2 * PAGE)


def test_a_sample_has_no_more_than_it_should_and_a_page_ends(home):
    home.bind(*range(1000, 1000 + PAGE))
    with closing(connect(home.path, 5000, read_only=True)) as connection:
        tx = SqliteTx(connection)
        checks = Checks("id.example.org", 0, START_MS)
        picks = iter([0, 0, 3, 4])
        checks.sample(tx, 5, 4, lambda _until: next(picks))
        # The first was picked twice; rows 4 and 5 there are, or one behind them.
        assert checks.looked.associations == 3
        at, ends = 0, []
        while at < 10_000:
            at = checks.page(tx, at, 10_000)
            ends.append(at)
        assert ends[-1] == 10_000
        assert checks.looked.associations == 3 + 6 + PAGE
