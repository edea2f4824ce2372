"""The embedded engine when the disk is full, the file is locked, or the process dies."""

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import pytest_twisted
from store_tools import SECONDS, rows
from twisted.internet.defer import DeferredList
from twisted.internet.threads import deferToThread

from sydentish.domain.errors import Busy
from sydentish.store.counters import next_number

# Writes rows one after the other and says so after each answer; ends when told to, or is killed.
WRITER = """
import resource, sys
from pathlib import Path
from twisted.internet import reactor, task
from sydentish.domain.errors import Busy
from sydentish.store.counters import next_number
from sydentish.store.sqlite import SqliteDatabase

path, how_many, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
db = SqliteDatabase(path, reactor, readers=1, max_queue=100, busy_timeout_ms=20000)

def add(tx, size=100):
    number = next_number(tx, "numbers")
    key = b"%8d" % number + bytes(size)
    tx.run("INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (?, ?)", (key, number))
    return number

async def main(_reactor):
    db.startService()
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        for _ in range(how_many):
            print(await db.write(add), flush=True)
    except Busy:
        print("busy", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(await db.write(add), flush=True)
    await db.stopService()

task.react(main)
"""

# Lets no file grow beyond the database's size, so that the log cannot be copied into it; then lets them grow again.
FULL = """
import resource, sys
from pathlib import Path
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from sydentish.store.sqlite import SqliteDatabase

path = Path(sys.argv[1])
log = path.with_name(path.name + "-wal")
failed = Deferred()

def hear(event):
    text = formatEvent(event)
    if "no checkpoint" in text:
        globalLogPublisher.removeObserver(hear)
        reactor.callFromThread(failed.callback, text)

def add(tx):
    tx.run("INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (randomblob(50000), 1)")

async def main(_reactor):
    globalLogPublisher.addObserver(hear)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, resource.RLIM_INFINITY))
    db = SqliteDatabase(
        path, reactor, readers=1, max_queue=100, busy_timeout_ms=5000, checkpoint_seconds=0.02
    )
    db.startService()
    await db.write(add)
    print(await failed, flush=True)
    print(await db.read(lambda tx: tx.row("SELECT count(*) FROM ephemeral_keys")), log.stat().st_size > 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while log.stat().st_size:
        await task.deferLater(reactor, 0.01)
    await db.write(add)
    await db.stopService()

task.react(main)
"""


def writer(path, how_many, limit=0):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(how_many), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def numbers(path):
    return [number for (number,) in rows(path, "SELECT expires_ts FROM ephemeral_keys ORDER BY 1")]


def add_key(tx, name, size=0):
    tx.run("INSERT INTO ephemeral_keys (public_key, expires_ts) VALUES (?, 0)", (name + bytes(size),))


def keys(path):
    return [bytes(key[:1]) for (key,) in rows(path, "SELECT public_key FROM ephemeral_keys ORDER BY 1")]


