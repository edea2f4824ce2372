"""The loader: file and environment, chosen, parsed and checked; all problems at once."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from sydentish.config import checks, environment, files, ini, policies
from sydentish.config.declare import Declaration, Secret, declarations
from sydentish.config.ini import Document, Entry
from sydentish.config.model import Config, options, sections
from sydentish.config.problems import ENVIRONMENT, ConfigError, Problem
from sydentish.domain.ids import parse_server_name

_MISSING = object()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Reads the configuration; nothing is written, and nothing but files that options name is looked at.

    A value comes from the environment (`SYDENTISH_<SECTION>__<KEY>`), else from the file, else it is the
    default. What the environment sets is not looked at in the file. An empty value of an option that may be
    absent is the same as none.

    Args:
        path: the file, or None to use the environment alone.
        environ: the environment variables, as `os.environ`.

    Raises:
        ConfigError: when anything is wrong, with all that is wrong.
    """
    document = _document(path)
    overrides, environment_problems = environment.read(environ, _known())
    terms, policy_problems = policies.read(document)
    chosen = _choose(document.entries, overrides)
    settling = _Settling(document, chosen)
    settled = {section: settling.section(section, section_type) for section, section_type in sections()}
    problems = [
        *document.problems,
        *environment_problems,
        *_unknown(document),
        *_doubled_secrets(document.entries),
        *_doubled_secrets(overrides),
        # The other half could stand in a file that cannot be read.
        *(() if document.unread else checks.half_login(chosen)),
        *settling.problems,
        *policy_problems,
    ]
    if document.unread:
        # What else there is to say of the file would not be true.
        problems = [*document.problems, *(problem for problem in problems if problem.source == ENVIRONMENT)]
    if problems:
        raise ConfigError(problems)
    made: dict[str, Any] = {section: section_type(**settled[section]) for section, section_type in sections()}
    config = Config(**made, policies=terms, warnings=())
    return Config(**made, policies=terms, warnings=checks.warnings(config, chosen, document.source))


def _document(path: Path | None) -> Document:
    if path is None:
        return Document(ENVIRONMENT)
    source = str(path)
    try:
        return ini.parse(source, files.read_bounded(path).decode())
    except OSError as error:
        message = f"cannot be read: {files.reason(error)}"
        if isinstance(error, FileNotFoundError):
            message += "; name the file with -c, or begin with a copy of sydentish.conf.sample"
    except UnicodeDecodeError as error:
        message = f"must be UTF-8 text: byte {error.start} is not"
    except ValueError:
        message = "cannot be read: the name is not one of a file"
    return Document(source, problems=(Problem(source, None, None, None, message),), unread=True)


def _known() -> list[tuple[str, str]]:
    return [(section, key) for section, key, _ in options()]


def _secrets() -> list[tuple[str, str]]:
    return [(section, key) for section, key, declaration in options() if declaration.secret]


def _choose(file: tuple[Entry, ...], overrides: tuple[Entry, ...]) -> dict[tuple[str, str], Entry]:
    """The entry that counts for each option; an empty one is left out where that means the same as none."""
    chosen = {(entry.section, entry.key): entry for entry in file}
    for entry in overrides:
        chosen[entry.section, entry.key] = entry
    for section, key in _secrets():
        # A secret set in the environment, in either way, replaces the file's, in either way.
        variants = [(section, key), (section, f"{key}_file")]
        given = [chosen[variant] for variant in variants if variant in chosen]
        if any(entry.source == ENVIRONMENT for entry in given):
            for entry in given:
                if entry.source != ENVIRONMENT:
                    del chosen[entry.section, entry.key]
    for section, key, declaration in options():
        if (section, key) in chosen and not chosen[section, key].value and not declaration.default:
            del chosen[section, key]
    return chosen


def _unknown(document: Document) -> Iterator[Problem]:
    known: dict[str, list[str]] = {}
    for section, key in _known():
        known.setdefault(section, []).append(key)
    for section, line in document.sections.items():
        if section and section not in known and not policies.is_policy(section):
            yield Problem(
                document.source,
                line,
                section,
                None,
                f"is no section{_nearest(section.split()[0], [*known, policies.KIND])}",
            )
    for entry in document.entries:
        if entry.section in known and entry.key not in known[entry.section]:
            yield entry.problem(
                f"is no option of this section{_elsewhere(entry.key, known[entry.section], known)}"
            )


def _elsewhere(key: str, here: list[str], known: Mapping[str, list[str]]) -> str:
    homes = [f"[{section}]" for section, keys in known.items() if key in keys]
    return f"; it belongs into {' or '.join(homes)}" if homes else _nearest(key, here)


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _doubled_secrets(entries: tuple[Entry, ...]) -> Iterator[Problem]:
    given = {(entry.section, entry.key): entry for entry in entries if entry.value}
    for section, key in _secrets():
        by_file = given.get((section, f"{key}_file"))
        if by_file is not None and (section, key) in given:
            yield by_file.problem(f"give either {key} or {key}_file, not both")


class _Settling:
    """Turns entries into values, and keeps what is wrong with them."""

    def __init__(self, document: Document, chosen: Mapping[tuple[str, str], Entry]) -> None:
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
            return self._parsed(self._chosen[section, f"{key}_file"], _secret_from_file)
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


def _secret_from_file(value: str) -> Secret:
    return Secret(files.read_secret(value))
