"""What is different between two configurations."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sydentish.config import gateway_sections, peer_sections, policies
from sydentish.config.declare import declarations
from sydentish.config.model import Config, sections

Place = tuple[str, str | None]
"""A section, and the key of an option; None for a section of a kind and a name, which counts as a whole."""


def differing(old: Config, new: Config) -> list[Place]:
    """What has another value, in the order of the options and then of the names."""
    options = [
        (section, declaration.key or field)
        for section, section_type in sections()
        for field, declaration in declarations(section_type)
        if getattr(getattr(old, section), field) != getattr(getattr(new, section), field)
    ]
    return [*options, *_named(old, new)]


def _named(old: Config, new: Config) -> Iterator[Place]:
    for kind, before, after in (
        (gateway_sections.SECTION, _by_name(old.sms_gateways), _by_name(new.sms_gateways)),
        (policies.KIND, _policies(old), _policies(new)),
        (peer_sections.SECTION, _by_name(old.peers), _by_name(new.peers)),
    ):
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"{kind} {name}", None


def _by_name(things: Iterable[Any]) -> Mapping[str, object]:
    return {each.name: each for each in things}


def _policies(config: Config) -> Mapping[str, object]:
    return {policy.policy_id: policy for policy in config.policies.policies}


def with_options(config: Config, other: Config, places: Iterable[tuple[str, str]]) -> Config:
    """A configuration that has some options of another one.

    Args:
        config: has the rest.
        other: has those.
        places: the section and the field of each.
    """
    for section, field in places:
        taken = replace(getattr(config, section), **{field: getattr(getattr(other, section), field)})
        config = replace(config, **{section: taken})
    return config
