"""The contract of `Database`, as the embedded engine keeps it."""

import os
import shutil
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from store_tools import SECONDS, rows
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, DeferredList, gatherResults

from sydentish.domain.errors import Busy, NotFound
from sydentish.store.sqlite import SqliteDatabase


def count_up(tx, name):
    tx.run("INSERT INTO counters (name, value) VALUES (?, 1)", (name,))
    return name


def names(tx):
    return [name for (name,) in tx.rows("SELECT name FROM counters ORDER BY name")]


def stored(path):
    return [name for (name,) in rows(path, "SELECT name FROM counters ORDER BY name")]


def open_files():
    return [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]


@contextmanager
def held(enqueue):
    """Keeps a thread of the database busy, so that what is called meanwhile waits in its queue together."""
    go, busy = threading.Event(), threading.Event()

    def wait(_tx):
        busy.set()
        assert go.wait(SECONDS)

    reply = enqueue(wait)
    assert busy.wait(SECONDS)
    try:
        yield reply
    finally:
        go.set()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("query_only", 0)],
)
@pytest_twisted.ensureDeferred
async def test_the_writer_waits_for_the_disk_and_minds_foreign_keys(db, pragma, value):
    assert await db.write(lambda tx: tx.row(f"PRAGMA {pragma}")) == (value,)


@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("query_only", 1)])
@pytest_twisted.ensureDeferred
async def test_a_reader_only_reads(db, pragma, value):
    assert await db.read(lambda tx: tx.row(f"PRAGMA {pragma}")) == (value,)


@pytest_twisted.ensureDeferred
async def test_answered_means_that_a_fresh_connection_finds_it(db, path):
    assert await db.write(count_up, "a") == "a"
    assert stored(path) == ["a"]


@pytest_twisted.ensureDeferred
async def test_answered_means_that_it_is_in_the_files(db, path, tmp_path):
    await db.write(count_up, "a")
    # What a machine that loses its power keeps: the file and its log, and no closing of either.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (path, path.with_name(f"{path.name}-wal")):
        shutil.copy(file, elsewhere)
    assert stored(elsewhere / path.name) == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_read_after_an_answer_sees_what_was_written(db):
    for number in range(50):
        await db.write(count_up, f"{number:03}")
        assert (await db.read(names))[-1] == f"{number:03}"


@pytest.mark.parametrize(
    "error", [ValueError("mine"), NotFound("mine"), KeyError("mine"), sqlite3.IntegrityError("mine")]
)
@pytest_twisted.ensureDeferred
async def test_a_function_that_raises_undoes_only_itself(db, path, error):
    def fails(tx):
        count_up(tx, "half")
        raise error

    with held(db.write):
        replies = [db.write(count_up, "a"), db.write(fails), db.write(count_up, "b")]
    results = await DeferredList(replies, consumeErrors=True)
    assert [success for success, _ in results] == [True, False, True]
    assert results[1][1].value is error
    assert stored(path) == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_a_breach_of_a_constraint_undoes_only_itself(db, path):
    def orphan(tx):
        count_up(tx, "half")
        tx.run("INSERT INTO access_tokens VALUES ('t', '@nobody:example.org', 0, 0)")

    with held(db.write):
        broken, fine = db.write(orphan), db.write(count_up, "a")
    with pytest.raises(sqlite3.IntegrityError):
        await broken
    await fine
    assert stored(path) == ["a"]


@pytest_twisted.ensureDeferred
async def test_many_writes_at_once_are_few_commits_and_are_answered_in_order(db, path):
    statements, answered = [], []
    await db.write(lambda tx: tx._connection.set_trace_callback(statements.append))
    with held(db.write):
        replies = [db.write(count_up, f"{number:04}") for number in range(1000)]
    for reply in replies:
        reply.addCallback(answered.append)
    await gatherResults(replies)
    assert answered == stored(path) == [f"{number:04}" for number in range(1000)]
    # Its own end, the one that was held, and a thousand in groups of at most 256.
    assert statements.count("COMMIT") <= 6
    assert statements.count("BEGIN IMMEDIATE") <= 5


@pytest_twisted.ensureDeferred
async def test_a_later_function_of_a_group_sees_what_an_earlier_one_wrote(db):
    with held(db.write):
        replies = [db.write(count_up, "a"), db.write(names), db.write(count_up, "b"), db.write(names)]
    assert await gatherResults(replies) == ["a", ["a"], "b", ["a", "b"]]


