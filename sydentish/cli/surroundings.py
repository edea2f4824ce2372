"""What the server needs of the machine it runs on: directories and files that the current user may use."""

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sydentish.cli.common import told
from sydentish.config import Config, endpoints
from sydentish.config.places import Places
from sydentish.store.migrate import SchemaError, shipped_steps
from sydentish.store.peek import check_sqlite_file

# Where systemd makes the directories of services.
_RUN = Path("/run")
_WORDS = {os.R_OK: "read", os.W_OK: "write", os.X_OK: "enter"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was found: `problems` keep the server from starting, `warnings` need not; a line for each."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Finding:
    text: str
    harmless: bool = False
    section: str = ""
    key: str = ""


def look_around(config: Config, *, starting: bool = False) -> Surroundings:
    """Looks at what the configuration says of directories and files; makes and changes nothing.

    Args:
        config: what the operator has chosen.
        starting: whether the server is about to start: a directory that somebody may yet make is a problem then.
    """
    data_dir, database = config.general.data_dir, config.database.path
    findings = [
        *_under("database", "path", _database(database)),
        *_under("log", "file", _log_file(config.log.file)),
        *_sockets(config, starting=starting),
    ]
    if data_dir.absolute() == database.parent.absolute():
        findings = [*_under("general", "data_dir", _folder(data_dir, starting=starting)), *findings]
    else:
        # The server writes where the database is.
        others = _under("general", "data_dir", _folder(data_dir, starting=starting))
        findings = [
            *(replace(finding, harmless=True) for finding in others),
            *_under("database", "path", _folder(database.parent, starting=starting)),
            *findings,
        ]
    return Surroundings(
        _lines(config.places, (finding for finding in findings if not finding.harmless)),
        _lines(config.places, (finding for finding in findings if finding.harmless)),
    )


def _lines(places: Places, findings: Iterable[_Finding]) -> tuple[str, ...]:
    """What is true of several options is told of the first one."""
    by_text: dict[str, _Finding] = {}
    for finding in findings:
        by_text.setdefault(finding.text, finding)
    return tuple(str(places.problem(each.section, each.key, each.text)) for each in by_text.values())


def _under(section: str, key: str, findings: Iterator[_Finding]) -> Iterator[_Finding]:
    """The findings with the option that they are about; what cannot be looked at is one, too."""
    try:
        for finding in findings:
            yield replace(finding, section=section, key=key)
    except PermissionError as error:
        yield _Finding(_barrier(error), section=section, key=key)
    except OSError as error:
        yield _Finding(told(error), section=section, key=key)


def _sockets(config: Config, *, starting: bool) -> Iterator[_Finding]:
    for section, key, listeners in (
        ("http", "listeners", config.http.listeners),
        ("http", "internal_listeners", config.http.internal_listeners),
        ("http", "metrics_listeners", config.http.metrics_listeners),
        ("replication", "listeners", config.replication.listeners),
    ):
        for listener in filter(endpoints.is_unix, listeners):
            yield from _under(section, key, _socket(endpoints.socket_path(listener), starting=starting))


def _socket(path: Path, *, starting: bool) -> Iterator[_Finding]:
    folder = path.absolute().parent
    if _exists(folder):
        if not folder.is_dir():
            yield _Finding(f"{folder}: is no directory")
        elif why := _refusal(folder, os.W_OK | os.X_OK):
            yield _Finding(why)
        elif _exists(path) and not path.is_socket():
            yield _Finding(f"{path}: is there already, and is no socket")
    elif folder.is_relative_to(_RUN):
        # It can be there from the start of the service to its end only.
        way = f"or let systemd make it (RuntimeDirectory={folder.relative_to(_RUN)})"
        yield _Finding(f"{folder}: there is no such directory: make it, {way}", harmless=not starting)
    else:
        yield _Finding(f"{folder}: there is no such directory: make it")


def _folder(folder: Path, *, starting: bool) -> Iterator[_Finding]:
    if not _exists(folder):
        nearest = next(parent for parent in folder.absolute().parents if _exists(parent))
        if not nearest.is_dir():
            yield _Finding(f"{nearest}: is no directory")
            return
        why = _refusal(nearest, os.W_OK | os.X_OK)
        way = "or start once with: sydentish serve --init" if why is None else f"as another user, for {why}"
        yield _Finding(f"{folder}: there is no such directory: make it, {way}", harmless=not starting)
    elif not folder.is_dir():
        yield _Finding(f"{folder}: is no directory")
    elif why := _refusal(folder, os.W_OK | os.X_OK):
        yield _Finding(why)


def _database(path: Path) -> Iterator[_Finding]:
    # SQLite needs all of them.
    files = [path, *(path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm"))]
    refusals = [why for file in files if _exists(file) and (why := _refusal(file, os.R_OK | os.W_OK))]
    yield from map(_Finding, refusals)
    if refusals or not _exists(path):
        return
    if not path.is_file():
        yield _Finding(f"{path}: is no file")
        return
    try:
        check_sqlite_file(path, shipped_steps()[-1].number)
    except SchemaError as problem:
        yield _Finding(str(problem))


def _log_file(path: Path | None) -> Iterator[_Finding]:
    if path is None:
        return
    folder = path.parent
    if _exists(path):
        why = _refusal(path, os.W_OK)
    elif not _exists(folder):
        why = f"{folder}: there is no such directory: make it"
    elif not folder.is_dir():
        why = f"{folder}: is no directory"
    else:
        why = _refusal(folder, os.W_OK | os.X_OK)
    if why is not None:
        yield _Finding(why)


def _exists(path: Path) -> bool:
    """Whether there is such a file or directory.

    Raises:
        OSError: that cannot be told.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _refusal(path: Path, wanted: int) -> str | None:
    """What the current user may not do with a file that exists, and whose it is; None if all is allowed.

    Args:
        path: the file or directory.
        wanted: `os.R_OK`, `os.W_OK` and `os.X_OK`, as one number.
    """
    effective = os.access in os.supports_effective_ids
    refused = [
        word
        for right, word in _WORDS.items()
        if wanted & right and not os.access(path, right, effective_ids=effective)
    ]
    if not refused:
        return None
    if refused == [_WORDS[os.W_OK]] and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path}: is on a read-only file system"
    status = path.stat()
    return (
        f"{path}: Permission denied: {_user(os.geteuid())} may not {' or '.join(refused)} it; "
        f"its owner is {_user(status.st_uid)}, its mode {stat.S_IMODE(status.st_mode):04o}"
    )


def _barrier(error: PermissionError) -> str:
    """What keeps from looking at a path: the directory above it that cannot be entered."""
    for parent in Path(os.fsdecode(error.filename)).absolute().parents:
        try:
            why = _refusal(parent, os.X_OK) if _exists(parent) else None
        except PermissionError:
            continue
        if why is not None:
            return why
        break
    return f"{told(error)} for {_user(os.geteuid())}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
