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


def make_missing(folder: Path) -> list[Path]:
    """Makes a directory, and those above it that are missing, for its owner alone; which were made, the lowest first.

    Raises:
        OSError: one cannot be made.
    """
    made: list[Path] = []
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        with suppress(FileExistsError):  # somebody else was faster
            missing.mkdir(mode=0o700)
            made.insert(0, missing)
    return made


@contextmanager
def kept_if_used(folder: Path) -> Iterator[None]:
    """As `make_missing`; unless something is put there, they go again.

    Raises:
        OSError: one cannot be made.
    """
    made = make_missing(folder)
    try:
        yield
    finally:
        # One that holds something cannot be removed, and those above it are not tried then.
        with suppress(OSError):
            for path in made:
                path.rmdir()
