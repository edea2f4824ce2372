"""A server for commands, with something in its database."""

import subprocess

from cli.house import CommandHouse
from daemons import COMMAND, SECONDS
from fixtures import DAY_MS, Counting
from store_tools import START_MS, InlineDatabase, address, at_once
from twisted.internet.task import Clock

from sydentish.actions.peppers import PepperRotation

ANN = "@ann:hs.example.org"


class Home(CommandHouse):
    """As that, and things to be done in it."""

    def make_pepper(self):
        db = InlineDatabase(self.path)
        times = {"clock": Clock(), "now_ms": lambda: START_MS, "random_bytes": Counting()}
        at_once(PepperRotation(db=db, interval_ms=None, grace_ms=DAY_MS, **times).ensure_pepper())
        db.connection.close()

    def bind(self, *numbers):
        def bind_all(tx):
            for number in numbers:
                self.statements.bind(tx, address(number), ANN, START_MS)

        self.write(bind_all)

    def unbind(self, number):
        assert self.write(lambda tx: self.statements.unbind(tx, address(number), ANN, START_MS))

    def told(self, *arguments, answer="", **options):
        """Status, and all that a command says, in a process with these options."""
        done = subprocess.run(
            [COMMAND, *map(str, arguments), "-c", str(self.conf)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            input=answer,
            text=True,
            timeout=SECONDS,
            check=False,
            **options,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout
