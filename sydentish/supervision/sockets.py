"""Listening sockets that were made before the process, and are there after it: while it is away, callers wait in them.

The protocol is that of sd_listen_fds(3): the sockets are the descriptors from 3 on.
"""

import ipaddress
import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

SOCKET_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""For whom the sockets are, how many there are, and their names."""

_FIRST = 3
# What systemd calls a socket that nobody has given a name.
_NAMELESS = "unknown"
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_MOST = 1024


class SocketProblem(Exception):
    """An inherited socket is missing or cannot be used; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """A listening socket that was handed over.

    Attributes:
        name: `FileDescriptorName` of the socket unit; several can have one.
        index: which of all it is, counted from 0.
        descriptor: its number in this process; never closed by us, as it is the manager's.
        family: `AF_INET`, `AF_INET6` or `AF_UNIX`.
        address: where it listens, for messages.
        is_local: whether only this machine reaches it.
    """

    name: str
    index: int
    descriptor: int
    family: socket.AddressFamily
    address: str
    is_local: bool


class Inherited:
    """The sockets that were handed over, each for one listener.

    Args:
        sockets: in their order.
    """

    def __init__(self, sockets: Sequence[InheritedSocket] = ()) -> None:
        self._sockets = tuple(sockets)
        self._used: set[int] = set()

    @property
    def unused(self) -> list[InheritedSocket]:
        """Those that nobody has taken."""
        return [each for each in self._sockets if each.index not in self._used]

    def take(self, *, name: str | None = None, index: int | None = None) -> list[InheritedSocket]:
        """Those of a name, or the one with an index.

        Raises:
            SocketProblem: there is none, or another listener has it.
        """
        wanted = [each for each in self._sockets if name in (None, each.name) and index in (None, each.index)]
        if not wanted:
            there = ", ".join(f"{each.name} ({each.index})" for each in self._sockets) or "none at all"
            raise SocketProblem(
                f"systemd has handed over no such socket, but {there}: start the service by its socket unit "
                "(systemctl enable --now sydentish.socket), which names it with FileDescriptorName="
            )
        if any(each.index in self._used for each in wanted):
            raise SocketProblem("this socket is another listener's already")
        self._used.update(each.index for each in wanted)
        return wanted


def take_sockets(environ: MutableMapping[str, str], pid: int) -> Inherited:
    """The sockets that were handed over to this process, and to none of its children.

    Args:
        environ: the environment variables, as `os.environ`; those of the protocol are taken out.
        pid: of this process.

    Raises:
        SocketProblem: one of them is no listening stream socket.
    """
    meant_for, number, names = (environ.pop(name, None) for name in SOCKET_VARIABLES)
    if number is None or meant_for != str(pid):
        return Inherited()
    if not number.isdecimal() or int(number) > _MOST:
        raise SocketProblem("LISTEN_FDS must be a number of sockets")
    found = names.split(":") if names else [_NAMELESS] * int(number)
    if len(found) != int(number):
        raise SocketProblem("LISTEN_FDNAMES must have a name for each of the sockets of LISTEN_FDS")
    return Inherited([_inherited(name, index) for index, name in enumerate(found)])


def _inherited(name: str, index: int) -> InheritedSocket:
    descriptor = _FIRST + index
    try:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - as the system call has it
        # A copy is looked at, since closing it must not close the socket.
        with socket.socket(fileno=os.dup(descriptor)) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listens or found.type != socket.SOCK_STREAM or found.family not in _FAMILIES:
                raise SocketProblem(
                    f"the inherited socket {name} ({index}) must listen for streams (ListenStream=, Accept=no)"
                )
            address, is_local = _place(found)
            return InheritedSocket(
                name, index, descriptor, socket.AddressFamily(found.family), address, is_local
            )
    except OSError as error:
        raise SocketProblem(
            f"the inherited socket {name} ({index}) cannot be used: {error.strerror}"
        ) from error


def _place(found: socket.socket) -> tuple[str, bool]:
    where = found.getsockname()
    if found.family == socket.AF_UNIX:
        return os.fsdecode(where).replace("\0", "@"), True
    host, port = where[:2]
    shown = f"[{host}]" if found.family == socket.AF_INET6 else host
    return f"{shown}:{port}", ipaddress.ip_address(host.partition("%")[0]).is_loopback
