"""Backups with keys: one tar file, with the database and the key directory in it."""

import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sydentish.disk import sync
from sydentish.domain.keys import Key, KeyState, make_key, parse_key
from sydentish.keyfiles import SUFFIX, file_name, place_of
from sydentish.store.copies import CopyProblem

DATABASE = "sydentish.db"
_KEYS = PurePosixPath("keys")
_LONGEST_KEY = 1024
_MOST_MEMBERS = 10_000
_BUFFER = 1 << 20


def pack(archive: Path, database: Path, keys: Sequence[Key]) -> None:
    """Writes a database and keys into a new file, which is on disk when this returns.

    Args:
        archive: in a folder that is for its owner alone.
        database: the file.
        keys: all keys of the server.

    Raises:
        OSError: it cannot be written.
    """
    archive.touch(mode=0o600, exist_ok=False)
    with tarfile.open(archive, "w") as tar:
        tar.add(database, DATABASE, filter=_private)
        for key in keys:
            text = make_key(key.signing_key.version, bytes(key.signing_key)).encode()
            member = _private(tarfile.TarInfo(str(_place(key))))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    sync(archive)


def _place(key: Key) -> PurePosixPath:
    return place_of(_KEYS, key.state) / file_name(key.signing_key.version)


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "root", "root"
    return member


def is_archive(path: Path) -> bool:
    """Whether a backup has keys in it.

    Raises:
        OSError: it cannot be read.
    """
    return tarfile.is_tarfile(path)


def unpack(archive: BinaryIO, database: Path) -> list[Key]:
    """Takes out what `pack` has put in; nothing else that may be in it is looked at.

    Args:
        archive: the open file.
        database: where the database goes; there must be no such file.

    Returns:
        The keys.

    Raises:
        CopyProblem: it is no such backup, or damaged.
        OSError: it cannot be read or written.
    """
    keys: list[Key] = []
    found = False
    with _reading(archive) as members:
        for tar, member in members:
            if member.name == DATABASE and member.isreg() and not found:
                database.touch(mode=0o600, exist_ok=False)
                with database.open("wb") as file:
                    shutil.copyfileobj(_content(tar, member), file, _BUFFER)
                found = True
            elif (state := _state(member)) is not None:
                keys.append(_key(archive, tar, member, state))
    if not found:
        raise CopyProblem(f"{archive.name}: is no backup: there is no {DATABASE} in it")
    sync(database)
    return keys


@contextmanager
def _reading(archive: BinaryIO) -> Iterator[Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]]:
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            yield ((tar, member) for _, member in zip(range(_MOST_MEMBERS), tar, strict=False))
    except tarfile.TarError as error:
        raise CopyProblem(f"{archive.name}: is damaged: {error}") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> io.BufferedIOBase:
    content = tar.extractfile(member)
    if not isinstance(content, io.BufferedIOBase):
        raise tarfile.ReadError(f"{member.name} is no file")
    return content


def _state(member: tarfile.TarInfo) -> KeyState | None:
    """What the place of a file says about a key; None of what is no key."""
    path = PurePosixPath(member.name)
    if not member.isreg() or path.suffix != SUFFIX or member.size > _LONGEST_KEY:
        return None
    return {place_of(_KEYS, state): state for state in KeyState}.get(path.parent)


def _key(archive: BinaryIO, tar: tarfile.TarFile, member: tarfile.TarInfo, state: KeyState) -> Key:
    try:
        return parse_key(_content(tar, member).read().decode(errors="replace"), state)
    except ValueError as error:
        raise CopyProblem(f"{archive.name}: {member.name}: {error}") from None
