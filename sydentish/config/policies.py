"""The `[policy ID]` sections: what people must accept."""

import re
from collections.abc import Mapping, Sequence

from sydentish.config.ini import Document, Entry
from sydentish.config.network import page_url
from sydentish.config.problems import Problem
from sydentish.domain.terms import Policy, PolicyText, Terms

KIND = "policy"

_ID = re.compile(r"[0-9A-Za-z_.-]{1,100}")
_VERSION = "version"
# The language's tag of two or three letters keeps `version` from being one.
_TEXT_KEY = re.compile(r"([a-z]{2,3}(?:[_-][0-9A-Za-z]{2,8})*)\.(name|url)")


def is_policy(section: str) -> bool:
    """Whether a section, by its name, is meant to be a policy."""
    return section.split(" ", 1)[0] == KIND


def read(document: Document) -> tuple[Terms, list[Problem]]:
    """The policies of a file, as far as they are right, and what is wrong with them."""
    policies: list[Policy] = []
    problems: list[Problem] = []
    for section, line in document.sections.items():
        if not is_policy(section):
            continue
        entries = [entry for entry in document.entries if entry.section == section]
        reader = _PolicyReader(Problem(document.source, line, section, None, ""), entries)
        policies.append(reader.policy(section.partition(" ")[2]))
        problems.extend(reader.problems)
    problems.extend(_shared_urls(document))
    return Terms(tuple(policies)), problems


class _PolicyReader:
    """Reads one policy and keeps what is wrong with it."""

    def __init__(self, place: Problem, entries: Sequence[Entry]) -> None:
        self._place = place
        self._entries = entries
        self.problems: list[Problem] = []

    def policy(self, policy_id: str) -> Policy:
        """The policy; with problems it is not complete."""
        if not _ID.fullmatch(policy_id):
            self._missing(None, "must be [policy ID], the ID of letters, digits, _, - and .")
        version = ""
        texts: dict[str, dict[str, Entry]] = {}
        for entry in self._entries:
            match = _TEXT_KEY.fullmatch(entry.key)
            if match is not None:
                texts.setdefault(match[1], {})[match[2]] = entry
            elif entry.key != _VERSION:
                self.problems.append(
                    entry.problem("must be version, or name and url of a language, such as en.name")
                )
            elif not entry.value or not entry.value.isprintable():
                self.problems.append(entry.problem("must be one line of printable text, such as 1.0"))
            else:
                version = entry.value
        if all(entry.key != _VERSION for entry in self._entries):
            self._missing(_VERSION, "must be set, for example to 1.0")
        if not texts:
            self._missing(None, "must have name and url of at least one language, such as en.name and en.url")
        return Policy(
            policy_id, version, tuple(self._text(language, parts) for language, parts in texts.items())
        )

    def _missing(self, key: str | None, message: str) -> None:
        self.problems.append(Problem(self._place.source, self._place.line, self._place.section, key, message))

    def _text(self, language: str, parts: Mapping[str, Entry]) -> PolicyText:
        present = next(iter(parts.values()))
        self.problems.extend(
            present.problem(f"needs {language}.{missing} beside it")
            for missing in ("name", "url")
            if missing not in parts
        )
        name = parts["name"].value if "name" in parts else ""
        url = parts["url"].value if "url" in parts else ""
        if "name" in parts and (not name or not name.isprintable()):
            self.problems.append(parts["name"].problem("must be one line of printable text"))
        try:
            url = page_url(url) if "url" in parts else ""
        except ValueError as error:
            self.problems.append(parts["url"].refused(str(error)))
        return PolicyText(language, name, url)


def _shared_urls(document: Document) -> list[Problem]:
    # Who accepts a URL accepts the policy, so a URL must belong to one policy alone.
    first: dict[str, Entry] = {}
    problems: list[Problem] = []
    for entry in document.entries:
        if not is_policy(entry.section) or not entry.key.endswith(".url") or not entry.value:
            continue
        other = first.setdefault(entry.value, entry)
        if other.section != entry.section:
            problems.append(entry.problem(f"is already a URL of [{other.section}], in line {other.line}"))
    return problems
