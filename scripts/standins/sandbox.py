"""Runs a command with some of the sandboxing of a unit: python -m standins.sandbox UNIT COMMAND...

What needs no mounts and no users of its own: the filter of system calls, as systemd-analyze knows the names of its groups;
memory that is never writable and executable, by the rules of systemd 252; families of addresses, capabilities, the umask
and the limit of open files. It takes libseccomp and systemd-analyze.
"""

import ctypes
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from standins.systemd import Unit

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
_NO_NEW_PRIVILEGES = 38
_DROP_FROM_BOUNDING_SET = 24
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
_WRITE, _EXECUTE = 2, 4
_SHM_EXECUTE = 0o100000


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("one", ctypes.c_uint64),
        ("two", ctypes.c_uint64),
    )


class _Filter:
    """A filter of system calls, by libseccomp."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(default))

    def add(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # another architecture's
            return
        array = (_Comparison * len(comparisons))(*(_Comparison(*each) for each in comparisons))
        _check(
            self._library.seccomp_rule_add_array(
                self._context, ctypes.c_uint32(action), number, len(comparisons), array
            )
        )

    def load(self) -> None:
        _check(self._library.seccomp_load(self._context))


def _check(outcome: int) -> None:
    if outcome:
        raise OSError(-outcome, os.strerror(-outcome))


def names_in(group: str) -> set[str]:
    """The system calls of a group, those of the groups in it included."""
    if not group.startswith("@"):
        return {group}
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    return set().union(*(names_in(word) for word in words if word and not word.startswith("#")))


def allowed(filters: Iterable[str]) -> set[str]:
    """The system calls that the values of SystemCallFilter leave."""
    # What systemd adds to every list of what is allowed.
    found = names_in("@default")
    for value in filters:
        names = set().union(*map(names_in, value.removeprefix("~").split()))
        found = found - names if value.startswith("~") else found | names
    return found


def confine(unit: Unit) -> None:
    """Puts this process, and what it becomes, into the sandbox."""
    os.umask(int(unit.one("Service", "UMask"), 8))
    files = min(int(unit.one("Service", "LimitNOFILE")), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    names = allowed(unit.all("Service", "SystemCallFilter"))
    families = [getattr(socket, name) for name in unit.one("Service", "RestrictAddressFamilies").split()]
    libc = ctypes.CDLL(None, use_errno=True)
    # Who is not root has none, and gets none any more.
    if unit.one("Service", "CapabilityBoundingSet") == "" and os.geteuid() == 0:
        for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
            _check(libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0))
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    refuse = _ERRNO | errno.EPERM
    memory = _Filter(_ALLOW)
    if unit.all("Service", "MemoryDenyWriteExecute") == ["yes"]:
        memory.add(refuse, "mmap", (2, _MASKED_EQUAL, _WRITE | _EXECUTE, _WRITE | _EXECUTE))
        memory.add(refuse, "mprotect", (2, _MASKED_EQUAL, _EXECUTE, _EXECUTE))
        memory.add(refuse, "pkey_mprotect", (2, _MASKED_EQUAL, _EXECUTE, _EXECUTE))
        memory.add(refuse, "shmat", (2, _MASKED_EQUAL, _SHM_EXECUTE, _SHM_EXECUTE))
    calls = _Filter(refuse)
    for name in names - {"socket"}:
        calls.add(_ALLOW, name)
    for family in families:
        calls.add(_ALLOW, "socket", (0, _EQUAL, int(family), 0))
    memory.load()
    calls.load()


def main() -> None:
    """The command."""
    path, *command = sys.argv[1:]
    confine(Unit.read(Path(path)))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
