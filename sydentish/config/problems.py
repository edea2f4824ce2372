"""What is wrong with a configuration, and where."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or for a warning suspicious.

    Attributes:
        source: the path of the file as it was given, or `environment`.
        line: the line of the file, counted from 1, or None where there is none.
        section: the section's name without brackets, or None.
        key: the option's name, or None; for an unknown environment variable the name of that.
        message: what is right instead; holds no address and no secret.
    """

    source: str
    line: int | None
    section: str | None
    key: str | None
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        section = "" if self.section is None else f"[{self.section}]"
        what = " ".join(part for part in (section, self.key or "") if part)
        return ": ".join(part for part in (place, what, self.message) if part)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems of the file by line, those without a line first; then those of the environment."""
    return tuple(sorted(problems, key=lambda problem: (problem.source == ENVIRONMENT, problem.line or 0)))


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown name: the known one that it resembles, if there is one."""
    found = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


class ConfigError(Exception):
    """The configuration cannot be used; carries all that is wrong with it.

    Attributes:
        problems: in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_order(problems)
        super().__init__("\n".join(map(str, self.problems)))
