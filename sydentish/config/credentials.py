"""What the service manager hands over in files: `credential:NAME` as the value of an option that names one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sydentish.config.ini import Entry
from sydentish.config.problems import Problem

_PREFIX = "credential:"
_NAME = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,254}")
_KEY_DIR = "key_dir"
_VARIABLE = "CREDENTIALS_DIRECTORY"


def resolved(
    entries: Iterable[Entry], environ: Mapping[str, str]
) -> tuple[tuple[Entry, ...], tuple[Problem, ...]]:
    """The entries with the paths of credentials in place of their names, and what is wrong with those.

    Of a directory of keys, systemd makes files beside one another, `NAME_FILE`: then it is the directory of all
    credentials that has the keys in it.

    Args:
        entries: all of them; those of files, and of the directory of keys, can name a credential.
        environ: the environment variables, as `os.environ`.
    """
    found: list[Entry] = []
    problems: list[Problem] = []
    for entry in entries:
        if not entry.value.startswith(_PREFIX) or not (entry.key.endswith("_file") or entry.key == _KEY_DIR):
            found.append(entry)
            continue
        name = entry.value.removeprefix(_PREFIX).strip()
        path = Path(environ.get(_VARIABLE, ""), name)
        is_flat = entry.key == _KEY_DIR and not path.is_dir()
        if (wrong := _wrong(name, path, environ)) is not None:
            problems.append(entry.problem(wrong))
        found.append(replace(entry, value=str(path.parent if is_flat else path)))
    return tuple(found), tuple(problems)


def without_echo(problems: Iterable[Problem], worse: Sequence[Problem]) -> list[Problem]:
    """All problems, less those of options of which worse is told."""
    places = {(problem.source, problem.section, problem.key) for problem in worse}
    others = (each for each in problems if (each.source, each.section, each.key) not in places)
    return [*worse, *others]


def _wrong(name: str, path: Path, environ: Mapping[str, str]) -> str | None:
    if not _NAME.fullmatch(name):
        return f"must have the name of a credential behind {_PREFIX} such as {_PREFIX}smtp-password"
    if not environ.get(_VARIABLE):
        return (
            "names a credential, which systemd hands over to the service alone. Beside the running service, as root: "
            f"{_VARIABLE}=/run/credentials/sydentish.service sydentish ..."
        )
    if path.exists() or any(path.parent.glob(f"{name}_*")):
        return None
    return f"names a credential that systemd has not handed over: add LoadCredential={name}:/path/of/it to the unit"
