"""No query of a request, of the outbox, or of replication reads a whole table: what SQLite says it will do."""

import json
import sqlite3

import pytest
from store_tools import START_MS

from sydentish.domain.delivery import Delivery
from sydentish.domain.lookup import hash_address
from sydentish.domain.peers import Failed, Peer
from sydentish.domain.ratelimit import Charge, Rate
from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import (
    accounts,
    associations,
    budgets,
    figures,
    health,
    invites,
    keys,
    letters,
    lookup,
    outbox,
    peers,
    progress,
    pushes,
    statements,
    terms,
    validation,
)
from sydentish.store.outbox import Lease
from sydentish.store.sqlite import DIALECT, SqliteTx, connect

MANY = 3000
MILLION = 1_000_000
ADDRESS = Threepid(EMAIL, "u7@example.org")
LEASE = Lease(
    Delivery(7, "hs7.example.org", "{}", 0, None), created_ts=START_MS, failing=False, until_ts=START_MS
)
RATE = Rate(10, 3600_000)
HASHES = json.dumps([hash_address(Threepid(EMAIL, f"u{n}@example.org"), "p1") for n in range(500)])
PLAIN = json.dumps([[f"u{n}@example.org email", EMAIL, f"u{n}@example.org"] for n in range(500)])
OURS, PEER = "id", "p1.example.org"
ERASED, KEY = Threepid(EMAIL, "t7@example.org"), b"key"
# A bucket that is there, and two that are not: each of those sweeps.
CHARGES = [Charge(budget, key, RATE) for budget, key in (("mails", "7"), ("mails", "new"), ("sms", "7"))]

