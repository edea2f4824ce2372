"""A stand-in for systemd as the manager of one service: starts it as its unit says, and hears what it tells.

It knows of units what this project uses, and says so of everything that it does not know: what a test starts is what the
unit file says, so the file cannot rot. Sandboxing is `standins.sandbox`'s.
"""

import os
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.python.failure import Failure

_SECONDS = 30
_FIRST = 3
# The process has to be there before its number can be put into its environment.
_AS_MYSELF = 'export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$@"'


class Unit:
    """A unit file: the values of each directive by section, in their order."""

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self._values.setdefault((section, key), []).append(value)

    @classmethod
    def read(cls, path: Path) -> "Unit":
        """The one in a file."""
        return cls(path.read_text())

    def all(self, section: str, key: str) -> list[str]:
        """Every value that is given."""
        return self._values.get((section, key), [])

    def one(self, section: str, key: str) -> str:
        """The value that is given once."""
        (value,) = self.all(section, key)
        return value


class Service(ProcessProtocol):
    """A process of the service.

    Attributes:
        output: what it wrote to either stream.
        told: what it has told its manager, each a mapping.
        ended: fires with its exit status, or the negative number of the signal that ended it.
    """

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - several interfaces
        self._reactor = reactor
        self.output = ""
        self.told: list[dict[str, str]] = []
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def outReceived(self, data: bytes) -> None:
        """Called with what it has written."""
        self.output += data.decode()
        self._look()

    errReceived = outReceived

    def notified(self, message: dict[str, str]) -> None:
        """Called with what it has told."""
        self.told.append(message)
        self._look()

    def until(self, is_so: Callable[[], bool]) -> "Deferred[None]":
        """Fires when something is so, of what it has written or told."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((is_so, waiting))
        self._look()
        return waiting.addTimeout(_SECONDS, self._reactor)

    def tells(self, times: int = 1, /, **wanted: str) -> "Deferred[None]":
        """Fires when it has told so many times what is wanted, perhaps with more."""
        return self.until(lambda: len(self.messages(**wanted)) >= times)

    def says(self, text: str) -> "Deferred[None]":
        """Fires when it has written a text."""
        return self.until(lambda: text in self.output)

    def messages(self, **wanted: str) -> list[dict[str, str]]:
        """What it has told of a kind."""
        return [each for each in self.told if wanted.items() <= each.items()]

    def signal(self, name: str) -> None:
        """Sends a signal, by its name without `SIG`."""
        self.transport.signalProcess(name)

    async def end(self, name: str = "TERM") -> int:
        """Sends a signal and returns the exit status."""
        self.signal(name)
        return await self.ended.addTimeout(_SECONDS, self._reactor)

    def processEnded(self, reason: Failure) -> None:
        """Called when there is no process any more."""
        status = 0 if reason.check(ProcessDone) else reason.value.exitCode or 0
        self.ended.callback(-reason.value.signal if not status and not reason.check(ProcessDone) else status)
        waiting, self._waiting = self._waiting, []
        for _, each in waiting:
            each.errback(RuntimeError(f"the service has ended:\n{self.output}"))

    def _look(self) -> None:
        for is_so, waiting in list(self._waiting):
            if is_so():
                self._waiting.remove((is_so, waiting))
                waiting.callback(None)


class _Notifications(DatagramProtocol):
    def __init__(self, hear: Callable[[dict[str, str]], None]) -> None:
        self._hear = hear

    def datagramReceived(self, datagram: bytes, _addr: object) -> None:
        lines = datagram.decode().splitlines()
        self._hear(dict(line.split("=", 1) for line in lines))


class Manager:
    """Manages one service.

    Args:
        unit: the unit of the service.
        folder: where the socket for notifications is, and credentials are.
        reactor: starts processes.
        replacements: what stands in ExecStart, and what is to stand there in the test.
        sockets: listening sockets with the names of their units, in their order; they stay open over restarts.
        environ: added to the environment of the process.
        wrapper: a command that starts the service's own, for example in a sandbox.
        abstract: whether the socket for notifications has an abstract name.
    """

    def __init__(
        self,
        unit: Unit,
        folder: Path,
        reactor: Any,  # noqa: ANN401 - several interfaces
        *,
        replacements: Mapping[str, str],
        sockets: Sequence[tuple[str, socket.socket]] = (),
        environ: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        abstract: bool = False,
    ) -> None:
        self._unit = unit
        self._folder = folder
        self._reactor = reactor
        self._replacements = replacements
        self._sockets = sockets
        self._environ = dict(environ or {})
        self._wrapper = wrapper
        self.service: Service | None = None
        self._address = f"@sydentish-{folder}" if abstract else str(folder / "notify")
        self._listening = reactor.listenUNIXDatagram(
            self._address.replace("@", "\0") if abstract else self._address, _Notifications(self._hear)
        )

    def start(self) -> Service:
        """Starts the service; it is ready when it tells so."""
        self.service = Service(self._reactor)
        command = [self._replaced(each) for each in shlex.split(self._unit.one("Service", "ExecStart"))]
        arguments = ["/bin/sh", "-c", _AS_MYSELF, "sh", *self._wrapper, *command]
        inherited = {_FIRST + index: each.fileno() for index, (_, each) in enumerate(self._sockets)}
        self._reactor.spawnProcess(
            self.service,
            "/bin/sh",
            arguments,
            env=self._environment(),
            childFDs={0: "w", 1: "r", 2: "r", **inherited},
        )
        return self.service

    async def start_and_wait(self) -> Service:
        """Starts the service; returns when it is ready."""
        service = self.start()
        await service.tells(READY="1")
        return service

    def reload(self) -> None:
        """As ExecReload says."""
        command = shlex.split(self._unit.one("Service", "ExecReload"))
        name = command[command.index("-HUP")].removeprefix("-")
        self.service.signal(name)

    def credential(self, name: str, text: str) -> None:
        """Hands over a credential at the next start, as LoadCredential does."""
        self._credentials.mkdir(mode=0o700, exist_ok=True)
        path = self._credentials / name
        path.write_text(text)
        path.chmod(0o400)

    async def clean_up(self) -> None:
        """Ends what is left."""
        if self.service is not None and not self.service.ended.called:
            await self.service.end("KILL")
        await self._listening.stopListening()
        for _, each in self._sockets:
            each.close()

    @property
    def _credentials(self) -> Path:
        return self._folder / "credentials"

    def _environment(self) -> dict[str, str]:
        seconds = int(self._unit.one("Service", "WatchdogSec"))
        environ = {
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": self._address,
            "WATCHDOG_USEC": str(seconds * 1_000_000),
        }
        if self._sockets:
            environ["LISTEN_FDS"] = str(len(self._sockets))
            environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in self._sockets)
        if self._credentials.exists():
            environ["CREDENTIALS_DIRECTORY"] = str(self._credentials)
        return environ | self._environ

    def _replaced(self, word: str) -> str:
        return self._replacements.get(word, word)

    def _hear(self, message: dict[str, str]) -> None:
        if self.service is not None:
            self.service.notified(message)
