"""Signing keys that change: what a key may do then, and what is left when a change is interrupted at any moment."""

import itertools
import os
import resource
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import signedjson.key
import signedjson.sign
from dying import REFUSED, SURVIVED, Dying
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signedjson.key import decode_verify_key_bytes
from unpaddedbase64 import encode_base64
from unprivileged import NOBODY, unprivileged_folder

from sydentish.domain.keys import KeyState, decode_base64, make_key
from sydentish.keyfiles import (
    CannotChange,
    KeyProblem,
    finish_rotation,
    generate_key,
    inventory,
    load_keys,
    retire_key,
    revoke_key,
    rotate_key,
)

NAME = "id.example.org"
LIFE = list(KeyState)
FULL_DISK_BYTES = 20


def seed(number):
    return bytes([number]) * 32


@pytest.fixture
def key_dir(tmp_path):
    """One with an active key."""
    folder = tmp_path / "keys"
    generate_key(folder, None, seed(0))
    return folder


@pytest.fixture(scope="module")
def dying():
    with Dying() as changes:
        yield changes


def states(key_dir):
    return {file.key.key_id: file.key.state.value for file in inventory(key_dir)}


def names(key_dir):
    return sorted(str(path.relative_to(key_dir)) for path in key_dir.rglob("*") if not path.is_dir())


def rotate(key_dir, number=1, version=None):
    rotate_key(key_dir, version, seed(number), load_keys(key_dir, NAME).active.key_id)


def refusal(function, *arguments, **options):
    with pytest.raises(CannotChange) as caught:
        function(*arguments, **options)
    return str(caught.value)


# --- the next key -----------------------------------------------------------------------------------------


def test_the_next_key_is_published_and_does_not_sign(key_dir):
    made = generate_key(key_dir, None, seed(1), ahead=True)
    ring = load_keys(key_dir, NAME)
    assert made.path == key_dir / "next" / "ed25519_1.key"
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
    assert ring.active.key_id == "ed25519:0"
    assert ring.public_key("ed25519:1") == made.key.public_key
    assert ring.is_valid(made.key.public_key)
    assert set(ring.sign({})["signatures"][NAME]) == {"ed25519:0"}
    assert [key.key_id for key in ring.announced] == ["ed25519:0", "ed25519:1"]


def test_there_is_one_next_key(key_dir):
    generate_key(key_dir, None, seed(1), ahead=True)
    assert "sydentish keys rotate" in refusal(generate_key, key_dir, None, seed(2), ahead=True)
    assert states(key_dir) == {"ed25519:0": "active", "ed25519:1": "next"}


def test_with_an_active_key_the_two_ways_to_another_are_told(key_dir):
    told = refusal(generate_key, key_dir, None, seed(1))
    assert "sydentish keys rotate" in told
    assert "sydentish keys generate --next" in told


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ([], "1"),
        (["5"], "6"),
        (["a_Z", "007"], "8"),
        (["999999999", "1000000000"], "1000000001"),
        (["9" * 64], "1"),
        (["x3", "_4"], "1"),
    ],
)
def test_the_next_number_is_free(key_dir, used, expected):
    for number, version in enumerate(used):
        folder = key_dir / "retired"
        folder.mkdir(exist_ok=True)
        (folder / f"{version}.key").write_text(make_key(version, seed(100 + number)))
    assert generate_key(key_dir, None, seed(1), ahead=True).key.key_id == f"ed25519:{expected}"


@pytest.mark.parametrize("ahead", [True, False])
def test_no_version_is_used_twice(key_dir, ahead):
    if not ahead:
        (key_dir / "ed25519_0.key").rename(key_dir / "aside")
        (key_dir / "next").mkdir()
        (key_dir / "aside").rename(key_dir / "next" / "x.key")
    before = names(key_dir)
    assert "the version 0" in refusal(generate_key, key_dir, "0", seed(1), ahead=ahead)
    assert names(key_dir) == before


