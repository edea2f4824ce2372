"""The `[sms NAME]` sections: which gateways there are, and what is wrong with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sydentish.config import phones
from sydentish.config.declare import Declaration, keys
from sydentish.config.gateways import KINDS, GatewaySection
from sydentish.config.ini import Document, Entry
from sydentish.config.problems import Problem, nearest
from sydentish.config.settle import Settling, doubled_secrets, without_empty

SECTION = "sms"

_KIND = "kind"
# The keys of all kinds.
KEYS = frozenset({_KIND}.union(*(dict(keys(gateway_type)) for gateway_type in KINDS.values())))


@dataclass(frozen=True, slots=True)
class Defined:
    """What a section says.

    Attributes:
        name: behind `sms` in the section's name.
        place: a problem without a message: where the section begins.
        entries: what it says, by key.
        gateway: what that means, or None when anything is wrong with it.
    """

    name: str
    place: Problem
    entries: Mapping[str, Entry]
    gateway: GatewaySection | None

    def says(self, key: str) -> str:
        """What the section says, as it is written; empty where it says nothing."""
        return self.entries[key].value if key in self.entries else ""

    def problem(self, key: str | None, message: str) -> Problem:
        """A problem with a key where it stands, or with the section when it does not."""
        if key is not None and key in self.entries:
            return self.entries[key].problem(message)
        return Problem(self.place.source, self.place.line, self.place.section, key, message)


def is_gateway(section: str) -> bool:
    """Whether a section, by its name, is meant to be a gateway."""
    return section.startswith(f"{SECTION} ")


def options(section: str, gateway_type: type[Any]) -> Iterator[tuple[str, str, Declaration]]:
    """Section, key and declaration of every option of a kind of gateway, but for `kind` itself."""
    return ((section, key, declaration) for key, declaration in keys(gateway_type))


def read(document: Document) -> tuple[tuple[Defined, ...], list[Problem]]:
    """The gateways of a file in its order, and what is wrong with them."""
    found: list[Defined] = []
    problems: list[Problem] = []
    for section, line in document.sections.items():
        if is_gateway(section):
            entries = [entry for entry in document.entries if entry.section == section]
            defined, wrong = _read(document, Problem(document.source, line, section, None, ""), entries)
            found.append(defined)
            problems.extend(wrong)
    return tuple(found), problems


def used(sections: Sequence[Defined], names: Sequence[str]) -> tuple[GatewaySection, ...]:
    """The gateways that `[sms] gateways` names, in its order; what it names has a section without problems."""
    by_name = {defined.name: defined.gateway for defined in sections}
    return tuple(gateway for name in names if (gateway := by_name[name]) is not None)


def _read(document: Document, place: Problem, entries: Sequence[Entry]) -> tuple[Defined, list[Problem]]:
    section = place.section or ""
    defined = Defined(section.partition(" ")[2], place, {entry.key: entry for entry in entries}, None)
    problems = list(_wrong_name(defined))
    kind = defined.entries.get(_KIND)
    kinds = ", ".join(KINDS)
    if kind is None:
        return defined, [*problems, defined.problem(_KIND, f"must be set, to one of {kinds}")]
    if kind.value not in KINDS:
        return defined, [*problems, kind.refused(f"must be one of {kinds}")]
    gateway_type = KINDS[kind.value]
    declared = list(options(section, gateway_type))
    chosen = without_empty({(section, entry.key): entry for entry in entries}, declared)
    settling = Settling(document, chosen)
    settled: dict[str, Any] = settling.section(section, gateway_type)
    problems.extend(_unknown(kind.value, entries))
    problems.extend(doubled_secrets(entries, declared))
    problems.extend(settling.problems)
    if problems:
        return defined, problems
    return Defined(defined.name, place, defined.entries, gateway_type(name=defined.name, **settled)), []


def _wrong_name(defined: Defined) -> Iterator[Problem]:
    try:
        phones.gateway(defined.name)
    except ValueError as error:
        yield defined.problem(None, f"must be [sms NAME]; the NAME {error}")


def _unknown(kind: str, entries: Sequence[Entry]) -> Iterator[Problem]:
    known = [_KIND, *dict(keys(KINDS[kind]))]
    for entry in entries:
        if entry.key not in known:
            others = [other for other in KINDS if entry.key in dict(keys(KINDS[other]))]
            hint = f"; it belongs to the kind {' or '.join(others)}" if others else nearest(entry.key, known)
            yield entry.problem(f"is no option of the kind {kind}{hint}")
