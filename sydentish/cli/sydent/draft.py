"""The configuration that is written: what it says, and of each setting where it comes from."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sydentish.config.problems import Problem

_WIDTH = 98
_ORDER = (
    *("general", "http", "lookup", "email", "sms", "validation", "invites", "homeservers"),
    *("replication", "budgets", "log"),
)

TRANSLATED, DECISION, DROPPED = "translated", "decision", "dropped"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the old configuration, or one of ours that it needs.

    Attributes:
        section: the section of ours; empty for what has no place there.
        key: the option of ours; empty likewise.
        value: what it is set to.
        source: what the Sydent calls it.
        told: what the operator should know of it.
        kind: `translated`, `decision` or `dropped`.
        is_set: whether it counts, or stands there as a comment.
    """

    section: str
    key: str
    value: str
    source: str
    told: str = ""
    kind: str = TRANSLATED
    is_set: bool = True

    def to_json(self) -> dict[str, str]:
        """What is printed of it: never its value."""
        into = f"[{self.section}] {self.key}".strip() if self.section else ""
        return {"setting": self.source, "outcome": self.kind, "becomes": into, "told": self.told}


class Draft:
    """Collects what is going to be written.

    Attributes:
        settings: what there is.
    """

    def __init__(self) -> None:
        self.settings: list[Setting] = []

    def translate(self, section: str, key: str, value: str, source: str, told: str = "") -> None:
        """A setting that means the same here."""
        self.settings.append(Setting(section, key, value, source, told))

    def decide(
        self, section: str, key: str, value: str, source: str, told: str, *, is_set: bool = True
    ) -> None:
        """A setting that somebody must look at."""
        self.settings.append(Setting(section, key, value, source, told, DECISION, is_set))

    def drop(self, source: str, told: str) -> None:
        """A setting that has no place here."""
        self.settings.append(Setting("", "", "", source, told, DROPPED, is_set=False))

    def remark(self, source: str, told: str) -> None:
        """Something that somebody must look at, and is no setting here."""
        self.settings.append(Setting("", "", "", source, told, DECISION, is_set=False))

    def give_up(self, problem: Problem) -> bool:
        """Has what a problem is about stand there as a comment, for somebody to look at; whether there was any."""
        named = " " in (problem.section or "")
        found = [
            each
            for each in self.settings
            if each.is_set and each.section == problem.section and (named or each.key == problem.key)
        ]
        for each in found:
            told = problem.message if each.key == problem.key or not named else "belongs to what is above"
            told = f"{each.told}; not taken: {told}" if each.told else f"not taken: {told}"
            self.settings[self.settings.index(each)] = replace(each, kind=DECISION, is_set=False, told=told)
        return bool(found)

    def of_kind(self, kind: str) -> list[Setting]:
        """The settings of a kind."""
        return [each for each in self.settings if each.kind == kind]

    def text(self, source: str) -> str:
        """The file.

        Args:
            source: what it was made from.
        """
        blocks = [
            _comment(
                f"The configuration of Sydentish, made from {source} by sydentish import-sydent. What says DECIDE needs "
                "somebody to look at it. Options that do not stand here have their defaults; sydentish.conf.sample "
                "explains all of them."
            )
        ]
        named = [each.section for each in self.settings if each.section not in ("", *_ORDER)]
        for section in (*_ORDER, *dict.fromkeys(named)):
            own = [each for each in self.settings if each.section == section]
            if own:
                # Without anything that counts, a section of a name of its own would be one that lacks its options.
                head = (
                    f"[{section}]"
                    if section in _ORDER or any(each.is_set for each in own)
                    else f"#[{section}]"
                )
                blocks += ["", head, *(_written(each) for each in own)]
        homeless = [each for each in self.settings if not each.section]
        blocks += [f"\n{_note(each)}" for each in homeless]
        return "\n".join(blocks) + "\n"


def _written(setting: Setting) -> str:
    first, *rest = setting.value.split("\n")
    lines = [f"{setting.key} = {first}", *(f"    {line}" for line in rest)]
    if not setting.is_set:
        lines = [f"#{line}" for line in lines]
    return "\n".join([_note(setting), *lines, ""]).rstrip("\n") + "\n"


def _note(setting: Setting) -> str:
    word = {TRANSLATED: "", DECISION: "DECIDE: ", DROPPED: "Dropped: "}[setting.kind]
    told = f": {setting.told}" if setting.told else ""
    return _comment(f"{word}{setting.source}{told}")


def _comment(text: str) -> str:
    # Whatever stands in the old file, nothing of it may end the comment.
    printable = "".join(c if c.isprintable() else " " for c in text)
    return textwrap.fill(
        printable,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def summary(settings: Iterable[Setting]) -> dict[str, int]:
    """How many settings there are of each kind."""
    counts = {TRANSLATED: 0, DECISION: 0, DROPPED: 0}
    for each in settings:
        counts[each.kind] += 1
    return counts