@pytest.mark.parametrize("answers", [1, 20, 200])
def test_a_killed_process_has_lost_nothing_that_it_was_answered(path, answers):
    with writer(path, 1_000_000) as process:
        answered = [int(process.stdout.readline()) for _ in range(answers)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=SECONDS)
    answered += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    found = numbers(path)
    assert set(answered) <= set(found)
    # Whole transactions only: the counter and the rows agree.
    assert rows(path, "SELECT value FROM counters") == [(len(found),)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest_twisted.ensureDeferred
async def test_two_processes_write_to_one_file(open_db, path):
    db = open_db(busy_timeout_ms=20000)

    def add(tx):
        number = next_number(tx, "numbers")
        add_key(tx, b"here %8d" % number)
        return number

    with writer(path, 200) as other:
        other.stdout.readline()
        mine = [await db.write(add) for _ in range(200)]
        rest, errors = await deferToThread(other.communicate, timeout=SECONDS)
    assert (other.returncode, errors) == (0, "")
    theirs = {int(line) for line in rest.split()}
    assert not theirs & set(mine)
    assert rows(path, "SELECT count(*) FROM ephemeral_keys") == [(400,)]
    assert rows(path, "SELECT value FROM counters") == [(400,)]


@pytest_twisted.ensureDeferred
async def test_a_database_that_another_holds_too_long_is_busy_and_recovers(open_db, path):
    db = open_db(busy_timeout_ms=10)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            results = await DeferredList([db.write(add_key, b"a"), db.write(add_key, b"b")])
            assert [type(failure.value) for _, failure in results] == [Busy, Busy]
        assert await db.read(lambda tx: tx.rows("SELECT * FROM ephemeral_keys")) == []
        other.execute("ROLLBACK")
    assert keys(path) == []
    await db.write(add_key, b"c")
    assert keys(path) == [b"c"]


@pytest_twisted.ensureDeferred
async def test_a_database_that_another_holds_for_a_moment_is_waited_for(open_db, path):
    db = open_db(busy_timeout_ms=SECONDS * 1000)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        reply = db.write(add_key, b"a")
        await db.read(lambda tx: tx.rows("SELECT * FROM ephemeral_keys"))
        other.execute("COMMIT")
    await reply
    assert keys(path) == [b"a"]


async def limit_pages(db, spare):
    """Lets the database grow by so many pages; None lets it grow as before."""
    pages = 2**30 if spare is None else spare + (await db.write(lambda tx: tx.row("PRAGMA page_count")))[0]
    await db.write(lambda tx: tx.row(f"PRAGMA max_page_count = {pages}"))


@pytest_twisted.ensureDeferred
async def test_a_full_disk_refuses_the_whole_group_and_stores_nothing_of_it(db, path):
    await limit_pages(db, 2)
    entered, go = threading.Event(), threading.Event()

    def wait(_tx):
        entered.set()
        assert go.wait(SECONDS)

    waiting = db.write(wait)
    assert entered.wait(SECONDS)
    group = [db.write(add_key, b"a"), db.write(add_key, b"b", 100_000), db.write(add_key, b"c")]
    go.set()
    await waiting
    results = await DeferredList(group, consumeErrors=True)
    assert [success or type(result.value) for success, result in results] == [Busy, Busy, Busy]
    assert keys(path) == []
    await db.write(add_key, b"d")  # what fits is still taken
    await limit_pages(db, None)
    await db.write(add_key, b"e", 100_000)
    assert keys(path) == [b"d", b"e"]


@pytest_twisted.ensureDeferred
async def test_a_statement_of_many_rows_that_does_not_fit_leaves_nothing(db, path):
    await limit_pages(db, 2)

    def many(tx):
        add_key(tx, b"a")
        tx.run(
            """
            INSERT INTO ephemeral_keys (public_key, expires_ts)
            WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 500)
            SELECT zeroblob(1000 + n), 0 FROM n
            """
        )

    with pytest.raises(Busy):
        await db.write(many)
    assert keys(path) == []
    await db.write(add_key, b"b")
    assert keys(path) == [b"b"]


def test_a_file_that_may_not_grow_is_busy_and_recovers(path):
    with writer(path, 1_000_000, limit=400_000) as process:
        lines, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")
    *before, busy, after = lines.split()
    assert busy == "busy"
    assert len(before) > 10
    assert numbers(path) == [int(number) for number in (*before, after)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_log_that_cannot_be_copied_is_kept_and_copied_later(path):
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    failure, found = done.stdout.splitlines()
    assert failure.startswith("no checkpoint: OperationalError: ")
    assert found == "(1,) True"
    assert numbers(path) == [1, 1]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest_twisted.ensureDeferred
async def test_a_stop_does_not_wait_for_what_another_reads(open_db, path):
    db = open_db(busy_timeout_ms=10)
    await db.write(add_key, b"a")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM ephemeral_keys").fetchone() == (1,)
        await db.write(add_key, b"b")
        await db.stopService()
        assert path.with_name(f"{path.name}-wal").stat().st_size > 0
        assert other.execute("SELECT count(*) FROM ephemeral_keys").fetchone() == (1,)
    assert keys(path) == [b"a", b"b"]


@pytest_twisted.ensureDeferred
async def test_nobody_else_may_read_the_files(db, path):
    await db.write(add_key, b"a")
    files = list(path.parent.glob("sydentish.db*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
