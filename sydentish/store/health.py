"""Whether the database can be worked with, and whether somebody works with it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sydentish.domain.delivery import LATE_CAP_MS
from sydentish.store.counters import next_number
from sydentish.store.database import Tx

# Times further ahead come from a clock that was wrong; see `outbox.lease`.
_FARTHEST_MS = 2 * LATE_CAP_MS


def leave_trace(tx: Tx) -> None:
    """Changes something, so that the transaction must reach the disk."""
    next_number(tx, "health")


def due_since(tx: Tx, kinds: Iterable[str], now_ms: int) -> dict[str, int]:
    """Since when the oldest row of the outbox is due that nobody tries to deliver although nothing is in its way, in ms.

    What is leased is being tried. A destination that failed last time has its own, slower lane, and is no sign of
    anything here: one that is away for days would be.

    Args:
        tx: the transaction.
        kinds: of rows; those without such a row are left out of the answer.
        now_ms: the time, in ms.
    """
    found = {}
    for kind in kinds:
        row = tx.row(
            """
            SELECT next_due_ts FROM outbox_destinations
            WHERE kind = ? AND next_due_ts <= ? AND (lease_until_ts <= ? OR lease_until_ts > ?) AND failures = 0
            ORDER BY next_due_ts LIMIT 1
            """,
            (kind, now_ms, now_ms, now_ms + _FARTHEST_MS),
        )
        if row is not None:
            found[kind] = int(row[0])
    return found


def free_bytes(path: Path) -> int:
    """How much this process may still write into the file system of the database; it may wait for the disk.

    Raises:
        OSError: nobody knows.
    """
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


def file_bytes(path: Path) -> dict[str, int]:
    """The sizes of the database's files, `main` and `wal`, as far as they are there."""
    sizes = {}
    for name, file in (("main", path), ("wal", path.with_name(f"{path.name}-wal"))):
        with suppress(FileNotFoundError):
            sizes[name] = file.stat().st_size
    return sizes
