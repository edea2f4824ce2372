"""Signing keys as files: one active in the key directory, others in `retired/` and `revoked/` below it."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sydentish.domain.keys import Key, KeyRing, KeyState, make_key, parse_key

_SUFFIX = ".key"
_FORMER = {"retired": KeyState.RETIRED, "revoked": KeyState.REVOKED}
# A group may be let read them, as systemd does with credentials.
_TOO_OPEN = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH


class KeyProblem(Exception):
    """The signing keys cannot be used; the message says which, why, and what to do."""


class NoKey(KeyProblem):
    """There is no signing key yet; the message ends with the command that makes one, without its options."""


def load_keys(key_dir: Path, server_name: str) -> KeyRing:
    """Reads all keys.

    Raises:
        NoKey: there is no active key.
        KeyProblem: there is more than one active key, or a file cannot be read.
    """
    active = _read(key_dir, KeyState.ACTIVE)
    if not active:
        raise NoKey(
            f"{key_dir}: there is no signing key; make one, as the server's user, with: sydentish keys generate"
        )
    if len(active) > 1:
        raise KeyProblem(f"{key_dir}: only one key can be active; move the others to {key_dir / 'retired'}")
    others = _former(key_dir)
    keys = [*active, *others]
    if len({key.key_id for key in keys}) != len(keys):
        raise KeyProblem(f"{key_dir}: two keys have the same version")
    return KeyRing(server_name, active[0], tuple(others))


def generate_key(key_dir: Path, version: str, seed: bytes) -> Path:
    """Makes the active key, readable by its owner only.

    Args:
        key_dir: where; made if there is no such directory.
        version: what stands behind `ed25519:` in the key's ID.
        seed: 32 random bytes.

    Raises:
        KeyProblem: there is an active key already, a former key has this version, or the file cannot be
            written.
        ValueError: the version cannot stand in a key ID.
    """
    text = make_key(version, seed)
    path = key_dir / f"ed25519_{version}{_SUFFIX}"
    try:
        make_private(key_dir)
        if key_files(key_dir):
            raise KeyProblem(f"{key_dir}: there is an active signing key already; it is never overwritten")
        if any(key.signing_key.version == version for key in _former(key_dir)):
            raise KeyProblem(f"{key_dir}: a former key has the version {version}; choose another one")
        _write_new(path, text)
    except OSError as error:
        raise KeyProblem(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _write_new(path: Path, text: str) -> None:
    """Makes a file that is whole and on disk, or none; one that is there stays as it is."""
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.link(part, path)
    finally:
        Path(part).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def key_files(folder: Path) -> list[Path]:
    """The key files of a directory, in order; none if there is no such directory.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return []


def key_warnings(key_dir: Path) -> list[str]:
    """What is suspicious about key files that can be used: that others than their owner may read or change them.

    Args:
        key_dir: as for `load_keys`.
    """
    found = []
    for folder in (key_dir, *(key_dir / name for name in _FORMER)):
        with suppress(OSError):  # what cannot be looked at, `load_keys` tells of
            for path in key_files(folder):
                mode = stat.S_IMODE(path.stat().st_mode)
                if mode & _TOO_OPEN:
                    found.append(
                        f"{path}: its mode {mode:04o} lets others read or change the signing key: chmod 600 {path}"
                    )
    return found


def _former(key_dir: Path) -> list[Key]:
    return [key for name, state in _FORMER.items() for key in _read(key_dir / name, state)]


def make_private(folder: Path) -> None:
    """Makes a directory, and those above it that are missing, for nobody but their owner.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def _read(folder: Path, state: KeyState) -> list[Key]:
    try:
        paths = key_files(folder)
    except OSError as error:
        raise KeyProblem(f"{folder}: cannot be read: {error.strerror}") from error
    keys = []
    for path in paths:
        try:
            # What is no text is no key either; the error of decoding it would show a part of it.
            keys.append(parse_key(path.read_text(encoding="utf-8", errors="replace"), state))
        except OSError as error:
            raise KeyProblem(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise KeyProblem(f"{path}: {error}") from None
    return keys
