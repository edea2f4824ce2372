"""`sydentish outbox`."""

import click

from sydentish.cli.outbox.changing import drop_rows, retry_rows
from sydentish.cli.outbox.showing import list_rows, show


@click.group(short_help="What must still be delivered.")
def outbox() -> None:
    """What must still reach homeservers (onbind), and mails of invitations (invite)."""


for _command in (list_rows, show, retry_rows, drop_rows):
    outbox.add_command(_command)
