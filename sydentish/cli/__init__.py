"""The command line."""

import click

from sydentish.cli.accounts import accounts
from sydentish.cli.backup import backup
from sydentish.cli.bindings import bindings
from sydentish.cli.check_config import check_config
from sydentish.cli.doctor import doctor
from sydentish.cli.erase import erase
from sydentish.cli.invites import invites
from sydentish.cli.keys import keys
from sydentish.cli.outbox import outbox
from sydentish.cli.peers import peers
from sydentish.cli.restore import restore
from sydentish.cli.serve import serve
from sydentish.cli.stats import stats
from sydentish.cli.sydent import import_sydent
from sydentish.cli.verify import verify


class Commands(click.Group):
    """A group that shows its commands in the order in which they were added."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sydentish")
def main() -> None:
    """Sydentish: an identity server for Matrix."""


for _command in (serve, check_config, doctor, keys, peers, bindings, invites, accounts, outbox, erase, stats):
    main.add_command(_command)
for _command in (backup, restore, verify, import_sydent):
    main.add_command(_command)
