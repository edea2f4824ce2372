"""A server's configuration and database, and commands on them, most of them as processes."""

import json
import os
import pty
import subprocess
from contextlib import suppress

from click.testing import CliRunner
from daemons import COMMAND, SECONDS
from standins.certificates import Authority
from store_tools import START_MS, write

from sydentish.actions.statements import Statements
from sydentish.cli import main
from sydentish.keyfiles import load_keys
from sydentish.store.migrate import migrate_sqlite, shipped_steps

US = "id.example.org"
PEERS_KEY = "KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8"


class BareHouse:
    """A server that is configured, and has neither keys nor a database.

    Attributes:
        folder: all of it.
        conf: the configuration.
        key_dir: where its signing keys lie, or are to lie.
        path: the database, or where it is to be.
        keys: its signing keys; once they are made.
        statements: what writes down who has which address; once there are keys.
    """

    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "sydentish.conf"
        self.key_dir = folder / "data" / "keys"
        self.path = folder / "data" / "sydentish.db"
        self.path.parent.mkdir()
        self.conf.write_text(
            f"[general]\nserver_name = {US}\npublic_base_url = https://matrix.example.org\n"
            f"data_dir = {folder}/data\n"
        )

    def certify(self):
        """Gives it a certificate to show to peers; who has issued that."""
        authority = Authority()
        authority.write_ca(self.folder / "ca.pem")
        authority.issue(US).write(self.folder / "own.pem")
        (self.folder / "own.pem").chmod(0o600)
        with self.conf.open("a") as file:
            file.write(
                f"[replication]\nlisteners = tcp:4434\ncertificate_file = {self.folder}/own.pem\n"
                f"ca_file = {self.folder}/ca.pem\n"
            )
        return authority

    def configure(self, peer, url="https://127.0.0.1:1"):
        """Adds a peer to the configuration."""
        with self.conf.open("a") as file:
            file.write(f"[peer {peer}]\nurl = {url}\nkeys = ed25519:0 {PEERS_KEY}\n")

    def make_keys(self):
        assert self.ask("keys", "generate")[0] == 0
        self.keys = load_keys(self.key_dir, US)
        self.statements = Statements(keys=self.keys, validity_ms=10**9, random_bytes=lambda size: b"k" * size)

    def migrate(self, steps=None):
        migrate_sqlite(self.path, 5000, START_MS, steps or shipped_steps())

    def write(self, work):
        """What `work` makes of a transaction."""
        return write(self.path, work)

    def ask(self, *arguments):
        """Status and lines of a command that needs no database, in this process."""
        done = CliRunner().invoke(main, [*arguments, "-c", str(self.conf)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output.splitlines()

    def run(self, *arguments, stdin=b""):
        """Status, and what a command in a process of its own writes to each stream; it reads bytes, or a descriptor."""
        done = subprocess.run(
            [COMMAND, *map(str, arguments), "-c", str(self.conf)],
            **({"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def terminal(self, *arguments, conf=None):
        """Status, and all that a command writes to the terminal on which it runs."""
        ours, theirs = pty.openpty()
        command = [COMMAND, *map(str, arguments), "-c", str(conf or self.conf)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            written = b""
            # It fails when nobody has the other side any more.
            with suppress(OSError):
                while chunk := os.read(ours, 65536):
                    written += chunk
            os.close(ours)
            status = process.wait(SECONDS)
        return status, written.decode()

    def json(self, *arguments, status=0):
        """The JSON that a command prints."""
        found, out, err = self.run(*arguments, "--json")
        assert found == status, err
        return json.loads(out)


class CommandHouse(BareHouse):
    """A server that was started before, and is not running."""

    def __init__(self, folder):
        super().__init__(folder)
        self.make_keys()
        self.migrate()
