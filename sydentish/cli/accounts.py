"""`sydentish accounts`."""

from pathlib import Path

import click

from sydentish.cli.addresses import user_argument
from sydentish.cli.common import cannot_run, config_option, limit_option, read_config
from sydentish.cli.printing import Progress, ago, json_option, now_ms, print_json, print_table, progress
from sydentish.cli.running import run_with_database
from sydentish.cli.turns import Turns
from sydentish.config import Config
from sydentish.parts.world import World
from sydentish.store import accounts as account_rows
from sydentish.store import figures
from sydentish.store.accounts import KnownAccount
from sydentish.store.database import Database, Tx

# Of the accounts that are logged out in a transaction: few enough that the server need not wait for long.
_BATCH = 200
_HEAD = ("USER", "CREATED", "LAST SEEN", "TOKENS")


@click.group(short_help="The users who have registered here.")
def accounts() -> None:
    """The users who have registered here, and their access tokens."""


@accounts.command("list")
@config_option
@json_option
@click.option("--after", metavar="MXID", default="", help="Go on behind this user.")
@limit_option
def list_accounts(config_path: Path, as_json_: bool, after: str, limit: int) -> None:  # noqa: FBT001 - a flag of the command line
    """List accounts, in the order of their users.

    LAST SEEN is when an access token was last used, to within a day; TOKENS how many there are.

    Example: sydentish accounts list --limit 100
    """

    async def look(_: World, db: Database) -> list[KnownAccount]:
        return await db.read(account_rows.accounts_after, after, limit + 1)

    known = run_with_database(read_config(config_path), look)
    found, more = known[:limit], len(known) > limit
    last = found[-1].user_id if more else None
    if as_json_:
        print_json({"accounts": [_as_json(each) for each in found], "next": last})
        return
    if not found:
        click.echo("There are no accounts" + (" behind that user" if after else ""))
        return
    now = now_ms()
    print_table([_HEAD, *(_row(each, now) for each in found)])
    if more:
        click.echo(f"There are more: sydentish accounts list --after {last}", err=True)


@accounts.command()
@config_option
@click.option("--all", "everybody", is_flag=True, help="Log all users out.")
@user_argument
def logout(config_path: Path, everybody: bool, mxid: str | None) -> None:  # noqa: FBT001 - as above
    """End all access tokens of a user, or of all users.

    Clients register again when they need a token. The account stays, with the terms that were accepted; to delete it:
    sydentish erase --mxid

    Example: sydentish accounts logout @alice:example.org
    """
    if everybody == (mxid is not None):
        raise click.UsageError("Give a user, or --all.")
    config = read_config(config_path)
    if mxid is not None:
        _log_out(config, mxid)
        return
    with progress("Logging out") as on_progress:
        users, tokens = run_with_database(
            config, lambda world, db: _log_all_out(Turns(db, world.reactor), on_progress)
        )
    click.echo(f"{tokens} access tokens of {users} users are ended")


def _log_out(config: Config, mxid: str) -> None:
    async def log_out(_: World, db: Database) -> int | None:
        return await db.write(account_rows.delete_tokens, mxid)

    ended = run_with_database(config, log_out)
    if ended is None:
        cannot_run(f"{mxid}: has no account; see sydentish accounts list")
    click.echo(f"{mxid}: {ended} access tokens are ended")


async def _log_all_out(db: Database, on_progress: Progress) -> tuple[int, int]:
    users, tokens, last = 0, 0, ""
    of = await db.read(figures.accounts)

    def log_out(tx: Tx, after: str) -> list[tuple[str, int]]:
        found = account_rows.logged_in_after(tx, after, _BATCH)
        return [(each, account_rows.delete_tokens(tx, each) or 0) for each in found]

    while ended := await db.write(log_out, last):
        users += len(ended)
        tokens += sum(number for _, number in ended)
        last = ended[-1][0]
        on_progress(users, max(of, users))
    return users, tokens


def _row(account: KnownAccount, now_ms: int) -> tuple[str, ...]:
    return (
        account.user_id,
        ago(account.created_ts, now_ms),
        ago(account.last_seen_ts, now_ms),
        str(account.tokens),
    )


def _as_json(account: KnownAccount) -> dict[str, object]:
    return {
        "user_id": account.user_id,
        "created_ts": account.created_ts,
        "last_seen_ts": account.last_seen_ts,
        "access_tokens": account.tokens,
    }
