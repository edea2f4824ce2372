"""The ini reader: text to entries, each with its line. It knows sections and keys, and no option.

The grammar: `[section]`, `[kind NAME]`, `key = value`; an indented line continues the value above it; a line
that begins with `#` or `;`, indented or not, is a comment, also between continuation lines; empty lines mean
nothing. There is no interpolation and no comment behind a value. A section may appear more than once, a key
only once. Whatever breaks this becomes a problem, and reading goes on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sydentish.config.problems import Problem

# Server names have brackets of their own around IPv6 literals.
_HEADER = re.compile(r"((?:[^\[\]]|\[[^\[\]]*\])*)(.*)")
_KEY = re.compile(r"[0-9A-Za-z_.-]{1,100}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_COMMENTS = ("#", ";")
_COMMENT_BEHIND = re.compile(r"\s[#;]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key = value`, from a file or from the environment.

    Attributes:
        source: as in `Problem`.
        line: where the key stands, or None for the environment.
        section: as it is written between the brackets, blanks reduced to one.
        key: as it is written.
        value: without surrounding blanks; continuation lines are joined with newlines. Never in the repr.
    """

    source: str
    line: int | None
    section: str
    key: str
    value: str = field(repr=False)

    def problem(self, message: str) -> Problem:
        """A problem with this entry."""
        return Problem(self.source, self.line, self.section, self.key, message)

    def refused(self, message: str) -> Problem:
        """A problem with the value; it says so where the value holds what other kinds of files would leave out."""
        hints = []
        if '"' in self.value or "'" in self.value:
            hints.append("; quotes belong to the value: take them away")
        if _COMMENT_BEHIND.search(self.value):
            hints.append(
                "; what looks like a comment belongs to the value: comments stand on lines of their own"
            )
        return self.problem("".join([message, *hints]))


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says.

    Attributes:
        source: the path of the file as it was given.
        sections: the first line of each section that appears, in the order of the file.
        entries: in the order of the file; no section has a key twice.
        problems: what could not be understood.
        unread: nothing is known of what the file says, because it could not be read.
    """

    source: str
    sections: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    unread: bool = False


def parse(source: str, text: str) -> Document:
    """Takes the text of a file apart; whatever the text, nothing is raised.

    Args:
        source: what problems call the file.
        text: the decoded text, with newlines of either kind.
    """
    reader = _Reader(source)
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        reader.read(number, line.removesuffix("\r"))
    return reader.document()


@dataclass(slots=True)
class _Draft:
    line: int
    values: list[str]


class _Reader:
    """Where the reading stands: the section, and the value that a next line could continue."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sections: dict[str, int] = {}
        self._drafts: dict[tuple[str, str], _Draft] = {}
        self._problems: list[Problem] = []
        self._section: str | None = None
        self._open: _Draft | None = None

    def read(self, number: int, line: str) -> None:
        """Takes in one line, without its newline."""
        text = line.strip()
        if not text or text.startswith(_COMMENTS):
            return
        if _CONTROL.search(line):
            self._problem(number, None, "has a control character: only text is allowed")
        elif line[0].isspace():
            self._continue(number, text)
        elif text.startswith("["):
            self._begin(number, text)
        else:
            self._assign(number, text)

    def document(self) -> Document:
        """What was read so far."""
        entries = (
            Entry(self._source, draft.line, section, key, "\n".join(draft.values).strip())
            for (section, key), draft in self._drafts.items()
        )
        return Document(self._source, self._sections, tuple(entries), tuple(self._problems))

    def _problem(self, number: int, key: str | None, message: str) -> None:
        self._problems.append(Problem(self._source, number, self._section, key, message))

    def _continue(self, number: int, text: str) -> None:
        if self._open is None:
            self._problem(number, None, "is indented, but there is no option above that it could continue")
        else:
            self._open.values.append(text)

    def _begin(self, number: int, text: str) -> None:
        # A broken header still begins its section: what follows is then judged by what it was meant to be.
        (name, rest), *_ = _HEADER.findall(text[1:])
        self._section = " ".join(name.split())
        self._open = None
        self._sections.setdefault(self._section, number)
        if rest != "]" or not self._section:
            self._problem(number, None, "must be [section] and nothing else on its line")

    def _assign(self, number: int, text: str) -> None:
        key, equals, value = text.partition("=")
        key = key.rstrip()
        # What follows a broken line may continue it; it must not be added to the option before.
        self._open = _Draft(number, [value.strip()])
        if not equals or not _KEY.fullmatch(key):
            # The line isn't repeated: a secret that lost its key could be what it holds.
            self._problem(number, None, "must be [section], key = value, or a comment that begins with #")
        elif self._section is None:
            self._problem(number, key, "stands before the first [section]")
        elif (self._section, key) in self._drafts:
            first = self._drafts[self._section, key].line
            self._problem(
                number, key, f"is set twice, in line {first} and in line {number}: keep one of them"
            )
        else:
            self._drafts[self._section, key] = self._open
