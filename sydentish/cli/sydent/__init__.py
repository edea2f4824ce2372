"""`sydentish import-sydent`."""

from sydentish.cli.sydent.command import import_sydent

__all__ = ["import_sydent"]
