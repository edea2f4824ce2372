"""Runs the demonstration, and leaves nothing behind, however it ends."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from demonstration.daemon import Daemon
from demonstration.keeping import stay
from demonstration.showing import Failed, paint
from demonstration.steps import Client, main_job

HINTS = """
How to go on:
   scripts/demo --keep     the same, and the daemon stays for you to try
   scripts/test            run the tests
   README.md               a first configuration of your own
   sydentish.conf.sample   every option, with its default
"""


async def demonstrate(*, keep: bool) -> None:
    """All of it, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="sydentish-demo-", ignore_cleanup_errors=True) as folder:
        authority = Authority()
        homeserver = Homeserver(authority.issue("localhost"))
        mailbox = Mailbox(reactor=reactor)
        homeserver.start(reactor)
        mailbox.start()
        try:
            ca_file = authority.write_ca(Path(folder) / "ca.pem")
            daemon = Daemon(Path(folder), smtp_host=mailbox.host, smtp_port=mailbox.port, ca_file=ca_file)
            await with_daemon(daemon, homeserver, mailbox, keep=keep)
        finally:
            mailbox.stop()
            await homeserver.stop()


async def with_daemon(daemon: Daemon, homeserver: Homeserver, mailbox: Mailbox, *, keep: bool) -> None:
    """The steps, and what comes after."""
    client = Client(daemon.base_url)
    try:
        await main_job(daemon, client, homeserver, mailbox)
        print(f"\n{paint('1;32', 'All of it held.')}")
        if keep:
            await stay(daemon, client, homeserver, mailbox)
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

    def to_its_end(self, *, keep: bool) -> int:
        """Runs, and returns the exit status: 0 only if all of it held."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Who had us started with a signal ignored (nohup) wants it so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        reactor.callWhenRunning(self._start, keep=keep)
        reactor.run(installSignalHandlers=False)
        return self._status

    def _start(self, *, keep: bool) -> None:
        self._work = Deferred.fromCoroutine(demonstrate(keep=keep))
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
        description="The main job, from the OpenID token to the homeserver that hears of the bind.",
    )
    parser.add_argument("--keep", action="store_true", help="leave the daemon running until Ctrl-C")
    keep = parser.parse_args().keep
    # Each line at once, also to a pipe; and in any locale.
    sys.stdout.reconfigure(line_buffering=True, encoding="utf-8")
    status = Run().to_its_end(keep=keep)
    if status == 0 and not keep:
        print(HINTS)
    return status
