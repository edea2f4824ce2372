"""The brands that an operator has: folders of templates."""

import difflib
import re
import stat
from collections.abc import Collection
from pathlib import Path

_BRAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def brand_folders(custom: Path | None) -> tuple[list[Path], list[str]]:
    """The folders of brands, in alphabetical order, and what keeps others from being one.

    A folder that cannot be read is a brand all the same, so that it is told of only once.

    Args:
        custom: the operator's directory of such folders, or None.
    """
    if custom is None:
        return [], []
    try:
        paths = sorted(path for path in custom.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return [], [f"{custom}: cannot be read: {error.strerror}"]
    folders: list[Path] = []
    problems: list[str] = []
    for path in paths:
        try:
            if not stat.S_ISDIR(path.stat().st_mode):
                continue
            problem = _problem(path)
        except OSError as error:
            problem = f"brand {path.name!r}: cannot be read: {error.strerror}"
        if problem is None or _BRAND.fullmatch(path.name):
            folders.append(path)
        if problem is not None:
            problems.append(problem)
    return folders, problems


def _problem(folder: Path) -> str | None:
    """What is wrong with a folder of a brand.

    Raises:
        OSError: it cannot be listed, or what is in it cannot be opened.
    """
    if not _BRAND.fullmatch(folder.name):
        return f"{folder}: a brand's name has 1 to 64 characters of A-Z a-z 0-9 . _ -"
    next(folder.iterdir(), None)
    # To reach this through the folder takes the right to open files in it; to list them does not.
    (folder / "..").stat()
    return None


def no_such_brand(brand: str, brands: Collection[str], custom: Path | None) -> str:
    """What the operator is told of a default brand that does not exist.

    Args:
        brand: its name.
        brands: the names of those that exist.
        custom: as for `brand_folders`.
    """
    where = "templates_path is not set" if custom is None else f"there is no such folder in {custom}"
    nearest = difflib.get_close_matches(brand, brands, n=1)
    meant = f"did you mean {nearest[0]}?" if nearest else f"there is {', '.join(sorted(brands))}"
    return f"[general] default_brand: there is no brand {brand!r}: {where}; {meant}"
