"""The whole configuration, and a walk over everything that is declared for it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, cast

from sydentish.config import files, values
from sydentish.config.declare import Declaration, declarations
from sydentish.config.problems import Problem
from sydentish.config.sections import (
    Database,
    Email,
    General,
    Homeservers,
    Http,
    Log,
    Lookup,
    Onbind,
    Validation,
)
from sydentish.domain.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; every attribute but the last two is the section of that name.

    Attributes:
        policies: from the `[policy ID]` sections, in the order of the file.
        warnings: what is allowed but suspicious, in the order of the file.
    """

    general: General
    http: Http
    database: Database
    lookup: Lookup
    email: Email
    validation: Validation
    homeservers: Homeservers
    onbind: Onbind
    log: Log
    policies: Terms
    warnings: tuple[Problem, ...]


def sections() -> Iterator[tuple[str, type[Any]]]:
    """The name and the class of each section with fixed options, in the order of the file."""
    for section in fields(Config):
        if section.name not in ("policies", "warnings"):
            yield section.name, cast("type[Any]", section.type)


def options() -> Iterator[tuple[str, str, Declaration]]:
    """Section, key and declaration of every option, in the order of the file.

    A secret is followed by its `<key>_file` variant.
    """
    for section, section_type in sections():
        for name, declaration in declarations(section_type):
            key = declaration.key or name
            yield section, key, declaration
            if declaration.secret:
                about = f"A file whose one line is the value of {key}, for example a systemd credential."
                yield section, f"{key}_file", Declaration(values.optional(files.path), "", about)
