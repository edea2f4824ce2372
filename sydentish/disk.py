"""Files and directories that are wholly there, or not at all: whatever happens meanwhile."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sync(path: Path) -> None:
    """Returns when a file, or the names in a directory, are on disk.

    Raises:
        OSError: that cannot be told.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another when it is whole and on disk, or not at all; for its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        Path(part).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(part).unlink()
        raise
    sync(path.parent)


@contextmanager
def kept_if_used(folder: Path) -> Iterator[None]:
    """Makes a directory, and those above it that are missing, for its owner alone; unless something is put there, they go again.

    Raises:
        OSError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        # One that holds something cannot be removed, and those above it are not tried then.
        with suppress(OSError):
            for path in missing:
                path.rmdir()
