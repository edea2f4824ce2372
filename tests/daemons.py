"""A Sydentish in a process of its own, for tests that start, kill and talk to one."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import treq
from standins.ports import free_port
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

COMMAND = str(Path(sys.executable).with_name("sydentish"))
SECONDS = 30
BASE = "/_matrix/identity"

CONFIG = """\
[general]
server_name = {server_name}
public_base_url = http://127.0.0.1:{port}
data_dir = {folder}/data
[http]
listeners = tcp:{port}:interface=127.0.0.1
metrics_listeners = tcp:{metrics_port}:interface=127.0.0.1
[log]
level = debug
"""

# A signal comes when the program opens the nth database.
_STOPPED = """
import os, signal, sys
left = {nth}
def hook(event, _args):
    global left
    if event == "sqlite3.connect":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.{name})
sys.addaudithook(hook)
"""


def hooked(folder: Path, text: str) -> dict[str, str]:
    """An environment in which every Python runs a text before anything else.

    Args:
        folder: where the text is kept, in a folder of its own.
        text: the text.
    """
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(text)
    paths = os.pathsep.join(filter(None, [str(hooks), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths}


def stopped(folder: Path, name: str, nth: int) -> dict[str, str]:
    """An environment in which a program gets a signal of that name when it opens the nth database."""
    return hooked(folder, _STOPPED.format(name=name, nth=nth))


class Process(ProcessProtocol):
    """A command of ours; collects what it says.

    Attributes:
        output: what it wrote to either stream.
        ready: fires when the server listens.
        ended: fires with its exit status, or the negative number of the signal that ended it.
    """

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.output = ""
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[str, Deferred[None]]] = []
        reactor.spawnProcess(self, COMMAND, [COMMAND, *arguments], env={**os.environ, **(env or {})})

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        for text, waiting in list(self._waiting):
            if text in self.output:
                self._waiting.remove((text, waiting))
                waiting.callback(None)
        if "is ready" in self.output and not self.ready.called:
            self.ready.callback(None)

    errReceived = outReceived

    def says(self, text: str) -> "Deferred[None]":
        """Fires when the output has this text in it."""
        waiting: Deferred[None] = Deferred()
        if text in self.output:
            waiting.callback(None)
        else:
            self._waiting.append((text, waiting))
        return waiting.addTimeout(SECONDS, reactor)

    def processEnded(self, reason: Failure) -> None:
        if not self.ready.called:
            self.ready.errback(RuntimeError(f"the server did not start:\n{self.output}"))
            self.ready.addErrback(lambda _failure: None)
        status = 0 if reason.check(ProcessDone) else reason.value.exitCode or 0
        self.ended.callback(-reason.value.signal if reason.value.signal else status)


class Daemon:
    """A server with a folder of its own; may be stopped, killed and started again.

    Attributes:
        env: what is added to the environment of its process.
    """

    def __init__(self, folder: Path, *sections: str, server_name: str = "id.example.org") -> None:
        self.folder = folder
        self.env: dict[str, str] = {}
        self.port, self.metrics_port = free_port(), free_port()
        self.config = folder / "sydentish.conf"
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.token: str | None = None
        self.process: Process | None = None
        self.output = ""
        ports = {"port": self.port, "metrics_port": self.metrics_port}
        text = CONFIG.format(server_name=server_name, folder=folder, **ports)
        self.config.write_text(text + "\n".join(sections))

    async def start(self) -> None:
        self.process = Process("serve", "--init", "-c", str(self.config), env=self.env)
        await self.process.ready.addTimeout(SECONDS, reactor)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        process, self.process = self.process, None
        process.transport.signalProcess(how.name[3:])
        status = await process.ended.addTimeout(SECONDS, reactor)
        self.output += process.output
        return status

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        """A request with its status and JSON answer."""
        response = await self.raw(method, path, body, **options)
        return response.code, await response.json()

    async def raw(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """A request with its answer as treq has it."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            options["json"] = body
        # Not persistent: what keeps connections open keeps timers, too, and other tests look for those.
        return await treq.request(
            method, self.base_url + BASE + path, headers=headers, timeout=SECONDS, persistent=False, **options
        )

    async def metrics(self) -> str:
        response = await treq.get(
            f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=SECONDS, persistent=False
        )
        return await response.text()

    async def clean_up(self) -> None:
        if self.process is not None:
            await self.end(signal.SIGKILL)
