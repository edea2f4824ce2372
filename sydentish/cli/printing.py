"""What commands print: tables, times, progress, and the same as JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import click

json_option = click.option("--json", "as_json_", is_flag=True, help="Print JSON; times are in ms.")
"""`--json`."""

NOTHING = "-"
"""What stands in a table where there is nothing to tell."""

Progress = Callable[[int, int], None]
"""Hears how much is done, and of how much."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
# Below it, the next smaller unit tells more: 90 min, 36 h.
_ENOUGH = 2
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def now_ms() -> int:
    """The time, in ms."""
    return int(time.time() * 1000)


def print_json(value: object) -> None:
    """Prints something as JSON."""
    click.echo(json.dumps(value, indent=2))


def shown(text: str) -> str:
    """A line as a terminal may have it: what could steer the terminal, or make two lines of one, is a `?`.

    Much of what is printed was said by others, or stands in a database that anybody may have written.
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def print_line(text: str, *, err: bool = False) -> None:
    """Prints a line in which something of others stands."""
    click.echo(shown(text), err=err)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, each column as wide as its widest cell."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Prints what is known of one thing, a line for each; one without a name goes on with the one before."""
    for name, value in fields:
        print_line(f"{name + ':' if name else '':<19}{value}")


def age(ms: int) -> str:
    """How long something takes, roughly: `45 s`, `3 min`, `30 h`."""
    seconds = max(0, ms) // 1000
    for size, unit in _UNITS:
        if seconds >= _ENOUGH * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def ago(ts: int | None, now_ms: int) -> str:
    """How long ago something was, roughly."""
    return NOTHING if ts is None else f"{age(now_ms - ts)} ago"


def moment(ts: int | None, now_ms: int) -> str:
    """When something was, or will be."""
    if ts is None:
        return "never"
    told = datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{told} ({ago(ts, now_ms)})" if ts <= now_ms else f"{told} (in {age(ts - now_ms)})"


def size(number: int) -> str:
    """How much something takes: `512 bytes`, `3.4 MiB`."""
    for unit, name in _SIZES:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"


@contextmanager
def progress(label: str, *, hidden: bool = False) -> Iterator[Progress]:
    """A bar that shows on a terminal how far long work is, on standard error; elsewhere nothing is shown.

    Args:
        label: what is being done.
        hidden: show nothing there either, since it would stand among what is printed.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def on_progress(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield on_progress
