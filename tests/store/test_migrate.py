"""Bringing a database to the current schema."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from importlib.resources import files

import pytest
from store_tools import SECONDS, START_MS, contents, rows

from sydentish.domain.associations import Association
from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.domain.threepids import Threepid
from sydentish.store.migrate import SchemaError, Step, migrate_sqlite, shipped_steps, steps_in
from sydentish.store.peek import check_sqlite_file, sqlite_schema
from sydentish.store.sqlite import SqliteTx
from sydentish.store.statements import log_between

FIRST = Step(1, "0001_first", "CREATE TABLE first (a TEXT);\nCREATE INDEX first_by_a ON first (a);\n")
SECOND = Step(2, "0002_second", "CREATE TABLE second (a TEXT);\nINSERT INTO second SELECT a FROM first;\n")
BROKEN = Step(2, "0002_broken", "CREATE TABLE second (a TEXT);\nINSERT INTO first VALUES ('x');\nNONSENSE;\n")


def migrate(path, *steps, now_ms=START_MS):
    return migrate_sqlite(path, 5000, now_ms, list(steps))


def tables(path):
    return {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def applied(path):
    return [number for (number,) in rows(path, "SELECT number FROM schema_steps ORDER BY number")]


def execute(path, sql):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sydentish.db"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_shipped_steps_are_numbered_without_gaps_for_every_engine():
    steps = shipped_steps()
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.name.startswith(f"{step.number:04d}_") for step in steps)


def test_a_new_file_gets_every_step(path):
    steps = shipped_steps()
    assert migrate(path, *steps) == steps
    assert rows(path, "SELECT number, name, applied_ts FROM schema_steps ORDER BY number") == [
        (step.number, step.name, START_MS) for step in steps
    ]
    assert {"accounts", "associations", "outbox", "lookup_hashes", "peppers"} <= tables(path)
    assert list(path.parent.glob("*.before-*")) == []


def test_a_current_file_is_left_alone(path):
    migrate(path, *shipped_steps())
    before = contents(path)
    assert migrate(path, *shipped_steps(), now_ms=START_MS + 1) == []
    assert contents(path) == before
    assert list(path.parent.glob("*.before-*")) == []


def test_an_empty_file_is_a_new_one(path):
    path.touch()
    assert migrate(path, FIRST) == [FIRST]


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_may_read_the_file_and_its_copy(path):
    migrate(path, FIRST)
    migrate(path, FIRST, SECOND)
    assert {file.name: mode(file) for file in path.parent.iterdir()} == {
        "sydentish.db": 0o600,
        "sydentish.db.before-0002": 0o600,
    }


def test_a_newer_file_is_refused_and_left_alone(path):
    migrate(path, FIRST, SECOND)
    before = contents(path)
    with pytest.raises(SchemaError, match=r"has schema 2, this program knows 1: .*newer version") as refused:
        migrate(path, FIRST)
    assert str(path) in str(refused.value)
    assert contents(path) == before


def test_only_missing_steps_are_applied_in_the_order_of_their_numbers(path):
    migrate(path, FIRST)
    execute(path, "INSERT INTO first VALUES ('kept')")
    assert migrate(path, FIRST, SECOND) == [SECOND]
    assert rows(path, "SELECT a FROM second") == [("kept",)]
    assert applied(path) == [1, 2]


def test_a_step_that_fails_leaves_nothing_behind_and_names_itself(path):
    with pytest.raises(SchemaError, match=r"0002_broken failed and was undone: .*NONSENSE"):
        migrate(path, FIRST, BROKEN)
    assert tables(path) == {"schema_steps", "first"}
    assert rows(path, "SELECT * FROM first") == []
    assert applied(path) == [1]
    assert migrate(path, FIRST, SECOND) == [SECOND]


def test_a_first_step_that_fails_leaves_a_new_file(path):
    with pytest.raises(SchemaError):
        migrate(path, Step(1, "0001_broken", "CREATE TABLE a (b TEXT);\nNONSENSE;"))
    assert tables(path) == set()
    assert migrate(path, FIRST) == [FIRST]


def test_a_copy_of_what_there_is_before_the_first_step_is_kept(path):
    migrate(path, FIRST)
    execute(path, "INSERT INTO first VALUES ('before')")
    copy = path.with_name("sydentish.db.before-0002")
    with pytest.raises(SchemaError):
        migrate(path, FIRST, BROKEN)
    assert rows(copy, "SELECT a FROM first") == [("before",)]
    assert applied(copy) == [1]
    execute(path, "INSERT INTO first VALUES ('after the first attempt')")
    migrate(path, FIRST, SECOND)
    assert rows(copy, "SELECT a FROM first") == [("before",), ("after the first attempt",)]
    assert applied(copy) == [1]
    assert [file.name for file in path.parent.glob("*.before-*")] == [copy.name]


def test_a_copy_that_was_cut_short_is_made_again(path):
    migrate(path, FIRST)
    execute(path, "INSERT INTO first VALUES ('before')")
    part = path.with_name("sydentish.db.before-0002.part")
    part.write_bytes(b"half of it")
    migrate(path, FIRST, SECOND)
    assert rows(path.with_name("sydentish.db.before-0002"), "SELECT a FROM first") == [("before",)]
    assert not part.exists()


def test_a_copy_is_a_database_that_the_older_program_takes(path):
    migrate(path, FIRST)
    migrate(path, FIRST, SECOND)
    assert migrate(path.with_name("sydentish.db.before-0002"), FIRST) == []


def test_what_is_no_database_is_refused_and_left_alone(path):
    content = b"not a database, but long enough to look at" * 100
    path.write_bytes(content)
    with pytest.raises(SchemaError, match="cannot be opened as a database"):
        migrate(path, FIRST)
    assert path.read_bytes() == content


def test_a_folder_is_refused(path):
    path.mkdir()
    with pytest.raises(SchemaError, match="cannot be opened as a database"):
        migrate(path, FIRST)


@pytest.mark.parametrize("table", ["accounts", "something_else"])
def test_the_database_of_another_program_is_refused_and_left_alone(path, table):
    execute(path, f"CREATE TABLE {table} (a TEXT)")
    with pytest.raises(SchemaError, match="another program"):
        migrate(path, *shipped_steps())
    assert tables(path) == {table}


@pytest.mark.parametrize("number", ["'abc'", "2.5", "x'00'", "9e999"])
def test_a_schema_whose_number_is_none_is_that_of_another_program(path, number):
    execute(path, "CREATE TABLE schema_steps (number)")
    execute(path, f"INSERT INTO schema_steps VALUES ({number})")
    before = path.read_bytes()
    for look in (
        lambda: migrate(path, *shipped_steps()),
        lambda: check_sqlite_file(path, 9),
        lambda: sqlite_schema(path, 9),
    ):
        with pytest.raises(SchemaError, match="is the database of another program"):
            look()
    assert tables(path) == {"schema_steps"}
    assert path.read_bytes()[100:] == before[100:]


def test_a_file_that_another_process_holds_is_refused(path):
    migrate(path, FIRST)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SchemaError, match="locked"):
            migrate_sqlite(path, 10, START_MS, [FIRST, SECOND])
        other.execute("ROLLBACK")
    assert applied(path) == [1]
    assert migrate(path, FIRST, SECOND) == [SECOND]


PROCESS = """
import sys
from pathlib import Path
from sydentish.store.migrate import Step, migrate_sqlite
steps = [Step(int(n), "0001_step", f"CREATE TABLE t{n} (a TEXT);") for n in sys.argv[2].split(",")]
print("ready", flush=True)
sys.stdin.read()
print(len(migrate_sqlite(Path(sys.argv[1]), 1, 0, steps)))
"""


def start_together(path, numbers, how_many=4):
    """Migrates in several processes at once; how many steps each of them applied."""
    arguments = [sys.executable, "-c", PROCESS, str(path), numbers]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(arguments, text=True, **pipes) for _ in range(how_many)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.close()
        process.stdin = None
    results = [process.communicate(timeout=SECONDS) for process in processes]
    assert [errors for _, errors in results] == [""] * how_many
    return sorted(int(output) for output, _ in results)


def test_processes_that_start_together_apply_each_step_once(path):
    assert start_together(path, "1,2,3") == [0, 0, 0, 3]
    assert applied(path) == [1, 2, 3]
    execute(path, "INSERT INTO t1 VALUES ('before')")
    assert start_together(path, "1,2,3,4") == [0, 0, 0, 1]
    copy = path.with_name("sydentish.db.before-0004")
    assert rows(copy, "SELECT a FROM t1") == [("before",)]
    assert applied(copy) == [1, 2, 3]


def test_the_file_of_an_engine_takes_the_place_of_the_shared_one(tmp_path):
    for name in (
        "0001_a.sql",
        "0001_a.sqlite.sql",
        "0002_b.sql",
        "0002_b.postgres.sql",
        "0003_c.sqlite.sql",
        "0010_d.sql",
        "README.md",
    ):
        (tmp_path / name).write_text(name)
    assert [step.sql for step in steps_in(tmp_path, "sqlite")] == [
        "0001_a.sqlite.sql",
        "0002_b.sql",
        "0003_c.sqlite.sql",
        "0010_d.sql",
    ]
    assert [step.sql for step in steps_in(tmp_path, "postgres")] == [
        "0001_a.sql",
        "0002_b.postgres.sql",
        "0010_d.sql",
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE a (b TEXT DEFAULT 'x;y');\nCREATE TABLE c (d TEXT);", {"a", "c"}),
        ("-- a comment; with a semicolon\nCREATE TABLE a (b TEXT -- another;\n);", {"a"}),
        ("CREATE TABLE a (b TEXT);\nCREATE TABLE c (d TEXT)", {"a", "c"}),
        ("CREATE TABLE a (b TEXT);\n-- the end\n\n", {"a"}),
        (
            "CREATE TABLE a (b TEXT);\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n  SELECT 1;\nEND;\nCREATE TABLE c (d TEXT);",
            {"a", "c"},
        ),
    ],
)
def test_a_step_is_taken_apart_where_its_statements_end(path, sql, expected):
    migrate(path, Step(1, "0001_step", sql))
    assert tables(path) == {"schema_steps", *expected}


def test_what_was_there_before_invitations_and_codes_is_still_there(path):
    steps = shipped_steps()
    migrate(path, *steps[:2])
    execute(path, "INSERT INTO validation_sessions VALUES ('s', 'email', 'a@b.c', 'h', 1, NULL, 5, 6)")
    execute(path, "INSERT INTO validation_tokens VALUES ('s', 1, 'hash', 6)")
    execute(path, "INSERT INTO outbox VALUES (7, 'onbind', 'x.org', 'k', '{}', 'pending', 1, 2, 3, NULL)")
    migrate(path, *steps)
    assert rows(path, "SELECT * FROM validation_sessions") == [("s", "email", "a@b.c", "h", 1, None, 5, 6)]
    assert rows(path, "SELECT * FROM validation_tokens") == [("s", 1, "hash", 6, 0)]
    assert rows(path, "SELECT outbox_id, due_ts FROM outbox") == [(7, 2)]
    for table in ("invitations", "budgets", "ephemeral_keys"):
        assert rows(path, f"SELECT * FROM {table}") == []


def test_what_was_bound_before_replication_is_a_statement_of_ours(path):
    steps = shipped_steps()
    migrate(path, *steps[:3])
    bound = ("email", "a@b.c", "@a:b.c", 5, 5, 6, "id.example.org", 1)
    execute(
        path, "INSERT INTO associations VALUES ('email', 'a@b.c', '@a:b.c', 5, 5, 6, 'id.example.org', 1)"
    )
    execute(path, "INSERT INTO counters VALUES ('statement', 1)")
    migrate(path, *steps)
    assert rows(path, "SELECT * FROM associations") == [(*bound, None)]
    assert rows(path, "SELECT * FROM counters") == [("statement", 1)]
    for table in ("local_keys", "erased_addresses", "tombstones", "peers", "parked_statements"):
        assert rows(path, f"SELECT * FROM {table}") == []
    with closing(sqlite3.connect(path)) as connection:
        sent = log_between(SqliteTx(connection), "id.example.org", 0, MAX_ORIGIN_ID, 10)
    assert sent == [Association(Threepid("email", "a@b.c"), *bound[2:])]


def test_who_was_seen_when_and_what_was_given_up_when_is_found_out_for_what_was_there_before(path):
    steps = shipped_steps()
    migrate(path, *steps[:4])
    for user, used in (("@a:x", [7, 9]), ("@b:x", []), ("@c:x", [1])):
        execute(path, f"INSERT INTO accounts VALUES ('{user}', 5)")
        for ts in used:
            execute(path, f"INSERT INTO access_tokens VALUES ('{user}{ts}', '{user}', 5, {ts})")
    for number, state in enumerate(("pending", "dead")):
        values = f"{number}, 'onbind', 'x.org', 'k{number}', '{{}}', '{state}', 1, 2, 3, NULL"
        execute(path, f"INSERT INTO outbox VALUES ({values})")
    migrate(path, *steps)
    assert rows(path, "SELECT user_id, last_seen_ts FROM accounts ORDER BY user_id") == [
        ("@a:x", 9),
        ("@b:x", 5),
        ("@c:x", 5),
    ]
    assert rows(path, "SELECT state, died_ts FROM outbox ORDER BY outbox_id") == [
        ("pending", None),
        ("dead", 2),
    ]


def test_two_steps_with_one_number_are_a_mistake(tmp_path):
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (b TEXT);")
    (tmp_path / "0001_b.sql").write_text("CREATE TABLE b (b TEXT);")
    with pytest.raises(SchemaError, match="0001_b and 0001_a have the same number"):
        steps_in(tmp_path, "sqlite")


def test_shared_steps_use_types_that_every_engine_has():
    shared = [step.sql for step in steps_in(files("sydentish.store") / "schema", "no engine")]
    declared = {word for sql in shared for word in re.findall(r"^    [a-z_]+ ([A-Z]+)", sql, re.MULTILINE)}
    assert declared == {"TEXT", "BIGINT"}
