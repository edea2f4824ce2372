"""`sydentish erase`."""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import click

from sydentish.actions.erasure import Erased, Erasure
from sydentish.cli.addresses import NO_ADDRESS, address_option, meant, medium_option, user_option
from sydentish.cli.common import cannot_run, config_option, confirm, read_config, read_keys, yes_option
from sydentish.cli.printing import Progress, json_option, print_json, progress
from sydentish.cli.running import run_with_database
from sydentish.cli.scratch import PREFIX
from sydentish.cli.turns import Turns
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.domain.statements import UnusableStatement, stated_threepid
from sydentish.domain.threepids import MSISDN, Threepid, normalise
from sydentish.owners import as_owner_of
from sydentish.parts.deeds import make_statements
from sydentish.parts.world import World
from sydentish.store import peers as peer_rows
from sydentish.store.database import Database
from sydentish.store.sqlite import empty_log

_TOLD = {
    "associations": "associations",
    "associations_of_peers": "  of these stated by peers",
    "sessions": "validation sessions",
    "session_tokens": "their tokens",
    "invitations": "invitations",
    "ephemeral_keys": "keys that accept invitations",
    "outbox_rows": "rows of the outbox",
    "accounts": "accounts",
    "access_tokens": "access tokens",
    "accepted_terms": "acceptances of terms",
    "budgets": "budgets",
}
_MISTAKEN = (
    "--address: nothing is stored about it, and it is no telephone number with its country code, and without zeros in "
    "front, such as 447700900222"
)


@dataclass(frozen=True, slots=True)
class _Report:
    """What the operator is told.

    Attributes:
        erased: what went, and what stays.
        peers: who has to hear of it.
        log_emptied: whether what was deleted has left the disk; None where nothing was.
        copies: files and folders beside the database that still have all of it.
    """

    erased: Erased
    peers: list[str]
    log_emptied: bool | None
    copies: list[str]


