"""Taking turns with a server: pauses after transactions, by a clock that stands still."""

import pytest
from store_tools import InlineDatabase, StatementFailed
from twisted.internet.task import Clock

from sydentish.cli.turns import Turns
from sydentish.store.migrate import migrate_sqlite, shipped_steps


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def turns(tmp_path, clock):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 5000, 0, shipped_steps())
    db = InlineDatabase(path)
    yield Turns(db, clock)
    db.connection.close()


def take(clock, seconds):
    """A transaction of that length."""

    def work(_tx, result):
        clock.advance(seconds)
        return result

    return work


def results(deferred):
    """What has come of it by now."""
    done = []
    deferred.addCallback(done.append)
    return done


def test_after_a_transaction_others_have_their_turn(turns, clock):
    assert results(turns.write(take(clock, 0.1), "first")) == ["first"]
    second = results(turns.write(take(clock, 0), "second"))
    clock.advance(0.05)
    assert second == []
    clock.advance(0.02)
    assert second == ["second"]


def test_what_is_done_between_two_transactions_is_part_of_the_pause(turns, clock):
    results(turns.write(take(clock, 0.1), None))
    clock.advance(0.1)
    assert results(turns.write(take(clock, 0), "at once")) == ["at once"]


def test_no_pause_is_long(turns, clock):
    results(turns.write(take(clock, 60), None))
    second = results(turns.write(take(clock, 0), "second"))
    clock.advance(0.5)
    assert second == ["second"]


def test_what_fails_comes_out_and_reading_waits_for_nothing(turns, clock):
    def fail(_tx):
        raise StatementFailed

    failures = []
    turns.write(fail).addErrback(failures.append)
    assert [failure.type for failure in failures] == [StatementFailed]
    results(turns.write(take(clock, 1), None))
    assert results(turns.read(lambda tx: tx.row("SELECT 1"))) == [(1,)]
