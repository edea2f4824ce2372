"""A folder for copies, that is gone when the work ends; one that a killed command has left goes with the next such work."""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "import-sydent-"
"""How such folders are called, before what chance adds."""

# Who made the folder, and whether somebody uses it: whoever does holds a lock on this file.
_MARK = ".made-by-sydentish"
_PRIVATE = 0o700
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")


@contextmanager
def scratch(beside: Path | None) -> Iterator[Path]:
    """A folder for copies, closed to others.

    Args:
        beside: where it is made; None for the system's directory for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if beside is None else beside
    _clear(place)
    descriptor, folder = _made(place)
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(descriptor)


def _made(place: Path) -> tuple[int, Path]:
    """A new folder, and the lock that is held on it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        descriptor = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Somebody who clears up may have taken it for one that was left, in the moment before it is locked.
        if _locked(descriptor) and (folder / _MARK).exists():
            return descriptor, folder
        os.close(descriptor)


def _clear(place: Path) -> None:
    """Removes what is surely ours, and used by nobody; whatever cannot be removed stays."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if not _NAME.fullmatch(folder.name) or not _is_private(folder):
                continue
            descriptor = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _locked(descriptor):
                    _remove(folder)
            finally:
                os.close(descriptor)


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and stat.S_IMODE(found.st_mode) == _PRIVATE
        and found.st_uid == os.geteuid()
    )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Its mark goes last: without it nobody would know any more whose the rest is."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _MARK:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
