"""What is found out about directories and files before the server needs them, without changing any."""

import os
import socket
import sqlite3
import tempfile
from contextlib import closing

import pytest
from standins.certificates import Authority
from unprivileged import unprivileged_folder

from sydentish.cli.surroundings import look_around
from sydentish.config import load
from sydentish.store.migrate import migrate_sqlite, shipped_steps

INIT = "or start once with: sydentish serve --init"
MANDATORY = {
    "SYDENTISH_GENERAL__SERVER_NAME": "example.org",
    "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
}


def around(data_dir, *, log=None, database=None, **listeners):
    environ = MANDATORY | {"SYDENTISH_GENERAL__DATA_DIR": str(data_dir)}
    if log is not None:
        environ["SYDENTISH_LOG__FILE"] = str(log)
    if database is not None:
        environ["SYDENTISH_DATABASE__PATH"] = str(database)
    environ |= {f"SYDENTISH_HTTP__{key.upper()}": value for key, value in listeners.items()}
    return look_around(load(None, environ))


def bare(told):
    """Lines without where the option stands, which is in the environment here."""
    assert all(line.startswith("environment: ") for line in told)
    return tuple(line.removeprefix("environment: ") for line in told)


def problems(*arguments, **options):
    found = around(*arguments, **options)
    assert found.warnings == ()
    return bare(found.problems)


def warnings(*arguments, **options):
    found = around(*arguments, **options)
    assert found.problems == ()
    return bare(found.warnings)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 1000, 0, shipped_steps())
    return path


# --- what is there and what is not ------------------------------------------------------------------------


def test_nothing_is_wrong_with_an_empty_data_dir(tmp_path):
    assert problems(tmp_path) == ()
    assert names(tmp_path) == []


def test_a_missing_data_dir_is_a_warning_with_the_remedy_told_once(tmp_path):
    folder = tmp_path / "a" / "b"
    assert warnings(folder) == (f"[general] data_dir: {folder}: there is no such directory: make it, {INIT}",)
    assert names(tmp_path) == []


def test_a_missing_folder_of_the_database_is_a_warning_of_its_own(tmp_path):
    (warning,) = warnings(tmp_path, database=tmp_path / "db" / "x.db")
    assert warning.startswith(f"[database] path: {tmp_path}/db: there is no such directory: ")


def test_the_folder_of_the_log_is_never_made_so_it_must_exist(tmp_path):
    assert problems(tmp_path, log=tmp_path / "no" / "x.log") == (
        f"[log] file: {tmp_path}/no: there is no such directory: make it",
    )
    assert problems(tmp_path, log=tmp_path / "x.log") == ()
    assert problems(tmp_path, log="/dev/null") == ()
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    (problem,) = problems(tmp_path, log=tmp_path / "file" / "x.log")
    assert problem == f"[log] file: {tmp_path}/file: is no directory"
    for database in ("file/x.db", "file/more/x.db"):
        assert problems(tmp_path, database=tmp_path / database) == (
            f"[database] path: {tmp_path}/file: is no directory",
        )


def test_what_cannot_be_looked_at_is_told(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (problem,) = problems(tmp_path, log=loop / "x.log")
    assert problem.startswith(f"[log] file: {loop}/x.log: Too many levels of symbolic links")


# --- databases ---------------------------------------------------------------------------------------------


def test_our_own_database_is_looked_at_without_a_trace(tmp_path, database):
    before = (database.read_bytes(), database.stat().st_mtime_ns)
    assert problems(tmp_path) == ()
    assert (database.read_bytes(), database.stat().st_mtime_ns) == before
    assert names(tmp_path) == [database.name]


def test_a_database_in_use_is_ours_and_left_alone(tmp_path, database):
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE more (x)")
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert len(before) == 3
        assert problems(tmp_path) == ()
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "sydentish.db").touch()
    assert problems(tmp_path) == ()


def test_a_name_with_odd_characters_is_no_hindrance(tmp_path):
    path = tmp_path / "a?b#c%41 d.db"
    sql(path, "CREATE TABLE other (x)")
    assert problems(tmp_path, database=path) == (
        f"[database] path: {path}: is the database of another program",
    )


@pytest.mark.parametrize("content", [b"x", b"-- SQL\n", b"SQLite format 2\x00", b"\x00" * 5000])
def test_what_is_no_database_is_told(tmp_path, content):
    path = tmp_path / "sydentish.db"
    path.write_bytes(content)
    assert problems(tmp_path) == (f"[database] path: {path}: is no SQLite database",)


def test_a_broken_database_is_told(tmp_path, database):
    database.write_bytes(database.read_bytes()[:16] + b"\xff" * 5000)
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"[database] path: {database}: cannot be opened as a database: ")


def test_a_database_of_a_newer_version_is_told(tmp_path, database):
    sql(database, "INSERT INTO schema_steps VALUES (9999, 'from_the_future', 0)")
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"[database] path: {database}: was used by a newer version: it has schema 9999")


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "sydentish.db")
    assert problems(tmp_path) == (f"[database] path: {tmp_path}/sydentish.db: is no file",)


# --- rights ------------------------------------------------------------------------------------------------


def owned(problem, path, *, may_not):
    """Whether the problem names the path, its owner, and who may not do what."""
    assert f": {path}: Permission denied: " in problem
    assert f" may not {may_not} it; its owner is " in problem
    assert ", its mode 0" in problem
    return True


