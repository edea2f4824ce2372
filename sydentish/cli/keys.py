"""`sydentish keys`."""

import os
from pathlib import Path

import click

from sydentish.cli.common import config_option, read_config, refuse
from sydentish.domain.keys import SEED_BYTES
from sydentish.keyfiles import KeyProblem, generate_key, load_keys

FIRST_VERSION = "0"


@click.group()
def keys() -> None:
    """Signing keys."""


@keys.command()
@config_option
@click.option(
    "--version",
    default=FIRST_VERSION,
    show_default=True,
    help="What stands behind ed25519: in the key's ID; a-z A-Z 0-9 _.",
)
def generate(config_path: Path, version: str) -> None:
    """Make the signing key of a new server, in the key directory, with mode 0600.

    A key that is there is never overwritten.

    Example: sydentish keys generate -c /etc/sydentish/sydentish.conf
    """
    general = read_config(config_path).general
    try:
        path = generate_key(general.key_dir, version, os.urandom(SEED_BYTES))
        key = load_keys(general.key_dir, general.server_name).active
    except (KeyProblem, ValueError) as problem:
        refuse(str(problem))
    click.echo(f"{path}: {key.key_id}, public key {key.public_key}")
