"""Peers in print: tables, times, and the same as JSON."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from sydentish.cli.peers.known import Known

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
# Below it, the next smaller unit tells more: 90 min, 36 h.
_ENOUGH = 2
_SHORT = 60
_NOTHING = "-"
_HEAD = ("NAME", "STATE", "BEHIND", "WAITING", "PARKED", "SENT", "RECEIVED", "LAST FAILURE")


def print_json(value: object) -> None:
    """Prints something as JSON."""
    click.echo(json.dumps(value, indent=2))


def print_peers(peers: Sequence[Known], now_ms: int) -> None:
    """Prints a table of peers, and below it what is to be done about some."""
    if not peers:
        click.echo("There are no peers; see sydentish peers add --help")
        return
    print_table([_HEAD, *(_row(peer, now_ms) for peer in peers)])
    for peer in peers:
        if peer.note is not None:
            click.echo(f"{peer.peer.name}: {peer.note}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(peer: Known, now_ms: int) -> tuple[str, ...]:
    report = peer.report
    if report is None:
        return (peer.peer.name, peer.state, *[_NOTHING] * (len(_HEAD) - 2))
    found = report.state
    return (
        peer.peer.name,
        peer.state,
        str(report.behind),
        _NOTHING if report.waiting_since_ts is None else age(now_ms - report.waiting_since_ts),
        str(report.parked),
        ago(found.last_success_ts, now_ms),
        ago(found.last_received_ts, now_ms),
        _NOTHING
        if found.last_failure_ts is None
        else f"{ago(found.last_failure_ts, now_ms)}: {_short(found.last_failure or '')}",
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


def age(ms: int) -> str:
    """How long something takes, roughly: `45 s`, `3 min`, `30 h`."""
    seconds = max(0, ms) // 1000
    for size, unit in _UNITS:
        if seconds >= _ENOUGH * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def ago(ts: int | None, now_ms: int) -> str:
    """How long ago something was, roughly."""
    return _NOTHING if ts is None else f"{age(now_ms - ts)} ago"


def moment(ts: int | None, now_ms: int) -> str:
    """When something was, or will be."""
    if ts is None:
        return "never"
    told = datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{told} ({ago(ts, now_ms)})" if ts <= now_ms else f"{told} (in {age(ts - now_ms)})"


def as_json(peer: Known) -> dict[str, object]:
    """All that is known of a peer, times in ms; what the server does not know yet is null."""
    who, report = peer.peer, peer.report
    found = None if report is None else report.state
    told: dict[str, object] = {
        "name": who.name,
        "state": peer.state,
        "note": peer.note,
        "source": peer.source,
        "url": who.url,
        "keys": dict(who.keys),
        "certificate_names": list(who.certificate_names),
        "behind": report and report.behind,
        "waiting_since_ts": report and report.waiting_since_ts,
        "parked": report and report.parked,
    }
    times = (
        "since_ts",
        "failing_since_ts",
        "retry_ts",
        "last_success_ts",
        "last_failure_ts",
        "last_received_ts",
    )
    others = ("paused", "acknowledged_id", "failures", "last_failure")
    return told | {name: getattr(found, name, None) for name in (*others, *times)}