DEEDS = [
    ("account_of", lambda tx: accounts.account_of(tx, "t7")),
    ("touch_token", lambda tx: accounts.touch_token(tx, "t7", 1)),
    ("delete_token", lambda tx: accounts.delete_token(tx, "t7", START_MS)),
    ("delete_tokens", lambda tx: accounts.delete_tokens(tx, "@u7:example.org")),
    ("delete_account", lambda tx: accounts.delete_account(tx, "@u7:example.org")),
    ("accounts_after", lambda tx: accounts.accounts_after(tx, "@u7:example.org", 10)),
    ("logged_in_after", lambda tx: accounts.logged_in_after(tx, "@u7:example.org", 10)),
    ("tokens_of", lambda tx: accounts.tokens_of(tx, "@u7:example.org")),
    ("purge_tokens", lambda tx: accounts.purge_tokens(tx, 1, 10)),
    ("purge_idle", lambda tx: accounts.purge_idle(tx, 100, (7, "@u7:example.org"), 10)),
    ("accepted", lambda tx: terms.accepted(tx, "@u7:example.org")),
    ("session", lambda tx: validation.session(tx, "s7")),
    ("latest_session", lambda tx: validation.latest_session(tx, ADDRESS, "secret7")),
    ("add_token", lambda tx: validation.add_token(tx, "s7", "hash")),
    ("tokens", lambda tx: validation.tokens(tx, "s7")),
    ("delete_session_token", lambda tx: validation.delete_token(tx, "s7", 1)),
    ("keep_newest_tokens", lambda tx: validation.keep_newest_tokens(tx, "s7", 9, 5)),
    ("set_sent", lambda tx: validation.set_sent(tx, "s7", 9, None, 1)),
    ("set_validated", lambda tx: validation.set_validated(tx, "s7", 1, 1)),
    ("add_wrong_guess", lambda tx: validation.add_wrong_guess(tx, "s7")),
    ("sessions_of", lambda tx: validation.sessions_of(tx, ADDRESS)),
    ("delete_session", lambda tx: validation.delete_session(tx, "s7")),
    ("purge_sessions", lambda tx: validation.purge(tx, 100, 10)),
    ("association", lambda tx: associations.association(tx, ADDRESS)),
    ("delete_association", lambda tx: associations.delete(tx, ADDRESS)),
    ("signed_elsewhere", lambda tx: associations.signed_elsewhere(tx, ADDRESS)),
    ("first_associations", lambda tx: associations.after(tx, None, 10)),
    ("associations_after", lambda tx: associations.after(tx, ADDRESS, 10)),
    ("associations_of_user", lambda tx: associations.of_user(tx, "@u7:example.org")),
    ("set_mxid", lambda tx: lookup.set_mxid(tx, ADDRESS, "@new:example.org")),
    ("unset_mxid", lambda tx: lookup.set_mxid(tx, ADDRESS, None)),
    ("find_hashes", lambda tx: lookup.find_hashes(tx, 1, HASHES)),
    ("find_plain", lambda tx: lookup.find_plain(tx, PLAIN)),
    ("drop_hashes", lambda tx: lookup.drop_hashes(tx, START_MS + 1, 10)),
    ("is_ephemeral_valid", lambda tx: keys.is_ephemeral_valid(tx, b"7", 1)),
    ("own_names", statements.own_names),
    ("invites_waiting", lambda tx: invites.waiting(tx, ADDRESS, START_MS)),
    ("invites_hand_over", lambda tx: invites.hand_over(tx, "t7", 7)),
    ("invites_take_back", lambda tx: invites.take_back(tx, [7, 8])),
    ("invites_after", lambda tx: invites.after(tx, "t7", 10)),
    ("invites_expired", lambda tx: invites.expired(tx, START_MS + 9, 10)),
    ("invites_delete", lambda tx: invites.delete(tx, "w7", handed_over=False)),
    ("invites_delete_expired_keys", lambda tx: invites.delete_expired_keys(tx, 9, 10)),
    ("sender_of", lambda tx: invites.sender_of(tx, "7", b"7", 1)),
    ("is_known", lambda tx: invites.is_known(tx, "7", 1)),
    ("invites_of", lambda tx: invites.tokens_of(tx, ADDRESS, 10)),
    ("invites_from", lambda tx: invites.tokens_from(tx, "@s7:x", 10)),
    ("invites_in", lambda tx: invites.tokens_in(tx, 7)),
    ("keys_from", lambda tx: invites.keys_from(tx, "@s7:x")),
    ("delete_keys_from", lambda tx: invites.delete_keys_from(tx, "@s7:x", 10)),
    ("forget_buckets", lambda tx: budgets.forget(tx, [("mails", "7")])),
    ("purge_budgets", lambda tx: budgets.purge(tx, 100, 10)),
    ("letter", lambda tx: letters.letter(tx, 7)),
    ("letters_after", lambda tx: letters.letters_after(tx, letters.Wanted(state="dead"), 7, 10)),
    ("texts_after", lambda tx: letters.texts_after(tx, 7, 10)),
    ("revive", lambda tx: letters.revive(tx, letters.letter(tx, 7), START_MS)),
    ("purge_dead", lambda tx: letters.purge_dead(tx, START_MS, 10)),
    (
        "purge_destinations",
        lambda tx: letters.purge_destinations(tx, START_MS, ("onbind", "hs7"), 10, ["POST"]),
    ),
    ("charge_known_and_new", lambda tx: budgets.charge(tx, CHARGES, START_MS)),
    (
        "outbox_add",
        lambda tx: outbox.add(
            tx, kind="onbind", destination="hs7.example.org", idempotency_key="new", payload="{}", now_ms=1
        ),
    ),
    ("outbox_pending", lambda tx: outbox.rows_of(tx, "onbind:id:7")),
    ("outbox_withdraw", lambda tx: outbox.withdraw(tx, 7)),
    ("outbox_lease", lambda tx: outbox.lease(tx, "onbind", START_MS, 1000, 10, failing=False)),
    ("outbox_lease_failing", lambda tx: outbox.lease(tx, "onbind", START_MS, 1000, 10, failing=True)),
    ("due_since", lambda tx: health.due_since(tx, ["onbind"], START_MS)),
    ("outbox_next_due", lambda tx: outbox.next_due(tx, "onbind", failing=True)),
    ("outbox_delivered", lambda tx: outbox.delivered(tx, "onbind", LEASE, "PUT")),
    ("outbox_bury", lambda tx: outbox.bury(tx, "onbind", LEASE, "refused", START_MS, answered=True)),
    ("outbox_retry", lambda tx: outbox.retry(tx, "onbind", LEASE, 1, "down", 1, 0.0)),
    ("outbox_wake", lambda tx: outbox.wake(tx, "onbind", "hs7.example.org", START_MS)),
    ("local_key", lambda tx: statements.local_key(tx, bytes)),
    ("newest_erased", lambda tx: statements.newest_erased(tx, ADDRESS, KEY)),
    ("forget_erased", lambda tx: statements.forget_erased(tx, ADDRESS, KEY)),
    ("drop_tombstone", lambda tx: statements.drop_tombstone(tx, ERASED)),
    ("has_tombstone", lambda tx: statements.has_tombstone(tx, ERASED)),
    ("erase_acknowledged", statements.erase_acknowledged),
    ("log_from_the_beginning", lambda tx: statements.log_between(tx, OURS, 0, MAX_ORIGIN_ID, 500)),
    ("log_from_the_middle", lambda tx: statements.log_between(tx, OURS, 1500, MAX_ORIGIN_ID, 500)),
    ("own_statement", lambda tx: statements.own_statement(tx, OURS, 7)),
    ("digests", lambda tx: statements.digests(tx, PEER, 1000, 2000, 100)),
    ("last_id", lambda tx: statements.last_id(tx, PEER)),
    ("ids_after", lambda tx: statements.ids_after(tx, PEER, 1000, 500)),
    ("erased_between", lambda tx: statements.erased_between(tx, PEER, 1000, 1500)),
    ("erased", lambda tx: statements.erased(tx, ERASED)),
    ("signed_between", lambda tx: associations.signed_between(tx, PEER, 1000, 1500, 4096)),
    ("peers_configure", lambda tx: peers.configure(tx, [Peer("new", "https://x", {}, ())], START_MS)),
    ("peers_states", peers.states),
    ("peers_pause", lambda tx: peers.pause(tx, PEER, paused=True)),
    ("peers_received", lambda tx: peers.received(tx, PEER, START_MS)),
    ("peers_start_over", lambda tx: peers.start_over(tx, PEER, START_MS)),
    ("peers_remove", lambda tx: peers.remove(tx, PEER)),
    ("pushes_new", lambda tx: pushes.batch(tx, OURS, peers.state(tx, PEER), START_MS, 500)),
    ("pushes_parked", lambda tx: pushes.batch(tx, OURS, peers.state(tx, "p3.example.org"), START_MS, 500)),
    ("last_own_id", lambda tx: statements.last_own_id(tx, OURS)),
    ("pushes_due", lambda tx: pushes.due(tx, OURS, START_MS, 1000)),
    ("pushes_next_retry", lambda tx: pushes.next_retry(tx, START_MS)),
    ("pushes_report", lambda tx: progress.report(tx, OURS)),
    ("peers_behind_at", lambda tx: progress.behind_at(tx, 7)),
    (
        "pushes_acknowledged",
        lambda tx: acknowledge(tx, pushes.Batch([], 100, moves_on=True, parked_ids=(10, 11))),
    ),
    (
        "pushes_park",
        lambda tx: pushes.park(tx, PEER, [10, 11], "odd", pushes.lease(tx, PEER, 0, 1000), 1, 0.0),
    ),
    (
        "pushes_failed",
        lambda tx: pushes.failed(
            tx, PEER, Failed("unreachable", "down"), pushes.lease(tx, PEER, 0, 1000), 1, 0.0
        ),
    ),
    ("pushes_let_go", lambda tx: pushes.let_go(tx, PEER, [10, 11])),
    ("pushes_wake", lambda tx: pushes.wake(tx, PEER)),
]


