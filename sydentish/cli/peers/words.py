"""Peers in print: as a table, and as JSON."""

from collections.abc import Sequence

import click

from sydentish.cli.peers.known import Known
from sydentish.cli.printing import NOTHING, age, ago, print_line, print_table

_SHORT = 60
_HEAD = ("NAME", "STATE", "BEHIND", "WAITING", "PARKED", "SENT", "RECEIVED", "LAST FAILURE")


def print_peers(peers: Sequence[Known], now_ms: int) -> None:
    """Prints a table of peers, and below it what is to be done about some."""
    if not peers:
        click.echo("There are no peers; see sydentish peers add --help")
        return
    print_table([_HEAD, *(_row(peer, now_ms) for peer in peers)])
    for peer in peers:
        if peer.note is not None:
            print_line(f"{peer.peer.name}: {peer.note}")


def _row(peer: Known, now_ms: int) -> tuple[str, ...]:
    report = peer.report
    if report is None:
        return (peer.peer.name, peer.state, *[NOTHING] * (len(_HEAD) - 2))
    found = report.state
    return (
        peer.peer.name,
        peer.state,
        str(report.behind),
        NOTHING if report.waiting_since_ts is None else age(now_ms - report.waiting_since_ts),
        str(report.parked),
        ago(found.last_success_ts, now_ms),
        ago(found.last_received_ts, now_ms),
        NOTHING
        if found.last_failure_ts is None
        else f"{ago(found.last_failure_ts, now_ms)}: {_short(found.last_failure or '')}",
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


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
