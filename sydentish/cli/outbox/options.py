"""What the commands on the outbox share."""

import click

from sydentish.actions.outbox import KINDS

kind_option = click.option("--kind", type=click.Choice(KINDS), help="Only rows of this kind.")
"""`--kind`."""

destination_option = click.option("--destination", metavar="NAME", help="Only rows to this destination.")
"""`--destination`."""

UNKNOWN = "there is no such row; see sydentish outbox list"
"""What is told of a number that is nobody's."""
