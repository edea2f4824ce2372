"""Moving over from a Sydent with the command, in a folder of its own."""

import json
import subprocess
import time

from daemons import COMMAND, SECONDS
from standins.certificates import Authority
from store_tools import rows, write
from sydent_files import NAME, SydentFile, configuration

NOW_S = int(time.time())
NOW_MS = NOW_S * 1000
ANN, BOB = "@ann:hs.example.org", "@bob:hs.example.org"


class Move:
    """A Sydent that is moved from, and what comes of it."""

    def __init__(self, folder, version=5):
        self.folder = folder
        self.file = SydentFile(folder / "sydent.db", version)
        self.old = folder / "sydent.conf"
        self.new = folder / "sydentish.conf"
        self.data = folder / "data"
        self.path = self.data / "sydentish.db"
        self.configure()

    def configure(self, **sections):
        self.old.write_text(configuration(self.file, **sections))

    def with_certificates(self):
        authority = Authority()
        authority.issue("localhost", common_name=NAME).write(self.folder / "tls.pem")
        authority.write_ca(self.folder / "ca.pem")
        files = {"certfile": self.folder / "tls.pem", "cacert": self.folder / "ca.pem"}
        self.configure(http={f"replication.https.{name}": path for name, path in files.items()})

    def run(self, *arguments, database=None, **options):
        """Status, standard output, and standard error."""
        named = ["--config", self.old, "--database", database or self.file.path, "--out", self.new]
        done = subprocess.run(
            [COMMAND, "import-sydent", *named, "--data-dir", self.data, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS * 2,
            check=False,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def take(self, *arguments):
        """What it tells, when all goes well."""
        status, out, err = self.run("--json", *arguments)
        assert status == 0, err
        return json.loads(out)

    def rows(self, sql, *parameters):
        return rows(self.path, sql, parameters)

    def bound(self):
        return dict(self.rows("SELECT address, mxid FROM associations"))

    def write(self, work):
        write(self.path, work)

    def everything(self):
        """All files below the folder, with their contents."""
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


def outcomes(told, kind):
    return told["database"][kind]["outcomes"]
