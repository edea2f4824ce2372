"""`sydentish bindings export`."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click
import orjson

from sydentish.cli.common import cannot_run, config_option, parsed, read_config
from sydentish.cli.printing import Progress, progress
from sydentish.cli.running import run_with_database
from sydentish.config import Config, network
from sydentish.disk import whole_file
from sydentish.domain.associations import Association
from sydentish.domain.threepids import Threepid
from sydentish.parts.world import World
from sydentish.store import associations as association_rows
from sydentish.store import figures
from sydentish.store.database import Database

# Few enough that a transaction is over in some ms, and holds up no checkpoint.
_PAGE = 1000
_STDOUT = "-"


@click.command("export")
@config_option
@click.option(
    "--origin",
    metavar="SERVER",
    callback=lambda _context, _option, value: value and parsed(network.server_name, value),
    help="Only what this identity server has stated.",
)
@click.option("--own", is_flag=True, help="Only what this server itself has stated.")
@click.argument("file", metavar="[FILE]", type=click.Path(dir_okay=False, path_type=Path), default=_STDOUT)
def export_bindings(config_path: Path, origin: str | None, own: bool, file: Path) -> None:  # noqa: FBT001 - a flag
    """Write all bindings to FILE, or to standard output: a JSON object a line, in the order of their addresses.

    A file is complete, or not there, and only its owner can read it. sydentish bindings import reads it.

    Example: sydentish bindings export --own bindings.ndjson
    """
    if own and origin is not None:
        raise click.UsageError("Give --origin, or --own.")
    config = read_config(config_path)
    chosen = config.general.server_name if own else origin
    try:
        number = _export(config, chosen, file)
    except BrokenPipeError:
        # Who read has read enough: click knows what to do.
        raise
    except OSError as error:
        cannot_run(f"{file}: cannot be written: {error.strerror}")
    click.echo(f"exported {number} bindings", err=str(file) == _STDOUT)


def _export(config: Config, origin: str | None, path: Path) -> int:
    """Writes the bindings; how many."""

    async def work(_: World, db: Database, file: BinaryIO, on_progress: Progress) -> int:
        written = done = 0
        of = sum((await db.read(figures.associations_by_medium)).values())
        async for page in _pages(db):
            chosen = [each for each in page if origin in (None, each.origin_server)]
            file.write(b"".join(map(export_line, chosen)))
            written, done = written + len(chosen), done + len(page)
            on_progress(min(done, of), of)
        file.flush()
        return written

    to_stdout = str(path) == _STDOUT
    with _target(path) as file, progress("Exporting", hidden=to_stdout) as on_progress:
        return run_with_database(config, lambda world, db: work(world, db, file, on_progress))


def _target(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == _STDOUT:
        return nullcontext(sys.stdout.buffer)
    return whole_file(path)


async def _pages(db: Database) -> AsyncIterator[list[Association]]:
    position: Threepid | None = None
    while page := await db.read(association_rows.after, position, _PAGE):
        yield page
        position = page[-1].threepid


def export_line(association: Association) -> bytes:
    """A binding as a line of the file."""
    return orjson.dumps(
        {
            "medium": association.threepid.medium,
            "address": association.threepid.address,
            "mxid": association.mxid,
            "ts": association.ts,
            "origin_server": association.origin_server,
            "origin_id": association.origin_id,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )
