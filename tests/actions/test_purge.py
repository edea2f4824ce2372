"""The purge: what is old enough goes in small batches, and nothing else does."""

from datetime import UTC, datetime

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_tools import (
    START_MS,
    InlineDatabase,
    WatchedClock,
    WatchedDatabase,
    at_once,
    contents,
    rows,
    write,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from sydentish.actions.purge import FIRST_SECONDS, INTERVAL_SECONDS, Purge, Times, rules
from sydentish.metrics.events import PURGED
from sydentish.store import counters
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase

DAY = 24 * 3600 * 1000
NOW = START_MS
TIMES = Times(sessions=8 * DAY, dead_letters=30 * DAY, access_tokens=365 * DAY, accounts=365 * DAY)
FOR_EVER = Times(sessions=8 * DAY, dead_letters=None, access_tokens=None, accounts=None)
# The use of a token is noted once a day only.
SEEN = 366 * DAY
TABLES = (
    *("validation_sessions", "access_tokens", "accounts", "invitations", "ephemeral_keys"),
    *("budgets", "outbox", "outbox_destinations"),
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 5000, START_MS, shipped_steps())
    return path


def add_session(tx, name, changed_ts):
    values = (name, f"{name}@example.org", changed_ts)
    tx.run("INSERT INTO validation_sessions VALUES (?, 'email', ?, 'h', 1, NULL, ?, NULL)", values)
    tx.run("INSERT INTO validation_tokens (sid, number, token_hash) VALUES (?, 1, 'h')", (name,))


def add_old_sessions(path, number):
    write(path, lambda tx: [add_session(tx, f"s{n}", 0) for n in range(number)])


def add_account(tx, name, last_seen_ts, *used_ts):
    tx.run("INSERT INTO accounts VALUES (?, 0, ?)", (name, last_seen_ts))
    tx.run("INSERT INTO accepted_terms VALUES (?, 'p', '1', 'u', 0)", (name,))
    for number, used in enumerate(used_ts):
        tx.run("INSERT INTO access_tokens VALUES (?, ?, 0, ?)", (f"{name}/{number}", name, used))


def add_letter(tx, number, died_ts, destination="hs"):
    state = "pending" if died_ts is None else "dead"
    tx.run(
        "INSERT INTO outbox VALUES (?, 'onbind', ?, ?, '{}', ?, 0, 0, 0, NULL, ?)",
        (number, destination, f"k{number}", state, died_ts),
    )


def add_destination(tx, name, *, retry_ts=0, lease_ts=0, method=None):
    tx.run(
        "INSERT INTO outbox_destinations VALUES ('onbind', ?, NULL, ?, 0, NULL, ?, ?)",
        (name, lease_ts, retry_ts, method),
    )


class Bounded(InlineDatabase):
    """Notes how many rows each transaction has deleted of the table that it is about."""

    most = 0

    def write(self, fn, *args, **kwargs):
        before = self.counts()
        result = super().write(fn, *args, **kwargs)
        self.most = max(self.most, *(b - a for a, b in zip(self.counts(), before, strict=True)))
        return result

    def counts(self):
        return [self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]


def turned(db, times=TIMES, turns=1):
    """Everything that is purged in some turns, by what it was."""
    gone = {}

    def note(what, number):
        gone[what] = gone.get(what, 0) + number

    clock = Clock()
    service = Purge(db=db, rules=rules(times), clock=clock, now_ms=lambda: NOW, on_purged=note, batch=3)
    service.startService()
    for _ in range(turns):
        at_once(service.turn())
    at_once(service.stopService())
    assert not clock.getDelayedCalls()
    return gone


def around(age):
    """Times that are a little older or younger than that, and quite other ones."""
    return st.sampled_from([-DAY, -1, 0, 1, DAY, 400 * DAY]).map(lambda more: NOW - age - more)


SESSIONS = st.lists(around(TIMES.sessions), max_size=12)
ACCOUNTS = st.lists(st.tuples(around(SEEN), st.lists(around(SEEN), max_size=3)), max_size=10)
EXPIRIES = st.lists(around(0), max_size=8)
LETTERS = st.lists(st.none() | around(30 * DAY), max_size=10)
DESTINATIONS = st.lists(st.tuples(around(0), around(0), st.sampled_from([None, "POST", "PUT"])), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sessions=SESSIONS,
    accounts=ACCOUNTS,
    invitations=EXPIRIES,
    keys=EXPIRIES,
    budgets=EXPIRIES,
    letters=LETTERS,
    destinations=DESTINATIONS,
)
def test_what_is_older_goes_in_small_batches_and_nothing_younger(  # noqa: PLR0917
    path, sessions, accounts, invitations, keys, budgets, letters, destinations
):
    def put(tx):
        for table in (*TABLES, "accepted_terms", "validation_tokens"):
            tx.run(f"DELETE FROM {table}")
        for number, changed_ts in enumerate(sessions):
            add_session(tx, f"s{number}", changed_ts)
        for number, (last_seen_ts, used) in enumerate(accounts):
            add_account(tx, f"@u{number}:x.org", last_seen_ts, *used)
        for number, expires_ts in enumerate(invitations):
            values = (f"i{number}", f"a{number}@x.org", expires_ts)
            tx.run("INSERT INTO invitations VALUES (?, 'email', ?, '!r', '@s:x', 0, ?, NULL)", values)
        for number, expires_ts in enumerate(keys):
            tx.run("INSERT INTO ephemeral_keys VALUES (?, ?, 'h', '@s:x')", (f"k{number}", expires_ts))
        for number, full_ts in enumerate(budgets):
            tx.run("INSERT INTO budgets VALUES ('b', ?, ?)", (f"h{number}", full_ts))
        for number, died_ts in enumerate(letters):
            add_letter(tx, number, died_ts, f"hs{number % 5}")
        for number, (retry_ts, lease_ts, method) in enumerate(destinations):
            add_destination(tx, f"hs{number}", retry_ts=retry_ts, lease_ts=lease_ts, method=method)

    write(path, put)
    db = Bounded(path)
    turned(db, turns=2)
    db.connection.close()
    assert db.most <= 3
    names = lambda column, table: {name for (name,) in rows(path, f"SELECT {column} FROM {table}")}  # noqa: E731
    assert names("sid", "validation_sessions") == {
        f"s{n}" for n, ts in enumerate(sessions) if ts >= NOW - TIMES.sessions
    }
    assert names("sid", "validation_tokens") == names("sid", "validation_sessions")
    users = {f"@u{n}:x.org": max(seen, *used, 0) for n, (seen, used) in enumerate(accounts)}
    assert names("user_id", "accounts") == {user for user, seen in users.items() if seen >= NOW - SEEN}
    assert names("user_id", "accepted_terms") == names("user_id", "accounts")
    assert names("token_hash", "access_tokens") == {
        f"@u{n}:x.org/{m}"
        for n, (_, used) in enumerate(accounts)
        for m, ts in enumerate(used)
        if ts >= NOW - SEEN
    }
    assert names("token", "invitations") == {f"i{n}" for n, ts in enumerate(invitations) if ts > NOW}
    assert names("public_key", "ephemeral_keys") == {f"k{n}" for n, ts in enumerate(keys) if ts > NOW}
    assert names("key_hash", "budgets") == {f"h{n}" for n, ts in enumerate(budgets) if ts > NOW}
    left = {n for n, ts in enumerate(letters) if ts is None or ts >= NOW - 30 * DAY}
    assert names("outbox_id", "outbox") == left
    busy = {f"hs{number % 5}" for number in left}
    assert names("destination", "outbox_destinations") == {
        f"hs{n}"
        for n, (retry_ts, lease_ts, method) in enumerate(destinations)
        if f"hs{n}" in busy or retry_ts > NOW or lease_ts > NOW or method == "PUT"
    }


def test_what_is_switched_off_stays_for_ever(path):
    def put(tx):
        add_account(tx, "@a:x.org", 0, 0)
        add_account(tx, "@b:x.org", 0)
        add_letter(tx, 1, 0)
        add_session(tx, "s", 0)

    write(path, put)
    db = InlineDatabase(path)
    assert turned(db, FOR_EVER) == {"sessions": 1}
    db.connection.close()


def test_accounts_that_have_tokens_hide_none_that_have_not(path):
    # Tokens are kept for ever: accounts that nobody uses, but could, come first by far.
    times = Times(sessions=1, dead_letters=None, access_tokens=None, accounts=365 * DAY)

    def put(tx):
        for number in range(20):
            add_account(tx, f"@used{number}:x.org", number, number)
        add_account(tx, "@idle:x.org", 100)

    write(path, put)
    db = InlineDatabase(path)
    assert turned(db, times) == {"accounts": 1}
    db.connection.close()
    assert len(rows(path, "SELECT * FROM access_tokens")) == 20


def test_a_purged_token_leaves_when_it_was_last_used(path):
    write(path, lambda tx: add_account(tx, "@a:x.org", 5, NOW - SEEN - 7, NOW - SEEN - 1))
    db = InlineDatabase(path)
    assert turned(db, Times(sessions=1, dead_letters=1, access_tokens=365 * DAY, accounts=None)) == {
        "access_tokens": 2
    }
    db.connection.close()
    assert rows(path, "SELECT last_seen_ts FROM accounts") == [(NOW - SEEN - 1,)]


def test_the_invitation_in_a_dead_letter_goes_with_it(path):
    def put(tx):
        add_letter(tx, 1, NOW - 30 * DAY - 1)
        tx.run("INSERT INTO invitations VALUES ('t', 'email', 'a@x', '!r', '@s:x', 0, ?, 1)", (NOW + DAY,))

    write(path, put)
    db = InlineDatabase(path)
    assert turned(db) == {"dead_letters": 1}
    db.connection.close()
    assert rows(path, "SELECT * FROM invitations") == []


def test_the_metric_has_a_label_for_everything_that_goes():
    assert {rule.what for rule in rules(TIMES)} == set(PURGED)


# --- the service ------------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def open_db(path):
    opened = []

    def make():
        db = SqliteDatabase(path, reactor, readers=1, max_queue=1000, busy_timeout_ms=5000)
        db.startService()
        opened.append(db)
        return db

    yield make
    for db in opened:
        await db.stopService()


class Heard:
    """Adds up what was purged, and tells when it was enough."""

    def __init__(self):
        self.gone = 0
        self._waiting = []

    def __call__(self, _what, number):
        self.gone += number
        due = [waiter for count, waiter in self._waiting if count <= self.gone]
        self._waiting = [(count, waiter) for count, waiter in self._waiting if count > self.gone]
        for waiter in due:
            waiter.callback(None)

    async def count(self, count):
        if self.gone < count:
            waiter = Deferred()
            self._waiting.append((count, waiter))
            await waiter.addTimeout(20, reactor)


def served(db, clock, heard, batch=3):
    service = Purge(db=db, rules=rules(TIMES), clock=clock, now_ms=lambda: NOW, on_purged=heard, batch=batch)
    service.startService()
    return service


@pytest_twisted.ensureDeferred
async def test_it_begins_soon_after_the_start_and_comes_back_every_few_minutes(path, open_db):
    clock, heard = WatchedClock(0), Heard()
    service = served(open_db(), clock, heard)
    for turn, seconds in enumerate((FIRST_SECONDS, INTERVAL_SECONDS, INTERVAL_SECONDS)):
        assert await clock.armed() == seconds
        write(path, lambda tx, turn=turn: [add_session(tx, f"s{turn}-{n}", 0) for n in range(7)])
        assert heard.gone == 7 * turn
        clock.advance(seconds)
        await heard.count(7 * turn + 7)
    await service.stopService()
    assert clock.getDelayedCalls() == []
    assert rows(path, "SELECT * FROM validation_sessions") == []


async def refused_in_the_first_round(path, db, refusals):
    """How often the database was called in the first round, which was refused so often; the next one does all."""
    clock, heard = WatchedClock(0), Heard()
    service = served(db, clock, heard)
    add_old_sessions(path, 7)
    await clock.armed()
    db.refuse_writes = refusals
    clock.advance(FIRST_SECONDS)
    assert await clock.armed() == INTERVAL_SECONDS
    assert (heard.gone, db.refuse_writes) == (0, 0)
    calls = db.writes
    clock.advance(INTERVAL_SECONDS)
    await heard.count(7)
    await service.stopService()
    return calls


class Noted(WatchedDatabase):
    """Lets its first call through: that notes that a round begins."""

    def write(self, fn, *args, **kwargs):
        if self.writes:
            return super().write(fn, *args, **kwargs)
        self.writes += 1
        return self._db.write(fn, *args, **kwargs)


@pytest_twisted.ensureDeferred
async def test_rules_that_are_refused_are_left_alone_until_the_next_round(path, open_db):
    db = Noted(open_db())
    await refused_in_the_first_round(path, db, len(PURGED))


@pytest_twisted.ensureDeferred
async def test_a_database_that_fails_ends_nothing(path, open_db):
    db = WatchedDatabase(open_db())
    # The round cannot be noted, so that there is none.
    assert await refused_in_the_first_round(path, db, 1) == 1


@pytest_twisted.ensureDeferred
async def test_one_rule_that_breaks_does_not_hold_up_the_others(path, open_db):
    clock, heard = WatchedClock(0), Heard()
    write(path, lambda tx: tx.run("DROP TABLE budgets"))
    add_old_sessions(path, 7)
    write(path, lambda tx: add_letter(tx, 1, 0))
    service = served(open_db(), clock, heard)
    await clock.armed()
    clock.advance(FIRST_SECONDS)
    await heard.count(8)
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_several_processes_purge_side_by_side(path, open_db):
    add_old_sessions(path, 300)
    clock, heard = Clock(), Heard()
    services = [served(open_db(), clock, heard) for _ in range(3)]
    await gatherResults([Deferred.fromCoroutine(service.turn()) for service in services])
    assert heard.gone == 300
    for service in services:
        await service.stopService()
    assert rows(path, "SELECT * FROM validation_sessions") == []


@pytest_twisted.ensureDeferred
async def test_it_stops_after_the_batch_at_hand(path, open_db):
    add_old_sessions(path, 300)
    clock, stopped, begun = WatchedClock(0), [], Deferred()

    def stop(_what, _number):
        stopped.append(Deferred.fromCoroutine(service.stopService()))
        begun.callback(None)

    service = served(open_db(), clock, stop)
    await clock.armed()
    clock.advance(FIRST_SECONDS)
    await begun
    await stopped[0]
    assert len(rows(path, "SELECT * FROM validation_sessions")) == 297
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_before_it_has_begun_it_stops_at_once_and_begins_nothing(path, open_db):
    clock, before = Clock(), contents(path)
    await served(open_db(), clock, Heard()).stopService()
    assert clock.getDelayedCalls() == []
    assert contents(path) == before


# --- a clock that is wrong --------------------------------------------------------------------------------


def fill_young(path, now_ms):
    def put(tx):
        add_session(tx, "open", now_ms)
        expires_ts = now_ms + 90 * DAY
        tx.run(
            "INSERT INTO invitations VALUES ('t', 'email', 'a@x', '!r', '@s:x', 0, ?, NULL)", (expires_ts,)
        )

    write(path, put)


class Machine:
    """A server on a machine whose clock can be set, round by round."""

    def __init__(self, path):
        self.db = InlineDatabase(path)
        self.now_ms = NOW
        self.start()

    def start(self):
        """Another process: it knows what the database knows."""
        self.gone = []
        self.purge = Purge(
            db=self.db,
            rules=rules(TIMES),
            clock=Clock(),
            now_ms=lambda: self.now_ms,
            on_purged=lambda what, _number: self.gone.append(what),
        )
        self.purge.startService()

    def restart(self):
        at_once(self.purge.stopService())
        self.start()

    def turn(self, turns=1):
        """What went in some rounds, and the log of them."""
        self.gone.clear()
        with capturedLogs() as events:
            for _ in range(turns):
                at_once(self.purge.turn())
                self.now_ms += 300_000
        return list(self.gone), [(event["log_level"].name, formatEvent(event)) for event in events]


@pytest.fixture
def machine(path):
    machine = Machine(path)
    assert machine.turn() == ([], [])
    fill_young(path, NOW)
    yield machine
    at_once(machine.purge.stopService())
    machine.db.connection.close()


@pytest.mark.parametrize("restarts", [True, False], ids=["before a start", "while it runs"])
def test_with_a_clock_that_is_far_ahead_nothing_goes_for_an_hour(machine, restarts):
    machine.now_ms = NOW + 200 * DAY
    if restarts:
        machine.restart()
    gone, log = machine.turn(12)
    ((level, warning),) = log
    assert (gone, level) == ([], "warn")
    assert f"last round was at {datetime.fromtimestamp(NOW / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" in warning
    assert "clock" in warning
    assert "sessions" in warning
    assert machine.turn() == (["sessions", "invitations"], [("info", "purged: sessions 1, invitations 1")])
    assert machine.turn() == ([], [])


def test_a_clock_that_is_put_right_within_the_hour_costs_nothing(machine):
    machine.now_ms = NOW + 200 * DAY
    assert machine.turn(12)[0] == []
    machine.now_ms = NOW + DAY
    assert machine.turn(20) == ([], [])
    # Ahead once more: it has its hour again.
    machine.now_ms = NOW + 200 * DAY
    gone, log = machine.turn(12)
    assert (gone, len(log)) == ([], 1)


def test_a_clock_that_changes_within_the_hour_has_an_hour_of_its_own(machine):
    machine.now_ms = NOW + 3 * DAY
    assert machine.turn(11)[0] == []
    machine.now_ms = NOW + 200 * DAY
    gone, log = machine.turn(12)
    assert (gone, len(log)) == ([], 1)
    assert machine.turn()[0] == ["sessions", "invitations"]


def test_a_clock_that_was_put_back_is_told_and_believed_after_an_hour(machine):
    machine.now_ms = NOW - 2 * 3600 * 1000
    gone, log = machine.turn(13)
    assert (gone, [level for level, _ in log]) == ([], ["warn"])
    assert machine.turn(5) == ([], [])


@pytest.mark.parametrize("off_ms", [0, -3600 * 1000, DAY - 1])
def test_after_a_restart_within_a_day_it_goes_on_at_once(path, machine, off_ms):
    write(path, lambda tx: add_session(tx, "old", 0))
    machine.now_ms = NOW + off_ms
    machine.restart()
    assert machine.turn() == (["sessions"], [("info", "purged: sessions 1")])


def test_a_server_that_was_off_for_weeks_waits_an_hour(machine):
    machine.now_ms = NOW + 21 * DAY
    machine.restart()
    gone, log = machine.turn(12)
    assert (gone, [level for level, _ in log]) == ([], ["warn"])
    assert machine.turn()[0] == ["sessions"]


@pytest_twisted.ensureDeferred
async def test_the_first_hour_by_the_clock(path, open_db):
    # As it runs, on a database whose last round was long ago.
    write(path, lambda tx: counters.set_to(tx, counters.PURGE, NOW - 21 * DAY))
    write(path, lambda tx: add_session(tx, "old", 0))
    clock, heard = WatchedClock(0), Heard()
    service = served(open_db(), clock, heard)
    while clock.seconds() < 3600:
        seconds = await clock.armed()
        assert heard.gone == 0
        clock.advance(seconds)
    await heard.count(1)
    assert clock.seconds() == 3600 + FIRST_SECONDS
    await service.stopService()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jumps=st.lists(st.sampled_from([0, 1, DAY // 2, 2 * DAY, 30 * DAY, -DAY, -60_000]), max_size=40))
def test_nothing_goes_before_a_jump_of_time_is_an_hour_old(path, jumps):
    write(path, lambda tx: [tx.run(f"DELETE FROM {table}") for table in ("counters", "validation_sessions")])
    machine = Machine(path)
    machine.turn()
    noted_ms, since = machine.now_ms - 300_000, 99
    for number, jump in enumerate(jumps):
        machine.now_ms += jump
        write(path, lambda tx, name=str(number): add_session(tx, name, 0))
        since = 0 if abs(jump) >= DAY else since + 1
        now_ms = machine.now_ms
        if machine.turn()[0]:
            assert since >= 12 or -3600 * 1000 <= now_ms - noted_ms <= DAY
            noted_ms = now_ms
    at_once(machine.purge.stopService())
    machine.db.connection.close()
