"""All that the service manager says at the start, by environment variables that are for this process alone."""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sydentish.supervision.notify import Notifier
from sydentish.supervision.sockets import SOCKET_VARIABLES, Inherited, take_sockets


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager, or none.

    Attributes:
        notifier: tells it how the server is.
        watchdog_seconds: how long it waits for a sign of life; None when it wants none.
        sockets: what it has handed over.
    """

    notifier: Notifier = field(default_factory=lambda: Notifier(None))
    watchdog_seconds: float | None = None
    sockets: Inherited = field(default_factory=Inherited)


def begun_with() -> dict[str, str]:
    """The environment variables that this process was started with, whoever has changed them since; none if unknown.

    Twisted, when it is imported, looks for sockets of its own accord, and takes out the variables that tell of them.
    """
    try:
        variables = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    except OSError:
        return {}
    return dict(each.split("=", 1) for each in variables if "=" in each)


def take_manager(
    environ: MutableMapping[str, str], pid: int, before: Mapping[str, str] = MappingProxyType({})
) -> Manager:
    """What the service manager says, which is taken out of the environment: no child is to speak in our name.

    Args:
        environ: the environment variables, as `os.environ`.
        pid: of this process.
        before: those that it was started with.

    Raises:
        SocketProblem: a socket that it has handed over cannot be used.
    """
    address, microseconds, meant_for = (
        environ.pop(name, None) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    )
    wanted = microseconds is not None and microseconds.isdecimal() and int(microseconds) > 0
    seconds = int(microseconds or 0) / 1_000_000 if wanted and meant_for in (None, str(pid)) else None
    for name in SOCKET_VARIABLES:
        if name in before:
            environ[name] = before[name]
    return Manager(Notifier(address), seconds, take_sockets(environ, pid))
