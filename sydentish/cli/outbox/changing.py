"""`sydentish outbox retry` and `drop`."""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from sydentish.actions.letters import Dropped, Retried, drop, retry
from sydentish.actions.outbox import INVITE
from sydentish.cli.common import age_option, config_option, read_config
from sydentish.cli.outbox.options import UNKNOWN, destination_option, kind_option
from sydentish.cli.printing import Progress, now_ms, print_line, progress
from sydentish.cli.running import run_with_database
from sydentish.cli.turns import Turns
from sydentish.config import Config
from sydentish.parts.world import World
from sydentish.store import letters as letter_rows
from sydentish.store.database import Database, Tx
from sydentish.store.letters import Wanted

T = TypeVar("T")

# Of the rows that are changed in a transaction: few enough that the server need not wait for long.
_BATCH = 200
_DONE = (Retried.AGAIN, Retried.DUE)
_RETRIED = {
    Retried.AGAIN: "is tried again now",
    Retried.DUE: "was waiting, and is due now",
    Retried.NOT_KEPT: "cannot be tried again: what the mail said was erased when it was given up, since its link accepts "
    "the invitation; whoever has invited can do so again",
    Retried.OUTDATED: "is not tried again: the address was bound anew since, and another row tells of that",
    Retried.UNKNOWN: UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which rows a command is about.

    Attributes:
        ids: these.
        wanted: or all of these, where there is no ID.
    """

    ids: Sequence[int]
    wanted: Wanted


_id_argument = click.argument("ids", metavar="[ID]...", type=click.IntRange(min=1), nargs=-1)


@click.command("retry")
@config_option
@kind_option
@destination_option
@click.option("--all-dead", is_flag=True, help="All rows that were given up.")
@_id_argument
def retry_rows(
    *,
    config_path: Path,
    kind: str | None,
    destination: str | None,
    all_dead: bool,
    ids: tuple[int, ...],
) -> None:
    """Try rows again at once, and those that were given up for as long as new ones: by their IDs, or all of a destination.

    A running server takes that up within seconds. Status 1 when a row that was named cannot be tried again.

    Example: sydentish outbox retry --kind onbind --destination matrix.example.org
    """
    wanted = Wanted(kind=kind, destination=destination, state="dead" if all_dead else None)
    chosen = _chosen(ids, wanted, everything=all_dead, option="--all-dead")
    with progress("Trying again") as on_progress:
        results = _each(read_config(config_path), chosen, retry, on_progress)
    if not ids:
        _count_retried(results)
        return
    for outbox_id, result in results.items():
        click.echo(f"{outbox_id}: {_RETRIED[result]}", err=result not in _DONE)
    if not set(results.values()) <= set(_DONE):
        sys.exit(1)


@click.command("drop")
@config_option
@kind_option
@destination_option
@click.option("--dead", is_flag=True, help="All rows that were given up.")
@age_option("--older-than", "Only rows that were given up longer ago than this, such as 7d.")
@_id_argument
def drop_rows(
    *,
    config_path: Path,
    kind: str | None,
    destination: str | None,
    dead: bool,
    age_ms: int | None,
    ids: tuple[int, ...],
) -> None:
    """Delete rows for good: by their IDs, or those that were given up.

    A homeserver does not hear of the bind then, nor of the invitation that the row takes there, which is deleted with
    it. The invitation of a mail (kind invite) waits on for somebody to bind the address, but no mail tells of it.

    Example: sydentish outbox drop --dead --older-than 7d
    """
    before_ts = None if age_ms is None else now_ms() - age_ms
    wanted = Wanted(kind=kind, destination=destination, state="dead", died_before_ts=before_ts)
    chosen = _chosen(ids, wanted, everything=dead, option="--dead")
    with progress("Dropping") as on_progress:
        results = _each(read_config(config_path), chosen, lambda tx, ids, _now: drop(tx, ids), on_progress)
    if not ids:
        carried = sum(each.invitations for each in results.values())
        click.echo(f"{len(results)} rows are dropped, and {carried} invitations with them")
        return
    for outbox_id, dropped in results.items():
        _tell_dropped(outbox_id, dropped)
    if any(dropped.letter is None for dropped in results.values()):
        sys.exit(1)


def _chosen(ids: Sequence[int], wanted: Wanted, *, everything: bool, option: str) -> _Chosen:
    given = (everything, wanted.kind, wanted.destination, wanted.died_before_ts)
    narrow = any(each is not None and each is not False for each in given)
    if bool(ids) == narrow:
        raise click.UsageError(f"Say which: IDs, or {option}, --kind or --destination.")
    return _Chosen(tuple(dict.fromkeys(ids)), wanted)


def _each(
    config: Config,
    chosen: _Chosen,
    do: Callable[[Tx, Sequence[int], int], dict[int, T]],
    on_progress: Progress,
) -> dict[int, T]:
    """What `do` makes of each row, a batch at a time; it gets the time, too."""

    async def work(world: World, db: Database) -> dict[int, T]:
        results: dict[int, T] = {}
        turns = Turns(db, world.reactor)
        async for ids in _batches(db, chosen):
            results |= await turns.write(do, ids, world.now_ms())
            on_progress(len(results), max(len(chosen.ids), len(results)))
        return results

    return run_with_database(config, work)


async def _batches(db: Database, chosen: _Chosen) -> AsyncIterator[Sequence[int]]:
    if chosen.ids:
        for start in range(0, len(chosen.ids), _BATCH):
            yield chosen.ids[start : start + _BATCH]
        return
    after = 0
    while found := await db.read(letter_rows.letters_after, chosen.wanted, after, _BATCH):
        after = found[-1].outbox_id
        yield [each.outbox_id for each in found]


def _count_retried(results: dict[int, Retried]) -> None:
    click.echo(f"{sum(result in _DONE for result in results.values())} rows are tried again now")
    for result, what in (
        (Retried.NOT_KEPT, "mails cannot be: what they said was erased when they were given up"),
        (Retried.OUTDATED, "are not: their addresses were bound anew since"),
    ):
        if number := sum(each is result for each in results.values()):
            click.echo(f"{number} {what}")


def _tell_dropped(outbox_id: int, dropped: Dropped) -> None:
    found = dropped.letter
    if found is None:
        click.echo(f"{outbox_id}: {UNKNOWN}", err=True)
        return
    beside = "; the invitation in it is deleted, too" if dropped.invitations else ""
    if found.kind == INVITE:
        beside = "; the invitation waits on, but no mail tells of it"
    print_line(f"{outbox_id}: {found.kind} to {found.destination} is dropped{beside}")
