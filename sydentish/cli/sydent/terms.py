"""The terms of a Sydent, a file in YAML."""

import re
from collections.abc import Mapping
from pathlib import Path

from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig, OldConfigProblem

_SOURCE = "[general] terms.path"
_NEEDED = "pip install 'sydentish[sydent]' brings it"


def translate(draft: Draft, old: OldConfig) -> str | None:
    """Adds a section for each policy; what a Sydent calls all of them together, or None without any.

    Raises:
        OldConfigProblem: the file cannot be read.
    """
    if not old.get("general", "terms.path"):
        return None
    path = old.path_of(old.get("general", "terms.path"))
    edition, policies = _read(path)
    for policy, (version, languages) in policies.items():
        section = f"policy {_id(policy)}"
        draft.translate(section, "version", version, f"{_SOURCE}: {policy}")
        for language, (name, url) in languages.items():
            draft.translate(section, f"{language}.name", name, f"{policy}, {language}")
            draft.translate(section, f"{language}.url", url, f"{policy}, {language}")
    draft.drop(
        f"{_SOURCE}: master_version", "here each policy has a version, and a new one is asked for by itself"
    )
    return edition


def _id(policy: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.-]", "_", policy)


def _read(path: Path) -> tuple[str, dict[str, tuple[str, dict[str, tuple[str, str]]]]]:
    try:
        # Nothing else needs it.
        import yaml  # noqa: PLC0415
    except ImportError:
        raise OldConfigProblem(f"{path}: PyYAML is needed to read the terms: {_NEEDED}") from None
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OldConfigProblem(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OldConfigProblem(f"{path}: is no YAML: {error}") from None
    try:
        return str(value["master_version"]), {str(name): _policy(doc) for name, doc in value["docs"].items()}
    except (KeyError, TypeError, AttributeError):
        raise OldConfigProblem(
            f"{path}: must have master_version, and docs with version and langs, each with name and url"
        ) from None


def _policy(doc: Mapping[str, Mapping[str, Mapping[str, str]]]) -> tuple[str, dict[str, tuple[str, str]]]:
    languages = {str(code): (str(text["name"]), str(text["url"])) for code, text in doc["langs"].items()}
    return str(doc["version"]), languages
