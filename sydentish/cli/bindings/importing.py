"""`sydentish bindings import`."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from sydentish.actions.associations import Outcome, Provision, outcome, provide
from sydentish.actions.statements import Statements
from sydentish.cli.bindings.incoming import Incoming
from sydentish.cli.common import config_option, read_config, read_keys
from sydentish.cli.printing import Progress, json_option, print_json, progress
from sydentish.cli.running import CannotDo, run_with_database
from sydentish.cli.turns import Turns
from sydentish.domain.errors import Busy, IdentityError, TooLarge
from sydentish.parts.deeds import make_statements
from sydentish.parts.world import World
from sydentish.store.database import Database, Tx
from sydentish.web.lines import read_line

# Of the lines of a transaction: few enough that the server need not wait for long.
_BATCH = 100
_MAX_LINE = 64 * 1024
_REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file, counted from 1, and what it asks for, or why it cannot be used."""

    number: int
    wanted: Provision | IdentityError


@click.command("import")
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done as things are now.")
@click.argument("file", type=click.File("rb"))
def import_bindings(config_path: Path, as_json_: bool, dry_run: bool, file: BinaryIO) -> None:  # noqa: FBT001 - flags
    """Bind and unbind what FILE says, or standard input for -, without any proof.

    A JSON object a line: medium, address, mxid, and perhaps "action": "unbind". A line that cannot be used is told of with
    its number, and holds up no other; the status is 1 then. What is so already is left alone, so the same file can be
    imported again, also after an interruption.

    Example: sydentish bindings import bindings.ndjson
    """
    config = read_config(config_path)
    keys = read_keys(config, config_path)

    def tell(counts: Counter[str]) -> None:
        told = {name: counts[name] for name in (*(each.value for each in Outcome), _REFUSED)}
        if as_json_:
            print_json(told)
            return
        would = "nothing was changed; it would be: " if dry_run else ""
        click.echo(would + ", ".join(f"{name} {number}" for name, number in told.items()))

    async def work(world: World, db: Database) -> Counter[str]:
        statements = None if dry_run else make_statements(config, world, keys)
        incoming = Incoming(file, world.reactor)
        counts: Counter[str] = Counter()
        try:
            on_read = _bytes_of(file, on_progress)
            await _import(world, Turns(db, world.reactor), statements, incoming, counts, on_read)
            if incoming.stopped:
                # Whoever has stopped it hears nothing else of it.
                tell(counts)
        finally:
            incoming.end()
        return counts

    with progress("Importing") as on_progress:
        counts = run_with_database(config, work)
    tell(counts)
    if counts[_REFUSED]:
        raise SystemExit(1)


def _bytes_of(file: BinaryIO, on_progress: Progress) -> Callable[[int], None]:
    """Shows how many bytes are read; nothing of what is no regular file, as nobody knows how many there are."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        return lambda _read: None
    return lambda read: on_progress(min(read, found.st_size), found.st_size)


async def _import(  # noqa: PLR0917 - what there is to read, and what is done with it
    world: World,
    db: Database,
    statements: Statements | None,
    incoming: Incoming,
    counts: Counter[str],
    on_read: Callable[[int], None],
) -> None:
    lines, read = _Lines(), 0
    more = True
    while more and not incoming.stopped:
        data = await incoming.read()
        more, read = bool(data), read + len(data)
        found = lines.feed(data) if data else lines.end()
        for start in range(0, len(found), _BATCH):
            if incoming.stopped:
                return
            await _take(world, db, statements, found[start : start + _BATCH], counts)
        on_read(read)


async def _take(
    world: World, db: Database, statements: Statements | None, batch: list[_Line], counts: Counter[str]
) -> None:
    counts[_REFUSED] += _tell_refused(batch)
    wanted = [line.wanted for line in batch if isinstance(line.wanted, Provision)]
    try:
        if statements is None:
            outcomes = await db.read(_foresee, wanted)
        else:
            outcomes = await db.write(provide, statements, wanted, world.now_ms())
    except Busy as busy:
        done = f"{busy}; what stands before line {batch[0].number} is done"
        raise CannotDo(f"{done}: import the same file again, that is left alone") from busy
    counts.update(each.value for each in outcomes)


def _foresee(tx: Tx, wanted: list[Provision]) -> list[Outcome]:
    return [outcome(tx, each) for each in wanted]


def _tell_refused(batch: list[_Line]) -> int:
    refused = [(line.number, line.wanted) for line in batch if isinstance(line.wanted, IdentityError)]
    for number, error in refused:
        click.echo(f"line {number}: {error.message}", err=True)
    return len(refused)


class _Lines:
    """Makes lines of what is read, however long they are, in bounded memory; empty ones are left out."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = b""
        self._is_too_long = False

    def feed(self, data: bytes) -> list[_Line]:
        """The lines that are whole by now."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        found = [line for each in whole for line in self._line(each)]
        if len(self._rest) >= _MAX_LINE:
            self._rest, self._is_too_long = b"", True
        return found

    def end(self) -> list[_Line]:
        """The last line, if it does not end as a line does."""
        return list(self._line(self._rest))

    def _line(self, text: bytes) -> Iterator[_Line]:
        self._number += 1
        is_too_long, self._is_too_long = self._is_too_long or len(text) >= _MAX_LINE, False
        if is_too_long:
            yield _Line(self._number, TooLarge(f"The line must have less than {_MAX_LINE} bytes"))
        elif text.strip():
            yield _Line(self._number, read_line(text))
