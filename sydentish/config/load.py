"""The loader: file and environment, chosen, parsed and checked; all problems at once."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sydentish.config import (
    checks,
    credentials,
    environment,
    files,
    gateway_sections,
    ini,
    named,
    peer_sections,
    policies,
    suspicions,
)
from sydentish.config.ini import Document, Entry
from sydentish.config.model import Config, options, sections
from sydentish.config.places import places
from sydentish.config.problems import ENVIRONMENT, ConfigError, Problem, nearest
from sydentish.config.settle import Settling, doubled_secrets, without_empty

_KINDS = (gateway_sections.SECTION, peer_sections.SECTION, policies.KIND)
# What was meant to be a kind and a name, but for the blank between them.
_NAMED = re.compile(rf"({'|'.join(_KINDS)})s?[-_.:/ ]+([0-9A-Za-z][0-9A-Za-z_.:-]*)", re.IGNORECASE)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Reads the configuration; nothing is written, and nothing but files that options name is looked at.

    A value comes from the environment (`SYDENTISH_<SECTION>__<KEY>`), else from the file, else it is the
    default. What the environment sets is not looked at in the file. An empty value of an option that may be
    absent is the same as none. `credential:NAME` stands for a file that systemd has handed over.

    Args:
        path: the file, or None to use the environment alone.
        environ: the environment variables, as `os.environ`.

    Raises:
        ConfigError: when anything is wrong, with all that is wrong.
    """
    document, overrides, environment_problems, no_credentials = _said(path, environ)
    terms, policy_problems = policies.read(document)
    gateways, gateway_problems = gateway_sections.read(document)
    peers, peer_problems = peer_sections.read(document)
    chosen = _choose(document.entries, overrides)
    settling = Settling(document, chosen)
    settled = {section: settling.section(section, section_type) for section, section_type in sections()}
    problems = [
        *document.problems,
        *environment_problems,
        *_unknown(document),
        *doubled_secrets(document.entries, options()),
        *doubled_secrets(overrides, options()),
        # The other half could stand in a file that cannot be read.
        *(() if document.unread else checks.problems(settled, chosen, gateways, peers)),
        *settling.problems,
        *policy_problems,
        *gateway_problems,
        *peer_problems,
    ]
    problems = credentials.without_echo(problems, no_credentials)
    if document.unread:
        # What else there is to say of the file would not be true.
        problems = [*document.problems, *(problem for problem in problems if problem.source == ENVIRONMENT)]
    if problems:
        raise ConfigError(problems)
    made: dict[str, Any] = {section: section_type(**settled[section]) for section, section_type in sections()}
    made["sms_gateways"] = gateway_sections.used(gateways, made["sms"].gateways)
    made["peers"] = peer_sections.known(peers)
    config = Config(**made, policies=terms, warnings=(), places=places(document, chosen))
    return replace(config, warnings=suspicions.warnings(config, chosen, gateways, document.source))


def _said(
    path: Path | None, environ: Mapping[str, str]
) -> tuple[Document, tuple[Entry, ...], tuple[Problem, ...], tuple[Problem, ...]]:
    """What the file says, what the environment does, what is wrong there, and what with credentials in either."""
    document = _document(path)
    overrides, problems = environment.read(environ, _known())
    entries, unknown = credentials.resolved(document.entries, environ)
    overrides, also_unknown = credentials.resolved(overrides, environ)
    # What the environment sets, in either way where it is a secret, is not looked at in the file.
    settled = {(entry.section, entry.key.removesuffix("_file")) for entry in overrides}
    unknown = tuple(
        each for each in unknown if (each.section, (each.key or "").removesuffix("_file")) not in settled
    )
    return replace(document, entries=entries), overrides, problems, (*unknown, *also_unknown)


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
    return without_empty(chosen, options())


def _unknown(document: Document) -> Iterator[Problem]:
    known: dict[str, list[str]] = {}
    for section, key in _known():
        known.setdefault(section, []).append(key)
    for section, line in document.sections.items():
        if section and section not in known and not _is_of_a_kind(section):
            yield Problem(document.source, line, section, None, f"is no section{_meant(section, known)}")
    for entry in document.entries:
        if entry.section in known and entry.key not in known[entry.section]:
            yield entry.problem(
                f"is no option of this section{_elsewhere(entry.key, known[entry.section], known)}"
            )


def _meant(section: str, known: Collection[str]) -> str:
    if section in _KINDS:
        return f"; did you mean [{section} NAME]?"
    of_a_kind = _NAMED.fullmatch(section)
    if of_a_kind is not None:
        return f"; did you mean [{of_a_kind[1].lower()} {of_a_kind[2]}]?"
    return nearest(section.split(maxsplit=1)[0], [*known, *_KINDS])


def _is_of_a_kind(section: str) -> bool:
    return policies.is_policy(section) or any(
        named.is_of(kind, section) for kind in (gateway_sections.SECTION, peer_sections.SECTION)
    )


def _elsewhere(key: str, here: list[str], known: Mapping[str, list[str]]) -> str:
    homes = [f"[{section}]" for section, keys in known.items() if key in keys]
    homes += [f"[{kind.SECTION} NAME]" for kind in (gateway_sections, peer_sections) if key in kind.KEYS]
    return f"; it belongs into {' or '.join(homes)}" if homes else nearest(key, here)
