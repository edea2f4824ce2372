"""The pages of the documentation, and what stands in them: blocks of code, commands, tables, links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`]+)`")
_OPERATORS = "|&;<>()"


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: where it stands.
        line: that of its first line.
        language: what it says it is; empty if nothing.
        text: without the indentation that it has as a whole.
    """

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """The name of a page, as people say it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of one language in a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 2, language, dedent(match["text"]))
        for match in _FENCE.finditer(text)
        if match["language"] == language
    ]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def lines(script: str) -> list[str]:
    """The lines of a script; those that end in a backslash go on."""
    return [line for line in script.replace("\\\n", " ").splitlines() if line.strip()]


def commands(script: str, program: str) -> list[list[str]]:
    """Each call of a program in a script, as words; what the shell would do with the rest does not matter."""
    found: list[list[str]] = []
    for line in lines(script):
        try:
            words = shlex.shlex(line, posix=True, punctuation_chars=_OPERATORS)
            words.whitespace_split = True
            current: list[str] = []
            for word in [*words, ";"]:
                if set(word) <= set(_OPERATORS):
                    found.append(current)
                    current = []
                else:
                    current.append(word)
        except ValueError:
            # A quotation over several lines.
            continue
    calls = [call for words in found for call in [_without_surroundings(words)] if call]
    return [call for call in calls if call[0] == program]


def _without_surroundings(words: list[str]) -> list[str]:
    """A command without the variables and the user that it is to have."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words[4:] if words[:2] == ["runuser", "-u"] and words[3:4] == ["--"] else words


def spans(page: Path) -> list[str]:
    """What stands between single backticks in the text of a page, on one line."""
    return [" ".join(span.split()) for span in _SPAN.findall(prose(page))]


def rows(page: Path) -> list[list[str]]:
    """All rows of all tables in a page, as cells."""
    found = [line for line in prose(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found]


def links(page: Path) -> list[str]:
    """Where the links of a page lead to."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = 0
        while (unique := f"{anchor}-{count}" if count else anchor) in found:
            count += 1
        found.add(unique)
    return found
