"""`sydentish bindings`."""

import click

from sydentish.cli.bindings.changing import bind, unbind
from sydentish.cli.bindings.exporting import export_bindings
from sydentish.cli.bindings.importing import import_bindings
from sydentish.cli.bindings.showing import show


@click.group()
def bindings() -> None:
    """Which addresses belong to which Matrix users.

    What is bound or unbound here is told to homeservers and peers by a running server, within seconds.
    """


for _command in (show, bind, unbind, import_bindings, export_bindings):
    bindings.add_command(_command)
