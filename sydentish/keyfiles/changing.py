"""Making signing keys, and moving them from one state to the next.

Each change is safe against being killed, and against a loss of power, at any moment: a key is copied to its new place,
whole and on disk, before it is removed from the old one, and what that means in between is told in
`sydentish.keyfiles.reading`. What an interrupted change has left is removed by the next one. Changes wait for each other.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from sydentish.domain.keys import Key, KeyState, make_key, parse_key
from sydentish.keyfiles.reading import KeyFile, inventory, ring_of
from sydentish.keyfiles.writing import CannotChange, copy, tidy, write_key
from sydentish.owners import as_owner_of, make_private

# More than anybody counts up to, and short enough to be counted on.
_COUNTABLE = 9


def generate_key(key_dir: Path, version: str | None, seed: bytes, *, ahead: bool = False) -> KeyFile:
    """Makes a key, readable by its owner only, and by those of its group who can read the active one.

    Args:
        key_dir: where; made if there is no such directory.
        version: what stands behind `ed25519:` in the key's ID; None for the next number.
        seed: 32 random bytes.
        ahead: as the next key, not as the active one.

    Raises:
        CannotChange: there is such a key already, another key has this version, or the file cannot be written.
        KeyProblem: the keys that are there cannot be used.
        ValueError: the version cannot stand in a key ID.
    """
    make_key("0" if version is None else version, seed)
    with _changing(key_dir, make=True) as files:
        there = _in_state(files, KeyState.NEXT if ahead else KeyState.ACTIVE)
        if there and ahead:
            raise CannotChange(
                f"{there[0].path}: there is a next key already, {there[0].key.key_id}: make it sign with: sydentish "
                f"keys rotate; or put it out of use with: sydentish keys retire {there[0].key.key_id}"
            )
        if there:
            raise CannotChange(
                f"{key_dir}: there is an active signing key already; it is never overwritten: replace it with: "
                "sydentish keys rotate; or make the one that comes after it with: sydentish keys generate --next"
            )
        return _make(key_dir, files, KeyState.NEXT if ahead else KeyState.ACTIVE, version, seed)


def rotate_key(key_dir: Path, version: str | None, seed: bytes, leaving: str) -> None:
    """Makes the next key the active one, and retires the active one.

    Args:
        key_dir: as for `load_keys`.
        version: of the key that is made if there is no next one; None for the next number.
        seed: for that key, 32 random bytes.
        leaving: the ID of the key that is active until now.

    Raises:
        CannotChange: another key is active, there is a next key so none is made, or a file cannot be written.
        KeyProblem: the keys that are there cannot be used.
        ValueError: the version cannot stand in a key ID.
    """
    make_key("0" if version is None else version, seed)
    with _changing(key_dir) as files:
        active = _active(key_dir, files)
        if active.key.key_id != leaving:
            raise CannotChange(
                f"{key_dir}: {active.key.key_id} has become active meanwhile; see sydentish keys list"
            )
        ahead = _in_state(files, KeyState.NEXT)
        if len(ahead) > 1:
            ids = ", ".join(file.key.key_id for file in ahead)
            raise CannotChange(
                f"{key_dir}: which is the next key? There are {ids}: put the others out of use with: "
                "sydentish keys retire KEYID"
            )
        if ahead and version not in {None, ahead[0].key.signing_key.version}:
            raise CannotChange(
                f"{ahead[0].path}: {ahead[0].key.key_id} is the next key; no other one is made"
            )
        new = ahead[0] if ahead else _make(key_dir, files, KeyState.NEXT, version, seed)
        copy(key_dir, active, KeyState.RETIRED)
        # This is the moment: from here on, the new key is the active one.
        copy(key_dir, new, KeyState.ACTIVE)
        tidy(key_dir)


def finish_rotation(key_dir: Path) -> bool:
    """Removes what is left of a rotation that was interrupted after the new key had become active.

    Returns:
        whether there was one: then the rotation that was asked for is done.

    Raises:
        KeyProblem: the keys cannot be used or changed.
    """
    if not _is_unfinished(key_dir):
        return False
    with _changing(key_dir):
        return not _is_unfinished(key_dir)


def retire_key(key_dir: Path, key_id: str) -> None:
    """Makes a key check only: the next key, or one of several that lie in the key directory.

    Raises:
        CannotChange: there is no such key, it is the only one that can sign, or it was revoked, or a file cannot be
            written.
        KeyProblem: the keys that are there cannot be used.
    """
    with _changing(key_dir) as files:
        file = _find(key_dir, files, key_id)
        if file.key.state is KeyState.REVOKED:
            raise CannotChange(f"{key_id}: was revoked, which cannot be taken back")
        if _in_state(files, KeyState.ACTIVE) == [file]:
            raise CannotChange(
                f"{key_id}: is the active key; it retires when another one signs: sydentish keys rotate"
            )
        if file.key.state is not KeyState.RETIRED:
            copy(key_dir, file, KeyState.RETIRED)
            tidy(key_dir)


def revoke_key(key_dir: Path, key_id: str) -> None:
    """Makes a key valid for nothing, for good.

    Raises:
        CannotChange: there is no such key, it is active, or a file cannot be written.
        KeyProblem: the keys that are there cannot be used.
    """
    with _changing(key_dir) as files:
        file = _find(key_dir, files, key_id)
        must_not_sign(file.key)
        if file.key.state is not KeyState.REVOKED:
            copy(key_dir, file, KeyState.REVOKED)
            tidy(key_dir)


def must_not_sign(key: Key) -> None:
    """Finds out whether a key can be revoked, and changes nothing.

    Raises:
        CannotChange: it is active.
    """
    if key.state is KeyState.ACTIVE:
        raise CannotChange(
            f"{key.key_id}: is the active key, and a server cannot be without one: first sydentish keys rotate, or both "
            f"at once: sydentish keys revoke --rotate {key.key_id}"
        )


@contextmanager
def _changing(key_dir: Path, *, make: bool = False) -> Iterator[list[KeyFile]]:
    """Keeps other changes out, and gives the keys as they are then."""
    try:
        if make:
            make_private(key_dir)
        with ExitStack() as stack:
            stack.enter_context(as_owner_of(key_dir))
            folder = os.open(key_dir, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
            tidy(key_dir)
            yield inventory(key_dir)
    except OSError as error:
        raise CannotChange(
            f"{key_dir}: the keys cannot be written: {error.strerror}; run this as the server's user, and change keys "
            "that systemd hands over where LoadCredential= takes them from"
        ) from error


def _is_unfinished(key_dir: Path) -> bool:
    gone = {KeyState.RETIRED, KeyState.REVOKED}
    return any(
        file.key.state in gone and not file.path.is_symlink() and other.parent == key_dir
        for file in inventory(key_dir)
        for other in file.copies
    )


def _active(key_dir: Path, files: Sequence[KeyFile]) -> KeyFile:
    """The one active key.

    Raises:
        KeyProblem: there is none, or more than one.
    """
    key = ring_of(key_dir, "", files).active
    return next(file for file in files if file.key is key)


def _in_state(files: Sequence[KeyFile], state: KeyState) -> list[KeyFile]:
    return [file for file in files if file.key.state is state]


def _find(key_dir: Path, files: Sequence[KeyFile], key_id: str) -> KeyFile:
    for file in files:
        if file.key.key_id == key_id:
            return file
    raise CannotChange(f"{key_id}: there is no such key in {key_dir}; see sydentish keys list")


def _make(
    key_dir: Path, files: Sequence[KeyFile], state: KeyState, version: str | None, seed: bytes
) -> KeyFile:
    used = {file.key.signing_key.version for file in files}
    if version in used:
        raise CannotChange(f"{key_dir}: another key has or had the version {version}; choose another one")
    key = parse_key(make_key(version or _free_version(used), seed))
    active = _in_state(files, KeyState.ACTIVE)
    path = write_key(key_dir, key, state, active[0].path.stat() if active else None)
    return KeyFile(replace(key, state=state), path, ())


def _free_version(used: set[str]) -> str:
    """The number after the highest one; 0 at first."""
    numbers = [int(version) for version in used if version.isdecimal() and len(version) <= _COUNTABLE]
    return next(text for number in count(max(numbers, default=-1) + 1) if (text := str(number)) not in used)
