"""`restore`: the command as a process; the database that was there, what is taken out of a backup, and what goes wrong."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tarfile
from contextlib import closing

import pytest
from cli.home import Home, address
from daemons import SECONDS, hooked
from replication.mesh import peer
from store_tools import START_MS, rows

from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store.copies import checked_contents
from sydentish.store.counters import JUMP
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import connect

NEWEST = shipped_steps()[-1].number
INTERRUPTED = 130
# Has the database open as a server has it, and does nothing, until somebody speaks to it.
IDLER = """
import sys
from pathlib import Path
from sydentish.store.sqlite import connect

connection = connect(Path(sys.argv[1]), 5000, read_only=True)
connection.execute("SELECT count(*) FROM peers").fetchone()
print("open", flush=True)
sys.stdin.read(1)
"""
# Read by every Python before anything else: the program is told to stop when it begins to replace the database.
STOPPED = """
import os, signal, sys
def hook(event, args):
    if event == "sqlite3.connect" and str(args[0]) == {path!r}:
        os.kill(os.getpid(), signal.{signal})
sys.addaudithook(hook)
"""


@pytest.fixture
def home(tmp_path):
    """A server that has bound three addresses; there is a backup of it, and it has bound and unbound some since."""
    home = Home(tmp_path)
    home.bind(*range(3))
    assert home.told("backup", tmp_path / "copy.db")[0] == 0
    home.bind(3, 4)
    home.unbind(0)
    return home


def bound(path):
    return {found for (found,) in rows(path, "SELECT address FROM associations")}


def addresses(*numbers):
    return {address(number).address for number in numbers}


def counter(path):
    ((found,),) = rows(path, "SELECT value FROM counters WHERE name = 'statement'")
    return found


def lose(home):
    for file in home.path.parent.glob("sydentish.db*"):
        file.unlink()


def leftovers(home):
    """What lies beside the database that should not."""
    return sorted(
        path.name
        for path in home.path.parent.iterdir()
        if ".part" in path.name or path.name.endswith(("-wal", "-shm", "-journal"))
    )


def test_a_backup_takes_the_place_of_the_database_which_is_kept(home, tmp_path):
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 0, said
    kept = home.path.with_name("sydentish.db.before-restore")
    assert f"is kept as {kept}" in said
    assert "registers again" in said
    assert bound(home.path) == addresses(0, 1, 2)
    assert bound(kept) == addresses(1, 2, 3, 4)
    assert stat.S_IMODE(kept.stat().st_mode) == stat.S_IMODE(home.path.stat().st_mode) == 0o600
    # Of what was kept before, nothing is overwritten; the backup is as it was.
    home.bind(7)
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 0
    assert bound(kept) == addresses(1, 2, 3, 4)
    assert bound(kept.with_name(f"{kept.name}-2")) == addresses(0, 1, 2, 7)
    assert leftovers(home) == []
    assert checked_contents(tmp_path / "copy.db", NEWEST).rows["associations"] == 3
    # What was kept can be put back.
    assert home.told("restore", "--yes", kept)[0] == 0
    assert bound(home.path) == addresses(1, 2, 3, 4)


def test_numbers_go_on_behind_all_that_were_used(home, tmp_path):
    assert counter(home.path) == 6
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 0
    assert counter(home.path) == 6 + JUMP
    lose(home)
    assert home.told("restore", tmp_path / "copy.db")[0] == 0
    assert counter(home.path) == 3 + JUMP


def test_nothing_is_replaced_unless_somebody_says_yes(home, tmp_path):
    status, said = home.told("restore", tmp_path / "copy.db", answer="n\n")
    assert status == 1
    assert "3 associations" in said
    assert f"Replace {home.path} by it?" in said
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert home.told("restore", tmp_path / "copy.db")[0] == 1
    assert home.told("restore", tmp_path / "copy.db", answer="y\n")[0] == 0
    assert bound(home.path) == addresses(0, 1, 2)
    assert leftovers(home) == []


def test_who_has_it_open_keeps_it_even_if_idle_and_killed_ones_do_not(home, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", IDLER, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as idler:
        assert idler.stdout.readline() == "open\n"
        status, said = home.told("restore", "--yes", tmp_path / "copy.db")
        told = f"{home.path}: is in use; stop the server, and whatever else has it open, first\n"
        assert (status, said) == (1, told)
        assert bound(home.path) == addresses(1, 2, 3, 4)
        home.bind(8)
        idler.kill()
        idler.wait(timeout=SECONDS)
    # What it has left beside the database is taken into what is kept, and not into what is restored.
    assert leftovers(home)
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 0
    assert bound(home.path) == addresses(0, 1, 2)
    assert bound(home.path.with_name("sydentish.db.before-restore")) == addresses(1, 2, 3, 4, 8)


def test_what_lay_beside_a_database_that_is_gone_is_no_part_of_the_new_one(home, tmp_path):
    with closing(connect(home.path, 5000)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM associations")
        connection.execute("COMMIT")
        log = home.path.with_name("sydentish.db-wal").read_bytes()
    lose(home)
    home.path.with_name("sydentish.db-wal").write_bytes(log)
    status, said = home.told("restore", tmp_path / "copy.db")
    assert status == 0, said
    assert "is kept as" not in said
    assert bound(home.path) == addresses(0, 1, 2)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", [b"rubbish", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_database_that_is_damaged_beyond_reading_is_moved_aside(home, tmp_path, damage):
    home.path.write_bytes(damage)
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 0, said
    assert bound(home.path) == addresses(0, 1, 2)
    assert home.path.with_name("sydentish.db.before-restore").read_bytes() == damage


def test_a_database_with_damaged_pages_is_kept_as_it_is(home, tmp_path):
    with home.path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * 8192)
    damaged = home.path.read_bytes()
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 0
    assert checked_contents(home.path, NEWEST).rows["associations"] == 3
    kept = home.path.with_name("sydentish.db.before-restore").read_bytes()
    assert kept[8192:16_384] == damaged[8192:16_384]


def test_what_was_in_flight_is_so_no_longer(home, tmp_path):
    def send(tx):
        peer_rows.add(tx, peer(), START_MS)
        assert push_rows.lease(tx, peer().name, START_MS, 10**15)
        tx.run("UPDATE outbox_destinations SET lease_until_ts = ?", (10**15,))

    home.write(send)
    assert home.told("backup", "--force", tmp_path / "copy.db")[0] == 0
    assert home.told("restore", "--yes", "--offline", tmp_path / "copy.db")[0] == 0
    for table in ("peers", "outbox_destinations"):
        assert {found for (found,) in rows(home.path, f"SELECT lease_until_ts FROM {table}")} == {0}
    assert rows(home.path, "SELECT peer, own_id, peers_id FROM recalls") == [(peer().name, 6, 0)]


def test_peers_that_cannot_be_asked_without_a_certificate_are_told_of(home, tmp_path):
    home.write(lambda tx: peer_rows.add(tx, peer(), START_MS))
    assert home.told("backup", "--force", tmp_path / "copy.db")[0] == 0
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 1
    assert f"{home.path}: is restored" in said
    assert (
        "the peers were not asked for what is missing: [replication] certificate_file, ca_file: must be set"
        in said
    )
    assert "sydentish peers recall" in said
    status, said = home.told("restore", "--yes", "--offline", tmp_path / "copy.db")
    assert (status, said.splitlines()[-1]) == (
        0,
        "The peers were not asked for what was stated since. Do that with: sydentish peers recall",
    )


# --- what a backup has to be ---------------------------------------------------------------------------------


def test_an_older_schema_is_brought_up_to_date(tmp_path):
    home = Home(tmp_path)
    old = tmp_path / "old.db"
    migrate_sqlite(old, 5000, START_MS, shipped_steps()[:-1])
    lose(home)
    status, said = home.told("restore", old)
    assert status == 0, said
    assert checked_contents(home.path, NEWEST).schema == NEWEST
    assert [path.name for path in home.path.parent.glob("*.db*")] == ["sydentish.db"]
    assert checked_contents(old, NEWEST).schema == NEWEST - 1


def test_a_newer_schema_is_refused(home, tmp_path):
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute("INSERT INTO schema_steps VALUES (9999, 'later', 1)")
        connection.commit()
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 1
    assert "was used by a newer version: it has schema 9999" in said
    assert bound(home.path) == addresses(1, 2, 3, 4)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"SQLite format 3\0" + b"\0" * 5000])
def test_what_is_no_backup_is_refused(home, tmp_path, content):
    file = tmp_path / "other"
    file.write_bytes(content)
    status, said = home.told("restore", "--yes", file)
    assert status == 1, said
    assert said.startswith(f"{file}: ")
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert leftovers(home) == []


def test_of_an_archive_whose_database_is_none_the_archive_is_named(home, tmp_path):
    (tmp_path / "other").write_bytes(b"rubbish")
    with tarfile.open(tmp_path / "copy.tar", "w") as tar:
        tar.add(tmp_path / "other", "sydentish.db")
    status, said = home.told("restore", "--yes", tmp_path / "copy.tar")
    assert (status, said) == (1, f"{tmp_path}/copy.tar: is no SQLite database\n")


def test_an_empty_file_is_no_backup(home, tmp_path):
    (tmp_path / "empty.db").touch()
    status, said = home.told("restore", "--yes", tmp_path / "empty.db")
    assert (status, said) == (1, f"{tmp_path}/empty.db: is no backup of this program: it is empty\n")


def test_a_refused_one_leaves_no_empty_directory_on_a_new_machine(home, tmp_path):
    home.path.parent.rename(tmp_path / "old-machine")
    (tmp_path / "other").write_bytes((tmp_path / "copy.db").read_bytes()[:9000])
    for file in ("other", "copy.tar"):
        (tmp_path / "copy.tar").touch()
        assert home.told("restore", tmp_path / file)[0] == 1
        assert not home.path.parent.exists()
    assert home.told("restore", tmp_path / "copy.db")[0] == 0
    assert stat.S_IMODE(home.path.parent.stat().st_mode) == 0o700


EVIL = "UPDATE associations SET mxid = '@evil:evil.example'"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (f"CREATE TRIGGER evil AFTER INSERT ON associations BEGIN {EVIL}; END", "has views or triggers"),
        ("CREATE VIEW evil AS SELECT 1", "has views or triggers"),
        ("DROP TABLE budgets", "budgets is missing"),
        ("CREATE TABLE evil (x)", "evil is not of this program"),
        ("ALTER TABLE associations ADD COLUMN evil", "associations is not as it should be"),
    ],
)
def test_a_backup_of_another_shape_is_refused(home, tmp_path, change, problem):
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute(change)
        connection.commit()
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 1
    assert problem in said
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert leftovers(home) == []


def rename(home, name):
    home.conf.write_text(
        home.conf.read_text().replace("server_name = id.example.org", f"server_name = {name}")
    )


def test_a_backup_of_another_server_is_refused(home, tmp_path):
    before = home.conf.read_text()
    rename(home, "id.example.net")
    assert home.conf.read_text() != before
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 1
    assert "copy.db: is a backup of id.example.org, and [general] server_name is id.example.net: " in said
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert leftovers(home) == []


def unbound_everything(home, tmp_path):
    """A backup in which nothing but unbinds tells in which name they were stated."""
    home.write(lambda tx: peer_rows.add(tx, peer(), START_MS))
    for number in range(1, 5):
        home.unbind(number)
    assert home.told("backup", "--force", tmp_path / "copy.db")[0] == 0


def test_unbinds_that_peers_wait_for_tell_of_another_server_too(home, tmp_path):
    unbound_everything(home, tmp_path)
    rename(home, "id.example.net")
    status, said = home.told("restore", "--yes", "--offline", tmp_path / "copy.db")
    assert status == 1
    assert "copy.db: is a backup of id.example.org, and [general] server_name is id.example.net: " in said


def test_unbinds_that_all_have_heard_of_are_nobodys_and_refuse_nothing(home, tmp_path):
    unbound_everything(home, tmp_path)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute("DELETE FROM tombstones")
        connection.commit()
    rename(home, "id.example.net")
    assert home.told("restore", "--yes", "--offline", tmp_path / "copy.db")[0] == 0


def test_a_renamed_server_that_has_only_unbound_since_can_be_restored(home, tmp_path):
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute("UPDATE associations SET origin_server = 'old.example.org'")
        connection.commit()
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 1
    unbound_everything(home, tmp_path)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute(
            """
            INSERT INTO associations (medium, address, mxid, ts, not_before, not_after, origin_server, origin_id)
            VALUES ('email', 'x@example.org', '@x:example.org', 1, 1, 2, 'old.example.org', 99)
            """
        )
        connection.commit()
    assert home.told("restore", "--yes", "--offline", tmp_path / "copy.db")[0] == 0


def test_a_server_that_was_renamed_can_be_restored(home, tmp_path):
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute("UPDATE associations SET origin_server = 'old.example.org' WHERE origin_id = 1")
        connection.commit()
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 0
    assert bound(home.path) == addresses(0, 1, 2)


def test_a_backup_that_was_cut_off_is_refused(home, tmp_path):
    whole = (tmp_path / "copy.db").read_bytes()
    (tmp_path / "copy.db").write_bytes(whole[: len(whole) // 2])
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert status == 1
    assert "damaged" in said or "malformed" in said
    assert bound(home.path) == addresses(1, 2, 3, 4)


def test_the_database_itself_is_no_backup(home):
    status, said = home.told("restore", "--yes", home.path)
    assert (status, said) == (1, f"{home.path}: is the database itself\n")
    assert home.told("restore", "--yes", "none")[0] == 2


# --- keys ----------------------------------------------------------------------------------------------------


def test_keys_come_with_an_archive_where_there_are_none(home, tmp_path):
    assert home.told("keys", "rotate")[0] == 0
    assert home.told("backup", "--with-keys", tmp_path / "copy.tar")[0] == 0
    before = {path.relative_to(home.key_dir): path.read_text() for path in home.key_dir.rglob("*.key")}
    lose(home)
    for path in before:
        (home.key_dir / path).unlink()
    status, said = home.told("restore", tmp_path / "copy.tar")
    assert status == 0, said
    assert f"{home.key_dir}: the 2 keys of the backup are there now" in said
    assert {
        path.relative_to(home.key_dir): path.read_text() for path in home.key_dir.rglob("*.key")
    } == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.key_dir.rglob("*.key")} == {0o600}
    assert bound(home.path) == addresses(1, 2, 3, 4)


def test_a_new_machine_needs_nothing_but_the_configuration_and_the_archive(home, tmp_path):
    assert home.told("backup", "--with-keys", tmp_path / "copy.tar")[0] == 0
    lose(home)
    home.path.parent.rename(tmp_path / "old-machine")
    status, said = home.told("restore", tmp_path / "copy.tar")
    assert status == 0, said
    assert stat.S_IMODE(home.path.parent.stat().st_mode) == 0o700
    assert home.told("check-config")[0] == 0
    assert bound(home.path) == addresses(1, 2, 3, 4)


def test_with_a_broken_key_beside_it_nothing_is_replaced(home, tmp_path):
    broken = home.path.parent / "keys" / "other.key"
    broken.write_text("rubbish")
    before = bound(home.path)
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert (status, str(broken) in said) == (os.EX_CONFIG, True)
    assert bound(home.path) == before
    assert leftovers(home) == []


def test_where_the_keys_cannot_be_written_the_database_is_restored_all_the_same(home, tmp_path):
    assert home.told("backup", "--with-keys", tmp_path / "copy.tar")[0] == 0
    home.key_dir.rename(tmp_path / "elsewhere")
    home.key_dir.symlink_to(tmp_path / "nowhere")
    status, said = home.told("restore", "--yes", tmp_path / "copy.tar")
    assert status == 1
    assert f"{home.path}: is restored" in said
    assert "before-restore: delete it when all is well" in said
    assert f"the keys of the backup are not in place: {home.key_dir}: " in said
    assert "put them there, and ask the peers: sydentish peers recall" in said
    assert "nothing was changed" not in said
    assert bound(home.path) == addresses(1, 2, 3, 4)


def test_keys_that_are_there_are_left_alone(home, tmp_path):
    assert home.told("backup", "--with-keys", tmp_path / "copy.tar")[0] == 0
    assert f"{home.key_dir}: " not in home.told("restore", "--yes", tmp_path / "copy.tar")[1]
    (key,) = home.key_dir.glob("*.key")
    key.unlink()
    status, said = home.told("restore", "--yes", tmp_path / "copy.db")
    assert (status, "there are no signing keys, and none in the backup" in said) == (0, True)
    assert home.told("keys", "generate")[0] == 0
    (other,) = home.key_dir.glob("*.key")
    before = other.read_text()
    status, said = home.told("restore", "--yes", tmp_path / "copy.tar")
    assert status == 0
    assert f"{home.key_dir}: has other keys than the backup, and was left as it is" in said
    assert other.read_text() == before


def test_of_a_strange_archive_nothing_is_written_anywhere_else(home, tmp_path):
    file = tmp_path / "strange.tar"
    with tarfile.open(file, "w") as tar:
        for name in (
            "../escaped.key",
            "/tmp/escaped.key",
            "keys/../../escaped.key",
            "keys/deep/er/x.key",
            "other",
        ):
            tar.add(tmp_path / "copy.db", name)
    status, said = home.told("restore", "--yes", file)
    assert (status, said) == (1, f"{file}: is no backup: there is no sydentish.db in it\n")
    link = tarfile.TarInfo("sydentish.db")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(file, "w") as tar:
        tar.addfile(link)
    assert home.told("restore", "--yes", file)[0] == 1
    with tarfile.open(file, "w") as tar:
        tar.add(tmp_path / "copy.db", "sydentish.db")
        tar.add(home.conf, "keys/ed25519_0.key")
    status, said = home.told("restore", "--yes", file)
    assert status == 1
    assert "keys/ed25519_0.key: a signing key file holds one line" in said
    assert not list(tmp_path.rglob("escaped*"))
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert leftovers(home) == []


def test_an_archive_that_was_cut_off_is_refused(home, tmp_path):
    assert home.told("backup", "--with-keys", tmp_path / "copy.tar")[0] == 0
    whole = (tmp_path / "copy.tar").read_bytes()
    (tmp_path / "copy.tar").write_bytes(whole[: len(whole) // 2])
    status, said = home.told("restore", "--yes", tmp_path / "copy.tar")
    assert status == 1
    assert "damaged" in said
    assert bound(home.path) == addresses(1, 2, 3, 4)


# --- what goes wrong changes nothing ----------------------------------------------------------------------


def test_a_full_disk_changes_nothing(home, tmp_path):
    home.write(
        lambda tx: tx.run(
            "INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (hex(randomblob(300000)), 1)"
        )
    )
    before = bound(home.path)

    def full():
        # Files of the program can grow to this, and no further: the copy of what is there is larger.
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    status, said = home.told("restore", "--yes", tmp_path / "copy.db", preexec_fn=full)
    assert status == 1
    assert "nothing was changed: " in said
    assert bound(home.path) == before
    assert leftovers(home) == []
    assert not home.path.with_name("sydentish.db.before-restore").exists()
    assert home.told("restore", "--yes", tmp_path / "copy.db")[0] == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stopped_in_the_middle_it_changes_nothing(home, tmp_path, name):
    env = hooked(tmp_path, STOPPED.format(path=str(home.path), signal=name))
    status, said = home.told("restore", "--yes", tmp_path / "copy.db", env=env)
    assert (status, said.splitlines()[-1]) == (INTERRUPTED, "stopped: nothing was changed")
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert leftovers(home) == []
    assert not home.path.with_name("sydentish.db.before-restore").exists()


def test_killed_while_it_writes_the_database_is_as_it_was(home, tmp_path):
    # SQLite itself stops there: the first page that is written to the database kills the program.
    program = """
import os, sys
from pathlib import Path
from sydentish.store.restoring import put_in_place
put_in_place(Path(sys.argv[1]), Path(sys.argv[2]), lambda done, of: os._exit(9))
"""
    # So large that there is more than one step.
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        copy.execute("INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (randomblob(10000000), 1)")
        copy.commit()
    folder = home.path.parent / "made"
    folder.mkdir()
    (folder / "copy.db").write_bytes((tmp_path / "copy.db").read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "copy.db"), str(home.path)], check=False, timeout=SECONDS
    )
    assert done.returncode == 9
    assert bound(home.path) == addresses(1, 2, 3, 4)
    assert checked_contents(home.path, NEWEST).rows["associations"] == 4
