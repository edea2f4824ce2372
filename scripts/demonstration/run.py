"""Runs the demonstration, and leaves nothing behind, however it ends."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from demonstration.client import Client
from demonstration.daemon import Daemon, main_daemon
from demonstration.inviting import invitation
from demonstration.keeping import stay
from demonstration.replicating import replication
from demonstration.showing import Failed, paint
from demonstration.steps import main_job
from demonstration.surroundings import Surroundings, surroundings
from demonstration.telephone import telephone
from demonstration.unbinding import unbinding

HINTS = """
How to go on:
   scripts/demo --keep     the same, and the daemon stays for you to try
   scripts/demo --peers 3  three servers that keep the same associations
   scripts/test            run the tests
   README.md               a first configuration of your own
   sydentish.conf.sample   every option, with its default
"""


async def demonstrate(*, keep: bool) -> None:
    """All of it, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="sydentish-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with surroundings(folder) as around:
            await with_daemon(main_daemon(folder, around), around, keep=keep)


async def demonstrate_peers(number: int) -> None:
    """Servers that keep the same associations, in a folder that goes with them."""
    with tempfile.TemporaryDirectory(prefix="sydentish-demo-", ignore_cleanup_errors=True) as name:
        await replication(Path(name), number)


async def with_daemon(daemon: Daemon, around: Surroundings, *, keep: bool) -> None:
    """The steps, and what comes after."""
    alice = Client(daemon.base_url, "alice", "Alice@Example.ORG")
    try:
        await main_job(daemon, alice, around)
        await invitation(daemon, alice, around)
        await telephone(alice, around)
        await unbinding(alice, around)
        print(f"\n{paint('1;32', 'All of it held.')}")
        if keep:
            await stay(daemon, alice, around)
        await daemon.stop()
    except Exception:
        # If the daemon is dead, that tells more than what came of it.
        daemon.must_live()
        raise
    finally:
        daemon.kill()


class Run:
    """One run in the reactor; SIGINT, SIGTERM and SIGHUP cancel it, and it cleans up."""

    def __init__(self) -> None:
        self._signal = 0
        self._work: Deferred[None] | None = None
        self._status = 0

    def to_its_end(self, demonstration: Coroutine["Deferred[Any]", Any, None]) -> int:
        """Runs, and returns the exit status: 0 only if all of it held."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Who had us started with a signal ignored (nohup) wants it so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        reactor.callWhenRunning(self._start, demonstration)
        reactor.run(installSignalHandlers=False)
        return self._status

    def _start(self, demonstration: Coroutine["Deferred[Any]", Any, None]) -> None:
        self._work = Deferred.fromCoroutine(demonstration)
        self._work.addErrback(self._report)
        self._work.addBoth(lambda _: reactor.stop())

    def _interrupt(self, number: int, _frame: object) -> None:
        """Once: what cleans up is not interrupted again."""
        if not self._signal:
            self._signal = number
            reactor.callFromThread(self._cancel)
            if number == signal.SIGHUP:
                silence()

    def _cancel(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _report(self, failure: Failure) -> None:
        if failure.check(BrokenPipeError):
            silence()
            self._status = 128 + signal.SIGPIPE
        elif self._signal and not failure.check(Failed):
            self._status = 128 + self._signal
        else:
            self._status = 1
            print(f"\n{paint('1;31', '✗')} {failure.value}")
            if not failure.check(Failed):
                failure.printTraceback()


def silence() -> None:
    """Nobody reads what we print any more: writing it would fail, even in the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())


def main() -> int:
    """Runs the demonstration, and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="All that the server does, over real sockets: users register, prove addresses by mail and SMS, "
        "publish them, look them up, and invite each other; homeservers hear of it.",
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--keep", action="store_true", help="leave the daemon running until Ctrl-C")
    other.add_argument(
        "--peers",
        type=int,
        choices=range(2, 10),
        metavar="N",
        help="instead, N servers (2 to 9) that keep the same associations, one of which is killed on the way",
    )
    chosen = parser.parse_args()
    # Each line at once, also to a pipe; and in any locale.
    sys.stdout.reconfigure(line_buffering=True, encoding="utf-8")
    demonstration = demonstrate_peers(chosen.peers) if chosen.peers else demonstrate(keep=chosen.keep)
    status = Run().to_its_end(demonstration)
    if status == 0 and not chosen.keep:
        print(HINTS)
    return status
