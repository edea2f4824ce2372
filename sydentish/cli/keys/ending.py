"""`sydentish keys retire` and `revoke`."""

from pathlib import Path

import click

from sydentish.cli.common import (
    cannot_run,
    config_option,
    confirm,
    read_config,
    read_keys,
    refuse,
    yes_option,
)
from sydentish.cli.keys.making import rotate_from
from sydentish.cli.keys.telling import (
    end_for,
    names_of_peers,
    print_taken_up,
    warn_of_rotation,
)
from sydentish.config import Config
from sydentish.domain.keys import Key, KeyState
from sydentish.keyfiles import KeyProblem, inventory, must_not_sign, retire_key, revoke_key

id_argument = click.argument("key_id", metavar="KEYID")


@click.command()
@config_option
@id_argument
def retire(config_path: Path, key_id: str) -> None:
    """Take a key out of use that is not the active one: what it may have signed stays valid.

    For the next key when it is not to sign after all, and for a second key in the key directory. The active key retires
    with: sydentish keys rotate

    Example: sydentish keys retire ed25519:1
    """
    config = read_config(config_path)
    before = _find(config, key_id)
    try:
        retire_key(config.general.key_dir, key_id)
    except KeyProblem as problem:
        end_for(problem, config, config_path)
    if before.state is KeyState.RETIRED:
        click.echo(f"{key_id}: was retired already")
        return
    click.echo(f"{key_id}: is retired: it signs nothing, and what it has signed stays valid")
    print_taken_up()


@click.command()
@config_option
@id_argument
@click.option("--rotate", "rotating", is_flag=True, help="If the key is the active one, rotate first.")
@yes_option
def revoke(config_path: Path, key_id: str, rotating: bool, yes: bool) -> None:  # noqa: FBT001 - flags of the command line
    """Declare a key invalid for good, for example because somebody else has it.

    Whatever it has signed is valid no more: pubkey/KEYID answers 404 from then on, and pubkey/isvalid false. Associations
    are signed whenever they are asked for, so they get the key that is active then. Invitations that were left here name
    the public key that was active then: there, it shows as invalid. Peers are not told: their operators must take the
    key out themselves.

    Example: sydentish keys revoke ed25519:0
    """
    config = read_config(config_path)
    key = _find(config, key_id)
    if key.state is KeyState.REVOKED:
        click.echo(f"{key_id}: was revoked already")
        return
    try:
        if not rotating:
            must_not_sign(key)
        keys = read_keys(config, config_path)
        peers = names_of_peers(config)
        if key.state is KeyState.ACTIVE and peers:
            warn_of_rotation(config, keys, peers)
        click.echo(f"{key_id}: what it has signed will be valid no more; this cannot be taken back", err=True)
        confirm(f"Revoke {key_id}?", yes=yes)
        if key.state is KeyState.ACTIVE:
            rotate_from(config, config_path, keys, peers)
        revoke_key(config.general.key_dir, key_id)
    except KeyProblem as problem:
        end_for(problem, config, config_path)
    click.echo(f"{key_id}: is revoked")
    print_taken_up()
    if peers:
        click.echo(f"Have the operators of your peers take it out, if they have it: {', '.join(peers)}")


def _find(config: Config, key_id: str) -> Key:
    """The key of that ID; ends the program if there is none."""
    key_dir = config.general.key_dir
    try:
        found = next((file.key for file in inventory(key_dir) if file.key.key_id == key_id), None)
    except KeyProblem as problem:
        refuse(str(problem))
    if found is None:
        cannot_run(f"{key_id}: there is no such key in {key_dir}; see sydentish keys list")
    return found
