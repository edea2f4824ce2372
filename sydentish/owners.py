"""What root does in other people's folders, it does as they: whoever owns a folder can put a link in anything's way."""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sydentish.disk import make_missing

# As many as Linux follows (path_resolution(7)).
_MOST_LINKS = 40


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Has root work as the owner of a folder, to whom whatever is made then belongs; anybody else stays who they are.

    It holds for all threads of the process.

    Args:
        folder: there need not be one yet: then whose the folder is that is going to hold it.

    Raises:
        OSError: root may not do that here.
    """
    owner = _other_owner(folder) if os.geteuid() == 0 else None
    if owner is None:
        yield
        return
    uid, gid, groups = _identity(owner)
    before = os.getegid(), os.getgroups()
    os.setgroups(groups)
    try:
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def make_private(folder: Path) -> None:
    """As `make_missing`, for nobody but the owner of the directory that is there."""
    with as_owner_of(folder):
        make_missing(folder)


def is_others(folder: Path) -> bool:
    """Whether `as_owner_of` would make somebody else of this process."""
    return os.geteuid() == 0 and _other_owner(folder) is not None


def _other_owner(folder: Path) -> os.stat_result | None:
    """The last one on the way to a folder who is not root; None if all of it is root's.

    A link of root's leads on; anybody else's may lead wherever that one likes, so it is that one who counts.
    """
    left = list(reversed(folder.absolute().parts))
    here, other, links = Path(left.pop()), None, 0
    while left:
        part = left.pop()
        if part == "..":
            here = here.parent
            continue
        try:
            found = (here / part).lstat()
        except (FileNotFoundError, NotADirectoryError):
            break
        if found.st_uid != 0:
            other = found
        if not stat.S_ISLNK(found.st_mode):
            here /= part
            continue
        links += 1
        if found.st_uid != 0 or links > _MOST_LINKS:
            break
        target = (here / part).readlink()
        left += reversed(target.parts)
        if target.is_absolute():
            here = Path(left.pop())
    return other


def _identity(owner: os.stat_result) -> tuple[int, int, list[int]]:
    """Whom to be: user, group and further groups. A group that the user is not in gives nobody its rights."""
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:
        return owner.st_uid, owner.st_gid, [owner.st_gid]
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return owner.st_uid, owner.st_gid if owner.st_gid in groups else user.pw_gid, groups
