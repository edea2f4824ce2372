"""The contract of `Database`, as the embedded engine keeps it."""

import os
import shutil
import sqlite3
import threading
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from store_tools import SECONDS, rows
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, DeferredList, gatherResults, succeed
from twisted.internet.task import deferLater

from sydentish.domain.errors import Busy, NotFound
from sydentish.store.counters import next_number
from sydentish.store.sqlite import SqliteDatabase, connect


def count_up(tx, name):
    tx.run("INSERT INTO counters (name, value) VALUES (?, 1)", (name,))
    return name


def names(tx):
    return [name for (name,) in tx.rows("SELECT name FROM counters ORDER BY name")]


def stored(path):
    return [name for (name,) in rows(path, "SELECT name FROM counters ORDER BY name")]


def forget(tx, name):
    tx.run("DELETE FROM counters WHERE name = ?", (name,))


def on_disk(path, name):
    """Whether the bytes are in any of the files: the main one, the log, its index."""
    return any(name.encode() in file.read_bytes() for file in path.parent.iterdir())


async def gone_from_disk(path, name):
    late = reactor.seconds() + SECONDS
    while on_disk(path, name):
        assert reactor.seconds() < late, f"still on the disk after {SECONDS} s"
        await deferLater(reactor, 0.01)


def log_of(path):
    return path.with_name(f"{path.name}-wal")


@asynccontextmanager
async def tidy_db(path, seconds=0.02):
    """A database that empties its log very often, with two readers."""
    db = SqliteDatabase(
        path, reactor, readers=2, max_queue=100, busy_timeout_ms=5000, checkpoint_seconds=seconds
    )
    db.startService()
    try:
        yield db
    finally:
        await db.stopService()


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


@pytest_twisted.ensureDeferred
async def test_what_was_deleted_leaves_the_disk_while_the_database_runs(path):
    async with tidy_db(path) as db:
        await db.write(count_up, "secretive")
        with held(db.read):
            assert await db.read(names) == ["secretive"]
        assert await db.read(names) == ["secretive"]
        assert on_disk(path, "secretive")
        await db.write(forget, "secretive")
        await gone_from_disk(path, "secretive")
        assert await db.read(names) == []


@pytest_twisted.ensureDeferred
async def test_what_was_deleted_leaves_the_disk_though_the_writer_never_rests(path):
    def wait(_tx, begun, go):
        begun.set()
        assert go.wait(SECONDS)

    async with tidy_db(path, 0.2) as db:
        await db.write(count_up, "secretive")
        await db.write(forget, "secretive")
        late = reactor.seconds() + SECONDS
        reply, go = succeed(None), threading.Event()
        while on_disk(path, "secretive"):
            assert reactor.seconds() < late
            # The next one is queued before the one that runs may end.
            before, go_before = reply, go
            begun, go = threading.Event(), threading.Event()
            reply = db.write(wait, begun, go)
            go_before.set()
            await before
            assert begun.wait(SECONDS)
        go.set()
        await reply


@pytest_twisted.ensureDeferred
async def test_what_a_read_still_needs_leaves_the_disk_after_it(path):
    looked, go = threading.Event(), threading.Event()

    def look_long(tx):
        first = names(tx)
        looked.set()
        assert go.wait(SECONDS)
        return first, names(tx)

    async with tidy_db(path) as db:
        await db.write(count_up, "secretive")
        reading = db.read(look_long)
        assert looked.wait(SECONDS)
        await db.write(forget, "secretive")
        # Checkpoints come and go meanwhile, and hold up neither who writes nor who reads.
        for _ in range(20):
            await db.write(next_number, "others")
            assert await db.read(names) == ["others"]
        assert on_disk(path, "secretive")
        go.set()
        assert await reading == (["secretive"], ["secretive"])
        await gone_from_disk(path, "secretive")


@pytest_twisted.ensureDeferred
async def test_what_another_process_deleted_leaves_the_disk_too(path):
    async with tidy_db(path) as db:
        with closing(connect(path, 5000)) as other:
            other.execute("INSERT INTO counters (name, value) VALUES ('secretive', 1)")
            other.execute("DELETE FROM counters")
            await gone_from_disk(path, "secretive")
        assert await db.read(names) == []


@pytest.mark.parametrize("reads", [0, 20])
@pytest_twisted.ensureDeferred
async def test_stopping_leaves_no_log_behind(open_db, path, reads):
    for _ in range(50):
        db = open_db(readers=4)
        await db.write(count_up, "secretive")
        await db.read(names)
        answers = [db.write(forget, "secretive")]
        with held(db.read):
            answers += [db.read(names) for _ in range(reads)]
            stopped = db.stopService()
        await gatherResults([stopped, *answers])
        assert not log_of(path).exists()
        assert not on_disk(path, "secretive")


@pytest_twisted.ensureDeferred
async def test_the_writer_is_the_last_to_end(db):
    await db.write(count_up, "a")
    (writer,) = (thread for thread in threading.enumerate() if thread.name == "store-writer")
    with held(db.read):
        stopped = db.stopService()
        # The time that it would need to end too early.
        writer.join(0.1)
        assert writer.is_alive()
    await stopped


@pytest_twisted.ensureDeferred
async def test_stopping_empties_the_log_though_another_has_the_file_open(open_db, path):
    one, other = open_db(), open_db()
    await one.write(count_up, "secretive")
    assert await other.read(names) == ["secretive"]
    await one.write(forget, "secretive")
    await one.stopService()
    assert not on_disk(path, "secretive")
    await other.write(count_up, "a")
    assert await other.read(names) == ["a"]


@pytest_twisted.ensureDeferred
async def test_two_that_stop_together_leave_nothing_behind(open_db, path):
    for _ in range(20):
        both = [open_db(), open_db()]
        for db in both:
            await db.write(count_up, "secretive")
            await db.read(names)
            await db.write(forget, "secretive")
        await gatherResults([db.stopService() for db in both])
        assert not on_disk(path, "secretive")


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
