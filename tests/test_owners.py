"""Root in folders of somebody who plants links there: what is made is that one's, and nothing of root's is touched."""

import os
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from shutil import copyfile

import pytest
from cli.home import Home
from unprivileged import NOBODY

from sydentish.keyfiles import KeyProblem, generate_key, retire_key, revoke_key
from sydentish.owners import as_owner_of, make_private
from sydentish.store.sqlite import connect

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")


@pytest.fixture
def ground():
    """A folder that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def victim(ground):
    """A folder of root's with a file in it."""
    folder = ground / "root"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("root's")
    (folder / "file").chmod(0o600)
    return folder


@pytest.fixture
def home(ground):
    """A server's folder that is nobody's, with two addresses in the database and a backup with keys that only root reads."""
    home = Home(ground)
    home.bind(1, 2)
    (ground / "backups").mkdir(mode=0o700)
    assert home.told("backup", "--with-keys", ground / "backups" / "copy.tar")[0] == 0
    assert home.told("backup", ground / "backups" / "copy.db")[0] == 0
    give(home.path.parent)
    return home


def give(folder):
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def link(path, target):
    path.symlink_to(target)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def state(folder):
    return {
        str(path): (path.lstat().st_uid, path.lstat().st_mode, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


def owners(folder):
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (folder, *folder.rglob("*"))}


def who(folder):
    with as_owner_of(folder):
        return os.geteuid()


def test_root_is_the_owner_for_a_while_and_root_again(ground):
    make_private(ground / "a")
    os.chown(ground / "a", NOBODY, NOBODY)
    before = os.getegid(), os.getgroups()
    with suppress(ZeroDivisionError), as_owner_of(ground / "a" / "b" / "c"):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (NOBODY, NOBODY, [NOBODY])
        with as_owner_of(ground):
            assert os.geteuid() == NOBODY
        raise ZeroDivisionError
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, *before)
    assert who(ground) == 0


def test_a_link_counts_for_who_made_it_unless_that_is_root(ground, victim):
    theirs = ground / "theirs"
    theirs.mkdir()
    give(theirs)
    (ground / "way").symlink_to("theirs")
    assert who(ground / "way" / "data") == NOBODY
    (ground / "there").symlink_to(victim)
    assert who(ground / "there" / "data") == 0
    link(theirs / "keys", victim)
    assert who(theirs / "keys") == NOBODY
    link(ground / "planted", victim)
    assert who(ground / "planted" / "x") == NOBODY
    assert who(theirs / ".." / "root") == NOBODY
    (ground / "round").symlink_to("round")
    assert who(ground / "round") == 0


def test_a_group_that_the_owner_is_not_in_is_not_taken_on(ground):
    os.chown(ground, NOBODY, 0)
    with as_owner_of(ground):
        assert 0 not in (os.getegid(), *os.getgroups())
    os.chown(ground, 0, 0)


@pytest.mark.parametrize("place", ["keys", "keys/next", "keys/retired", "keys/revoked"])
def test_keys_are_not_written_or_removed_where_a_link_leads(ground, victim, place):
    data = ground / "data"
    (data / place).parent.mkdir(parents=True)
    (victim / "ed25519_9.key.x.part").write_text("root's, too")
    link(data / place, victim)
    give(data)
    before = state(victim)
    for number, change in enumerate(
        (
            lambda seed: generate_key(data / "keys", None, seed),
            lambda seed: generate_key(data / "keys", None, seed, ahead=True),
            lambda _: retire_key(data / "keys", "ed25519:1"),
            lambda _: revoke_key(data / "keys", "ed25519:1"),
        )
    ):
        with suppress(KeyProblem, OSError):
            change(bytes([number]) * 32)
    assert state(victim) == before
    assert owners(data) == {(NOBODY, NOBODY)}


def test_commands_for_keys_leave_nothing_of_roots(home, victim):
    before = state(victim)
    for words in (("generate", "--next"), ("rotate", "--yes"), ("revoke", "--yes", "ed25519:0")):
        status, said = home.told("keys", *words)
        assert status == 0, said
    assert owners(home.path.parent) == {(NOBODY, NOBODY)}
    assert state(victim) == before


@pytest.mark.parametrize("name", ["copy.db", "copy.tar"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_backup_that_only_root_reads_becomes_the_owners_database(home, victim, name, lost):
    if lost:
        for path in home.path.parent.rglob("*"):
            if path.is_file():
                path.unlink()
    # What an owner who is quick could plant.
    for way in ("sydentish.db-wal", "sydentish.db-journal", "sydentish.db.before-restore"):
        link(home.path.with_name(way), victim / "file")
    before, backup = state(victim), home.folder / "backups" / name
    status, said = home.told("restore", "--yes", "--offline", backup)
    assert state(victim) == before
    assert backup.stat().st_uid == 0
    assert owners(home.path.parent) == {(NOBODY, NOBODY)}
    if lost:
        assert status == 0, said
        assert list((home.path.parent / "keys").glob("*.key")) == (
            [home.path.parent / "keys" / "ed25519_0.key"] if name == "copy.tar" else []
        )


def test_a_backup_with_a_log_can_be_read_by_the_owner_of_nothing_but_the_database(home):
    with closing(connect(home.path, 5000)) as connection:
        connection.execute("UPDATE accounts SET created_ts = created_ts")
        connection.execute("INSERT INTO counters (name, value) VALUES ('x', 1)")
        for ending in ("", "-wal"):
            copyfile(f"{home.path}{ending}", home.folder / "backups" / f"raw.db{ending}")
    give(home.path.parent)
    status, said = home.told("restore", "--yes", "--offline", home.folder / "backups" / "raw.db")
    assert status == 0, said
    assert owners(home.path.parent) == {(NOBODY, NOBODY)}


@pytest.mark.parametrize("place", ["", "keys"])
def test_a_folder_that_was_exchanged_for_a_link_is_not_restored_into(home, victim, place):
    folder = home.path.parent / place
    folder.rename(home.folder / "away")
    link(folder, victim)
    before = state(victim)
    home.told("restore", "--yes", "--offline", home.folder / "backups" / "copy.tar")
    home.told("keys", "rotate", "--yes")
    home.told("keys", "generate")
    home.told("backup", home.folder / "backups" / "again.db")
    assert state(victim) == before


def test_commands_on_the_database_leave_nothing_of_roots_beside_it(home):
    for words in (("accounts", "list"), ("peers", "list"), ("verify",), ("stats",)):
        home.told(*words)
        assert owners(home.path.parent) == {(NOBODY, NOBODY)}
    copy = home.folder / "backups" / "new.db"
    status, said = home.told("backup", copy)
    assert status == 0, said
    assert (copy.stat().st_uid, copy.stat().st_mode & 0o777) == (0, 0o600)
    assert owners(home.path.parent) == {(NOBODY, NOBODY)}


def test_root_does_not_serve_where_somebody_else_should(home):
    status, said = home.told("serve")
    assert status == os.EX_CONFIG
    assert "belongs to another user: run the server as that one, not as root" in said
    assert owners(home.path.parent) == {(NOBODY, NOBODY)}
