"""`sydentish peers list` and `show`."""

from pathlib import Path

import click

from sydentish.cli.common import cannot_run, config_option, read_config
from sydentish.cli.peers.known import Known, known_peers, name_argument
from sydentish.cli.peers.ourselves import show_ourselves
from sydentish.cli.peers.words import as_json, print_peers
from sydentish.cli.printing import json_option, moment, now_ms, print_fields, print_json
from sydentish.cli.running import has_database, run_with_database
from sydentish.config import Config
from sydentish.parts.world import World
from sydentish.store import progress
from sydentish.store import pushes as push_rows
from sydentish.store.database import Database, Tx
from sydentish.store.progress import PeerReport

_TOLD_BY = {
    "configuration": "the configuration",
    "command": "sydentish peers add",
    "gone": "the configuration, which no longer has it",
}

Parked = list[tuple[int, str]]


@click.command("list")
@config_option
@json_option
def list_peers(config_path: Path, as_json_: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """List all peers, and how they fare.

    BEHIND is how many statements (binds and unbinds made here) a peer has not acknowledged, WAITING for how long
    the oldest of them waits, PARKED how many it has refused by name. SENT is when it has last acknowledged
    something, RECEIVED when something has last come from it.

    Example: sydentish peers list -c /etc/sydentish/sydentish.conf
    """
    config = read_config(config_path)
    known, _ = _look(config)
    if as_json_:
        print_json({"peers": [as_json(peer) for peer in known]})
    else:
        print_peers(known, now_ms())
    if known and config.replication.certificate_file is None:
        click.echo("warning: [replication] certificate_file is not set: nothing is exchanged", err=True)


@click.command()
@config_option
@json_option
@name_argument
def show(config_path: Path, as_json_: bool, name: str) -> None:  # noqa: FBT001 - as above
    """Show all of one peer; or, for this server's own name, what the operators of its peers need.

    Example: sydentish peers show id.example.net
    """
    config = read_config(config_path)
    if name == config.general.server_name:
        show_ourselves(config, config_path, as_json_=as_json_)
        return
    known, parked = _look(config, name)
    peer = next((each for each in known if each.peer.name == name), None)
    if peer is None:
        cannot_run(f"{name}: there is no such peer; see sydentish peers list")
    if as_json_:
        statements = [{"id": number, "reason": reason} for number, reason in parked]
        print_json(as_json(peer) | {"parked_statements": statements})
    else:
        _print(peer, parked)


def _look(config: Config, name: str = "") -> tuple[list[Known], Parked]:
    """All peers, and what is parked for one of them; without a database, those of the configuration."""
    if not has_database(config):
        return known_peers(config, []), []

    def read(tx: Tx) -> tuple[list[PeerReport], Parked]:
        return progress.report(tx, config.general.server_name), push_rows.parked(tx, name)

    async def ask(_: World, db: Database) -> tuple[list[PeerReport], Parked]:
        return await db.read(read)

    reports, parked = run_with_database(config, ask)
    return known_peers(config, reports), parked


def _print(peer: Known, parked: Parked) -> None:
    who, now = peer.peer, now_ms()
    lines = [
        ("name", who.name),
        ("state", peer.state),
        ("url", who.url),
        *(("key", f"{key_id} {key}") for key_id, key in who.keys.items()),
        ("certificate names", ", ".join(who.certificate_names)),
        ("told by", _TOLD_BY[peer.source]),
    ]
    report = peer.report
    if report is not None:
        found = report.state
        waiting = f", the oldest since {moment(report.waiting_since_ts, now)}" if report.behind else ""
        lines += [
            ("peer since", moment(found.since_ts, now)),
            ("acknowledged", f"up to statement {found.acknowledged_id}"),
            ("behind", f"{report.behind}{waiting}"),
            ("last success", moment(found.last_success_ts, now)),
            ("last received", moment(found.last_received_ts, now)),
            ("last failure", moment(found.last_failure_ts, now)),
        ]
        if found.last_failure is not None:
            lines.append(("", found.last_failure))
        if found.failures:
            due = f"; the next try is due {moment(found.retry_ts, now)}" if found.retry_ts > now else ""
            lines.append(("failures in a row", f"{found.failures}{due}"))
        lines.append(("parked", str(report.parked)))
        lines += [("", f"{number}: {reason}") for number, reason in parked]
    if peer.note is not None:
        lines.append(("note", peer.note))
    print_fields(lines)
