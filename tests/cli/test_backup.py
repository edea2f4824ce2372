"""`backup`: the command as a process, beside a server that writes, on disks that are full, and stopped in the middle."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
from contextlib import closing, suppress

import pytest
from cli.home import Home
from daemons import SECONDS, stopped
from hypothesis import given, settings
from hypothesis import strategies as st
from store_tools import START_MS, address, rows
from unprivileged import unprivileged_folder

from sydentish.store.copies import (
    CopyProblem,
    checked_contents,
    copy_pages,
    interruptible,
    opened,
    snapshot,
    workshop,
)
from sydentish.store.migrate import SchemaError, migrate_sqlite, shipped_steps
from sydentish.store.sqlite import connect

NEWEST = shipped_steps()[-1].number
USAGE, INTERRUPTED = 2, 130
# Binds one address after the other, until somebody speaks to it; says how many there are.
WRITER = """
import select, sys
from pathlib import Path
from sydentish.store.sqlite import connect

connection = connect(Path(sys.argv[1]), 5000)
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    connection.execute("BEGIN IMMEDIATE")
    for half in "ab":
        connection.execute(
            "INSERT INTO associations VALUES ('email', ?, '@w:hs', 1, 1, 1, 'w', ?, NULL)", (f"{number}{half}@w", number)
        )
    connection.execute("COMMIT")
    number += 1
    if number == 1:
        print("writes", flush=True)
print(number)
"""


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.bind(*range(3))
    return home


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def quiet(_done, _of):
    pass


def leftovers(folder):
    """What a backup has left beside itself."""
    return [
        path.name for path in folder.iterdir() if ".part" in path.name or path.name.endswith(("-wal", "-shm"))
    ]


def test_a_backup_has_everything_but_the_keys_and_says_so(home, tmp_path):
    file = tmp_path / "copy.db"
    status, said = home.told("backup", file)
    assert status == 0
    assert "@" not in said
    assert f"schema {NEWEST}, 3 associations" in said
    assert f"The signing keys are not in it: keep a copy of {home.key_dir}" in said
    assert mode(file) == 0o600
    assert rows(file, "SELECT address FROM associations ORDER BY address") == [
        (address(number).address,) for number in range(3)
    ]
    # One file, for itself: nothing must lie beside it, and it can be read where nothing can be written.
    assert rows(file, "PRAGMA journal_mode") == [("delete",)]
    assert leftovers(tmp_path) == []


def test_a_backup_is_one_state_of_a_database_that_is_written_to_all_the_time(home, tmp_path):
    # Large enough that copying takes many steps.
    home.write(
        lambda tx: [
            tx.run("INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (hex(randomblob(4000)), 1)")
            for _ in range(4000)
        ]
    )
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "writes\n"
        status, said = home.told("backup", tmp_path / "copy.db")
        written = int(writer.communicate("stop", timeout=SECONDS)[0])
    assert status == 0, said
    (found,) = rows(
        tmp_path / "copy.db",
        "SELECT count(*), max(origin_id) + 1 FROM associations WHERE origin_server = 'w'",
    )
    number, transactions = found
    assert number == 2 * transactions
    assert 0 < transactions < written


def test_a_snapshot_stays_as_it_was(home, tmp_path):
    with snapshot(home.path, 5000) as connection:
        home.bind(99)
        steps = []

        def write_between(done, of):
            steps.append((done, of))
            home.bind(100 + len(steps))

        copy_pages(connection, tmp_path / "copy.db", write_between)
    assert steps[-1][0] == steps[-1][1]
    assert rows(tmp_path / "copy.db", "SELECT count(*) FROM associations") == [(3,)]
    with pytest.raises(FileExistsError), snapshot(home.path, 5000) as connection:
        copy_pages(connection, tmp_path / "copy.db", quiet)


def test_nothing_is_overwritten_without_being_told_so(home, tmp_path):
    file = tmp_path / "copy.db"
    file.write_text("mine")
    status, said = home.told("backup", file)
    assert (status, said) == (1, f"{file}: is there already; give another name, or --force\n")
    assert file.read_text() == "mine"
    assert home.told("backup", file, "--force")[0] == 0
    assert checked_contents(file, NEWEST).rows["associations"] == 3
    assert mode(file) == 0o600
    status, said = home.told("backup", "--force", home.path)
    assert (status, said) == (1, f"{home.path}: is the database itself\n")
    assert home.told("backup", tmp_path)[0] == USAGE


def test_with_its_keys_it_is_one_archive(home, tmp_path):
    assert home.told("keys", "rotate")[0] == 0
    file = tmp_path / "copy.tar"
    status, said = home.told("backup", "--with-keys", file)
    assert status == 0, said
    assert "The signing keys are in it" in said
    assert mode(file) == 0o600
    with tarfile.open(file) as tar:
        members = {member.name: member for member in tar}
        assert {member.mode for member in members.values()} == {0o600}
        names = {f"keys/{path.relative_to(home.key_dir)}" for path in home.key_dir.rglob("*.key")}
        assert len(names) == 2
        assert members.keys() == {"sydentish.db"} | names
        for name in names:
            text = (home.key_dir / name.removeprefix("keys/")).read_bytes()
            assert tar.extractfile(members[name]).read() == text
    assert leftovers(tmp_path) == []


def test_keys_that_cannot_be_used_are_told_of_before_anything_is_written(home, tmp_path):
    (key,) = home.key_dir.glob("*.key")
    key.write_text("rubbish")
    status, said = home.told("backup", "--with-keys", tmp_path / "copy.tar")
    assert status == os.EX_CONFIG
    assert str(key) in said
    key.unlink()
    status, said = home.told("backup", "--with-keys", tmp_path / "copy.tar")
    assert (status, said) == (os.EX_CONFIG, f"{home.key_dir}: there are no signing keys\n")
    assert home.told("backup", tmp_path / "copy.db")[0] == 0


def test_an_older_database_can_be_backed_up_before_the_upgrade(tmp_path):
    home = Home(tmp_path)
    for file in home.path.parent.glob("sydentish.db*"):
        file.unlink()
    migrate_sqlite(home.path, 5000, START_MS, shipped_steps()[:-1])
    assert home.told("backup", tmp_path / "copy.db")[0] == 0
    assert checked_contents(tmp_path / "copy.db", NEWEST).schema == NEWEST - 1


def test_without_a_database_or_with_one_of_others_there_is_nothing_to_back_up(home, tmp_path):
    file = tmp_path / "copy.db"
    for leftover in home.path.parent.glob("sydentish.db*"):
        leftover.unlink()
    status, said = home.told("backup", file)
    assert (status, said) == (1, f"{home.path}: there is no database yet: nothing to back up\n")
    with closing(sqlite3.connect(home.path)) as connection:
        connection.execute("CREATE TABLE others (x)")
    status, said = home.told("backup", file)
    assert (status, said) == (1, f"{home.path}: is the database of another program\n")
    assert not file.exists()


# --- what goes wrong leaves nothing behind ----------------------------------------------------------------


def test_a_database_that_is_damaged_is_no_backup(home, tmp_path):
    break_an_index(home.path)
    status, said = home.told("backup", tmp_path / "copy.db")
    assert status == 1
    assert "is damaged: " in said
    assert not (tmp_path / "copy.db").exists()
    assert leftovers(tmp_path) == []


def break_an_index(path):
    """The pages of an index belong to nobody any more."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'associations_by_mxid'")


