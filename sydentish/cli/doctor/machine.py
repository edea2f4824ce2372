"""This machine: what is set up, the database, the disk and the signing key."""

import os
import pwd
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.cli.printing import size
from sydentish.cli.running import is_current, with_database
from sydentish.cli.setup import look_over
from sydentish.config import Config
from sydentish.domain.errors import Busy
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import Peer
from sydentish.keyfiles import key_warnings
from sydentish.parts.world import World
from sydentish.store import health, integrity
from sydentish.store import peers as peer_rows
from sydentish.store.database import Database, Tx
from sydentish.store.migrate import SchemaError

_START = "start the server, which makes it: sydentish serve"
_SLOW_MS = 1000


@dataclass(frozen=True, slots=True)
class Setup:
    """What is set up.

    Attributes:
        findings: what is right and wrong with it.
        problems: what keeps the server from starting.
    """

    findings: tuple[Finding, ...]
    problems: tuple[str, ...]

    def is_told_of(self, path: Path) -> bool:
        """Whether a problem is about a file or directory; with SQLite's files, also about those beside it."""
        about = re.compile(rf"(?:^|\s){re.escape(str(path))}(?:-wal|-shm|-journal)?: ")
        return any(about.search(problem) for problem in self.problems)


def look_at_setup(config: Config, config_path: Path) -> Setup:
    """What `check-config` tells, and for whom that is true.

    Args:
        config: what the operator has chosen.
        config_path: where.
    """
    check = "configuration"
    problems, warnings = look_over(config, config_path)
    about_keys = key_warnings(config.general.key_dir)
    found = [failed(check, problem) for problem in problems]
    found += [warning(check, each) for each in warnings if each not in about_keys]
    if not problems:
        found.insert(0, ok(check, f"{config_path} can be used, and the files and directories it names"))
    return Setup((*found, *_user(config)), tuple(problems))


def _user(config: Config) -> list[Finding]:
    """Root may do what the server may not."""
    with suppress(OSError, KeyError):
        owner = config.general.data_dir.stat().st_uid
        if os.geteuid() == 0 != owner:
            name = pwd.getpwuid(owner).pw_name
            told = (
                f"this is root, so that nobody knows whether {name} may read and write what the server needs"
            )
            return [warning("user", told, f"run it as {name}: sudo -u {name} sydentish doctor")]
    return []


def key_findings(config: Config, keys: KeyRing) -> list[Finding]:
    """Whether nobody else can have the signing key.

    Args:
        config: what the operator has chosen.
        keys: those that could be read.
    """
    folder, found = config.general.key_dir, key_warnings(config.general.key_dir)
    with suppress(OSError):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
            found.append(
                f"{folder}: its mode {mode:04o} lets others replace the signing key: chmod 700 {folder}"
            )
    if found:
        return [failed("signing key", each) for each in found]
    return [ok("signing key", f"{keys.active.key_id} signs, and nobody else can read or change it")]


async def look_at_database(config: Config, world: World) -> tuple[list[Finding], list[Peer]]:
    """Writes something into the database, as the server does when it is asked for its health.

    Args:
        config: what the operator has chosen.
        world: time and threads.

    Returns:
        What is found, and the peers that the database knows.
    """
    check, path = "database", config.database.path
    try:
        if not is_current(path):
            return [failed(check, f"{path}: there is none yet", _START)], []

        async def work(world: World, db: Database) -> tuple[int, list[Peer], list[Finding]]:
            begun = world.now_ms()
            await db.write(health.leave_trace)
            took_ms = world.now_ms() - begun
            return took_ms, await db.read(peer_rows.in_use), await db.read(_names, config.general.server_name)

        took_ms, peers, about_names = await with_database(config, world, work)
    except (SchemaError, Busy) as error:
        remedy = "is the disk full, or its file system read-only? Else another program holds the database"
        return [failed(check, str(error), remedy if isinstance(error, Busy) else None)], []
    told = f"can be written, which took {took_ms} ms"
    slow = (
        warning(check, told, "is the disk busy, or on a network?") if took_ms > _SLOW_MS else ok(check, told)
    )
    return [slow, *about_names, *_disk(config)], peers


def _names(tx: Tx, server_name: str) -> list[Finding]:
    return [failed("database", each.problem, each.remedy) for each in integrity.names(tx, server_name)]


def _disk(config: Config) -> list[Finding]:
    path, least = config.database.path, config.health.min_free_space
    try:
        free = health.free_bytes(path)
    except OSError:  # then it could not be written, either
        return []
    told = f"{size(free)} are free where the database is"
    if least is not None and free < least:
        return [failed("disk", told, f"make room: [health] min_free_space is {size(least)}")]
    return [ok("disk", told)]