@pytest_twisted.ensureDeferred
async def test_nothing_is_seen_of_a_group_before_it_is_committed(db, path):
    inside, go = threading.Event(), threading.Event()

    def slow(tx):
        count_up(tx, "a")
        inside.set()
        assert go.wait(SECONDS)

    reply = db.write(slow)
    assert inside.wait(SECONDS)
    assert await db.read(names) == []
    assert stored(path) == []
    go.set()
    await reply
    assert await db.read(names) == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_read_sees_one_state_from_beginning_to_end(db):
    looked, go = threading.Event(), threading.Event()

    def look_twice(tx):
        first = names(tx)
        looked.set()
        assert go.wait(SECONDS)
        return first, names(tx)

    await db.write(count_up, "a")
    reading = db.read(look_twice)
    assert looked.wait(SECONDS)
    await db.write(count_up, "b")
    go.set()
    assert await reading == (["a"], ["a"])


@pytest_twisted.ensureDeferred
async def test_a_read_cannot_write(db, path):
    with pytest.raises(Busy):
        await db.read(count_up, "a")
    assert stored(path) == []
    assert await db.read(names) == []


@pytest_twisted.ensureDeferred
async def test_what_a_read_raises_comes_out_of_it_and_the_reader_goes_on(open_db):
    db = open_db(readers=1)
    with pytest.raises(ZeroDivisionError):
        await db.read(lambda _tx: 1 // 0)
    assert await db.read(names) == []


@pytest_twisted.ensureDeferred
async def test_a_slow_write_and_a_slow_read_hold_up_no_other_read(open_db):
    db = open_db(readers=2)
    with held(db.write) as writing, held(db.read) as reading:
        assert await db.read(names) == []
    await gatherResults([writing, reading])


@pytest.mark.parametrize("kind", ["write", "read"])
@pytest_twisted.ensureDeferred
async def test_more_than_may_wait_is_refused_and_what_waits_is_done(open_db, kind):
    db = open_db(readers=1, max_queue=3)
    call = getattr(db, kind)
    with held(call):
        waiting = [call(names) for _ in range(3)]
        with pytest.raises(Busy) as refused:
            call(names)
    assert refused.value.retry_after_ms > 0
    assert await gatherResults(waiting) == [[], [], []]
    assert await call(names) == []


@pytest_twisted.ensureDeferred
async def test_stopping_finishes_what_is_queued(db, path):
    answered = []
    with held(db.write), held(db.read):
        replies = [db.write(count_up, f"{number:03}") for number in range(300)]
        reads = [db.read(names) for _ in range(20)]
        for reply in replies:
            reply.addCallback(answered.append)
        stopped = db.stopService()
    await stopped
    assert answered == stored(path) == [f"{number:03}" for number in range(300)]
    await gatherResults(reads)


@pytest_twisted.ensureDeferred
async def test_stopping_ends_the_threads_and_closes_the_file(db, path):
    await db.write(count_up, "a")
    await db.stopService()
    for thread in threading.enumerate():
        if thread.name.startswith("store-"):
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert not [file for file in open_files() if file.startswith(str(path))]


@pytest.mark.parametrize("kind", ["write", "read"])
@pytest_twisted.ensureDeferred
async def test_calls_after_the_stop_are_refused(db, kind):
    await db.stopService()
    with pytest.raises(Busy):
        getattr(db, kind)(names)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_calls_before_the_start_are_refused(path, kind):
    db = SqliteDatabase(path, reactor, readers=1, max_queue=1, busy_timeout_ms=1)
    with pytest.raises(Busy):
        getattr(db, kind)(names)


@pytest_twisted.ensureDeferred
async def test_a_stop_without_a_start_is_none(path):
    await SqliteDatabase(path, reactor, readers=1, max_queue=1, busy_timeout_ms=1).stopService()


@pytest_twisted.ensureDeferred
async def test_a_caller_who_does_not_wait_does_no_harm(db, path):
    with held(db.write):
        gone, failing, stays = (
            db.write(count_up, "a"),
            db.write(lambda _tx: 1 // 0),
            db.write(count_up, "b"),
        )
        gone.cancel()
        failing.cancel()
    assert await stays == "b"
    for cancelled in (gone, failing):
        with pytest.raises(CancelledError):
            await cancelled
    assert stored(path) == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_arguments_reach_the_function_by_position_and_by_name(db):
    def add(_tx, left, *, right):
        return left + right

    assert await db.write(add, 1, right=2) == 3
    assert await db.read(add, 1, right=2) == 3


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path):
    db = SqliteDatabase(tmp_path / "none" / "db", reactor, readers=1, max_queue=1, busy_timeout_ms=1)
    with pytest.raises(OSError, match="No such file"):
        db.startService()
    assert not db.running
