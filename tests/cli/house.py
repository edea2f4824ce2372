"""A server's configuration and database, and commands on them as processes."""

import json
import os
import pty
import subprocess
from contextlib import closing, suppress

from click.testing import CliRunner
from daemons import COMMAND, SECONDS
from store_tools import START_MS

from sydentish.actions.statements import Statements
from sydentish.cli import main
from sydentish.keyfiles import load_keys
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx, connect

US = "id.example.org"


class CommandHouse:
    """A server that was started before, and is not running.

    Attributes:
        folder: all of it.
        conf: the configuration.
        path: the database.
        statements: what writes down who has which address.
    """

    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "sydentish.conf"
        self.path = folder / "data" / "sydentish.db"
        self.path.parent.mkdir()
        self.conf.write_text(
            f"[general]\nserver_name = {US}\npublic_base_url = https://matrix.example.org\n"
            f"data_dir = {folder}/data\n"
        )
        assert CliRunner().invoke(main, ["keys", "generate", "-c", str(self.conf)]).exit_code == 0
        migrate_sqlite(self.path, 5000, START_MS, shipped_steps())
        self.statements = Statements(
            keys=load_keys(folder / "data" / "keys", US),
            validity_ms=10**9,
            random_bytes=lambda size: b"k" * size,
        )

    def write(self, work):
        """What `work` makes of a transaction."""
        with closing(connect(self.path, 5000)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            result = work(SqliteTx(connection))
            connection.execute("COMMIT")
        return result

    def run(self, *arguments, stdin=b""):
        """Status, and what a command in a process of its own writes to each stream."""
        done = subprocess.run(
            [COMMAND, *map(str, arguments), "-c", str(self.conf)],
            input=stdin,
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
