"""`import-sydent` beside a Sydent, or a server of ours, that runs: who is warned of, and that copying ends."""

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import pytest
from daemons import SECONDS
from sydent_files import SydentFile, configuration
from sydent_moves import ANN, Move, outcomes
from unprivileged import unprivileged_folder

from sydentish.cli.sydent import in_use
from sydentish.cli.sydent.old import OldConfig
from sydentish.store.sydent_copy import SydentProblem, copied

OTHER = 1

# Says so when it has begun.
WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous = OFF")
connection.execute("UPDATE writes SET number = number + 1")
print("begun", flush=True)
while True:
    connection.execute("UPDATE writes SET number = number + 1")
"""


@contextmanager
def written_to(path):
    """A database that another process writes to all the time."""
    writer = subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"begun\n"
        yield
    finally:
        writer.kill()
        writer.communicate(timeout=SECONDS)


def grow(path, megabytes):
    """Has a database be large, so that copying it takes many steps, and have a place to write to."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE writes AS SELECT 0 AS number")
        connection.execute("CREATE TABLE ballast (content BLOB)")
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (megabytes << 20,))


def folder_in(folder):
    copies = folder / "copies"
    copies.mkdir()
    return copies


# --- copying ------------------------------------------------------------------------------------------------


def test_a_rehearsal_ends_beside_a_server_that_writes_all_the_time(tmp_path):
    move = Move(tmp_path)
    move.file.bind("ann@example.org", ANN, 5)
    move.take()
    grow(move.path, 64)
    with written_to(move.path):
        told = move.take("--dry-run")

    assert outcomes(told, "associations of this server") == {"known here already": 1}


def test_a_sydent_that_writes_all_the_time_is_to_be_stopped(tmp_path):
    file = SydentFile(tmp_path / "sydent.db")
    grow(file.path, 200)
    with (
        written_to(file.path),
        pytest.raises(SydentProblem, match="is written to all the time: stop the Sydent first"),
    ):
        copied(file.path, folder_in(tmp_path), in_use=True)


def test_a_sydent_that_writes_now_and_then_is_copied(tmp_path):
    file = SydentFile(tmp_path / "sydent.db")
    file.bind("ann@example.org", ANN, 5)
    grow(file.path, 64)
    written = threading.Timer(0.02, file.bind, ["bob@example.org", ANN, 6])
    written.start()
    copy = copied(file.path, folder_in(tmp_path), in_use=True)
    written.join()

    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- which process it is ------------------------------------------------------------------------------------


@pytest.fixture
def ground():
    with unprivileged_folder() as given:
        yield given


@contextmanager
def noted(folder, name, user=None):
    """A process with a word in its command line, which a Sydent has noted as its own; its configuration, and which it is."""
    file = SydentFile(folder / "sydent.db")
    (folder / "run").mkdir(mode=0o700)
    (folder / "sydent.conf").write_text(
        configuration(file, general={"pidfile.path": folder / "run" / "sydent.pid"})
    )
    process = subprocess.Popen(["/bin/sh", "-c", "read line", name], stdin=subprocess.PIPE, user=user)
    try:
        (folder / "run" / "sydent.pid").write_text(f"{process.pid}\n")
        yield OldConfig(folder / "sydent.conf", {}), file.path, process.pid
    finally:
        process.communicate(b"\n", timeout=SECONDS)


def test_a_noted_process_that_cannot_be_read_of_is_none(ground):
    folder, as_other = ground
    with noted(folder, "sydent") as (old, database, pid):
        known = in_use.processes(old, database)
        with as_other(folder / "run"):
            unknown = in_use.processes(old, database)

    assert (known, unknown) == ([pid], [])


@pytest.mark.parametrize("name", ["sydent", "other"])
def test_a_process_of_somebody_else_counts_if_it_is_a_sydent(ground, name):
    folder, as_other = ground
    with noted(folder, name, OTHER if os.geteuid() == 0 else None) as (old, database, pid):
        (folder / "run").chmod(0o755)
        known = in_use.processes(old, database)
        with as_other():
            found = in_use.processes(old, database)

    assert found == known == ([pid] if name == "sydent" else [])


@pytest.mark.parametrize("text", ["", "soon", "é", "9" * 30])
def test_what_is_noted_and_is_no_process_is_none(tmp_path, text):
    with noted(tmp_path, "sydent") as (old, database, _):
        (tmp_path / "run" / "sydent.pid").write_text(text)
        assert in_use.processes(old, database) == []
