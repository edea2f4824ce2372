"""Whether a Sydent is still running."""

import os
from contextlib import suppress
from pathlib import Path

from sydentish.cli.sydent.old import OldConfig

_PROCESSES = Path("/proc")


def processes(old: OldConfig, database: Path) -> list[int]:
    """The processes that have the database open, as far as this user may know, or that the Sydent says it is.

    Args:
        old: its configuration, which names the file with its process.
        database: its database.
    """
    found = set(_with_open(database))
    pid = _noted(old)
    if pid is not None:
        found.add(pid)
    return sorted(found - {os.getpid()})


def _noted(old: OldConfig) -> int | None:
    name = old.get("general", "pidfile.path")
    if not name:
        return None
    try:
        pid = int(old.path_of(name).read_text(encoding="ascii"))
        # What is somebody else's is there, too.
        with suppress(PermissionError):
            os.kill(pid, 0)
    except (OSError, ValueError, OverflowError):
        return None
    return pid if _is_sydent(pid) else None


def _is_sydent(pid: int) -> bool:
    # A number that was noted long ago may be another process by now.
    try:
        return b"sydent" in (_PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return True


def _with_open(database: Path) -> list[int]:
    try:
        wanted = database.stat()
        folders = [each for each in _PROCESSES.iterdir() if each.name.isdigit()]
    except OSError:
        return []
    return [int(each.name) for each in folders if _has_open(each / "fd", (wanted.st_dev, wanted.st_ino))]


def _has_open(descriptors: Path, wanted: tuple[int, int]) -> bool:
    with suppress(OSError):
        for each in descriptors.iterdir():
            with suppress(OSError):
                found = each.stat()
                if (found.st_dev, found.st_ino) == wanted:
                    return True
    return False
