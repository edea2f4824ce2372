"""Sections of a kind, each with a NAME: what `[sms NAME]` and `[peer NAME]` have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from sydentish.config.declare import keys
from sydentish.config.ini import Document, Entry
from sydentish.config.problems import Problem
from sydentish.config.settle import Settling, doubled_secrets, without_empty

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Defined(Generic[T]):
    """What a section says.

    Attributes:
        name: behind the kind in the section's name.
        place: a problem without a message: where the section begins.
        entries: what it says, by key.
        meaning: what that means, or None when anything is wrong with it.
    """

    name: str
    place: Problem
    entries: Mapping[str, Entry]
    meaning: T | None = None

    @property
    def section(self) -> str:
        """Its name, as it is written between the brackets."""
        return self.place.section or ""

    def says(self, key: str) -> str:
        """What the section says, as it is written; empty where it says nothing."""
        return self.entries[key].value if key in self.entries else ""

    def problem(self, key: str | None, message: str) -> Problem:
        """A problem with a key where it stands, or with the section when it does not."""
        if key is not None and key in self.entries:
            return self.entries[key].problem(message)
        return Problem(self.place.source, self.place.line, self.place.section, key, message)


Reader = Callable[[Document, Defined[T]], tuple[T | None, list[Problem]]]


def is_of(kind: str, section: str) -> bool:
    """Whether a section, by its name, is meant to be of a kind."""
    return section.startswith(f"{kind} ")


def read(document: Document, kind: str, reader: Reader[T]) -> tuple[tuple[Defined[T], ...], list[Problem]]:
    """The sections of a kind in the order of the file, and what is wrong with them.

    Args:
        document: the file.
        kind: the word before the NAME.
        reader: gives what a section means, or else what is wrong with it.
    """
    found: list[Defined[T]] = []
    problems: list[Problem] = []
    for section, line in document.sections.items():
        if is_of(kind, section):
            entries = {entry.key: entry for entry in document.entries if entry.section == section}
            place = Problem(document.source, line, section, None, "")
            defined: Defined[T] = Defined(section.partition(" ")[2], place, entries)
            meaning, wrong = reader(document, defined)
            found.append(replace(defined, meaning=meaning))
            problems.extend(wrong)
    return tuple(found), problems


def settle(
    document: Document, defined: Defined[Any], section_type: type[Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """The values of a section by field, as far as they could be parsed, and what is wrong with them.

    Args:
        document: the file.
        defined: what the section says.
        section_type: the class that its options are declared in.
    """
    declared = [(defined.section, key, declaration) for key, declaration in keys(section_type)]
    entries = list(defined.entries.values())
    chosen = without_empty({(defined.section, entry.key): entry for entry in entries}, declared)
    settling = Settling(document, chosen)
    settled = settling.section(defined.section, section_type)
    return settled, [*doubled_secrets(entries, declared), *settling.problems]
