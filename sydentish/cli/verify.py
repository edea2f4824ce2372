"""`sydentish verify`."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Concatenate

import click

from sydentish.cli.common import cannot_run, config_option, read_config
from sydentish.cli.printing import Progress, json_option, now_ms, print_json, print_line, progress
from sydentish.cli.running import must_have_database
from sydentish.cli.stopping import stoppable
from sydentish.config import Config
from sydentish.owners import as_owner_of
from sydentish.store import integrity, shape
from sydentish.store.copies import interruptible
from sydentish.store.database import P, T, Tx
from sydentish.store.integrity import Checks, Looked
from sydentish.store.shape import Flaw
from sydentish.store.sqlite import SqliteTx, connect

_SAMPLE = 1000


@dataclass(slots=True)
class _Verified:
    flaws: list[Flaw] = field(default_factory=list)
    looked: Looked = field(default_factory=Looked)


@click.command(short_help="Look whether the database is sound.")
@config_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Look at every association and every index.")
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(0),
    default=_SAMPLE,
    show_default=True,
    help="Look at so many associations, picked by chance.",
)
def verify(config_path: Path, as_json_: bool, everything: bool, sample: int) -> None:  # noqa: FBT001 - flags
    """Look whether the database is sound, and agrees with itself: also while the server runs.

    Structure, schema, references, hashes, signatures of peers, numbers of statements, the outbox and ephemeral keys. Nothing
    is changed. Exit status 1 when anything is wrong.

    Example: sydentish verify --all
    """
    config = read_config(config_path)
    must_have_database(config)
    try:
        with stoppable("nothing was wrong so far"), progress("Verifying", hidden=as_json_) as on_progress:
            found = _verify(config, None if everything else sample, on_progress)
    except sqlite3.Error as error:
        cannot_run(f"{config.database.path}: {error}; restore a backup (sydentish restore), if it stays so")
    well = not found.flaws
    if as_json_:
        looked = {"associations": found.looked.associations, "unknown": found.looked.unknown}
        print_json({"ok": well, **looked, "findings": [asdict(each) for each in found.flaws]})
    else:
        _print(found)
    sys.exit(0 if well else 1)


def _verify(config: Config, sample: int | None, on_progress: Progress) -> _Verified:
    """Looks at all there is; where `sample` says so, only at some associations."""
    now, grace_ms = now_ms(), config.lookup.pepper_grace
    server_name, found = config.general.server_name, _Verified()
    path, owners = config.database.path, as_owner_of(config.database.path.parent)
    with owners, closing(connect(path, config.database.busy_timeout, read_only=True)) as connection:
        look = _Looking(connection)
        for table in look(shape.tables):
            found.flaws += look(shape.damage, table, sample is None)
        if found.flaws:
            # What is damaged would only have the rest fail.
            return found
        found.flaws += shape.differences(look(shape.shape), shape.shipped_shape())
        if found.flaws:
            return found
        checks = Checks(server_name, grace_ms, now)
        found.looked = checks.looked
        _associations(look, checks, sample, on_progress)
        found.flaws += checks.flaws()
        found.flaws += look(_others, server_name, grace_ms, now)
    return found


def _associations(look: "_Looking", checks: Checks, sample: int | None, on_progress: Progress) -> None:
    last = look(integrity.last_row)
    # A sample draws some twice: of few, all are looked at.
    if sample is None or sample >= last:
        at = 0
        while at < last:
            at = look(checks.page, at, last)
            on_progress(at, last)
        return
    for done in range(0, sample, integrity.PAGE):
        look(checks.sample, last, min(integrity.PAGE, sample - done))
        on_progress(min(sample, done + integrity.PAGE), sample)


def _others(tx: Tx, server_name: str, grace_ms: int, now: int) -> list[Flaw]:
    return [
        *integrity.leftover_hashes(tx, grace_ms, now),
        *integrity.numbers(tx, server_name),
        *integrity.names(tx, server_name),
        *integrity.outbox(tx),
        *integrity.keys(tx, now),
    ]


class _Looking:
    """Reads, each time in a transaction of its own, so that none of them lasts."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __call__(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._transaction(), interruptible(self._connection):
            return fn(SqliteTx(self._connection), *args, **kwargs)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")


def _print(found: _Verified) -> None:
    for each in found.flaws:
        print_line(f"failed: {each.check}: {each.problem}; {each.remedy}")
    looked = found.looked
    told = f"{looked.associations} associations were looked at"
    if looked.unknown:
        told += f"; {looked.unknown} of them were signed by servers, or with keys, that are not known here"
    click.echo(told if found.flaws else f"ok: {told}")
