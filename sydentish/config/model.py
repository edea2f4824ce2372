"""The whole configuration, and a walk over everything that is declared for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, cast

from sydentish.config.declare import Declaration, keys
from sydentish.config.gateways import GatewaySection
from sydentish.config.places import Places
from sydentish.config.problems import Problem
from sydentish.config.sections import (
    Budgets,
    Database,
    Email,
    General,
    Health,
    Homeservers,
    Http,
    Invites,
    Keeping,
    Log,
    Lookup,
    Onbind,
    Replication,
    Sms,
    Validation,
)
from sydentish.domain.peers import Peer
from sydentish.domain.terms import Terms

_NO_SECTIONS = ("policies", "sms_gateways", "peers", "warnings", "places")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; every attribute but the last five is the section of that name.

    Attributes:
        policies: from the `[policy ID]` sections, in the order of the file.
        sms_gateways: the `[sms NAME]` sections that `[sms] gateways` names, in its order.
        peers: from the `[peer NAME]` sections, in the order of the file.
        warnings: what is allowed but suspicious, in the order of the file.
        places: where all of that stands.
    """

    general: General
    http: Http
    database: Database
    lookup: Lookup
    email: Email
    sms: Sms
    validation: Validation
    invites: Invites
    homeservers: Homeservers
    onbind: Onbind
    replication: Replication
    budgets: Budgets
    keeping: Keeping
    health: Health
    log: Log
    policies: Terms
    sms_gateways: tuple[GatewaySection, ...]
    peers: tuple[Peer, ...]
    warnings: tuple[Problem, ...]
    places: Places = field(repr=False, compare=False)


def sections() -> Iterator[tuple[str, type[Any]]]:
    """The name and the class of each section with fixed options, in the order of the file."""
    for section in fields(Config):
        if section.name not in _NO_SECTIONS:
            yield section.name, cast("type[Any]", section.type)


def options() -> Iterator[tuple[str, str, Declaration]]:
    """Section, key and declaration of every option of those sections, in the order of the file.

    A secret is followed by its `<key>_file` variant.
    """
    for section, section_type in sections():
        for key, declaration in keys(section_type):
            yield section, key, declaration
