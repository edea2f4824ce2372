"""Signing keys as files."""

import resource
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unpaddedbase64 import encode_base64

from sydentish.domain.keys import make_key
from sydentish.keyfiles import KeyProblem, generate_key, key_warnings, load_keys

SEED = bytes(range(100, 132))
NAME = "id.example.org"


@pytest.fixture
def key_dir(tmp_path):
    return tmp_path / "keys"


def put(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(key_dir):
    with pytest.raises(KeyProblem) as caught:
        load_keys(key_dir, NAME)
    message = str(caught.value)
    assert str(key_dir) in message
    assert encode_base64(SEED) not in message
    assert repr(SEED) not in message
    return message


def test_a_new_key_is_for_its_owner_only(key_dir):
    path = generate_key(key_dir, "a1", SEED).path

    assert path == key_dir / "ed25519_a1.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_dir.stat().st_mode) == 0o700


def test_a_new_key_is_the_one_that_signs(key_dir):
    generate_key(key_dir, "a1", SEED)
    ring = load_keys(key_dir, NAME)

    assert ring.active.key_id == "ed25519:a1"
    assert bytes(ring.active.signing_key) == SEED
    assert NAME in ring.sign({"a": 1})["signatures"]


def test_a_key_file_is_in_the_format_of_homeservers(key_dir):
    assert generate_key(key_dir, "0", SEED).path.read_text() == f"ed25519 0 {encode_base64(SEED)}\n"


def test_a_key_is_never_overwritten(key_dir):
    path = generate_key(key_dir, "0", SEED).path
    before = path.read_bytes()
    for version in ("0", "1"):
        with pytest.raises(KeyProblem, match="never overwritten"):
            generate_key(key_dir, version, bytes(32))

    assert path.read_bytes() == before
    assert list(key_dir.iterdir()) == [path]


@pytest.mark.parametrize("state", ["next", "retired", "revoked"])
def test_the_version_of_a_former_key_is_not_used_again(key_dir, state):
    put(key_dir / state, "old.key", make_key("0", SEED))
    with pytest.raises(KeyProblem, match="version 0"):
        generate_key(key_dir, "0", bytes(32))

    assert list(key_dir.glob("*.key")) == []
    generate_key(key_dir, "1", bytes(32))
    assert load_keys(key_dir, NAME).active.key_id == "ed25519:1"


@pytest.mark.parametrize("version", ["", "a b", "../a", "a/b", "a:b", "é", "a\n", "a" * 65])
def test_a_version_that_cannot_stand_in_a_key_id_is_refused(key_dir, version):
    with pytest.raises(ValueError, match="version"):
        generate_key(key_dir, version, SEED)

    assert not key_dir.exists()


def test_a_place_that_cannot_be_written_is_told_of(tmp_path):
    put(tmp_path, "file", "")
    with pytest.raises(KeyProblem, match="cannot be written"):
        generate_key(tmp_path / "file", "0", SEED)
    with pytest.raises(KeyProblem, match="cannot be written"):
        generate_key(tmp_path / "file" / "below", "0", SEED)


def test_a_full_disk_leaves_no_part_of_a_key_behind(key_dir):
    key_dir.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(KeyProblem, match="cannot be written: File too large"):
            generate_key(key_dir, "0", SEED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert list(key_dir.iterdir()) == []
    generate_key(key_dir, "0", SEED)
    assert load_keys(key_dir, NAME).active.key_id == "ed25519:0"


def test_of_many_that_make_a_key_at_once_one_does(key_dir):
    seeds = [bytes([number]) * 32 for number in range(16)]
    at_once = threading.Barrier(len(seeds))

    def make(seed):
        at_once.wait()
        try:
            return generate_key(key_dir, "0", seed).path.read_text() == make_key("0", seed)
        except KeyProblem:
            return None

    with ThreadPoolExecutor(len(seeds)) as pool:
        outcomes = list(pool.map(make, seeds))

    assert [outcome for outcome in outcomes if outcome is not None] == [True]
    assert [path.name for path in key_dir.iterdir()] == ["ed25519_0.key"]


@pytest.mark.parametrize("folder", ["", "next", "retired", "revoked"])
@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o644, 0o660, 0o666])
def test_a_key_that_others_can_read_or_change_is_warned_of(key_dir, folder, mode):
    path = put(key_dir / folder, "a.key", make_key("a", SEED))
    path.chmod(mode)
    (warning,) = key_warnings(key_dir)

    assert warning.startswith(f"{path}: its mode {mode:04o} ")
    assert f"chmod 600 {path}" in warning


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_for_its_owner_and_the_group_s_eyes_is_not(key_dir, mode):
    put(key_dir, "a.key", make_key("a", SEED)).chmod(mode)
    put(key_dir, "README", "nothing").chmod(0o666)

    assert key_warnings(key_dir) == []


