"""Options to values: what counts, what is parsed, and what is wrong with it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from string import Template
from typing import Any

from sydentish.config import files
from sydentish.config.declare import Declaration, declarations
from sydentish.config.ini import Document, Entry
from sydentish.config.problems import Problem
from sydentish.domain.ids import parse_server_name

Chosen = Mapping[tuple[str, str], Entry]
Options = Iterable[tuple[str, str, Declaration]]

_MISSING = object()


def without_empty(chosen: Chosen, options: Options) -> dict[tuple[str, str], Entry]:
    """The entries without those that are empty where that means the same as none.

    Args:
        chosen: the entries by section and key.
        options: section, key and declaration of every option.
    """
    may_be_empty = {(section, key) for section, key, declaration in options if not declaration.default}
    return {place: entry for place, entry in chosen.items() if entry.value or place not in may_be_empty}


def doubled_secrets(entries: Iterable[Entry], options: Options) -> Iterator[Problem]:
    """Secrets that are given both as such and as the file they are in."""
    given = {(entry.section, entry.key): entry for entry in entries if entry.value}
    for section, key, declaration in options:
        by_file = given.get((section, f"{key}_file"))
        if declaration.secret and by_file is not None and (section, key) in given:
            yield by_file.problem(f"give either {key} or {key}_file, not both")


class Settling:
    """Turns entries into values, and keeps what is wrong with them.

    Attributes:
        problems: what is wrong.
    """

    def __init__(self, document: Document, chosen: Chosen) -> None:
        self._document = document
        self._chosen = chosen
        self._defaults: dict[str, str] = {}
        self.problems: list[Problem] = []

    def section(self, section: str, section_type: type[Any]) -> dict[str, object]:
        """The values of a section by field; fields with problems are left out, and `problems` has why.

        [general] must come first: what defaults of other options are made from stands there.
        """
        settled: dict[str, object] = {}
        for name, declaration in declarations(section_type):
            value = self._value(section, declaration.key or name, declaration)
            if value is not _MISSING:
                settled[name] = value
            if section == "general":
                self._remember(name, value)
        return settled

    def _value(self, section: str, key: str, declaration: Declaration) -> object:
        if declaration.secret and (section, f"{key}_file") in self._chosen:
            by_file = self._chosen[section, f"{key}_file"]
            return self._parsed(by_file, lambda text: declaration.parser(files.read_secret(text)))
        entry = self._chosen.get((section, key))
        if declaration.mandatory and (entry is None or not entry.value):
            return self._unset(section, key, declaration, entry)
        if entry is not None:
            return self._parsed(entry, declaration.parser)
        if not declaration.derived:
            return declaration.parser(declaration.default)
        try:
            text = Template(declaration.default).substitute(self._defaults)
        except KeyError:
            # What the default is made from has a problem of its own.
            return _MISSING
        return self._parsed(Entry(self._document.source, None, section, key, text), declaration.parser)

    def _parsed(self, entry: Entry, parser: Callable[[str], object]) -> object:
        try:
            return parser(entry.value)
        except ValueError as error:
            self.problems.append(entry.refused(str(error)))
            return _MISSING

    def _unset(self, section: str, key: str, declaration: Declaration, entry: Entry | None) -> object:
        message = f"must be set, for example to {declaration.default}"
        if declaration.secret:
            message = f"must be set, or else {key}_file"
        line = self._document.sections.get(section)
        unset = Problem(self._document.source, line, section, key, message)
        self.problems.append(unset if entry is None else entry.problem(message))
        return _MISSING

    def _remember(self, name: str, value: object) -> None:
        if name == "data_dir" and value is not _MISSING:
            self._defaults["data_dir"] = str(value)
        elif name == "server_name" and isinstance(value, str):
            parsed = parse_server_name(value)
            # Few relays take a mail from an IP address.
            self._defaults["host"] = "localhost" if parsed.is_ip else parsed.host.rstrip(".")
