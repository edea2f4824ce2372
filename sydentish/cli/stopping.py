"""What a command does that is told to stop in the middle of its work: it tidies up."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

INTERRUPTED = 130
"""The exit status of a command that was told to stop (bash(1), "EXIT STATUS", of SIGINT)."""


@contextmanager
def stoppable(told: str) -> Iterator[None]:
    """Lets the work be stopped as with Ctrl-C by SIGTERM and SIGHUP, too, so that it can undo what it has begun.

    Args:
        told: what the operator is told then of how things are.
    """
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for each, handler in before.items():
            # What somebody has had ignored, as nohup does, stays so.
            if handler == signal.SIG_DFL:
                signal.signal(each, signal.default_int_handler)
        yield
    except KeyboardInterrupt:
        click.echo(f"stopped: {told}", err=True)
        sys.exit(INTERRUPTED)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
