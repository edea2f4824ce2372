"""`sydentish peers recall`, which `sydentish restore` does, too."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import click

from sydentish.cli.common import config_option, read_config, told_of_keys
from sydentish.cli.printing import Progress, json_option, print_json, progress
from sydentish.cli.running import CannotDo, run_with_database
from sydentish.config import Config
from sydentish.keyfiles import KeyProblem, load_keys
from sydentish.parts.deeds import make_statements
from sydentish.parts.replication import make_recall, peer_tls
from sydentish.parts.world import World
from sydentish.replication.credentials import TlsProblem
from sydentish.replication.recalled import Recalled
from sydentish.store import recalls
from sydentish.store.database import Database

AGAIN = "sydentish peers recall"


@click.command()
@config_option
@json_option
@click.option(
    "--all-addresses",
    is_flag=True,
    help="Ask also about addresses that third servers have bound: peers learn them, if they do not know them already.",
)
def recall(config_path: Path, as_json_: bool, all_addresses: bool) -> None:  # noqa: FBT001 - flags of the command line
    """Ask all peers for what was stated since a backup was made that sydentish restore has put in place.

    That command does it, too; this one does it again, until every peer was asked. What was stated here is sent to all of
    them again. The server may run. Exit status 1 when a peer could not be asked.

    Example: sydentish peers recall
    """
    config = read_config(config_path)
    found = ask_back(config, config_path, all_addresses=all_addresses, hidden=as_json_)
    if as_json_:
        print_json({"peers": [asdict(each) for each in found]})
    else:
        print_recalled(config, found)
    sys.exit(0 if all_asked(found) else 1)


def ask_back(
    config: Config, config_path: Path, *, all_addresses: bool = False, hidden: bool = False
) -> list[Recalled]:
    """Asks all peers that are still to be asked; what came of it.

    The program ends where our keys or our certificate cannot be used.

    Args:
        config: what the operator has chosen.
        config_path: where.
        all_addresses: whether peers are also asked about addresses that third servers have bound.
        hidden: whether no progress is shown.
    """
    with progress("Asking the peers", hidden=hidden) as on_progress:
        return run_with_database(
            config, _asking(config, config_path, on_progress, all_addresses=all_addresses)
        )


def _asking(
    config: Config, config_path: Path, on_progress: Progress, *, all_addresses: bool
) -> Callable[[World, Database], Awaitable[list[Recalled]]]:
    async def work(world: World, db: Database) -> list[Recalled]:
        # Without anybody to be asked, neither keys nor a certificate are needed.
        if not await db.read(recalls.pending):
            return []
        try:
            keys = load_keys(config.general.key_dir, config.general.server_name)
            tls = peer_tls(config)
        except KeyProblem as problem:
            raise CannotDo(_not_asked(told_of_keys(problem, config, config_path))) from None
        except TlsProblem as problem:
            raise CannotDo(_not_asked(str(problem))) from None
        if tls is None:
            raise CannotDo(_not_asked("[replication] certificate_file, ca_file: must be set"))
        statements = make_statements(config, world, keys)
        made = make_recall(
            config,
            world,
            db=db,
            keys=keys,
            tls=tls,
            statements=statements,
            all_addresses=all_addresses,
            on_progress=on_progress,
        )
        return await made.run()

    return work


def _not_asked(problem: str) -> str:
    return f"the peers were not asked for what is missing: {problem}; then ask them with: {AGAIN}"


def all_asked(found: list[Recalled]) -> bool:
    """Whether nothing is left to be asked."""
    return all(each.failure is None for each in found)


def print_recalled(config: Config, found: list[Recalled]) -> None:
    """Prints what came of asking peers, and what is to be done about those that could not be asked."""
    if not found:
        click.echo("No peer is to be asked for anything.")
    for each in found:
        if each.is_sydent:
            _print_sydent(config, each)
        elif each.failure is None:
            click.echo(
                f"{each.peer}: {each.binds} binds of this server that were lost here, {each.pushed} statements of its own, "
                f"{each.unbinds} addresses unbound"
            )
        else:
            click.echo(
                f"{each.peer}: could not be asked: {each.failure}; see sydentish peers test {each.peer}"
            )
        if each.unfound:
            click.echo(
                f"{each.peer}: {each.unfound} unbinds that it tells of are of addresses that were not known here, or that third "
                f"servers have bound; if all peers exchange with each other, ask it about those, too: {AGAIN} --all-addresses"
            )
        if each.foreign:
            click.echo(
                f"{each.peer}: {each.foreign} statements in our name that no key here has signed were left"
            )
        if each.refused:
            click.echo(
                f"{each.peer}: {each.refused} of its statements cannot be taken, as the log would say of a push; once it is "
                f"mended, there: sydentish peers resync {config.general.server_name}"
            )
    if not all_asked(found):
        click.echo(
            f"Not all is back: as soon as these peers can be reached, ask all again: {AGAIN}", err=True
        )


def _print_sydent(config: Config, found: Recalled) -> None:
    click.echo(
        f"{found.peer}: answers 404 without JSON, and is taken for a Sydent, which cannot be asked. Its operator stops it, sets "
        f"lastSentVersion of {config.general.server_name} in its table peers to {found.peers_id}, and starts it: then it "
        "pushes its own statements again. What was stated here since the backup must be stated again."
    )
