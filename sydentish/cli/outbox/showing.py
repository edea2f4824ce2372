"""`sydentish outbox list` and `show`."""

import json
from pathlib import Path

import click

from sydentish.cli.common import cannot_run, config_option, limit_option, read_config
from sydentish.cli.outbox.options import UNKNOWN, destination_option, kind_option
from sydentish.cli.printing import (
    NOTHING,
    age,
    json_option,
    moment,
    now_ms,
    print_fields,
    print_json,
    print_line,
    print_table,
)
from sydentish.cli.running import run_with_database
from sydentish.logs import redact
from sydentish.parts.world import World
from sydentish.store import letters as letter_rows
from sydentish.store.database import Database
from sydentish.store.letters import Letter, Wanted

_HEAD = ("ID", "KIND", "STATE", "DESTINATION", "AGE", "TRIES", "NEXT TRY", "LAST ERROR")
_HIDDEN = "(hidden)"
# What of a payload is shown: what is not here could accept an invitation, or be worth something else.
_SHOWN = frozenset(
    (
        *(
            "medium",
            "address",
            "mxid",
            "ts",
            "not_before",
            "not_after",
            "invites",
            "room_id",
            "sender",
            "signed",
        ),
        *(
            "details",
            "brand",
            "room_name",
            "room_alias",
            "room_type",
            "room_join_rules",
            "sender_display_name",
        ),
    )
)


@click.command("list")
@config_option
@json_option
@kind_option
@click.option("--state", type=click.Choice(["pending", "dead"]), help="Only rows in this state.")
@destination_option
@click.option("--after", metavar="ID", type=int, default=0, help="Go on behind this row.")
@limit_option
def list_rows(
    *,
    config_path: Path,
    as_json_: bool,
    kind: str | None,
    state: str | None,
    destination: str | None,
    after: int,
    limit: int,
) -> None:
    """List what waits, and what was given up, the oldest first.

    AGE is that of the cause, or of the last time that a row was tried anew by command. Nothing is shown of what rows say.

    Example: sydentish outbox list --state dead
    """
    wanted = Wanted(kind=kind, state=state, destination=destination)

    async def look(_: World, db: Database) -> list[Letter]:
        return await db.read(letter_rows.letters_after, wanted, after, limit + 1)

    known = run_with_database(read_config(config_path), look)
    found, more = known[:limit], len(known) > limit
    last = found[-1].outbox_id if more else None
    if as_json_:
        print_json({"rows": [_as_json(each) for each in found], "next": last})
        return
    if not found:
        click.echo("There are no such rows")
        return
    now = now_ms()
    print_table([_HEAD, *(_row(each, now) for each in found)])
    if more:
        click.echo(f"There are more: add --after {last}", err=True)


@click.command()
@config_option
@json_option
@click.option("--payload", is_flag=True, help="Show what it says, addresses included; secrets are left out.")
@click.argument("outbox_id", metavar="ID", type=click.IntRange(min=1))
def show(*, config_path: Path, as_json_: bool, payload: bool, outbox_id: int) -> None:
    """Show all of one row.

    Example: sydentish outbox show 17
    """

    async def look(_: World, db: Database) -> Letter | None:
        return await db.read(letter_rows.letter, outbox_id)

    found = run_with_database(read_config(config_path), look)
    if found is None:
        cannot_run(f"{outbox_id}: {UNKNOWN}")
    if as_json_:
        print_json(_as_json(found) | ({"payload": _shown_payload(found)} if payload else {}))
        return
    _print(found, now_ms())
    if payload and found.payload:
        # Names stay readable; JSON itself escapes only some of what steers a terminal.
        for line in json.dumps(_shown_payload(found), indent=2, ensure_ascii=False).split("\n"):
            print_line(line)


def _row(letter: Letter, now: int) -> tuple[str, ...]:
    waits_ms = letter.next_try_ts - now
    next_try = NOTHING if letter.state == "dead" else "now" if waits_ms <= 0 else f"in {age(waits_ms)}"
    return (
        str(letter.outbox_id),
        letter.kind,
        letter.state,
        letter.destination,
        age(now - letter.created_ts),
        str(letter.attempts),
        next_try,
        _error(letter) or NOTHING,
    )


def _print(letter: Letter, now: int) -> None:
    ended = ("given up", moment(letter.died_ts, now))
    lines = [
        ("id", str(letter.outbox_id)),
        ("kind", letter.kind),
        ("state", letter.state),
        ("destination", letter.destination),
        ("since", moment(letter.created_ts, now)),
        ("tries", str(letter.attempts)),
        ended if letter.state == "dead" else ("next try", moment(letter.next_try_ts, now)),
        ("last error", _error(letter) or NOTHING),
    ]
    if letter.invitations:
        lines.append(("carries", "an invitation, which is deleted if this is dropped"))
    lines.append(
        ("payload", "kept" if letter.payload else "erased when it was given up: cannot be tried again")
    )
    print_fields(lines)


def _error(letter: Letter) -> str | None:
    # It holds no address by what we write down; but here is where somebody would see one.
    return None if letter.last_error is None else redact(letter.last_error)


def _as_json(letter: Letter) -> dict[str, object]:
    return {
        "id": letter.outbox_id,
        "kind": letter.kind,
        "destination": letter.destination,
        "state": letter.state,
        "created_ts": letter.created_ts,
        "next_try_ts": None if letter.state == "dead" else letter.next_try_ts,
        "died_ts": letter.died_ts,
        "tries": letter.attempts,
        "last_error": _error(letter),
        "payload_kept": bool(letter.payload),
        "invitations": letter.invitations,
    }


def _shown_payload(letter: Letter) -> object:
    try:
        return _shown(json.loads(letter.payload))
    except ValueError:
        return _HIDDEN if letter.payload else None


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shown(each) if key in _SHOWN else _HIDDEN for key, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return value