# --- rotating, retiring and revoking ----------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [True, False])
def test_rotating_takes_the_next_key_or_makes_one(key_dir, ahead):
    if ahead:
        generate_key(key_dir, "a", seed(1), ahead=True)
    signed = load_keys(key_dir, NAME).sign({})
    made = (key_dir / "ed25519_0.key").stat().st_mtime_ns
    rotate(key_dir)
    ring = load_keys(key_dir, NAME)
    version = "a" if ahead else "1"
    assert bytes(ring.active.signing_key) == seed(1)
    assert names(key_dir) == [f"ed25519_{version}.key", "retired/ed25519_0.key"]
    assert (key_dir / "retired" / "ed25519_0.key").stat().st_mtime_ns == made
    signedjson.sign.verify_signed_json(
        signed,
        NAME,
        decode_verify_key_bytes("ed25519:0", decode_base64(ring.public_key("ed25519:0"))),
    )


def test_rotating_goes_from_the_key_that_was_looked_at(key_dir):
    rotate(key_dir)
    assert "ed25519:1 has become active meanwhile" in refusal(rotate_key, key_dir, None, seed(2), "ed25519:0")
    assert states(key_dir) == {"ed25519:0": "retired", "ed25519:1": "active"}


def test_no_other_key_than_the_next_one_is_made(key_dir):
    generate_key(key_dir, "a", seed(1), ahead=True)
    assert "ed25519:a is the next key" in refusal(rotate, key_dir, 2, "b")
    assert states(key_dir) == {"ed25519:0": "active", "ed25519:a": "next"}
    rotate(key_dir, 2, "a")
    assert bytes(load_keys(key_dir, NAME).active.signing_key) == seed(1)


def test_of_several_next_keys_none_is_chosen(key_dir):
    for number, version in enumerate("ab"):
        (key_dir / "next").mkdir(exist_ok=True)
        (key_dir / "next" / f"{version}.key").write_text(make_key(version, seed(10 + number)))
    told = refusal(rotate, key_dir)
    assert "ed25519:a, ed25519:b" in told
    assert "sydentish keys retire" in told
    retire_key(key_dir, "ed25519:b")
    rotate(key_dir)
    assert states(key_dir) == {"ed25519:0": "retired", "ed25519:a": "active", "ed25519:b": "retired"}


def test_the_next_key_retires_without_having_signed(key_dir):
    generate_key(key_dir, None, seed(1), ahead=True)
    for _ in range(2):
        retire_key(key_dir, "ed25519:1")
        assert names(key_dir) == ["ed25519_0.key", "retired/ed25519_1.key"]
    assert load_keys(key_dir, NAME).public_key("ed25519:1")


@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_revoked_stays_so(key_dir, ahead):
    generate_key(key_dir, None, seed(1), ahead=True)
    if not ahead:
        rotate(key_dir)
    key_id = f"ed25519:{int(ahead)}"
    public_key = load_keys(key_dir, NAME).public_key(key_id)
    for _ in range(2):
        revoke_key(key_dir, key_id)
        ring = load_keys(key_dir, NAME)
        assert states(key_dir)[key_id] == "revoked"
        assert ring.public_key(key_id) is None
        assert not ring.is_valid(public_key)
    assert "was revoked" in refusal(retire_key, key_dir, key_id)


@pytest.mark.parametrize(
    ("change", "remedy"), [(retire_key, "keys rotate"), (revoke_key, "keys revoke --rotate ed25519:0")]
)
def test_a_server_is_never_left_without_a_key_that_signs(key_dir, change, remedy):
    generate_key(key_dir, None, seed(1), ahead=True)
    before = names(key_dir)
    assert remedy in refusal(change, key_dir, "ed25519:0")
    assert "no such key" in refusal(change, key_dir, "ed25519:9")
    assert names(key_dir) == before


def test_of_two_keys_in_the_key_directory_one_can_be_retired(key_dir):
    (key_dir / "other.key").write_text(make_key("other", seed(9)))
    with pytest.raises(KeyProblem, match="retire KEYID"):
        rotate(key_dir)
    assert "keys revoke --rotate" in refusal(revoke_key, key_dir, "ed25519:0")
    retire_key(key_dir, "ed25519:other")
    assert names(key_dir) == ["ed25519_0.key", "retired/ed25519_other.key"]


