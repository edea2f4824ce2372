"""Files that the current user may not use, also where tests run as root, who may use all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged_folder():
    """A folder that everybody can reach, and a context in which nobody's files but nobody's own can be used.

    The context takes the paths that are to be another user's: of root's if that is who runs the tests. Else they
    are of who runs them, without the rights that others have not.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder, _as_root if os.geteuid() == 0 else _as_owner


@contextmanager
def _as_root(*_paths: Path) -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def _as_owner(*paths: Path) -> Iterator[None]:
    modes = [(path, path.stat().st_mode) for path in paths]
    for path, mode in modes:
        path.chmod((mode & 0o7) * 0o111)
    try:
        yield
    finally:
        for path, mode in modes:
            path.chmod(mode | 0o700)
