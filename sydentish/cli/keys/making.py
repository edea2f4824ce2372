"""`sydentish keys generate` and `rotate`."""

import os
from pathlib import Path

import click

from sydentish.cli.common import config_option, confirm, read_config, read_keys, yes_option
from sydentish.cli.keys.telling import (
    end_for,
    names_of_peers,
    print_for_peers,
    print_taken_up,
    warn_of_rotation,
)
from sydentish.config import Config
from sydentish.domain.keys import SEED_BYTES, KeyRing, is_version
from sydentish.keyfiles import KeyProblem, finish_rotation, generate_key, rotate_key


def _version(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is None or is_version(value):
        return value
    raise click.BadParameter("must be 1 to 64 characters of a-z A-Z 0-9 _")


version_option = click.option(
    "--version",
    metavar="VERSION",
    callback=_version,
    help="What stands behind ed25519: in the new key's ID; a-z A-Z 0-9 _. The next number without this.",
)


@click.command()
@config_option
@click.option("--next", "ahead", is_flag=True, help="Make the key that is to sign after the active one.")
@version_option
def generate(config_path: Path, ahead: bool, version: str | None) -> None:  # noqa: FBT001 - a flag of the command line
    """Make the signing key of a new server, in the key directory, with mode 0600.

    A key that is there is never overwritten. With --next, a key is made that does not sign before: sydentish keys rotate.
    Until then it is published, and peers can be told of it.

    Example: sydentish keys generate -c /etc/sydentish/sydentish.conf
    """
    config = read_config(config_path)
    if ahead:
        read_keys(config, config_path)
    try:
        file = generate_key(config.general.key_dir, version, os.urandom(SEED_BYTES), ahead=ahead)
    except KeyProblem as problem:
        end_for(problem, config, config_path)
    click.echo(f"{file.path}: {file.key.key_id}, public key {file.key.public_key}")
    if not ahead:
        return
    print_taken_up()
    peers = names_of_peers(config)
    if peers:
        click.echo(f"Give this to the operators of your peers: {', '.join(peers)}")
        print_for_peers(config, read_keys(config, config_path))
    click.echo("It signs after: sydentish keys rotate")


@click.command()
@config_option
@version_option
@yes_option
def rotate(config_path: Path, version: str | None, yes: bool) -> None:  # noqa: FBT001 - as above
    """Sign with the next key from now on, or with a new one if there is none, and retire the active one.

    What the retired key has signed stays valid. Peers must know the new key before it signs: make it ahead, with
    sydentish keys generate --next. An interrupted rotation is finished by the next one.

    Example: sydentish keys rotate -c /etc/sydentish/sydentish.conf
    """
    config = read_config(config_path)
    keys = read_keys(config, config_path)
    try:
        finished = finish_rotation(config.general.key_dir)
    except KeyProblem as problem:
        end_for(problem, config, config_path)
    if finished:
        click.echo("A rotation had been interrupted, and is finished now; nothing else was changed.")
        _print_active(read_keys(config, config_path))
        print_taken_up()
        return
    peers = names_of_peers(config)
    if peers:
        warn_of_rotation(config, keys, peers)
        confirm("Rotate now?", yes=yes)
    rotate_from(config, config_path, keys, peers, version)
    print_taken_up()


def rotate_from(
    config: Config, config_path: Path, keys: KeyRing, peers: list[str], version: str | None = None
) -> None:
    """Puts another key into the place of the active one; ends the program if that cannot be.

    Args:
        config: what the operator has chosen.
        config_path: where that stands.
        keys: as they are.
        peers: the names of those who must know the new key.
        version: of the new key, if one is made; None for the next number.
    """
    try:
        rotate_key(config.general.key_dir, version, os.urandom(SEED_BYTES), keys.active.key_id)
    except KeyProblem as problem:
        end_for(problem, config, config_path)
    after = read_keys(config, config_path)
    _print_active(after)
    click.echo(f"{keys.active.key_id} is retired: what it has signed stays valid")
    if peers and len(keys.announced) == 1:
        click.echo(f"Give this to the operators of your peers at once: {', '.join(peers)}")
        print_for_peers(config, after)


def _print_active(keys: KeyRing) -> None:
    active = keys.active
    click.echo(f"{active.key_id} is the active key, public key {active.public_key}")