def test_a_data_dir_of_another_user_is_told():
    with unprivileged_folder() as (folder, unprivileged):
        data_dir = folder / "data"
        data_dir.mkdir(mode=0o755)
        with unprivileged(data_dir):
            (problem,) = problems(data_dir)
            assert owned(problem, data_dir, may_not="write")
            # With the database elsewhere, nothing is written there.
            (warning,) = bare(around(data_dir, database=f"{tempfile.gettempdir()}/x.db").warnings)
            assert owned(warning, data_dir, may_not="write")


def test_a_folder_that_cannot_be_entered_is_named_as_what_keeps_out():
    with unprivileged_folder() as (folder, unprivileged):
        closed = folder / "closed"
        data_dir = closed / "a" / "data"
        data_dir.mkdir(parents=True)
        closed.chmod(0o700)
        with unprivileged(closed):
            (problem,) = problems(data_dir, log=data_dir / "x.log")
            (log,) = problems(tempfile.gettempdir(), log=data_dir / "x.log")
    assert problem.startswith("[general] data_dir: ")
    assert log.startswith("[log] file: ")
    assert all(owned(each, closed, may_not="enter") for each in (problem, log))


def test_a_missing_data_dir_that_the_user_could_not_make_is_told_so():
    with unprivileged_folder() as (folder, unprivileged), unprivileged(folder):
        (warning,) = warnings(folder / "data")
    assert f"{folder}/data: there is no such directory: make it, as another user, for {folder}: " in warning
    assert "--init" not in warning


@pytest.mark.parametrize("name", ["sydentish.db", "sydentish.db-wal", "sydentish.db-shm"])
def test_a_database_of_another_user_is_told(name):
    with unprivileged_folder() as (folder, unprivileged):
        folder.chmod(0o777)
        (folder / "sydentish.db").touch()
        (folder / "sydentish.db").chmod(0o666)
        file = folder / name
        file.touch()
        file.chmod(0o600)
        with unprivileged(file):
            (problem,) = problems(folder)
        assert owned(problem, file, may_not="read or write")
        file.chmod(0o644)
        with unprivileged(file):
            (problem,) = problems(folder)
        assert owned(problem, file, may_not="write")


def test_a_log_of_another_user_is_told():
    with unprivileged_folder() as (folder, unprivileged):
        data_dir, logs = folder / "data", folder / "logs"
        data_dir.mkdir()
        data_dir.chmod(0o777)
        logs.mkdir(mode=0o755)
        with unprivileged(logs):
            (problem,) = problems(data_dir, log=logs / "x.log")
        assert owned(problem, logs, may_not="write")
        log = logs / "x.log"
        log.touch()
        log.chmod(0o644)
        with unprivileged(log):
            (problem,) = problems(data_dir, log=log)
        assert owned(problem, log, may_not="write")
        # A log that is there already needs no right to the folder.
        log.chmod(0o666)
        with unprivileged(logs):
            assert problems(data_dir, log=log) == ()


# --- unix sockets ------------------------------------------------------------------------------------------

KEYS = ["listeners", "internal_listeners", "metrics_listeners"]


@pytest.mark.parametrize("key", KEYS)
def test_the_directory_of_a_socket_must_exist(tmp_path, key):
    assert problems(tmp_path, **{key: f"unix:{tmp_path}/no/x.sock:mode=660"}) == (
        f"[http] {key}: {tmp_path}/no: there is no such directory: make it",
    )
    assert problems(tmp_path, **{key: f"unix:{tmp_path}/x.sock"}) == ()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["sydentish-of-nobody", "nobody/sydentish"])
def test_the_directory_of_a_socket_may_be_one_that_systemd_makes(tmp_path, name):
    (warning,) = warnings(tmp_path, internal_listeners=f"unix:/run/{name}/x.sock")
    remedy = f"make it, or let systemd make it (RuntimeDirectory={name})"
    assert warning == f"[http] internal_listeners: /run/{name}: there is no such directory: {remedy}"


def test_a_file_in_the_place_of_a_socket_or_of_its_directory_is_told(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert problems(tmp_path, listeners=f"unix:{file}") == (
        f"[http] listeners: {file}: is there already, and is no socket",
    )
    assert problems(tmp_path, listeners=f"unix:{file}/x.sock") == (
        f"[http] listeners: {file}: is no directory",
    )


def test_a_socket_from_before_is_no_hindrance(tmp_path):
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(tmp_path / "x.sock"))
        assert problems(tmp_path, listeners=f"unix:{tmp_path}/x.sock") == ()


def test_the_socket_that_peers_push_to_is_looked_at_too(tmp_path):
    pair = tmp_path / "pair.pem"
    pair.touch(mode=0o600)
    Authority().issue("example.org").write(pair)
    environ = MANDATORY | {
        "SYDENTISH_GENERAL__DATA_DIR": str(tmp_path),
        "SYDENTISH_REPLICATION__LISTENERS": f"tcp:0\nunix:{tmp_path}/no/x.sock",
        "SYDENTISH_REPLICATION__CERTIFICATE_FILE": str(pair),
        "SYDENTISH_REPLICATION__CA_FILE": str(pair),
    }
    found = look_around(load(None, environ))
    assert found.warnings == ()
    assert bare(found.problems) == (
        f"[replication] listeners: {tmp_path}/no: there is no such directory: make it",
    )


def test_the_directory_of_a_socket_must_let_the_user_write():
    with unprivileged_folder() as (folder, unprivileged):
        data_dir, sockets = folder / "data", folder / "sockets"
        data_dir.mkdir()
        data_dir.chmod(0o777)
        sockets.mkdir(mode=0o755)
        with unprivileged(sockets):
            (problem,) = problems(data_dir, listeners=f"unix:{sockets}/x.sock")
    assert problem.startswith("[http] listeners: ")
    assert owned(problem, sockets, may_not="write")
