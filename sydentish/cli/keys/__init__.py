"""`sydentish keys`."""

import click

from sydentish.cli.keys.ending import retire, revoke
from sydentish.cli.keys.listing import list_keys
from sydentish.cli.keys.making import generate, rotate


@click.group()
def keys() -> None:
    """Signing keys.

    One is active, and signs. The next one can be made ahead, so that peers know it before it signs. Retired keys sign no
    more, but what they have signed stays valid; revoked keys are valid for nothing.
    """


for _command in (list_keys, generate, rotate, retire, revoke):
    keys.add_command(_command)
