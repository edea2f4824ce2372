"""What is told of signing keys before and after they change."""

from pathlib import Path
from typing import NoReturn

import click

from sydentish.cli.common import cannot_run, refuse, told_of_keys
from sydentish.cli.peers.ourselves import ourselves
from sydentish.cli.running import has_database, run_with_database
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.keyfiles import CannotChange, KeyProblem
from sydentish.parts.world import World
from sydentish.replication.credentials import TlsProblem
from sydentish.store import peers as peer_rows
from sydentish.store.database import Database


def print_taken_up() -> None:
    """Tells how a running server hears of a change."""
    click.echo(
        "A running server takes this up on SIGHUP: systemctl reload sydentish, or kill -HUP and its PID"
    )


def end_for(problem: KeyProblem, config: Config, config_path: Path) -> NoReturn:
    """Ends the program because of signing keys: with 1 where they can be used, but not changed so, else with 78."""
    if isinstance(problem, CannotChange):
        cannot_run(str(problem))
    refuse(told_of_keys(problem, config, config_path))


def names_of_peers(config: Config) -> list[str]:
    """The names of all peers, those of the configuration and those that were added."""
    names = {peer.name for peer in config.peers}
    if has_database(config):

        async def ask(_: World, db: Database) -> set[str]:
            return {peer.name for peer in await db.read(peer_rows.in_use)}

        names |= run_with_database(config, ask)
    return sorted(names)


def warn_of_rotation(config: Config, keys: KeyRing, peers: list[str]) -> None:
    """Tells what peers must have before another key signs."""
    ahead = [key.key_id for key in keys.announced if key is not keys.active]
    click.echo(
        f"warning: these peers check what this server signs: {', '.join(peers)}\n"
        "Each refuses it from the moment it is signed with a key that it does not know. A Sydent knows a key of ours as "
        "ed25519:0 only, and so refuses every other one; whether a peer is a Sydent, tells: sydentish peers test NAME",
        err=True,
    )
    if ahead:
        click.echo(f"By now, they must have {', '.join(ahead)}, as this says:", err=True)
        print_for_peers(config, keys)
    else:
        click.echo(
            "No key was made ahead, so they cannot have it. Better: make it with sydentish keys generate --next, give "
            "it to their operators, and rotate when all have it.",
            err=True,
        )


def print_for_peers(config: Config, keys: KeyRing) -> None:
    """Prints what the operators of peers must have in place of what they have."""
    try:
        ourselves(config, keys).print()
    except TlsProblem as problem:
        click.echo(f"warning: {problem}", err=True)
        for key in keys.announced:
            click.echo(f"{key.key_id} {key.public_key}")