@click.command(short_help="Erase an address or a user altogether.")
@config_option
@json_option
@address_option()
@medium_option
@user_option("--mxid", help="A user, and every address that is bound to them.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be erased.")
@yes_option
def erase(
    *,
    config_path: Path,
    as_json_: bool,
    address: str | None,
    medium: str | None,
    mxid: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Erase all that is stored about an address, or about a user: for good, and also while the server runs.

    That is: associations, validation sessions, invitations with their keys and mails, rows of the outbox, budgets, and of
    a user the account, access tokens and accepted terms, too. Peers are told that the addresses are unbound. In the end it
    tells what went, and what remains where. An address that nothing is stored about is a success, unless it is
    a telephone number without its country code.

    Example: sydentish erase --address alice@example.org
    """
    if (address is None) == (mxid is None):
        raise click.UsageError("Give --address, or --mxid.")
    threepid = None if address is None else _threepid(address, medium)
    config = read_config(config_path)
    keys = read_keys(config, config_path)
    whom = "this address" if mxid is None else f"{mxid} and every address of theirs"
    confirm(f"Erase all that is stored about {whom}, for good?", yes=yes or dry_run)
    with progress("Erasing") as on_progress:
        erased, peers = run_with_database(
            config, _work(config, keys, threepid, mxid, on_progress, dry_run=dry_run)
        )
    report = _Report(erased, peers, None if dry_run else _empty(config), _copies(config))
    is_mistaken = threepid is not None and not _found(erased) and _has_no_country_code(threepid)
    if as_json_:
        print_json(_as_json(report, dry_run=dry_run))
    elif not is_mistaken:
        _print(report, dry_run=dry_run)
    if is_mistaken:
        cannot_run(_MISTAKEN)


def _threepid(text: str, medium: str | None) -> Threepid:
    """The address that is meant, also one that only another server would have stored."""
    try:
        return stated_threepid(*meant(text, medium))
    except UnusableStatement:
        raise click.BadParameter(NO_ADDRESS, param_hint="--address") from None


def _found(erased: Erased) -> bool:
    """Whether anything is, or was, stored about whom it was asked for."""
    return bool(any(erased.gone.values()) or erased.waiting or erased.marks)


def _has_no_country_code(threepid: Threepid) -> bool:
    """Whether it is a telephone number that cannot begin with one: this server has stored none such."""
    return threepid.medium == MSISDN and normalise(MSISDN, threepid.address) is None


def _work(
    config: Config,
    keys: KeyRing,
    threepid: Threepid | None,
    mxid: str | None,
    on_progress: Progress,
    *,
    dry_run: bool,
) -> Callable[[World, Database], Awaitable[tuple[Erased, list[str]]]]:
    async def work(world: World, db: Database) -> tuple[Erased, list[str]]:
        erasure = Erasure(
            db=Turns(db, world.reactor),
            statements=make_statements(config, world, keys),
            server_name=config.general.server_name,
            now_ms=world.now_ms,
            on_progress=on_progress,
        )
        if threepid is not None:
            erased = await erasure.address(threepid, dry_run=dry_run)
        else:
            erased = await erasure.user(mxid or "", dry_run=dry_run)
        return erased, [each.peer.name for each in await db.read(peer_rows.states)]

    return work


def _empty(config: Config) -> bool:
    path = config.database.path
    try:
        with as_owner_of(path.parent):
            return empty_log(path, config.database.busy_timeout)
    except (sqlite3.Error, OSError):
        # Nothing is lost by it: it is erased, and leaves the disk later.
        return False


def _copies(config: Config) -> list[str]:
    """What an upgrade or a restore has kept, and the folders of commands that have not ended as they should."""
    path = config.database.path
    found = {
        *path.parent.glob(f"{path.name}.before-*"),
        *(each for each in path.parent.glob(".*.part") if each.is_dir()),
        *config.general.data_dir.glob(f"{PREFIX}*"),
    }
    return sorted(map(str, found))


def _print(report: _Report, *, dry_run: bool) -> None:
    gone = {kind: number for kind, number in report.erased.gone.items() if number}
    click.echo(
        ("Would be erased:" if dry_run else "Erased:") + ("" if gone else " nothing, since nothing is stored")
    )
    for kind, number in gone.items():
        click.echo(f"{number:>8}  {_TOLD[kind]}")
    remains = _remains(report, dry_run=dry_run)
    if remains:
        click.echo("What remains:")
    for each in remains:
        click.echo(f"- {each}")


def _remains(report: _Report, *, dry_run: bool) -> list[str]:
    erased, told = report.erased, []
    if erased.waiting:
        told.append(
            f"{erased.waiting} addresses, until every peer has acknowledged that they are unbound "
            f"({', '.join(report.peers)}); see sydentish peers list"
        )
    if erased.marks:
        told.append(f"a keyed hash of {erased.marks} addresses, so that no older statement brings them back")
    if erased.homeservers:
        told.append(
            "what homeservers have heard of the addresses, if anything; they are not told of this "
            f"({', '.join(erased.homeservers)})"
        )
    if not dry_run and not report.log_emptied:
        told.append(
            "traces in the database file, which is in use: they go within a minute, or with the next start"
        )
    if report.copies:
        told.append(
            "copies that an upgrade or a restore has kept, or a command that was killed or still runs, to be deleted by you: "
            f"{', '.join(report.copies)}"
        )
    if any(erased.gone.values()):
        told.append("your own backups, until you delete them; restored, they bring all of it back")
    return told


def _as_json(report: _Report, *, dry_run: bool) -> dict[str, object]:
    erased = report.erased
    return {
        "dry_run": dry_run,
        "erased": dict(erased.gone),
        "remains": {
            "addresses_waiting_for_peers": erased.waiting,
            "peers": report.peers if erased.waiting else [],
            "hashed_addresses": erased.marks,
            "homeservers_not_told": list(erased.homeservers),
            "left_the_disk": report.log_emptied,
            "copies": report.copies,
        },
    }