def test_keys_that_are_not_there_are_not_warned_of(key_dir):
    assert key_warnings(key_dir) == []
    key_dir.mkdir()
    (key_dir / "a.key").symlink_to("nowhere")
    assert key_warnings(key_dir) == []


@pytest.mark.parametrize("exists", [False, True])
def test_without_a_key_there_is_none_to_sign_with(key_dir, exists):
    if exists:
        key_dir.mkdir()

    assert refusal(key_dir) == f"{key_dir}: there is no signing key"


def test_two_active_keys_are_one_too_many(key_dir):
    put(key_dir, "a.key", make_key("a", SEED))
    put(key_dir, "b.key", make_key("b", bytes(32)))

    assert "only one key can be active" in refusal(key_dir)


@pytest.mark.parametrize(
    ("first", "second"),
    [("", "next"), ("", "retired"), ("", "revoked"), ("retired", "revoked"), ("retired", "retired")],
)
def test_two_keys_of_one_version_are_refused(key_dir, first, second):
    put(key_dir, "active.key", make_key("a", bytes(32)))
    version = "a" if not first else "b"
    if first:
        put(key_dir / first, "x.key", make_key(version, SEED))
    put(key_dir / second, "y.key", make_key(version, SEED[::-1]))

    assert "the same version" in refusal(key_dir)


def test_former_keys_are_read_in_their_state(key_dir):
    put(key_dir, "a.key", make_key("a", bytes(32)))
    put(key_dir / "retired", "b.key", make_key("b", SEED))
    put(key_dir / "revoked", "c.key", make_key("c", SEED[::-1]))
    put(key_dir / "next", "d.key", make_key("d", SEED[1:] + SEED[:1]))
    ring = load_keys(key_dir, NAME)

    assert [key.key_id for key in ring.announced] == ["ed25519:a", "ed25519:d"]
    assert ring.public_key("ed25519:a")
    assert ring.public_key("ed25519:d")
    assert ring.public_key("ed25519:b")
    assert ring.public_key("ed25519:c") is None


def test_a_key_that_was_revoked_does_not_sign_under_another_version(key_dir):
    put(key_dir, "a.key", make_key("a", SEED))
    put(key_dir / "revoked", "b.key", make_key("b", SEED))

    assert "was revoked, under another version" in refusal(key_dir)


def test_a_key_that_was_revoked_is_not_active_where_it_also_lies(key_dir):
    put(key_dir, "a.key", make_key("a", SEED))
    put(key_dir / "revoked", "a.key", make_key("a", SEED))

    assert refusal(key_dir) == f"{key_dir}: there is no signing key"
    generate_key(key_dir, None, bytes(32))
    assert load_keys(key_dir, NAME).public_key("ed25519:a") is None


def test_other_files_are_left_alone(key_dir):
    put(key_dir, "a.key", make_key("a", SEED))
    put(key_dir, "README", "nothing")
    put(key_dir, "b.key.bak", "nothing")

    assert load_keys(key_dir, NAME).others == ()


TEXT = make_key("0", SEED).strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        encode_base64(SEED),
        SEED,
        b"\xff" + TEXT.encode(),
        TEXT.encode() + b"\xff",
        TEXT.encode("utf-16"),
        TEXT + "\n" + TEXT,
        TEXT + " more",
        TEXT.replace("ed25519", "rsa"),
        TEXT.replace(" 0 ", " ../0 "),
        TEXT[:-1],
        TEXT + "A",
        TEXT + "!",
        TEXT[:-4] + "\0" + TEXT[-3:],
    ],
)
@pytest.mark.parametrize("state", ["", "next", "retired", "revoked"])
def test_what_is_no_key_is_named_without_its_content(key_dir, state, text):
    if state:
        put(key_dir, "a.key", make_key("a", bytes(32)))
    path = put(key_dir / state, "bad.key", text)
    message = refusal(key_dir)

    assert str(path) in message
    assert "signing key" in message


def test_what_cannot_be_read_is_named(key_dir):
    (key_dir / "a.key").mkdir(parents=True)

    assert "cannot be read" in refusal(key_dir)


@given(st.binary(max_size=80))
def test_no_message_shows_what_is_in_the_file(tmp_path_factory, content):
    key_dir = tmp_path_factory.mktemp("keys")
    put(key_dir, "0.key", b"ed25519 0 " + content)
    try:
        load_keys(key_dir, NAME)
    except KeyProblem as problem:
        message = str(problem).removeprefix(str(key_dir))
        assert message in {
            "/0.key: a signing key file holds one line: ed25519 <version> <unpadded base64 seed>",
            "/0.key: the seed of a signing key is 32 bytes in unpadded base64",
        }
