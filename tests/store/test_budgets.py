"""Budgets as rows: what is left in the buckets, whoever asks and however often the process starts."""

import sqlite3
from contextlib import closing

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from store_tools import rows
from twisted.internet.defer import DeferredList

from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import LimitExceeded
from sydentish.domain.ratelimit import Charge, Rate
from sydentish.store import budgets
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx

NOW = 1_700_000_000_000
HOUR = 3600_000
RATE = Rate(3, HOUR)


def bucket(key="alice", rate=RATE, budget="mails_per_account"):
    return Charge(budget, key, rate)


def charge(tx, *charges, now_ms=NOW):
    """How long to wait, or 0 when it was granted; undone as a transaction is when it was not."""
    tx.run("SAVEPOINT one")
    try:
        budgets.charge(tx, charges, now_ms)
    except LimitExceeded as refused:
        tx.run("ROLLBACK TO one")
        return refused.retry_after_ms
    finally:
        tx.run("RELEASE one")
    return 0


def stored(tx):
    return tx.rows("SELECT budget, key_hash, full_ts FROM budgets ORDER BY budget, key_hash")


def test_a_burst_is_granted_and_then_as_much_as_has_filled(tx):
    waits = [charge(tx, bucket()) for _ in range(4)]
    assert waits == [0, 0, 0, HOUR // 3]
    assert charge(tx, bucket(), now_ms=NOW + HOUR // 3 - 1) == 1
    assert charge(tx, bucket(), now_ms=NOW + HOUR // 3) == 0
    assert charge(tx, bucket(), now_ms=NOW + HOUR // 3) == HOUR // 3
    much_later = NOW + 10 * HOUR
    assert [charge(tx, bucket(), now_ms=much_later) for _ in range(4)] == [0, 0, 0, HOUR // 3]


def test_everybody_has_a_bucket_of_their_own_in_each_budget(tx):
    one = Rate(1, HOUR)
    charges = [bucket(key, one, budget) for key in ("alice", "bob", "") for budget in ("mails", "sms")]
    assert [charge(tx, each) for each in charges] == [0] * 6
    assert [charge(tx, each) for each in charges] == [HOUR] * 6


def test_all_of_several_buckets_are_charged_or_none(tx):
    wide, narrow, slow = bucket("wide"), bucket("narrow", Rate(1, HOUR)), bucket("slow", Rate(1, 5 * HOUR))
    assert charge(tx, narrow) == charge(tx, slow) == 0
    before = stored(tx)
    for charges in ([wide, narrow], [narrow, wide], [wide, narrow, wide]):
        assert charge(tx, *charges) == HOUR
    assert stored(tx) == before
    # The one that takes longest says when to come again, wherever it stands.
    assert charge(tx, slow, narrow) == charge(tx, narrow, wide, slow) == 5 * HOUR
    assert stored(tx) == before
    assert [charge(tx, wide) for _ in range(4)] == [0, 0, 0, HOUR // 3]


def test_what_is_refused_tells_of_no_bucket(tx):
    canary = bucket("canary@example.org", Rate(1, HOUR), "canary_budget")
    charge(tx, canary)
    with pytest.raises(LimitExceeded) as refused:
        budgets.charge(tx, [canary], NOW)
    assert refused.value.retry_after_ms == HOUR
    assert "canary" not in refused.value.message + repr(refused.value)
    # Which budget it is, is for the operator.
    assert refused.value.budget == "canary_budget"


def test_a_budget_that_is_off_costs_nothing_and_writes_nothing(tx):
    for _ in range(100):
        assert charge(tx, bucket(rate=None)) == 0
    assert charge(tx) == 0
    assert stored(tx) == []
    assert charge(tx, bucket(rate=None), bucket(rate=Rate(1, HOUR))) == 0
    assert charge(tx, bucket(rate=None), bucket(rate=Rate(1, HOUR))) == HOUR


def test_nobodys_name_is_stored(tx):
    charge(tx, bucket("canary@example.org"))
    assert stored(tx) == [("mails_per_account", hash_secret("canary@example.org"), NOW + HOUR // 3)]


@pytest.mark.parametrize("key", ["", "\0", "\ud800", "x" * 100_000, "'; DROP TABLE budgets"])
def test_any_key_has_a_bucket(tx, key):
    assert [charge(tx, bucket(key, Rate(1, HOUR))) for _ in range(2)] == [0, HOUR]


def test_a_clock_that_is_set_back_holds_nobody_up(tx):
    for _ in range(3):
        charge(tx, bucket(), now_ms=NOW + 1000 * HOUR)
    assert charge(tx, bucket()) == 0
    assert charge(tx, bucket()) == HOUR // 3


def test_full_buckets_are_swept_away_while_others_come(tx):
    for number in range(100):
        charge(tx, bucket(f"user {number}"))
    assert len(stored(tx)) == 100
    later = NOW + HOUR
    for number in range(60):
        charge(tx, bucket(f"other {number}"), now_ms=later)
    # Two go for each that comes, until only those are left that are not full.
    assert {full_ts for _, _, full_ts in stored(tx)} == {later + HOUR // 3}
    assert len(stored(tx)) == 60


def test_who_comes_again_and_again_sweeps_nothing_and_adds_nothing(tx):
    charge(tx, bucket("gone soon"))
    charge(tx, bucket())
    for step in range(1, 10):
        charge(tx, bucket(), now_ms=NOW + step * HOUR)
    assert len(stored(tx)) == 2


def test_what_is_not_full_is_never_swept(tx):
    charge(tx, bucket("careful", Rate(1, 100 * HOUR)))
    for number in range(50):
        charge(tx, bucket(f"user {number}"), now_ms=NOW + number * HOUR)
    assert charge(tx, bucket("careful", Rate(1, 100 * HOUR)), now_ms=NOW + 50 * HOUR) == 50 * HOUR


@pytest_twisted.ensureDeferred
async def test_a_bucket_is_no_fuller_after_a_restart(open_db):
    first = open_db()
    for _ in range(3):
        await first.write(budgets.charge, [bucket()], NOW)
    await first.stopService()
    second = open_db()
    with pytest.raises(LimitExceeded):
        await second.write(budgets.charge, [bucket()], NOW + HOUR // 3 - 1)
    await second.write(budgets.charge, [bucket()], NOW + HOUR // 3)


@pytest_twisted.ensureDeferred
async def test_processes_share_their_buckets_and_grant_no_more_together(open_db, path):
    handles = [open_db(), open_db(), open_db()]
    rate = Rate(20, HOUR)
    asked = [handles[number % 3].write(budgets.charge, [bucket(rate=rate)], NOW) for number in range(60)]
    results = await DeferredList(asked, consumeErrors=True)
    assert [success for success, _ in results].count(True) == 20
    assert {type(failure.value) for success, failure in results if not success} == {LimitExceeded}
    assert rows(path, "SELECT full_ts FROM budgets") == [(NOW + HOUR,)]


@pytest_twisted.ensureDeferred
async def test_what_is_refused_leaves_nothing_of_the_deed_that_it_belongs_to(db, path):
    def deed(tx):
        tx.run("INSERT INTO counters VALUES ('deed', 1)")
        budgets.charge(tx, [bucket("first"), bucket("second", Rate(1, HOUR))], NOW)

    await db.write(budgets.charge, [bucket("second", Rate(1, HOUR))], NOW)
    with pytest.raises(LimitExceeded):
        await db.write(deed)
    assert rows(path, "SELECT * FROM counters") == []
    assert len(rows(path, "SELECT * FROM budgets")) == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, HOUR), st.sampled_from("abc"), st.sampled_from("xy")), max_size=60),
    st.integers(1, 5),
)
def test_in_any_order_no_bucket_grants_more_than_its_rate(schema, steps, count):
    rate = Rate(count, HOUR)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(schema)
        tx, now_ms, granted = SqliteTx(connection), NOW, {}
        for wait, first, second in steps:
            now_ms += wait
            if charge(tx, bucket(first, rate, "1"), bucket(second, rate, "2"), now_ms=now_ms) == 0:
                granted.setdefault(first, []).append(now_ms)
                granted.setdefault(second, []).append(now_ms)
        for times in granted.values():
            for index, since in enumerate(times):
                for more, until in enumerate(times[index:], start=1):
                    assert more <= count + (until - since) * count / HOUR
        assert len(stored(tx)) <= 5


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The tables of a migrated file, to be made anew in memory for each example."""
    path = tmp_path_factory.mktemp("schema") / "sydentish.db"
    migrate_sqlite(path, 5000, NOW, shipped_steps())
    return ";".join(sql for (sql,) in rows(path, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
