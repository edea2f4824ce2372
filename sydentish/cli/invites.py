"""`sydentish invites`."""

import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path

import click

from sydentish.actions.revoking import Revoked, expire, revoke
from sydentish.cli.addresses import address_option, read_address, user_option
from sydentish.cli.common import age_option, cannot_run, config_option, limit_option, read_config
from sydentish.cli.printing import (
    Progress,
    ago,
    json_option,
    moment,
    now_ms,
    print_json,
    print_table,
    progress,
)
from sydentish.cli.running import run_with_database
from sydentish.cli.turns import Turns
from sydentish.domain.invites import SHORT_ID_DIGITS, Invitation
from sydentish.domain.threepids import Threepid
from sydentish.parts.world import World
from sydentish.store import figures
from sydentish.store import invites as invite_rows
from sydentish.store.database import Database
from sydentish.store.invites import Kept

_PAGE = 500
# Of the invitations that are deleted in a transaction: few enough that the server need not wait for long.
_BATCH = 200
_SHORT_ID = re.compile(f"[0-9a-f]{{{SHORT_ID_DIGITS}}}")
_HEAD = ("ID", "ADDRESS", "ROOM", "SENDER", "CREATED", "EXPIRES", "STATE")


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which invitations are meant: those of which all of this is true; None is true of all."""

    short_ids: frozenset[str] | None = None
    threepid: Threepid | None = None
    room_id: str | None = None
    sender: str | None = None
    before_ts: int | None = None

    def takes(self, invitation: Invitation) -> bool:
        return (
            self.threepid in (None, invitation.threepid)
            and self.room_id in (None, invitation.room_id)
            and self.sender in (None, invitation.sender)
            and (self.before_ts is None or invitation.created_ts < self.before_ts)
            and (self.short_ids is None or invitation.short_id in self.short_ids)
        )


@dataclass(slots=True)
class _Done:
    """What a revocation came to.

    Attributes:
        chosen: the short IDs of the invitations that were meant.
        revoked: what went; the others were handed over already.
    """

    chosen: set[str] = field(default_factory=set)
    revoked: Revoked = field(default_factory=Revoked)


@click.group()
def invites() -> None:
    """Invitations of addresses that nobody has bound yet."""


_room_option = click.option("--room", metavar="ROOM_ID", help="Only those to this room.")
_sender_option = user_option("--sender", help="Only those of this user.")
_address_option = address_option(help="Only those of this e-mail address.")


@invites.command("list")
@config_option
@json_option
@_address_option
@_room_option
@_sender_option
@limit_option
def list_invites(
    config_path: Path,
    as_json_: bool,  # noqa: FBT001 - a flag of the command line
    limit: int,
    **which: str | None,
) -> None:
    """List invitations, the newest first.

    They wait for somebody to bind the address; then they are handed over to that user's homeserver, by a row of the
    outbox, and are gone once it has taken them.

    Example: sydentish invites list --sender @spammer:example.com
    """
    choice = _choice(which)

    async def look(_: World, db: Database) -> tuple[list[Kept], int]:
        newest: list[Kept] = []
        total = 0
        async for page in _pages(db):
            chosen = [each for each in page if choice.takes(each.invitation)]
            total += len(chosen)
            newest = nlargest(limit, newest + chosen, key=lambda each: each.invitation.created_ts)
        return newest, total

    found, total = run_with_database(read_config(config_path), look)
    now = now_ms()
    if as_json_:
        print_json({"invitations": [_as_json(each, now) for each in found], "total": total})
    elif found:
        print_table([_HEAD, *(_row(each, now) for each in found)])
    else:
        click.echo("There are no such invitations")
    if total > len(found):
        click.echo(f"{total - len(found)} older ones are not listed: --limit {total}", err=True)


@invites.command("revoke")
@config_option
@json_option
@_address_option
@_room_option
@_sender_option
@click.argument("ids", metavar="[ID]...", nargs=-1, callback=lambda _context, _argument, value: _ids(value))
def revoke_invites(
    config_path: Path,
    as_json_: bool,  # noqa: FBT001 - as above
    ids: frozenset[str],
    **which: str | None,
) -> None:
    """Revoke invitations that wait: by their IDs as `invites list` shows them, or all of an address, room or sender.

    Their keys are valid no more, so nobody can accept them, and mails that were not sent yet are not sent. What was
    handed over to a homeserver already is left alone.

    Example: sydentish invites revoke --sender @spammer:example.com
    """
    if not ids and not any(which.values()):
        raise click.UsageError("Say which: an ID, --address, --room or --sender.")
    choice = _choice(which, ids)
    with progress("Revoking") as on_progress:
        done = run_with_database(
            read_config(config_path),
            lambda world, db: _revoke_all(Turns(db, world.reactor), choice, on_progress),
        )
    left = len(done.chosen) - done.revoked.invitations
    _tell(done.revoked, left, as_json_=as_json_)
    if unknown := sorted(ids - done.chosen):
        cannot_run(f"{', '.join(unknown)}: there is no such invitation; see sydentish invites list")
    if ids and left:
        sys.exit(1)


@invites.command("expire")
@config_option
@json_option
@age_option("--before", "Also those that have waited longer than this, such as 30d.")
def expire_invites(config_path: Path, as_json_: bool, age_ms: int | None) -> None:  # noqa: FBT001 - as above
    """Delete what has expired at once; a running server does so every few minutes.

    Example: sydentish invites expire --before 30d
    """

    async def work(world: World, db: Database, on_progress: Progress) -> Revoked:
        now, revoked, turns = world.now_ms(), Revoked(), Turns(db, world.reactor)
        while (more := await turns.write(expire, now, _BATCH)).invitations:
            revoked += more
        while await turns.write(invite_rows.delete_expired_keys, now, _BATCH):
            pass
        if age_ms is None:
            return revoked
        return revoked + (await _revoke_all(turns, _Choice(before_ts=now - age_ms), on_progress)).revoked

    with progress("Expiring") as on_progress:
        revoked = run_with_database(read_config(config_path), lambda world, db: work(world, db, on_progress))
    _tell(revoked, as_json_=as_json_)


def _ids(value: Sequence[str]) -> frozenset[str]:
    if not all(map(_SHORT_ID.fullmatch, value)):
        raise click.BadParameter(
            f"must be {SHORT_ID_DIGITS} hexadecimal digits, as sydentish invites list shows them"
        )
    return frozenset(value)


def _choice(which: Mapping[str, str | None], ids: frozenset[str] = frozenset()) -> _Choice:
    address = which["address"]
    threepid = None if address is None else read_address(address)
    return _Choice(ids or None, threepid, which["room"], which["sender"])


async def _pages(db: Database) -> AsyncIterator[list[Kept]]:
    token = ""
    while page := await db.read(invite_rows.after, token, _PAGE):
        yield page
        token = page[-1].invitation.token


async def _revoke_all(db: Database, choice: _Choice, on_progress: Progress) -> _Done:
    of = await db.read(figures.all_invitations)
    done, seen = _Done(), 0
    async for page in _pages(db):
        chosen = [each.invitation for each in page if choice.takes(each.invitation)]
        done.chosen.update(each.short_id for each in chosen)
        for start in range(0, len(chosen), _BATCH):
            tokens = [each.token for each in chosen[start : start + _BATCH]]
            done.revoked += await db.write(revoke, tokens)
        seen += len(page)
        on_progress(min(seen, of), of)
    return done


def _tell(revoked: Revoked, left: int = 0, *, as_json_: bool) -> None:
    if as_json_:
        print_json({"invitations": revoked.invitations, "mails": revoked.mails, "handed_over": left})
        return
    click.echo(f"{revoked.invitations} invitations are gone, and {revoked.mails} mails that were not sent")
    if left:
        click.echo(
            f"{left} were handed over to a homeserver already, and are left alone: sydentish outbox list"
        )


def _row(kept: Kept, now: int) -> tuple[str, ...]:
    invitation = kept.invitation
    return (
        invitation.short_id,
        invitation.threepid.address,
        invitation.room_id,
        invitation.sender,
        ago(invitation.created_ts, now),
        moment(invitation.expires_ts, now),
        _state(kept, now) + ("" if kept.outbox_id is None else f": outbox {kept.outbox_id}"),
    )


def _state(kept: Kept, now: int) -> str:
    if kept.outbox_id is not None:
        return "given up" if kept.outbox_state == "dead" else "handed over"
    return "waiting" if kept.invitation.expires_ts > now else "expired"


def _as_json(kept: Kept, now: int) -> dict[str, object]:
    invitation = kept.invitation
    return {
        "id": invitation.short_id,
        "medium": invitation.threepid.medium,
        "address": invitation.threepid.address,
        "room_id": invitation.room_id,
        "sender": invitation.sender,
        "created_ts": invitation.created_ts,
        "expires_ts": invitation.expires_ts,
        "state": _state(kept, now),
        "outbox_id": kept.outbox_id,
    }
