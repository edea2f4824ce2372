"""The copy of a Sydent's database: the database itself is read and never written, so everything happens on that."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sydentish.store.peek import MAGIC

_PAGES = 2048
_PAUSE_SECONDS = 0.01
_MOST_RESTARTS = 20
# https://www.sqlite.org/fileformat.html, section 1.3: 2 where a write-ahead log is kept.
_LOG_BYTE, _HAS_LOG = 18, 2


class SydentProblem(Exception):
    """The database cannot be taken over; the message says why, and what to do."""


def copied(source: Path, folder: Path, *, in_use: bool) -> Path:
    """A copy of the database as it is now, with whatever a killed program has left beside it.

    Args:
        source: the file; it is only read, and nothing is made beside it.
        folder: where the copy is made.
        in_use: whether somebody may be writing to it.

    Raises:
        SydentProblem: it is none, or cannot be copied while it is in use.
    """
    copy = folder / "sydent.db"
    try:
        with source.open("rb") as file:
            head = file.read(_LOG_BYTE + 1)
        if not head.startswith(MAGIC):
            raise SydentProblem(f"{source}: is no SQLite database")
        left = [each for each in _beside(source) if each.exists()]
        if head[_LOG_BYTE] == _HAS_LOG and in_use:
            raise SydentProblem(f"{source}: is in use, with a write-ahead log: stop the Sydent first")
        if head[_LOG_BYTE] == _HAS_LOG or (left and not in_use):
            for each in (source, *left):
                shutil.copyfile(each, copy.with_name(each.name.replace(source.name, copy.name, 1)))
        else:
            _back_up(source, copy)
    except (OSError, sqlite3.DatabaseError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SydentProblem(f"{source}: cannot be read: {reason}") from error
    return copy


def _beside(source: Path) -> list[Path]:
    """What belongs to a database while transactions are under way; the index of the log is made anew."""
    return [source.with_name(f"{source.name}{ending}") for ending in ("-wal", "-journal")]


def _back_up(source: Path, copy: Path) -> None:
    """Copies in steps, between which the Sydent can write: nothing of it waits until all is copied."""
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as reading, closing(sqlite3.connect(copy)) as writing:
        # Being told of progress is what lets a signal end it, too.
        reading.backup(writing, pages=_PAGES, sleep=_PAUSE_SECONDS, progress=_patience(source))


def _patience(source: Path) -> Callable[[int, int, int], None]:
    """Hears how much is left, and ends what would never end: after each write, copying begins anew."""
    restarts, before = 0, None

    def on_progress(_status: int, left: int, _of: int) -> None:
        nonlocal restarts, before
        # A step that gets no further, since somebody holds a lock, is as good as one.
        restarts += before is not None and left >= before
        before = left
        if restarts > _MOST_RESTARTS:
            raise SydentProblem(f"{source}: is written to all the time: stop the Sydent first")

    return on_progress