def acknowledge(tx, batch):
    return pushes.acknowledged(tx, PEER, batch, pushes.lease(tx, PEER, 0, 1000), 1)


# So few rows that an index would not help, or none of ours at all.
SMALL = (
    *("SCAN peppers", "SCAN peers", "SCAN names", "SCAN asked VIRTUAL TABLE", "SCAN CONSTANT ROW"),
    "SCAN (subquery",
)


class ExplainingTx:
    """A transaction that notes the plan of each statement before it runs it."""

    dialect = DIALECT

    def __init__(self, connection):
        self._connection = connection
        self._tx = SqliteTx(connection)
        self.plan = []

    def _explain(self, sql, params):
        for row in self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", params):
            self.plan.append(row[3])

    def run(self, sql, params=()):
        self._explain(sql, params)
        return self._tx.run(sql, params)

    def row(self, sql, params=()):
        self._explain(sql, params)
        return self._tx.row(sql, params)

    def rows(self, sql, params=()):
        self._explain(sql, params)
        return self._tx.rows(sql, params)


FILL = """
    INSERT INTO counters VALUES ('outbox', 1000000)
    INSERT INTO peppers VALUES (1, 'p1', 0, 0, {start}), (2, 'p2', 0, {start}, NULL)
    INSERT INTO accounts SELECT '@u' || n || ':example.org', 0, n FROM n
    INSERT INTO access_tokens SELECT 't' || n, '@u' || n || ':example.org', 0, 0 FROM n
    INSERT INTO accepted_terms SELECT '@u' || n || ':example.org', 'privacy', '1', 'https://x', 0 FROM n
    INSERT INTO validation_sessions
        SELECT 's' || n, 'email', 'u' || n || '@example.org', 'secret' || n, 1, NULL, n, NULL FROM n
    INSERT INTO validation_tokens SELECT 's' || n, 1, 'h', NULL, 0 FROM n
    INSERT INTO associations
        SELECT 'email', 'u' || n || '@example.org', '@u' || n || ':example.org', n, n, n, 'id', n, NULL FROM n
    INSERT INTO associations
        SELECT 'email', 'p' || n || '@example.org', '@p' || n || ':example.org', n, n, n, 'p1.example.org', n, '{{}}' FROM n
    INSERT INTO tombstones SELECT n + {many}, 'email', 't' || n || '@example.org', n FROM n
    INSERT INTO erased_addresses SELECT 'own' || n, n, 'id', n + {many} FROM n
    INSERT INTO erased_addresses SELECT 'theirs' || n, n, 'p1.example.org', n + {many} FROM n
    INSERT INTO peers (name, url, keys, certificate_names, source, since_ts, acknowledged_id)
        SELECT 'p' || n || '.example.org', 'https://x', '{{}}', '[]', 'command', 0, CASE n WHEN 3 THEN {million} ELSE 0 END
        FROM n WHERE n BETWEEN 1 AND 9
    INSERT INTO parked_statements SELECT 'p' || (n % 9 + 1) || '.example.org', n, 'odd', n, 1, n FROM n
    INSERT INTO ephemeral_keys SELECT CAST(n AS BLOB), n, 'h' || n, '@s' || n || ':x' FROM n
    INSERT INTO budgets SELECT 'mails', 'h' || n, n FROM n
    INSERT INTO outbox
        SELECT n, 'onbind', 'hs' || n || '.example.org', 'onbind:id:' || n || ':1', '{{}}', 'pending', 0, n, 0, NULL, NULL FROM n
    INSERT INTO outbox_destinations SELECT 'onbind', 'hs' || n || '.example.org', n, 0, 0, NULL, 0, NULL FROM n
    INSERT INTO invitations
        SELECT 't' || n, 'email', 'u' || n || '@example.org', '!r:x', '@s' || n || ':x', n, {start} + n, n FROM n
    INSERT INTO invitations
        SELECT 'w' || n, 'email', 'u' || n || '@example.org', '!r:x', '@s' || n || ':x', n, {start} + n, NULL FROM n
"""


