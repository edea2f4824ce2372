"""`sydentish stats`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from sydentish.cli.common import config_option, read_config
from sydentish.cli.printing import NOTHING, age, json_option, moment, now_ms, print_fields, print_json, size
from sydentish.cli.running import run_with_database
from sydentish.config import Config
from sydentish.parts.world import World
from sydentish.store import figures, progress
from sydentish.store import lookup as lookup_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database
from sydentish.store.figures import Invitations, Sessions
from sydentish.store.health import file_bytes
from sydentish.store.progress import PeerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What the database has of everything; see `figures`.

    Attributes:
        outbox: kind, state, number of rows, and the time of the oldest, in ms.
        tombstones: how many addresses stand here only until every peer has heard of their unbind.
        pepper_since_ts: since when the look-up pepper is given out, in ms.
    """

    by_medium: Mapping[str, int]
    by_origin: Mapping[str, int]
    users: int
    accounts: int
    access_tokens: int
    sessions: Sessions
    invitations: Invitations
    outbox: list[tuple[str, str, int, int]]
    peers: list[PeerReport]
    erased_addresses: int
    tombstones: int
    pepper_since_ts: int | None
    schema: int


@click.command(short_help="Count what the database holds.")
@config_option
@json_option
def stats(config_path: Path, as_json_: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Count what the database holds.

    Example: sydentish stats --json
    """
    config = read_config(config_path)
    counts = run_with_database(config, lambda world, db: _count(config, world, db))
    sizes = file_bytes(config.database.path)
    if as_json_:
        print_json(_as_json(config, counts, sizes))
    else:
        print_fields(_fields(config, counts, sizes))


async def _count(config: Config, world: World, db: Database) -> _Counts:
    """Counts everything, each in a transaction of its own: none is long, and the figures need not be of one moment."""
    now = world.now_ms()
    return _Counts(
        by_medium=await db.read(figures.associations_by_medium),
        by_origin=await db.read(figures.associations_by_origin),
        users=await db.read(figures.users),
        accounts=await db.read(figures.accounts),
        access_tokens=await db.read(figures.access_tokens),
        sessions=await db.read(figures.sessions, now, config.validation.session_lifetime),
        invitations=await db.read(figures.invitations, now),
        outbox=await db.read(outbox_rows.counts),
        peers=await db.read(progress.report, config.general.server_name),
        erased_addresses=await db.read(figures.erased_addresses),
        tombstones=await db.read(statement_rows.unerased),
        pepper_since_ts=await db.read(lookup_rows.current_since),
        schema=await db.read(figures.schema),
    )


def _fields(config: Config, counts: _Counts, sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    now = now_ms()
    sessions, invitations = counts.sessions, counts.invitations
    return [
        *_named("bindings", _bindings(config.general.server_name, counts)),
        ("users", str(counts.users)),
        ("accounts", f"{counts.accounts}, with {counts.access_tokens} access tokens"),
        ("sessions", f"{sessions.open} open, {sessions.validated} validated, {sessions.expired} expired"),
        (
            "invitations",
            f"{invitations.waiting} waiting, {invitations.handed_over} handed over, {invitations.expired} expired",
        ),
        *_named("outbox", [_row(*each, now) for each in sorted(counts.outbox)]),
        *_named("peers", [_peer(each, now) for each in counts.peers]),
        ("erased addresses", f"{counts.erased_addresses}, {counts.tombstones} of them kept for peers"),
        ("pepper", f"given out since {moment(counts.pepper_since_ts, now)}"),
        (
            "database",
            f"{size(sizes.get('main', 0))}, and {size(sizes.get('wal', 0))} in the write-ahead log",
        ),
        ("schema", str(counts.schema)),
    ]


def _bindings(server_name: str, counts: _Counts) -> list[str]:
    media = ", ".join(f"{number} {medium}" for medium, number in counts.by_medium.items())
    own = f"{counts.by_origin.get(server_name, 0)} stated here"
    others = [
        f"{number} stated by {name}" for name, number in counts.by_origin.items() if name != server_name
    ]
    return [media or "0", own, *others]


def _named(name: str, told: list[str]) -> list[tuple[str, str]]:
    first, *others = told or [NOTHING]
    return [(name, first), *(("", each) for each in others)]


def _row(kind: str, state: str, number: int, oldest_ts: int, now: int) -> str:
    return f"{number} {kind} {state}, the oldest {age(now - oldest_ts)} old"


def _peer(report: PeerReport, now: int) -> str:
    waiting = "" if report.waiting_since_ts is None else f", for {age(now - report.waiting_since_ts)}"
    parked = f", {report.parked} parked" if report.parked else ""
    return f"{report.state.peer.name}: {report.behind} behind{waiting}{parked}"


def _as_json(config: Config, counts: _Counts, sizes: Mapping[str, int]) -> dict[str, object]:
    own = counts.by_origin.get(config.general.server_name, 0)
    return {
        "bindings": {
            "total": sum(counts.by_medium.values()),
            "own": own,
            "by_medium": dict(counts.by_medium),
            "by_origin": dict(counts.by_origin),
        },
        "users": counts.users,
        "accounts": counts.accounts,
        "access_tokens": counts.access_tokens,
        "sessions": asdict(counts.sessions),
        "invitations": asdict(counts.invitations),
        "outbox": [
            {"kind": kind, "state": state, "rows": number, "oldest_ts": oldest_ts}
            for kind, state, number, oldest_ts in sorted(counts.outbox)
        ],
        "peers": [
            {
                "name": each.state.peer.name,
                "behind": each.behind,
                "waiting_since_ts": each.waiting_since_ts,
                "parked": each.parked,
            }
            for each in counts.peers
        ],
        "erased_addresses": counts.erased_addresses,
        "tombstones": counts.tombstones,
        "pepper_since_ts": counts.pepper_since_ts,
        "database_bytes": sizes.get("main", 0),
        "log_bytes": sizes.get("wal", 0),
        "schema": counts.schema,
    }
