"""`sydentish peers`."""

import click

from sydentish.cli.peers.changing import add, pause, remove, resume
from sydentish.cli.peers.recalling import recall
from sydentish.cli.peers.showing import list_peers, show
from sydentish.cli.peers.trying import resync, test


@click.group(short_help="Identity servers that know the same.")
def peers() -> None:
    """The identity servers that associations are exchanged with.

    They stand in the configuration, or are added here; a running server hears of what is done here within seconds.
    """


for _command in (list_peers, show, add, remove, pause, resume, test, resync, recall):
    peers.add_command(_command)