def test_a_file_of_that_name_is_not_overwritten(key_dir):
    (key_dir / "retired").mkdir()
    other = key_dir / "retired" / "ed25519_0.key"
    other.write_text(make_key("other", seed(9)))
    assert f"{other}: is in the way" in refusal(rotate, key_dir)
    assert states(key_dir) == {"ed25519:0": "active", "ed25519:other": "retired", "ed25519:1": "next"}
    other.rename(other.with_name("ed25519_other.key"))
    rotate(key_dir)
    assert states(key_dir) == {"ed25519:0": "retired", "ed25519:other": "retired", "ed25519:1": "active"}


# --- files that are other people's, links, and credentials ------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_whose_the_directory_is():
    with unprivileged_folder() as (folder, _):
        os.chown(folder, NOBODY, NOBODY)
        key_dir = folder / "data" / "keys"
        generate_key(key_dir, None, seed(0))
        generate_key(key_dir, None, seed(1), ahead=True)
        rotate(key_dir)
        made = [folder / "data", *(folder / "data").rglob("*")]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(NOBODY, NOBODY)}


def test_who_may_read_the_active_key_may_read_the_new_one(key_dir):
    key_dir.chmod(0o750)
    (key_dir / "ed25519_0.key").chmod(0o640)
    rotate(key_dir)
    for path, mode in (
        ("", 0o750),
        ("retired", 0o750),
        ("ed25519_1.key", 0o640),
        ("retired/ed25519_0.key", 0o640),
    ):
        assert stat.S_IMODE((key_dir / path).stat().st_mode) == mode


def test_keys_that_cannot_be_written_stay_as_they_are_and_can_be_used():
    with unprivileged_folder() as (folder, unprivileged):
        key_dir = folder / "keys"
        generate_key(key_dir, None, seed(0))
        generate_key(key_dir, None, seed(1), ahead=True)
        rotate(key_dir)
        generate_key(key_dir, None, seed(2), ahead=True)
        for path in [key_dir, *key_dir.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = states(key_dir)
        with unprivileged(key_dir, *(path for path in key_dir.rglob("*") if path.is_dir())):
            for change in (
                lambda: rotate_key(key_dir, None, seed(3), "ed25519:1"),
                lambda: retire_key(key_dir, "ed25519:2"),
                lambda: revoke_key(key_dir, "ed25519:0"),
            ):
                told = refusal(change)
                assert told.startswith(f"{key_dir}: the keys cannot be written: Permission denied; ")
                assert "LoadCredential=" in told
                assert states(key_dir) == before


def test_keys_of_systemd_s_credentials_are_told_apart_by_name(tmp_path):
    """`LoadCredential=keys:DIRECTORY` makes one flat directory of all that is below."""
    key_dir = tmp_path / "credentials"
    key_dir.mkdir()
    versions = {
        "keys_ed25519_4.key": "4",
        "keys_next_ed25519_5.key": "5",
        "keys_retired_ed25519_3.key": "3",
        "retired_ed25519_2.key": "2",
        "keys_revoked_ed25519_1.key": "1",
    }
    for number, (name, version) in enumerate(versions.items()):
        (key_dir / name).write_text(make_key(version, seed(number)))
        (key_dir / name).chmod(0o440)
    (key_dir / "smtp-password").write_text("x")
    key_dir.chmod(0o550)
    assert states(key_dir) == {
        "ed25519:4": "active",
        "ed25519:5": "next",
        "ed25519:3": "retired",
        "ed25519:2": "retired",
        "ed25519:1": "revoked",
    }


@pytest.mark.parametrize("version", ["retired_1", "x_retired_ed25519_1"])
def test_a_version_is_not_taken_for_a_state(tmp_path, version):
    generate_key(tmp_path, version, seed(0))
    assert load_keys(tmp_path, NAME).active.key_id == f"ed25519:{version}"


def test_keys_that_are_links_become_files_where_they_go(tmp_path):
    key_dir = tmp_path / "keys"
    for folder, version in ((key_dir, "0"), (key_dir / "next", "1")):
        folder.mkdir()
        (tmp_path / version).write_text(make_key(version, seed(int(version))))
        (tmp_path / version).chmod(0o400)
        # One that leads elsewhere from another directory.
        (folder / f"{version}.key").symlink_to(os.path.relpath(tmp_path / version, folder))
    rotate(key_dir)
    assert states(key_dir) == {"ed25519:0": "retired", "ed25519:1": "active"}
    assert names(key_dir) == ["ed25519_1.key", "retired/ed25519_0.key"]
    assert (tmp_path / "0").read_text() == (key_dir / "retired" / "ed25519_0.key").read_text()


def test_a_key_that_is_there_twice_is_not_lost_with_its_copy(key_dir):
    """Links to a key, in the places where a change removes copies."""
    (key_dir / "current.key").symlink_to("ed25519_0.key")
    (key_dir / "next").mkdir()
    (key_dir / "next" / "x.key").symlink_to("../current.key")
    (key_dir / "retired").symlink_to(".")
    assert load_keys(key_dir, NAME).active.key_id == "ed25519:0"
    generate_key(key_dir, None, seed(1), ahead=True)
    assert states(key_dir) == {"ed25519:0": "active", "ed25519:1": "next"}
    assert (key_dir / "ed25519_0.key").read_text() == make_key("0", seed(0))


@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_a_link_to_a_key_leads_through_is_not_removed(key_dir, elsewhere):
    if elsewhere:
        (key_dir / "ed25519_0.key").rename(key_dir.parent / "0")
        (key_dir / "ed25519_0.key").symlink_to(key_dir.parent / "0")
    (key_dir / "other.key").write_text(make_key("other", seed(9)))
    (key_dir / "retired").mkdir()
    (key_dir / "retired" / "x.key").symlink_to("../ed25519_0.key")
    assert states(key_dir) == {"ed25519:0": "retired", "ed25519:other": "active"}
    rotate(key_dir)
    assert states(key_dir) == {"ed25519:0": "retired", "ed25519:other": "retired", "ed25519:1": "active"}


# --- at once, and interrupted -----------------------------------------------------------------------------


def test_of_many_that_rotate_at_once_one_does(key_dir):
    at_once = threading.Barrier(8)

    def try_it(number):
        at_once.wait()
        try:
            rotate_key(key_dir, f"v{number}", seed(number), "ed25519:0")
        except CannotChange:
            return 0
        return number

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(try_it, range(1, 9)))
    (winner,) = filter(None, outcomes)
    assert bytes(load_keys(key_dir, NAME).active.signing_key) == seed(winner)
    assert states(key_dir) == {"ed25519:0": "retired", f"ed25519:v{winner}": "active"}