def make_believe(connection):
    """The planner takes the tables for many times as long as they are: a million associations, and the rest likewise."""
    for table, index, stat in connection.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall():
        longer = [int(part) * (MILLION // MANY) if int(part) > 1 else 1 for part in stat.split()]
        if longer[0] > MILLION // 2:
            connection.execute(
                "UPDATE sqlite_stat1 SET stat = ? WHERE tbl = ? AND idx IS ?",
                (" ".join(map(str, longer)), table, index),
            )
    connection.execute("ANALYZE sqlite_schema")


@pytest.fixture(params=["fresh", "analysed", "a million"])
def connection(request, path):
    connection = connect(path, 1000)
    connection.execute("BEGIN")
    connection.execute("CREATE TEMP TABLE n (n INTEGER)")
    connection.executemany("INSERT INTO temp.n VALUES (?)", [(number,) for number in range(MANY)])
    for statement in FILL.format(start=START_MS, many=MANY, million=MILLION).split("INSERT INTO")[1:]:
        connection.execute(f"INSERT INTO {statement}")
    for number in range(MANY):
        lookup.set_mxid(SqliteTx(connection), Threepid(EMAIL, f"u{number}@example.org"), f"@u{number}:x.org")
    if request.param != "fresh":
        connection.execute("ANALYZE")
    if request.param == "a million":
        make_believe(connection)
    yield connection
    connection.close()


def test_no_deed_reads_a_whole_table(connection):
    offenders = {}
    for name, deed in DEEDS:
        tx = ExplainingTx(connection)
        connection.execute("SAVEPOINT deed")
        deed(tx)
        connection.execute("ROLLBACK TO deed")
        assert tx.plan
        if scans := [step for step in tx.plan if step.startswith("SCAN") and not step.startswith(SMALL)]:
            offenders[name] = scans
    assert offenders == {}


FIGURES = [
    figures.associations_by_medium,
    figures.associations_by_origin,
    figures.users,
    figures.accounts,
    figures.access_tokens,
    lambda tx: figures.sessions(tx, START_MS, 1000),
    lambda tx: figures.invitations(tx, START_MS),
    figures.all_invitations,
    figures.erased_addresses,
    figures.schema,
    statements.unerased,
    outbox.counts,
]


def test_figures_are_counted_from_indices_alone(connection):
    tx = ExplainingTx(connection)
    for figure in FIGURES:
        figure(tx)
    assert [step for step in tx.plan if step.startswith("SCAN") and "COVERING INDEX" not in step] == []


def test_the_outbox_finds_what_is_due_without_sorting(connection):
    tx = ExplainingTx(connection)
    outbox.lease(tx, "onbind", START_MS, 1000, 10, failing=False)
    assert not [step for step in tx.plan if "TEMP B-TREE" in step]


@pytest.mark.parametrize(
    ("deed", "index"),
    [
        (lambda tx: validation.purge(tx, 100, 10), "validation_sessions_by_change"),
        (lambda tx: accounts.purge_tokens(tx, 1, 10), "access_tokens_by_use"),
        (lambda tx: accounts.purge_idle(tx, 100, None, 10), "accounts_by_sight"),
        (lambda tx: letters.purge_dead(tx, START_MS, 10), "outbox_by_death"),
        (lambda tx: letters.purge_destinations(tx, START_MS, None, 10, ["POST"]), "sqlite_autoindex"),
    ],
    ids=["sessions", "tokens", "accounts", "dead letters", "destinations"],
)
def test_what_is_old_is_found_by_its_age_without_sorting(connection, deed, index):
    tx = ExplainingTx(connection)
    connection.execute("SAVEPOINT deed")
    deed(tx)
    connection.execute("ROLLBACK TO deed")
    assert [step for step in tx.plan if index in step]
    assert not [step for step in tx.plan if "TEMP B-TREE" in step]


def test_full_buckets_are_found_without_sorting(connection):
    tx = ExplainingTx(connection)
    budgets.charge(tx, CHARGES, START_MS)
    assert not [step for step in tx.plan if "TEMP B-TREE" in step]
    assert [step for step in tx.plan if "budgets_by_time" in step]


def test_invitations_that_wait_are_found_by_their_address(connection):
    tx = ExplainingTx(connection)
    assert [each.token for each in invites.waiting(tx, ADDRESS, START_MS)] == ["w7"]
    assert any("invitations_by_address" in step for step in tx.plan)


def test_the_rows_of_a_cause_are_found_by_their_keys(connection):
    tx = ExplainingTx(connection)
    assert outbox.rows_of(tx, "onbind:id:7") == [7]
    assert not [step for step in tx.plan if "outbox_by_" in step]


@pytest.mark.parametrize(
    "deed",
    [
        lambda tx: statements.log_between(tx, OURS, 0, MAX_ORIGIN_ID, 500),
        lambda tx: statements.digests(tx, PEER, 0, MANY, 100),
    ],
    ids=["log", "digests"],
)
def test_statements_are_found_in_their_order_without_sorting(connection, deed):
    tx = ExplainingTx(connection)
    assert deed(tx)
    assert [step for step in tx.plan if "associations_by_origin" in step]
    assert not [step for step in tx.plan if "TEMP B-TREE" in step]


def test_this_would_find_a_scan(connection):
    tx = ExplainingTx(connection)
    tx.row("SELECT * FROM associations WHERE not_after = 1")
    assert tx.plan == ["SCAN associations"]


def test_a_look_up_of_known_and_unknown_hashes_answers_the_known_ones(connection):
    found = json.loads(
        lookup.find_hashes(SqliteTx(connection), 1, HASHES.replace("]", ', "unknown"]')).mappings
    )
    assert len(found) == 500
    assert found[hash_address(ADDRESS, "p1")] == "@u7:x.org"


def test_foreign_keys_need_no_scan_when_a_parent_goes(connection):
    tx = ExplainingTx(connection)
    # SQLite does not show the plan of a foreign key's check; it is that of the query for its children.
    for child in (
        "access_tokens WHERE user_id = ?",
        "accepted_terms WHERE user_id = ?",
        "validation_tokens WHERE sid = ?",
        "lookup_hashes WHERE pepper_id = ?",
        "invitations WHERE outbox_id = ?",
        "parked_statements WHERE peer = ?",
    ):
        tx.rows(f"SELECT 1 FROM {child}", ("x",))
    assert not [step for step in tx.plan if step.startswith("SCAN")]


def test_the_version_of_sqlite_knows_what_the_queries_need():
    assert sqlite3.sqlite_version_info >= (3, 38)  # ->> of JSON
