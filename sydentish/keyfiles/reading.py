"""Which signing keys there are, and what each may do.

The place of a file tells the state of its key: the key directory itself, or `next/`, `retired/` or `revoked/` in it. In a
directory that can have none below it, such as one of systemd's credentials, the name of the file does:
`keys_retired_ed25519_0.key`.

A key changes its state by being copied to its new place before it is removed from the old one, so one that was
interrupted lies in two. Then the later of the two states holds, with one exception: a key that lies alone in the key
directory is active, although it is in `retired/` already. So the moment at which a new key appears in the key directory
makes that one active, and retires the one before it.
"""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

from sydentish.domain.keys import Key, KeyRing, KeyState, parse_key

F = TypeVar("F", bound=PurePath)

SUFFIX = ".key"
"""What the name of a key file ends with."""

PLACES = {state.value: state for state in (KeyState.NEXT, KeyState.RETIRED, KeyState.REVOKED)}
"""The directories below the key directory, and what the keys in them may do."""

# A group may be let read them, as systemd does with credentials.
_TOO_OPEN = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH
_LIFE = tuple(KeyState)
# Each time, somebody has changed something between two looks.
_LOOKS = 100
_MAX_BYTES = 1 << 16


class KeyProblem(Exception):
    """The signing keys cannot be used; the message says which, why, and what to do."""


class NoKey(KeyProblem):
    """There is no signing key; the message does not say what to do."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key, and where it lies.

    Attributes:
        key: the key in the state in which it is.
        path: the file that says so.
        copies: others that hold the same key, such as an interrupted change leaves.
    """

    key: Key
    path: Path
    copies: tuple[Path, ...]


def load_keys(key_dir: Path, server_name: str) -> KeyRing:
    """Reads all keys; they may change meanwhile.

    Raises:
        NoKey: there is no active key.
        KeyProblem: there is more than one active key, or a file cannot be read.
    """
    return ring_of(key_dir, server_name, inventory(key_dir))


def ring_of(key_dir: Path, server_name: str, files: Sequence[KeyFile]) -> KeyRing:
    """As `load_keys`, of files that were read already."""
    active = [file for file in files if file.key.state is KeyState.ACTIVE]
    if not active:
        raise NoKey(f"{key_dir}: there is no signing key")
    if len(active) > 1:
        ids = ", ".join(file.key.key_id for file in active)
        raise KeyProblem(
            f"{key_dir}: only one key can be active, but here are {ids}: move the others to "
            f"{key_dir / KeyState.RETIRED.value}, with: sydentish keys retire KEYID"
        )
    others = tuple(file.key for file in files if file is not active[0])
    ring = KeyRing(server_name, active[0].key, others)
    if ring.public_key(ring.active.key_id) is None:
        raise KeyProblem(f"{active[0].path}: this key was revoked, under another version: make another one")
    return ring


def inventory(key_dir: Path) -> list[KeyFile]:
    """All keys in the order of their lives, and then of their files; none if there is no such directory.

    What it gives has been so at one moment, also while keys are being changed: keys are read, and read again if the
    directories are no longer as they were before.

    Raises:
        KeyProblem: a file cannot be read, or two keys have the same version.
    """
    before = _listing(key_dir)
    for _ in range(_LOOKS):
        problem, found = None, []
        try:
            found = [_read(key_dir, path) for path in before]
        except KeyProblem as error:
            problem = error
        after = _listing(key_dir)
        if after == before:
            if problem is not None:
                raise problem
            return _settled(found)
        before = after
    raise KeyProblem(f"{key_dir}: the keys are being changed all the time; try again")


def folders(key_dir: Path) -> list[Path]:
    """Where keys may lie."""
    return [key_dir, *(key_dir / name for name in PLACES)]


def place_of(key_dir: F, state: KeyState) -> F:
    """Where the keys in a state lie."""
    return key_dir if state is KeyState.ACTIVE else key_dir / state.value


def key_files(folder: Path) -> list[Path]:
    """The key files of a directory, in order; none if there is no such directory.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return []


def key_warnings(key_dir: Path) -> list[str]:
    """What is suspicious about key files that can be used: that others than their owner may read or change them.

    Args:
        key_dir: as for `load_keys`.
    """
    found = []
    for folder in folders(key_dir):
        with suppress(OSError):  # what cannot be looked at, `load_keys` tells of
            found += [warning for path in key_files(folder) if (warning := mode_warning(path))]
    return found


def mode_warning(path: Path) -> str | None:
    """What is wrong with the mode of a key file, if anything.

    Raises:
        OSError: it cannot be looked at.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _TOO_OPEN:
        return None
    return f"{path}: its mode {mode:04o} lets others read or change the signing key: chmod 600 {path}"


def _listing(key_dir: Path) -> list[Path]:
    found: list[Path] = []
    for folder in folders(key_dir):
        try:
            found += key_files(folder)
        except OSError as error:
            raise KeyProblem(f"{folder}: cannot be read: {error.strerror}") from error
    return found


def _read(key_dir: Path, path: Path) -> tuple[Path, Key]:
    try:
        # What is no text is no key either; the error of decoding it would show a part of it.
        key = parse_key(_content(path).decode(errors="replace"))
    except OSError as error:
        raise KeyProblem(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KeyProblem(f"{path}: {error}") from None
    if path.parent != key_dir:
        return path, replace(key, state=PLACES[path.parent.name])
    for name, state in PLACES.items():
        if f"_{path.name}".endswith(f"_{name}_{file_name(key.signing_key.version)}"):
            return path, replace(key, state=state)
    return path, key


def _content(path: Path) -> bytes:
    """What is in a file; nothing else is waited for, nor anything read that never ends.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(_MAX_BYTES)


def file_name(version: str) -> str:
    """What the file of a key is called."""
    return f"ed25519_{version}{SUFFIX}"


def _settled(found: Sequence[tuple[Path, Key]]) -> list[KeyFile]:
    by_id: dict[str, list[tuple[Path, Key]]] = {}
    for path, key in found:
        by_id.setdefault(key.key_id, []).append((path, key))
    in_key_dir = {key.key_id for _, key in found if key.state is KeyState.ACTIVE}
    settled = [_one(files, alone=in_key_dir == {key_id}) for key_id, files in by_id.items()]
    return sorted(settled, key=lambda file: (_LIFE.index(file.key.state), file.path.name))


def _one(files: Sequence[tuple[Path, Key]], *, alone: bool) -> KeyFile:
    """Several files of one key as one.

    Args:
        files: all that have its version.
        alone: no other key lies in the key directory.
    """
    if len({key.public_key for _, key in files}) > 1:
        paths = ", ".join(str(path) for path, _ in files)
        raise KeyProblem(f"{paths}: two keys have the same version; remove or rename one")
    states = {key.state for _, key in files}
    state = max(states, key=_LIFE.index)
    if alone and state is KeyState.RETIRED:
        state = KeyState.ACTIVE
    # A link may lead to one of the other files, so it is not what a key's being there rests on.
    (path, key), *_ = sorted(
        (each for each in files if each[1].state is state), key=lambda each: each[0].is_symlink()
    )
    return KeyFile(key, path, tuple(other for other, _ in files if other != path))
