"""Signing keys on their way to disk, and away from where they were."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sydentish.disk import sync
from sydentish.domain.keys import Key, KeyState, make_key
from sydentish.keyfiles.reading import SUFFIX, KeyFile, KeyProblem, file_name, folders, inventory, place_of

_PART = ".part"


class CannotChange(KeyProblem):
    """The keys cannot be changed so, and are as they were; the message says why, and what to do."""


def tidy(key_dir: Path) -> None:
    """Removes what an interrupted change has left, and the places that changed keys had before.

    Of an interrupted rotation, the former active key in the key directory goes last: it is what tells of it.
    """
    for folder in folders(key_dir):
        for part in folder.glob(f"*{SUFFIX}.*{_PART}"):
            part.unlink()
    for file, other in sorted(_spare(key_dir), key=lambda each: each[1].parent == key_dir):
        sync(file.path.parent)
        other.unlink(missing_ok=True)  # where one directory leads to another
        sync(other.parent)


def _spare(key_dir: Path) -> list[tuple[KeyFile, Path]]:
    """What other files there are of keys that can do without them."""
    return [
        (file, other)
        for file in inventory(key_dir)
        if not file.path.is_symlink()
        for other in file.copies
        # The same file under the same name, where one directory leads to another.
        if other.is_symlink() or other.resolve() != file.path.resolve()
    ]


def copy(key_dir: Path, file: KeyFile, state: KeyState) -> None:
    """Puts a key into the place of another state, too, if an interrupted change has not done so already.

    Raises:
        CannotChange: another file is in its way.
        OSError: it cannot be written.
    """
    target = place_of(key_dir, state) / file_name(file.key.signing_key.version)
    if target in file.copies and not target.is_symlink():
        return
    write_key(key_dir, file.key, state, file.path.stat(), keep_time=True)


def write_key(
    key_dir: Path, key: Key, state: KeyState, like: os.stat_result | None, *, keep_time: bool = False
) -> Path:
    """Writes a key file that is whole and on disk, or none; one that is there stays as it is.

    Args:
        key_dir: whose group the file gets; root does this as its owner (`as_owner_of`), so that the server can read it.
        key: what to write.
        state: tells where.
        like: what another key file is like: its group may read the new one if it may read that.
        keep_time: whether the file is as old as that other one.

    Raises:
        CannotChange: another file is in its way.
        OSError: it cannot be written.
    """
    folder = place_of(key_dir, state)
    if not folder.exists():
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _give(descriptor, key_dir, readable=key_dir.stat().st_mode & (stat.S_IRGRP | stat.S_IXGRP))
        finally:
            os.close(descriptor)
        sync(key_dir)
    path = folder / file_name(key.signing_key.version)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f"{path.name}.", suffix=_PART)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(make_key(key.signing_key.version, bytes(key.signing_key)))
            file.flush()
            same_group = like is not None and like.st_gid == key_dir.stat().st_gid
            _give(descriptor, key_dir, readable=like.st_mode & stat.S_IRGRP if like and same_group else 0)
            if like and keep_time:
                os.utime(descriptor, ns=(like.st_atime_ns, like.st_mtime_ns))
            os.fsync(descriptor)
        os.link(part, path)
    except FileExistsError as error:
        raise CannotChange(f"{path}: is in the way of the key of this name; rename or remove it") from error
    finally:
        part.unlink()
    sync(folder)
    return path


def _give(descriptor: int, folder: Path, *, readable: int) -> None:
    """Gives something to the group of a directory, and lets it read that, if it is the same then.

    Args:
        descriptor: of what is for its owner only so far.
        folder: whose group to take.
        readable: bits of the group to add.
    """
    wanted = folder.stat()
    with suppress(PermissionError):  # a group that the owner is not in
        os.fchown(descriptor, -1, wanted.st_gid)
    found = os.fstat(descriptor)
    if readable and found.st_gid == wanted.st_gid:
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | readable)
