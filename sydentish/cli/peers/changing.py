"""`sydentish peers add`, `remove`, `pause` and `resume`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from sydentish.cli.common import config_option, parsed, read_config
from sydentish.cli.peers.known import name_argument
from sydentish.cli.running import CannotDo, run_with_database
from sydentish.config import Config, network
from sydentish.config.replication import certificate_names, names_of, peer_keys
from sydentish.domain.peers import Peer
from sydentish.parts.world import World
from sydentish.store import peers as peer_rows
from sydentish.store import statements as statement_rows
from sydentish.store.database import Database, Tx

T = TypeVar("T")

_TAKEN_UP = "a running server takes that up within seconds"


@click.command()
@config_option
@name_argument
@click.option(
    "--url",
    required=True,
    callback=lambda _context, _option, value: parsed(network.peer_url, value),
    help="Where its replication listener is reached, such as https://id.example.net:4434.",
)
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    required=True,
    callback=lambda _context, _option, values: parsed(peer_keys, "\n".join(values)),
    help='One of its public keys, such as "ed25519:0 BASE64"; may be given more than once.',
)
@click.option(
    "--certificate-name",
    "names",
    metavar="NAME",
    multiple=True,
    callback=lambda _context, _option, values: parsed(certificate_names, "\n".join(values)),
    help="A DNS name or IP address of which its certificate must have one; the host of NAME without this.",
)
def add(config_path: Path, name: str, url: str, keys: Mapping[str, str], names: tuple[str, ...]) -> None:
    """Add a peer, or replace what was said of one that was added before.

    Its operator prints what is needed with: sydentish peers show, and the name of that server.

    Example: sydentish peers add id.example.net --url https://id.example.net:4434
    --key "ed25519:0 KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8"
    """
    config = read_config(config_path)
    peer = Peer(name, url, keys, names_of(name, names))
    click.echo(f"{name}: {_do(config, lambda tx, now_ms: _add(tx, config, peer, now_ms))}; {_TAKEN_UP}")
    click.echo(f"Try it: sydentish peers test {name}")
    replication = config.replication
    if replication.certificate_file is None:
        click.echo("warning: [replication] certificate_file is not set: nothing is exchanged", err=True)
    elif not replication.listeners:
        click.echo("warning: [replication] listeners is not set: nothing can be received", err=True)


@click.command()
@config_option
@name_argument
def remove(config_path: Path, name: str) -> None:
    """Forget a peer for good, so that the server no longer waits for it before it erases addresses.

    If the peer comes back one day, add it again: it is then sent all that is bound here. What was unbound meanwhile is
    erased, and so it hears of that only when you compare: sydentish peers resync

    Example: sydentish peers remove id.example.net
    """
    config = read_config(config_path)
    erased = _do(config, lambda tx, _: _remove(tx, config, name))
    click.echo(f"{name}: is forgotten; {erased} addresses that were kept only for it are erased")


@click.command()
@config_option
@name_argument
def pause(config_path: Path, name: str) -> None:
    """Push nothing to a peer until it is resumed; what comes from it is taken all the same.

    Example: sydentish peers pause id.example.net
    """
    _pause(read_config(config_path), name, paused=True)
    click.echo(f"{name}: is paused: go on with sydentish peers resume {name}")


@click.command()
@config_option
@name_argument
def resume(config_path: Path, name: str) -> None:
    """Go on pushing to a peer, and try at once also if it has failed before.

    Example: sydentish peers resume id.example.net
    """
    _pause(read_config(config_path), name, paused=False)
    click.echo(f"{name}: is pushed to; {_TAKEN_UP}")


def _do(config: Config, change: Callable[[Tx, int], T]) -> T:
    """Makes a change, in one transaction; ends the program if it is refused."""

    async def make(world: World, db: Database) -> T:
        return await db.write(change, world.now_ms())

    return run_with_database(config, make)


def _add(tx: Tx, config: Config, peer: Peer, now_ms: int) -> str:
    """Adds a peer; what that comes to."""
    if peer.name == config.general.server_name:
        raise CannotDo(f"{peer.name}: is this server itself, by [general] server_name; a peer is another one")
    if _is_configured(config, peer.name):
        where = f"in the configuration, [peer {peer.name}]"
        raise CannotDo(f"{peer.name}: stands {where}: change it there, and restart the server")
    for other in (*config.peers, *peer_rows.in_use(tx)):
        shared = set(peer.certificate_names) & set(other.certificate_names)
        if shared and peer.name != other.name:
            raise CannotDo(
                f"--certificate-name: {', '.join(sorted(shared))} is a certificate name of {other.name}, too: "
                "a certificate must tell whose it is"
            )
    before = peer_rows.state(tx, peer.name)
    peer_rows.add(tx, peer, now_ms)
    if before is None:
        return "is a peer"
    return "is a peer again" if not before.in_use else "was a peer already, and has these settings now"


def _remove(tx: Tx, config: Config, name: str) -> int:
    """Forgets a peer; how many addresses that has erased."""
    before = statement_rows.unerased(tx)
    if _is_configured(config, name):
        where = f"in the configuration, [peer {name}]"
        raise CannotDo(f"{name}: stands {where}: take that out, restart the server, and then remove it")
    if not peer_rows.remove(tx, name):
        raise _no_such_peer(config, name)
    return before - statement_rows.unerased(tx)


def _pause(config: Config, name: str, *, paused: bool) -> None:
    def change(tx: Tx, _now_ms: int) -> None:
        if not peer_rows.pause(tx, name, paused=paused):
            raise _no_such_peer(config, name)

    _do(config, change)


def _no_such_peer(config: Config, name: str) -> CannotDo:
    if _is_configured(config, name):
        return CannotDo(f"{name}: is not in use yet: restart the server")
    return CannotDo(f"{name}: there is no such peer; see sydentish peers list")


def _is_configured(config: Config, name: str) -> bool:
    return any(peer.name == name for peer in config.peers)
