"""`sydentish bindings show`."""

from dataclasses import dataclass
from pathlib import Path

import click

from sydentish.actions.statements import onbind_cause
from sydentish.cli.addresses import address_option, medium_option, read_address, user_option
from sydentish.cli.common import cannot_run, config_option, read_config
from sydentish.cli.printing import json_option, moment, now_ms, print_fields, print_json
from sydentish.cli.running import run_with_database
from sydentish.domain.associations import Association
from sydentish.domain.statements import Order
from sydentish.domain.threepids import Threepid
from sydentish.parts.world import World
from sydentish.store import associations as association_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import progress
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database, Tx


@dataclass(frozen=True, slots=True)
class _Binding:
    """An association, and who has yet to hear of it.

    Attributes:
        association: who has which address.
        own: whether it was stated here.
        pending: the rows of the outbox that are to tell its homeserver.
        dead: those that were given up.
        peers_behind: the peers that have not acknowledged it; None where that is not known here.
    """

    association: Association
    own: bool
    pending: list[int]
    dead: list[int]
    peers_behind: list[str]


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known.

    Attributes:
        bindings: what is bound.
        unbound: where the statement stands by which the address belongs to nobody, if there was one.
    """

    bindings: list[_Binding]
    unbound: Order | None = None


@click.command()
@config_option
@json_option
@address_option()
@medium_option
@user_option("--mxid", help="Show all addresses of this user.")
def show(
    config_path: Path,
    as_json_: bool,  # noqa: FBT001 - a flag of the command line
    address: str | None,
    medium: str | None,
    mxid: str | None,
) -> None:
    """Show to whom an address is bound, or which addresses a user has; and who has yet to hear of it.

    The status is 1 when nothing is bound.

    Example: sydentish bindings show --address alice@example.org
    """
    if (address is None) == (mxid is None):
        raise click.UsageError("Give --address, or --mxid.")
    threepid = None if address is None else read_address(address, medium)
    config = read_config(config_path)
    server_name = config.general.server_name

    def read(tx: Tx) -> _Found:
        return _of_user(tx, mxid or "", server_name) if threepid is None else _of(tx, threepid, server_name)

    async def ask(_: World, db: Database) -> _Found:
        return await db.read(read)

    found = run_with_database(config, ask)
    if as_json_:
        print_json({"bindings": [_as_json(each) for each in found.bindings]})
    for number, each in enumerate([] if as_json_ else found.bindings):
        if number:
            click.echo()
        _print(each)
    if not found.bindings:
        cannot_run(_nothing(address or mxid or "", found.unbound))


def _of(tx: Tx, threepid: Threepid, server_name: str) -> _Found:
    known = association_rows.association(tx, threepid)
    if known is None:
        return _Found([], statement_rows.newest(tx, threepid))
    return _Found([_binding(tx, known, server_name)])


def _of_user(tx: Tx, mxid: str, server_name: str) -> _Found:
    return _Found([_binding(tx, each, server_name) for each in association_rows.of_user(tx, mxid)])


def _binding(tx: Tx, known: Association, server_name: str) -> _Binding:
    cause = onbind_cause(known, server_name)
    own = known.origin_server == server_name
    return _Binding(
        known,
        own,
        outbox_rows.rows_of(tx, cause),
        outbox_rows.rows_of(tx, cause, "dead"),
        progress.behind_at(tx, known.origin_id) if own else [],
    )


def _nothing(who: str, unbound: Order | None) -> str:
    if unbound is None:
        return f"{who}: nothing is bound"
    return f"{who}: nothing is bound; {unbound.origin_server} unbound it {moment(unbound.ts, now_ms())}"


def _print(binding: _Binding) -> None:
    known = binding.association
    print_fields(
        [
            ("address", known.threepid.address),
            ("medium", known.threepid.medium),
            ("user", known.mxid),
            ("since", moment(known.ts, now_ms())),
            ("stated by", f"{known.origin_server}, statement {known.origin_id}"),
            ("homeserver", _homeserver(binding)),
            ("peers behind", _peers(binding)),
        ]
    )


def _homeserver(binding: _Binding) -> str:
    """Whether the homeserver has yet to hear of the bind, in words."""
    if binding.pending:
        return f"is to be told: {_rows(binding.pending)}"
    if binding.dead:
        return f"could not be told: {_rows(binding.dead)}"
    if not binding.own:
        return f"hears of it from {binding.association.origin_server}"
    # Most likely it was told; but a row that was dropped, deleted or lost by a restore leaves no trace either.
    return "nothing waits to be told"


def _rows(outbox_ids: list[int]) -> str:
    return f"outbox {', '.join(map(str, outbox_ids))}"


def _peers(binding: _Binding) -> str:
    if not binding.own:
        return f"are sent it by {binding.association.origin_server}"
    return ", ".join(binding.peers_behind) or "none"


def _as_json(binding: _Binding) -> dict[str, object]:
    known = binding.association
    return {
        "medium": known.threepid.medium,
        "address": known.threepid.address,
        "mxid": known.mxid,
        "ts": known.ts,
        "not_after": known.not_after,
        "origin_server": known.origin_server,
        "origin_id": known.origin_id,
        "own": binding.own,
        "onbind_pending": binding.pending,
        "onbind_dead": binding.dead,
        "peers_behind": binding.peers_behind if binding.own else None,
    }
