"""`sydentish backup`."""

import sqlite3
from pathlib import Path

import click

from sydentish.cli.archives import DATABASE, pack
from sydentish.cli.common import cannot_run, config_option, read_config, refuse, told
from sydentish.cli.printing import moment, now_ms, progress, size
from sydentish.cli.running import live
from sydentish.cli.stopping import stoppable
from sydentish.config import Config
from sydentish.domain.keys import Key
from sydentish.keyfiles import KeyProblem, inventory
from sydentish.store.copies import (
    Contents,
    CopyProblem,
    checked_contents,
    contents,
    copy_pages,
    interruptible,
    put,
    workshop,
)
from sydentish.store.migrate import SchemaError, shipped_steps


@click.command(short_help="Copy the database, and verify the copy.")
@config_option
@click.option(
    "--with-keys", is_flag=True, help="Make a tar file that has the signing keys in it, too: keep it safe."
)
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def backup(config_path: Path, with_keys: bool, force: bool, file: Path) -> None:  # noqa: FBT001 - flags
    """Copy the database to FILE, also while the server runs, and look through the copy.

    FILE gets its name when all is well, and is for its owner only. It has everything in it but the signing keys and the
    configuration. What was stated since is not lost with the database if there are peers: sydentish restore asks them.

    Example: sydentish backup /var/backups/sydentish.db
    """
    config = read_config(config_path)
    try:
        keys = [each.key for each in inventory(config.general.key_dir)] if with_keys else []
    except KeyProblem as problem:
        refuse(str(problem))
    if with_keys and not keys:
        refuse(f"{config.general.key_dir}: there are no signing keys")
    try:
        with stoppable("there is no backup"):
            _check(config, file, force=force)
            found = _back_up(config, file, keys, force=force)
    except (SchemaError, CopyProblem) as problem:
        cannot_run(str(problem))
    except FileExistsError:
        cannot_run(_there_already(file))
    except OSError as error:
        cannot_run(f"there is no backup: {told(error)}")
    except sqlite3.Error as error:
        cannot_run(f"there is no backup: {error}; is there room for it in {file.absolute().parent}?")
    _print(config, file, found, with_keys=with_keys)


def _check(config: Config, file: Path, *, force: bool) -> None:
    path = config.database.path
    if not path.exists():
        cannot_run(f"{path}: there is no database yet: nothing to back up")
    if file.exists() and file.samefile(path):
        cannot_run(f"{file}: is the database itself")
    if file.exists() and not force:
        cannot_run(_there_already(file))


def _there_already(file: Path) -> str:
    return f"{file}: is there already; give another name, or --force"


def _back_up(config: Config, file: Path, keys: list[Key], *, force: bool) -> Contents:
    """Makes the file, or nothing."""
    newest = shipped_steps()[-1].number
    with workshop(file) as folder:
        made = folder / DATABASE
        with live(config) as connection:
            with progress("Copying the database") as on_progress:
                copy_pages(connection, made, on_progress)
            with interruptible(connection):
                there = contents(connection)
        found = checked_contents(made, newest)
        if found != there:
            raise CopyProblem(f"{file}: was not made: the copy has not what the database has")
        if keys:
            database, made = made, folder / "archive"
            pack(made, database, keys)
        put(made, file, replace=force)
    return found


def _print(config: Config, file: Path, found: Contents, *, with_keys: bool) -> None:
    newest = "" if found.newest_ts is None else f", the newest of {moment(found.newest_ts, now_ms())}"
    click.echo(
        f"{file}: {size(file.stat().st_size)}, schema {found.schema}, "
        f"{found.rows['associations']} associations{newest}; it was looked through, and is good"
    )
    if with_keys:
        click.echo("The signing keys are in it: who has it can sign as this server. Keep it safe.")
    else:
        click.echo(
            f"The signing keys are not in it: keep a copy of {config.general.key_dir} in a safe place, or use --with-keys."
        )