def test_who_reads_while_keys_change_has_them_all_at_one_moment(key_dir):
    rotations = 12
    done = threading.Event()
    known = set()

    def change():
        try:
            for number in range(1, rotations + 1):
                generate_key(key_dir, None, seed(number), ahead=True)
                rotate(key_dir)
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        while not done.is_set():
            ring = load_keys(key_dir, NAME)
            found = {key.key_id for key in (ring.active, *ring.others)}
            assert known <= found
            known = found
        changing.result()
    assert len(states(key_dir)) == rotations + 1


def test_a_full_disk_changes_nothing(key_dir):
    generate_key(key_dir, None, seed(1), ahead=True)
    before = names(key_dir)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK_BYTES, limits[1]))
    try:
        told = [refusal(rotate, key_dir), refusal(retire_key, key_dir, "ed25519:1")]
        told.append(refusal(revoke_key, key_dir, "ed25519:1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert all("cannot be written: File too large" in each for each in told)
    assert not any(encode_base64(seed(number)) in each for each in told for number in (0, 1))
    assert names(key_dir) == before


SEEDS = [seed(number).hex() for number in range(3)]
INTERRUPTED = {
    "the first key": ([], ("generate", None, SEEDS[0], False)),
    "a key ahead": ([("generate", None, SEEDS[0], False)], ("generate", None, SEEDS[1], True)),
    "a rotation to a new key": ([("generate", None, SEEDS[0], False)], ("rotate", SEEDS[1])),
    "a rotation to the next key": (
        [("generate", None, SEEDS[0], False), ("generate", None, SEEDS[1], True)],
        ("rotate", SEEDS[2]),
    ),
    "a key put out of use": (
        [("generate", None, SEEDS[0], False), ("generate", None, SEEDS[1], True)],
        ("retire", "ed25519:1"),
    ),
    "a revocation": (
        [("generate", None, SEEDS[0], False), ("rotate", SEEDS[1])],
        ("revoke", "ed25519:0"),
    ),
}


@pytest.mark.parametrize("linked", [False, True], ids=["files", "links"])
@pytest.mark.parametrize("what", INTERRUPTED)
def test_what_is_killed_at_any_step_is_done_or_not_and_can_be_done_again(tmp_path, dying, what, linked):
    preparation, change = INTERRUPTED[what]
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    for step in preparation:
        assert dying.change(prepared, None, *step) == SURVIVED
    if linked:
        for path in list(prepared.rglob("*.key")):
            path.rename(tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
    before = states(prepared)
    whole = tmp_path / "whole"
    shutil.copytree(prepared, whole, symlinks=True)
    assert dying.change(whole, None, *change) == SURVIVED
    after, files = states(whole), names(whole)

    for limit in itertools.count():
        key_dir = tmp_path / str(limit)
        shutil.copytree(prepared, key_dir, symlinks=True)
        status = dying.change(key_dir, limit, *change)
        found = states(key_dir)
        assert found in (before, after, before | {"ed25519:1": "next"})
        if before:
            ring = load_keys(key_dir, NAME)
            assert all(ring.public_key(key_id) for key_id in before if found[key_id] != "revoked")
        assert dying.change(key_dir, None, *change) in {SURVIVED, REFUSED}
        if status == SURVIVED:
            break
        assert (states(key_dir), names(key_dir)) == (after, files)
    assert limit >= 4


# --- any sequence -----------------------------------------------------------------------------------------

VERSIONS = st.sampled_from([None, "0", "1", "2", "a", "b"])
IDS = st.sampled_from([f"ed25519:{version}" for version in ("0", "1", "2", "3", "a", "b")])
CHANGES = st.one_of(
    st.tuples(st.just("generate"), VERSIONS, st.booleans()),
    st.tuples(st.just("rotate")),
    st.tuples(st.just("rotate")),
    st.tuples(st.just("retire"), IDS),
    st.tuples(st.just("revoke"), IDS),
)
# After how many steps a change is killed, if at all.
LIMITS = st.none() | st.integers(0, 14)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changes=st.lists(st.tuples(CHANGES, LIMITS), max_size=14))
def test_any_sequence_of_changes_keeps_all_keys_and_one_that_signs(tmp_path_factory, dying, changes):
    key_dir = tmp_path_factory.mktemp("keys") / "keys"
    generate_key(key_dir, None, os.urandom(32))
    known: dict[str, tuple[str, KeyState]] = {}
    signed = {}
    for (name, *arguments), limit in changes:
        ring = load_keys(key_dir, NAME)
        signed.setdefault(ring.active.key_id, ring.sign({"by": ring.active.key_id}))
        if name in {"generate", "rotate"}:
            arguments.insert(len(arguments) - (name == "generate"), os.urandom(32).hex())
        status = dying.change(key_dir, limit, name, *arguments)
        assert status in {SURVIVED, REFUSED, -9}

        files = inventory(key_dir)
        found = {file.key.key_id: (file.key.public_key, file.key.state) for file in files}
        assert len(found) == len(files)
        assert [state for _, state in found.values()].count(KeyState.ACTIVE) == 1
        for key_id, (public_key, state) in known.items():
            assert found[key_id][0] == public_key
            assert LIFE.index(found[key_id][1]) >= LIFE.index(state)
        if status == REFUSED:
            assert {key_id: found[key_id] for key_id in known} == known or not known
        known = found
        ring = load_keys(key_dir, NAME)
        for key_id, value in signed.items():
            public_key = ring.public_key(key_id)
            assert (public_key is None) == (found[key_id][1] is KeyState.REVOKED)
            if public_key is not None:
                key = decode_verify_key_bytes(key_id, decode_base64(public_key))
                signedjson.sign.verify_signed_json(value, NAME, key)
    finish_rotation(key_dir)
    assert load_keys(key_dir, NAME)
