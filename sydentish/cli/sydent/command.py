"""`sydentish import-sydent`: what is asked for, and in which order it is done."""

import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from sydentish.actions.takeover import BATCH, LARGE_BATCH, BothStated, Takeover, Tally
from sydentish.cli.common import cannot_run, parsed, refuse, told
from sydentish.cli.printing import Progress, json_option, progress
from sydentish.cli.running import CannotDo, run_with_database
from sydentish.cli.scratch import scratch
from sydentish.cli.stopping import stoppable
from sydentish.cli.sydent import in_use, templates
from sydentish.cli.sydent.old import OldConfig, OldConfigProblem
from sydentish.cli.sydent.preparing import Prepared, Wish, kept, prepare
from sydentish.cli.sydent.report import Detail, Report, detail_file, show
from sydentish.cli.turns import Turns
from sydentish.config import network
from sydentish.disk import kept_if_used
from sydentish.keyfiles import KeyProblem
from sydentish.owners import is_others
from sydentish.parts.deeds import make_statements
from sydentish.parts.store import peppers
from sydentish.parts.world import World
from sydentish.store.database import Database
from sydentish.store.migrate import SchemaError
from sydentish.store.sydent import SydentDatabase
from sydentish.store.sydent_copy import SydentProblem, copied

_DATA_DIR = Path("/var/lib/sydentish")
_STOPPED = "what is taken over stays so; run the same command again for the rest"


@click.command("import-sydent", short_help="Move over from a Sydent.")
@click.option(
    "--config",
    "config_path",
    type=Path,
    required=True,
    metavar="FILE",
    help="The configuration of the Sydent.",
)
@click.option(
    "--database",
    type=Path,
    metavar="FILE",
    help="The database of the Sydent; if not given, the one that its configuration names.",
)
@click.option(
    "--out",
    type=Path,
    required=True,
    metavar="FILE",
    help="The configuration that is written for Sydentish; one that is there stays as it is, and is used.",
)
@click.option(
    "--force", is_flag=True, help="Write the configuration anew, in the place of one that is there."
)
@click.option("--dry-run", is_flag=True, help="Tell the same, and change nothing.")
@click.option(
    "--data-dir",
    type=Path,
    default=_DATA_DIR,
    show_default=True,
    metavar="DIR",
    help="Where Sydentish keeps its things.",
)
@click.option(
    "--public-base-url",
    callback=lambda _context, _option, value: None if value is None else parsed(network.base_url, value),
    help="The URL at which clients reach the server, if the Sydent's configuration does not say.",
)
@click.option(
    "--report",
    "report_path",
    type=Path,
    metavar="FILE",
    help="A new file for addresses that need a look, one JSON object on each line; it holds personal data.",
)
@json_option
def import_sydent(  # noqa: PLR0917 - the options of the command
    config_path: Path,
    database: Path | None,
    out: Path,
    force: bool,  # noqa: FBT001 - a flag of the command line
    dry_run: bool,  # noqa: FBT001 - as above
    data_dir: Path,
    public_base_url: str | None,
    report_path: Path | None,
    as_json_: bool,  # noqa: FBT001 - as above
) -> None:
    """Move over from a Sydent 2.x: its configuration, signing key, and all that is in its SQLite database.

    Nothing of the Sydent is changed. The command can be repeated, for example once while the Sydent runs, to see how it
    goes, and once more when it is stopped: only what is new is taken over then, and what was changed, deleted or
    erased in Sydentish since stays so. Run it as the user of the Sydentish server, who must be able to read the Sydent's files.

    Example: sydentish import-sydent --config /etc/sydent/sydent.conf --database /var/lib/sydent/sydent.db --out /etc/sydentish/sydentish.conf
    """
    try:
        old = OldConfig(config_path, os.environ)
        there = kept(old, out) if out.exists() and not force else None
        wish = Wish(
            old=old,
            database=database or old.path_of(old.get("db", "db.file")),
            out=out,
            data_dir=there.general.data_dir if there else data_dir.absolute(),
            public_base_url=public_base_url,
            kept=there,
            dry_run=dry_run,
            details_file=report_path,
        )
        with stoppable(_STOPPED), detail_file(report_path) as on_detail:
            report = _import(wish, on_detail)
    except (OldConfigProblem, KeyProblem) as problem:
        refuse(str(problem))
    except (SydentProblem, SchemaError) as problem:
        cannot_run(str(problem))
    except OSError as error:
        cannot_run(told(error))
    except sqlite3.Error as error:
        cannot_run(f"our database cannot be used: {error}; is there room for it, and for a copy of it?")
    show(report, as_json_=as_json_)


def _import(wish: Wish, on_detail: Detail) -> Report:
    if not wish.out.absolute().parent.is_dir():
        raise OldConfigProblem(f"{wish.out}: cannot be written: make its directory first")
    running = in_use.processes(wish.old, wish.database)
    warnings = []
    if running:
        numbers = ", ".join(map(str, running))
        warnings.append(
            f"{wish.database} is in use by process {numbers}: what the Sydent is told from now on is not taken over. Stop it, "
            "and run this command once more"
        )
    with _folder(wish) as folder, closing(_open(wish, folder, is_in_use=bool(running))) as database:
        prepared = prepare(wish, database, folder)
        with progress("Taking over") as on_progress:
            tally = run_with_database(
                prepared.config, _work(prepared, database, on_progress=on_progress, on_detail=on_detail)
            )
        key, is_new = prepared.key
        if os.geteuid() == 0 and not wish.dry_run:
            warnings.append(_whose(wish.out, prepared.config.general.data_dir))
        return Report(
            dry_run=wish.dry_run,
            configuration=wish.out,
            draft=prepared.draft,
            key=(key.key_id, key.public_key, is_new),
            schema=database.version,
            tally=tally,
            templates=templates.find(wish.old),
            warnings=warnings,
            details_file=wish.details_file,
        )


@contextmanager
def _folder(wish: Wish) -> Iterator[Path]:
    """A folder for copies: where our database is going to be, there is room for one of the Sydent's."""
    # What root copies into somebody's directory, that one could exchange.
    if wish.dry_run or is_others(wish.data_dir):
        with scratch(None) as folder:
            yield folder
    else:
        with kept_if_used(wish.data_dir), scratch(wish.data_dir) as folder:
            yield folder


def _whose(out: Path, data_dir: Path) -> str:
    """What root has made, and the server must be able to read."""
    if is_others(data_dir):
        return f"{out} is for root alone: let the server read it: chown root:GROUP {out}, chmod 640 {out}"
    return f"everything belongs to root now: chown -R {out} and {data_dir} to the server's user"


def _open(wish: Wish, folder: Path, *, is_in_use: bool) -> SydentDatabase:
    return SydentDatabase(copied(wish.database, folder, in_use=is_in_use))


def _work(
    prepared: Prepared, old: SydentDatabase, *, on_progress: Progress, on_detail: Detail
) -> Callable[[World, Database], Awaitable[Tally]]:
    async def work(world: World, db: Database) -> Tally:
        config = prepared.config
        ours: Database = db if prepared.is_ours_alone else Turns(db, world.reactor)
        takeover = Takeover(
            plan=prepared.plan,
            old=old,
            db=ours,
            statements=make_statements(config, world, prepared.keys),
            peppers=peppers(config, world, ours),
            batch=LARGE_BATCH if prepared.is_ours_alone else BATCH,
            now_ms=world.now_ms,
            on_progress=on_progress,
            on_detail=on_detail,
        )
        try:
            return await takeover.run()
        except (BothStated, SydentProblem) as problem:
            raise CannotDo(str(problem)) from None

    return work
