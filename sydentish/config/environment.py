"""Options from environment variables: `SYDENTISH_<SECTION>__<KEY>`."""

import difflib
import re
from collections.abc import Collection, Mapping

from sydentish.config.ini import Entry
from sydentish.config.problems import ENVIRONMENT, Problem

_PREFIX = "SYDENTISH_"
_SEPARATOR = "__"
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def variable(section: str, key: str) -> str:
    """The name of the environment variable that sets an option."""
    return f"{_PREFIX}{section}{_SEPARATOR}{key}".upper()


def read(
    environ: Mapping[str, str], known: Collection[tuple[str, str]]
) -> tuple[tuple[Entry, ...], tuple[Problem, ...]]:
    """The options that the environment sets, and what is wrong with its variables.

    Names without `__` behind the prefix are somebody else's and left alone.

    Args:
        environ: all variables, as `os.environ`.
        known: section and key of every option that may be set so.
    """
    by_name = {variable(section, key): (section, key) for section, key in known}
    entries: list[Entry] = []
    problems: list[Problem] = []
    for name, value in environ.items():
        if not name.startswith(_PREFIX) or _SEPARATOR not in name.removeprefix(_PREFIX):
            continue
        if name not in by_name:
            problems.append(Problem(ENVIRONMENT, None, None, ascii(name)[1:-1], _unknown(name, by_name)))
            continue
        entry = Entry(ENVIRONMENT, None, *by_name[name], value.strip())
        if _NOT_TEXT.search(value):
            problems.append(entry.problem("must be UTF-8 text without control characters"))
        else:
            entries.append(entry)
    return tuple(entries), tuple(problems)


def _unknown(name: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"is no option; did you mean {nearest[0]}?" if nearest else "is no option"
