"""`sydentish bindings bind` and `unbind`."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from sydentish.actions.associations import Outcome, Provision, provide
from sydentish.actions.statements import Statements
from sydentish.cli.addresses import address_option, medium_option, read_address, user_option
from sydentish.cli.common import config_option, read_config, read_keys
from sydentish.cli.running import CannotDo, run_with_database
from sydentish.domain.threepids import Threepid
from sydentish.parts.deeds import make_statements
from sydentish.parts.world import World
from sydentish.store import associations as association_rows
from sydentish.store.database import Database, Tx

T = TypeVar("T")

_TOLD = "a running server tells {whom} within seconds"


@click.command()
@config_option
@address_option(required=True)
@medium_option
@user_option("--mxid", required=True)
def bind(config_path: Path, address: str, medium: str | None, mxid: str) -> None:
    """Bind an address to a user, without any proof that it is theirs.

    Whoever had it before has it no more.

    Example: sydentish bindings bind --address alice@example.org --mxid @alice:example.org
    """
    wanted = Provision(read_address(address, medium), mxid, bound=True)

    def change(tx: Tx, statements: Statements, now_ms: int) -> Outcome:
        return provide(tx, statements, [wanted], now_ms)[0]

    if _do(config_path, change) is Outcome.UNCHANGED:
        click.echo(f"{wanted.threepid.address}: is bound to {mxid} already")
    else:
        told = _TOLD.format(whom="the homeserver and the peers")
        click.echo(f"{wanted.threepid.address}: is bound to {mxid}; {told}")


@click.command()
@config_option
@address_option(required=True)
@medium_option
@user_option("--mxid", help="Only if it is bound to this user.")
def unbind(config_path: Path, address: str, medium: str | None, mxid: str | None) -> None:
    """Unbind an address.

    One that is not bound is left as it is, which is a success.

    Example: sydentish bindings unbind --address alice@example.org
    """
    threepid = read_address(address, medium)
    user = _do(config_path, lambda tx, statements, now_ms: _unbind(tx, statements, threepid, mxid, now_ms))
    if user is None:
        click.echo(f"{threepid.address}: is not bound to anybody")
    else:
        click.echo(f"{threepid.address}: is unbound from {user}; {_TOLD.format(whom='the peers')}")


def _unbind(tx: Tx, statements: Statements, threepid: Threepid, mxid: str | None, now_ms: int) -> str | None:
    """Unbinds an address; from whom."""
    known = association_rows.association(tx, threepid)
    if known is None:
        return None
    if mxid not in (None, known.mxid):
        raise CannotDo(f"--mxid: the address is bound to another user, {known.mxid}: it is left as it is")
    provide(tx, statements, [Provision(threepid, known.mxid, bound=False)], now_ms)
    return known.mxid


def _do(config_path: Path, change: Callable[[Tx, Statements, int], T]) -> T:
    """Makes a change, in one transaction; ends the program if it is refused."""
    config = read_config(config_path)
    keys = read_keys(config, config_path)

    async def make(world: World, db: Database) -> T:
        return await db.write(change, make_statements(config, world, keys), world.now_ms())

    return run_with_database(config, make)
