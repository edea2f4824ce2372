"""The server that is shown, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import treq
from standins.ports import free_port
from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from demonstration.showing import Failed, show
from demonstration.surroundings import SECONDS, Surroundings

BASE = "/_matrix/identity"
SERVER_NAME = "id.example.org"
# The installed program, and not what lies in the folder where this was started.
COMMAND = Path(sys.executable).with_name("sydentish")

CONFIG = """\
[general]
server_name = {server_name}
public_base_url = {base_url}
data_dir = {folder}/data

[http]
listeners = tcp:{port}:interface=127.0.0.1
metrics_listeners = tcp:{metrics_port}:interface=127.0.0.1

[email]
from = Sydentish demonstration <noreply@example.org>
smtp_host = {smtp_host}
smtp_port = {smtp_port}
# Loopback only. A real relay is spoken to with starttls, which is the default, or tls.
smtp_security = plain

[sms]
gateways = standin
allowed_countries = GB
originator = Sydentish

[sms standin]
kind = http
url = {gateway_url}/send
body = {{"from": "{{originator}}", "to": "{{destination}}", "text": "{{text}}"}}
username = standin
password = open sesame
ca_file = {ca_file}

[invites]
web_client = https://chat.example.org

[homeservers]
# The stand-in homeserver lives on this machine and has a certificate of a throw-away authority.
ca_file = {ca_file}
allowed_addresses = 127.0.0.0/8, ::1/128

[log]
file = {log_file}

[policy terms]
version = 1.0
en.name = Terms of Service
en.url = {base_url}/terms-1.0-en.html
de.name = Nutzungsbedingungen
de.url = {base_url}/terms-1.0-de.html
"""


class Daemon:
    """A Sydentish with its configuration, which is written at once, and its log in a folder."""

    def __init__(self, folder: Path, text: str, **values: object) -> None:
        """Writes the configuration.

        Args:
            folder: for all of its files; must be there.
            text: the configuration; `{port}`, `{metrics_port}`, `{base_url}`, `{folder}` and `{log_file}` stand for what
                is chosen here.
            values: what else stands in braces.
        """
        self.config = folder / "sydentish.conf"
        self.log = folder / "sydentish.log"
        port, metrics_port = free_port(), free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._process: subprocess.Popen[bytes] | None = None
        self.config.touch(mode=0o600)  # there is a password in it
        self.config.write_text(
            text.format(
                base_url=self.base_url,
                folder=folder,
                port=port,
                metrics_port=metrics_port,
                log_file=self.log,
                **values,
            )
        )

    def add_to_config(self, text: str) -> None:
        """Writes something at the end of the configuration."""
        with self.config.open("a") as file:
            file.write(text)

    def run(self, *arguments: str) -> str:
        """Runs a command of ours to its end; what it has printed.

        Raises:
            Failed: its exit status is not 0.
        """
        show("$", f"sydentish {' '.join(arguments)} -c {self.config}")
        done = subprocess.run(
            [COMMAND, *arguments, "-c", self.config],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # Ctrl-C is for us; see _spawn
        )
        show(" ", (done.stdout + done.stderr).strip())
        if done.returncode:
            raise Failed(f"sydentish {' '.join(arguments)} ended with status {done.returncode}")
        return done.stdout

    async def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            Failed: it does not.
        """
        show("$", f"sydentish serve -c {self.config}")
        self._process = self._spawn()
        for _ in range(SECONDS * 10):
            self.must_live()
            try:
                response = await treq.get(f"{self.base_url}{BASE}/v2", timeout=SECONDS)
                await response.content()
            except ConnectError:  # it does not listen yet
                await deferLater(reactor, 0.1)
            else:
                return
        raise Failed(f"The daemon does not answer; {self._last_words()}")

    def _spawn(self) -> "subprocess.Popen[bytes]":
        # In a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it before we stop it.
        return subprocess.Popen([COMMAND, "serve", "-c", self.config], start_new_session=True)

    def must_live(self) -> None:
        """Nothing, as long as the server runs.

        Raises:
            Failed: it has ended by itself.
        """
        status = self._process.poll() if self._process is not None else None
        if status is not None:
            raise Failed(f"The daemon ended with status {status}; {self._last_words()}")

    async def stop(self) -> None:
        """Stops the server, and waits for it.

        Raises:
            Failed: it did not end in good order.
        """
        if self._process is None:
            return
        self._process.terminate()
        for _ in range(SECONDS * 10):
            if self._process.poll() is not None:
                break
            await deferLater(reactor, 0.1)
        if status := self._process.poll():
            raise Failed(f"The daemon ended with status {status}; {self._last_words()}")

    def kill(self) -> None:
        """Stops the server the hard way, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return "\n   ".join(["its log says:", *(lines[-10:] or ["(nothing)"])])


def main_daemon(folder: Path, surroundings: Surroundings) -> Daemon:
    """The server of the main job, which knows its surroundings."""
    return Daemon(
        folder,
        CONFIG,
        server_name=SERVER_NAME,
        smtp_host=surroundings.mailbox.host,
        smtp_port=surroundings.mailbox.port,
        gateway_url=surroundings.gateway.url,
        ca_file=surroundings.ca_file,
    )
