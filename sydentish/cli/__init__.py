"""The command line."""

import click

from sydentish.cli.check_config import check_config
from sydentish.cli.keys import keys
from sydentish.cli.peers import peers
from sydentish.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sydentish")
def main() -> None:
    """Sydentish: an identity server for Matrix."""


main.add_command(serve)
main.add_command(check_config)
main.add_command(keys)
main.add_command(peers)
