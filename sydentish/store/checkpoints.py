"""Empties SQLite's write-ahead log, so that what was deleted leaves the disk soon.

A commit only appends new versions of pages to the log. Until a checkpoint copies them into the main file, that
holds the old version, with the address that was deleted; and the log holds whatever was written lately until it
is cut off. By itself SQLite copies when a thousand pages have gathered, which takes a quiet server weeks, and
never cuts the log off while the file is open.
"""

import sqlite3
from pathlib import Path
from time import monotonic

from twisted.logger import Logger

_log = Logger()

CHECKPOINT_SECONDS = 60.0
"""A checkpoint costs two or three waits for the disk, a busy server makes thousands of commits in a minute, and
nobody who has something deleted can tell a minute from none."""

# Writes wait meanwhile: as long as the copying itself may take. Reads are over in a moment, and if they were not,
# the next checkpoint is soon.
_PATIENCE_MS = 20
# At the end nobody waits but who stops the server, and there is no next one.
_LAST_PATIENCE_MS = 1000


class Checkpoints:
    """When and how the writer of a database empties the log. For one thread.

    It looks by the clock, not by what it has written itself: so it takes along what other processes wrote, or left
    behind when they were killed, and what a checkpoint that was held up could not finish.

    Args:
        connection: the writer's, outside of transactions.
        path: the database file.
        busy_timeout_ms: what is set for the connection otherwise, in ms.
        interval: how long what is written may stay in the log, in seconds.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, busy_timeout_ms: int, interval: float
    ) -> None:
        self._connection = connection
        self._log_file = path.with_name(f"{path.name}-wal")
        self._busy_timeout_ms = busy_timeout_ms
        self._interval = interval
        self._due = monotonic() + interval

    def seconds_left(self) -> float:
        """Until the next one is due; negative when it is overdue."""
        return self._due - monotonic()

    def run_if_due(self) -> None:
        """Empties the log when it is time; whatever goes wrong is tried again when it is time again."""
        if self.seconds_left() <= 0:
            self._run(_PATIENCE_MS)
            self._due = monotonic() + self._interval

    def run_last(self) -> None:
        """Empties the log before the connection is closed, unless others keep it in use."""
        self._run(min(_LAST_PATIENCE_MS, self._busy_timeout_ms))

    def _run(self, patience_ms: int) -> None:
        try:
            if self._log_file.stat().st_size:
                self._truncate(patience_ms)
        except (sqlite3.Error, OSError) as error:
            # Nothing is lost by it: what was committed is in the log.
            _log.warn("no checkpoint: {kind}: {reason}", kind=type(error).__name__, reason=str(error))

    def _truncate(self, patience_ms: int) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {patience_ms:d}")
        try:
            truncate(self._connection)
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms:d}")


def truncate(connection: sqlite3.Connection) -> bool:
    """Copies what no reader still needs the old version of, and cuts the log off if that was all of it; whether it was.

    SQLite reports somebody in the way as a result, not as an error.
    """
    row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return row is not None and row[0] == 0
