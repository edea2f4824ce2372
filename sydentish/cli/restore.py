"""`sydentish restore`."""

import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from sydentish.cli.archives import DATABASE, is_archive, unpack
from sydentish.cli.common import cannot_run, config_option, confirm, read_config, refuse, told, yes_option
from sydentish.cli.peers.recalling import AGAIN, all_asked, ask_back, print_recalled
from sydentish.cli.printing import Progress, moment, now_ms, progress
from sydentish.cli.stopping import stoppable
from sydentish.config import Config
from sydentish.disk import kept_if_used
from sydentish.domain.keys import Key
from sydentish.keyfiles import KeyProblem, inventory, write_key
from sydentish.owners import as_owner_of, make_private
from sydentish.store.copies import (
    Contents,
    CopyProblem,
    checked_contents,
    copy_pages,
    opened,
    workshop,
)
from sydentish.store.migrate import SchemaError, Step, migrate_sqlite, shipped_steps
from sydentish.store.peek import check_sqlite_file, looking
from sydentish.store.restoring import InUse, adapt_file, check_unused, last_number, put_in_place
from sydentish.store.shape import differences_of
from sydentish.store.statements import own_names, unbound_names

_TakeOut = Callable[[Path, Progress], Sequence[Key]]


@click.command(short_help="Put a backup in the place of the database.")
@config_option
@yes_option
@click.option("--offline", is_flag=True, help="Do not ask the peers for what was stated since the backup.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def restore(config_path: Path, yes: bool, offline: bool, file: Path) -> None:  # noqa: FBT001 - flags
    """Put a backup in the place of the database, and ask the peers for what was stated since it was made.

    The server must not run. The database that was there is kept beside it. Keys of the backup are taken if there are none.
    Exit status 1, too, when the database is restored, but a peer could not be asked.

    Example: sydentish restore /var/backups/sydentish.db
    """
    config = read_config(config_path)
    path = config.database.path
    try:
        with stoppable("nothing was changed"):
            # Whoever runs this may be let read more than the owner of the database: the program itself, too.
            steps = shipped_steps()
            if path.exists() and file.samefile(path):
                cannot_run(f"{file}: is the database itself")
            # What is wrong with the keys is better told while nothing is changed yet.
            inventory(config.general.key_dir)
            with (
                _opened(file, steps[-1].number) as take_out,
                as_owner_of(path.parent),
                kept_if_used(path.parent),
            ):
                kept, keys = _restore(config, file, take_out, steps, yes=yes)
    except InUse:
        cannot_run(f"{path}: is in use; stop the server, and whatever else has it open, first")
    except KeyProblem as problem:
        refuse(str(problem))
    except (SchemaError, CopyProblem) as problem:
        cannot_run(str(problem))
    except OSError as error:
        cannot_run(f"nothing was changed: {told(error)}")
    except sqlite3.Error as error:
        cannot_run(f"nothing was changed: {error}; is there room on the disk of {path.parent}?")
    _print(path, kept)
    _install_or_tell(config.general.key_dir, keys)
    if offline:
        click.echo(f"The peers were not asked for what was stated since. Do that with: {AGAIN}")
        return
    found = ask_back(config, config_path)
    if found:
        print_recalled(config, found)
    sys.exit(0 if all_asked(found) else 1)


def _restore(
    config: Config, file: Path, take_out: _TakeOut, steps: list[Step], *, yes: bool
) -> tuple[Path | None, Sequence[Key]]:
    """Makes a copy of the backup that the server can go on from, and puts it in place.

    Returns:
        Where the former database is kept, and the keys of the backup.
    """
    path = config.database.path
    if path.exists():
        # It is looked at again when it counts; what takes long is better refused at once.
        check_unused(path)
    with workshop(path) as folder:
        copy = folder / DATABASE
        with _called(file, copy):
            with progress("Reading the backup") as on_progress:
                keys = take_out(copy, on_progress)
            found = checked_contents(copy, steps[-1].number)
            migrate_sqlite(copy, config.database.busy_timeout, now_ms(), steps)
        for flaw in differences_of(copy):
            raise CopyProblem(f"{file}: is no backup of this program: {flaw.problem}")
        _check_name(copy, file, config.general.server_name)
        adapt_file(copy, config.general.server_name, config.peers, last_number(path), now_ms())
        _confirm(path, file, found, yes=yes)
        with progress("Restoring the database") as on_progress:
            kept = put_in_place(copy, path, on_progress)
    return kept, keys


@contextmanager
def _called(file: Path, copy: Path) -> Iterator[None]:
    """What is wrong with the copy is told of the file that was given: of the copy, nobody knows."""
    try:
        yield
    except (SchemaError, CopyProblem) as problem:
        raise type(problem)(str(problem).replace(str(copy), str(file))) from None


def _check_name(copy: Path, file: Path, server_name: str) -> None:
    """A server that was renamed has stated under both names; one that has stated under another alone is another."""
    with looking(copy) as tx:
        names = {*own_names(tx), *unbound_names(tx)}
    if names and server_name not in names:
        raise CopyProblem(
            f"{file}: is a backup of {', '.join(sorted(names))}, and [general] server_name is {server_name}: "
            "what it has stated would be nobody's"
        )


@contextmanager
def _opened(file: Path, newest: int) -> Iterator[_TakeOut]:
    """What copies the database of a backup, and tells which keys came with it."""
    if is_archive(file):
        with file.open("rb") as archive:
            yield lambda copy, _: unpack(archive, copy)
        return
    check_sqlite_file(file, newest)
    with opened(file) as backup:

        def take_out(copy: Path, on_progress: Progress) -> Sequence[Key]:
            copy_pages(backup, copy, on_progress)
            return ()

        yield take_out


def _confirm(path: Path, file: Path, found: Contents, *, yes: bool) -> None:
    newest = "" if found.newest_ts is None else f", the newest of {moment(found.newest_ts, now_ms())}"
    click.echo(f"{file}: schema {found.schema}, {found.rows['associations']} associations{newest}")
    if path.exists():
        confirm(f"Replace {path} by it?", yes=yes)


def _install_or_tell(key_dir: Path, keys: Sequence[Key]) -> None:
    """What cannot be done here has to be done by hand: the database is in its place by now."""
    try:
        said = _install(key_dir, keys)
    except (KeyProblem, OSError) as problem:
        why = told(problem) if isinstance(problem, OSError) else str(problem)
        cannot_run(
            f"the keys of the backup are not in place: {why}; put them there, and ask the peers: {AGAIN}"
        )
    if said:
        click.echo(said)


def _install(key_dir: Path, keys: Sequence[Key]) -> str:
    """Writes the keys of a backup where there are none; what is to be said of it."""
    present = {(each.key.key_id, each.key.public_key) for each in inventory(key_dir)}
    if not keys:
        return (
            ""
            if present
            else f"{key_dir}: there are no signing keys, and none in the backup: put the former ones there; make none, "
            "since what was signed would be another server's"
        )
    if not present:
        make_private(key_dir)
        with as_owner_of(key_dir):
            for key in keys:
                write_key(key_dir, key, key.state, None)
        return f"{key_dir}: the {len(keys)} keys of the backup are there now"
    if {(key.key_id, key.public_key) for key in keys} != present:
        return f"{key_dir}: has other keys than the backup, and was left as it is"
    return ""


def _print(path: Path, kept: Path | None) -> None:
    click.echo(f"{path}: is restored")
    if kept is not None:
        click.echo(f"The database that was there is kept as {kept}: delete it when all is well.")
    click.echo(
        "Accounts, access tokens and open sessions are as they were then: who has registered since registers again, who has "
        "logged out since is logged in again, and what was erased since is back (sydentish erase). What was "
        "delivered since is delivered again."
    )