def test_a_full_disk_leaves_nothing(home, tmp_path):
    home.write(
        lambda tx: tx.run(
            "INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (hex(randomblob(100000)), 1)"
        )
    )

    def full():
        # Files of the program can grow to this, and no further.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    for options in ([], ["--with-keys"]):
        status, said = home.told("backup", tmp_path / "copy.db", *options, preexec_fn=full)
        assert status == 1
        assert "there is no backup: " in said
        assert not (tmp_path / "copy.db").exists()
        assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_told_of(home):
    with unprivileged_folder() as (folder, nobody):
        locked = folder / "locked"
        locked.mkdir(mode=0o755)
        with nobody(locked), pytest.raises(PermissionError), workshop(locked / "copy.db"):
            pass
    status, said = home.told("backup", home.folder / "none" / "copy.db")
    assert status == 1
    assert "there is no backup: " in said
    assert "No such file or directory" in said


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
# While there is an empty file, and while the whole copy is looked through.
@pytest.mark.parametrize("nth", [3, 4])
def test_stopped_in_the_middle_it_leaves_nothing(home, tmp_path, name, nth):
    status, said = home.told("backup", tmp_path / "copy.db", env=stopped(tmp_path, name, nth))
    assert (status, said) == (INTERRUPTED, "stopped: there is no backup\n")
    assert not (tmp_path / "copy.db").exists()
    assert leftovers(tmp_path) == []


def test_what_takes_long_within_sqlite_can_be_stopped():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("alarm", 0, lambda: signal.setitimer(signal.ITIMER_REAL, 0.01) and 0)
        endless = (
            "WITH RECURSIVE n(x) AS (SELECT alarm() UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
        )
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt), interruptible(connection):
                connection.execute(endless).fetchone()
        finally:
            signal.signal(signal.SIGALRM, before)
        # Other trouble stays what it is.
        with pytest.raises(sqlite3.OperationalError, match="no such table"), interruptible(connection):
            connection.execute("SELECT 1 FROM nowhere")


# --- what copies are ---------------------------------------------------------------------------------------


def test_a_copy_is_read_with_its_log_where_it_has_one(home, tmp_path):
    # As somebody has copied the files of a server that was killed.
    with closing(connect(home.path, 5000)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM associations WHERE address = ?", (address(0).address,))
        connection.execute("COMMIT")
        for suffix in ("", "-wal"):
            (tmp_path / f"c.db{suffix}").write_bytes(
                home.path.with_name(f"sydentish.db{suffix}").read_bytes()
            )
    with opened(tmp_path / "c.db") as copy:
        assert copy.execute("SELECT count(*) FROM associations").fetchone() == (2,)


@settings(deadline=None, max_examples=50)
@given(damage=st.integers(0, 40), size=st.integers(1, 3000))
def test_what_is_no_whole_database_is_found_out(tmp_path_factory, damage, size):
    folder = tmp_path_factory.mktemp("damaged")
    file = folder / "copy.db"
    whole = TEMPLATE.setdefault("bytes", _template(tmp_path_factory))
    at = damage * 4096
    file.write_bytes(whole[:at] + b"\xff" * size + whole[at + size :])
    with suppress(CopyProblem, SchemaError):
        # Or else what was overwritten was no part of anything.
        assert checked_contents(file, NEWEST).rows["associations"] == 50


TEMPLATE = {}


def _template(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("whole"))
    home.bind(*range(50))
    with closing(sqlite3.connect(home.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return home.path.read_bytes()
