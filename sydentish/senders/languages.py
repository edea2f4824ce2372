"""Short texts in several languages: which file of a brand fits whom.

`sms.txt` is for everybody, `sms.de.txt` for who reads German, `sms.de-AT.txt` for who reads it as in Austria.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# A language tag (RFC 5646); many write an underscore where it has a hyphen.
_FILE = re.compile(r"([a-z_]+)(?:\.([A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*))?\.txt")


class TextFiles:
    """The files of short texts that a brand can use, as they were when this was made."""

    def __init__(self, *folders: Path) -> None:
        """Reads which files there are.

        Args:
            folders: the brand's own, and then those that it falls back to. What cannot be read is empty.
        """
        self._folders = [_found(folder) for folder in folders]

    def all(self, name: str) -> list[str]:
        """The files of one text in all languages, and first of all the one for everybody.

        Args:
            name: of the text, such as `sms`.
        """
        others = (file for found in self._folders for (known, _), file in found.items() if known == name)
        return list(dict.fromkeys([f"{name}.txt", *others]))

    def best(self, name: str, languages: Sequence[str]) -> str:
        """The file for a person.

        A brand's own text for everybody comes before another brand's in the person's language: the operator
        wrote it because it shall be said in that way.

        Args:
            name: as for `all`.
            languages: what the person reads, best first, as language tags (RFC 5646).
        """
        wanted = [*_wanted(languages), ""]
        return next(
            (found[name, tag] for found in self._folders for tag in wanted if (name, tag) in found),
            f"{name}.txt",
        )


def _found(folder: Path) -> dict[tuple[str, str], str]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return {}
    matches = filter(None, map(_FILE.fullmatch, names))
    return {(match[1], _folded(match[2] or "")): match[0] for match in matches}


def _wanted(languages: Sequence[str]) -> Iterator[str]:
    for language in languages:
        tag = _folded(language)
        yield tag
        yield tag.partition("-")[0]


def _folded(tag: str) -> str:
    return tag.replace("_", "-").lower()
