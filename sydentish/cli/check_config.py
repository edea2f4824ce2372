"""`sydentish check-config`."""

from pathlib import Path

import click

from sydentish.cli.common import config_option, read_config, refuse
from sydentish.cli.setup import look_over


@click.command("check-config", short_help="Check the configuration.")
@config_option
def check_config(config_path: Path) -> None:
    """Check the configuration, and the files and directories it names, and change nothing.

    Exit status 0 when the server would start with them, 78 when it would not. Whether a file can be used
    is asked for the user who runs this command: run it as the server's.

    Example: sydentish check-config -c /etc/sydentish/sydentish.conf
    """
    problems, warnings = look_over(read_config(config_path), config_path)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if problems:
        refuse(*problems)
    click.echo(f"{config_path}: ok")
