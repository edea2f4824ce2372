"""`sydentish peers test` and `resync`."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import click

from sydentish.cli.common import cannot_run, config_option, read_config, read_keys, refuse
from sydentish.cli.peers.known import name_argument
from sydentish.cli.printing import Progress, json_option, print_json, print_line, progress
from sydentish.cli.running import CannotDo, must_have_database, run, run_with_database, with_database
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import Peer
from sydentish.parts.replication import make_resync, make_trial, peer_tls
from sydentish.parts.world import World
from sydentish.replication.credentials import TlsProblem
from sydentish.replication.resync import Resynced
from sydentish.replication.tls import PeerTls
from sydentish.replication.trial import Finding
from sydentish.store import peers as peer_rows
from sydentish.store.database import Database
from sydentish.store.peers import PeerState


@click.command()
@config_option
@json_option
@name_argument
def test(config_path: Path, as_json_: bool, name: str) -> None:  # noqa: FBT001 - a flag of the command line
    """Connect to a peer, and tell of each step whether it is as it should be: names, certificates, keys and clocks.

    Exit status 1 when anything is wrong. Nothing is stored, here or there; the server need not run, and the peer
    may stand in a configuration that it has not read yet.

    Example: sydentish peers test id.example.net
    """
    config = read_config(config_path)
    keys, tls = _credentials(config, config_path)
    configured = next((each for each in config.peers if each.name == name), None)
    if configured is None:
        must_have_database(config)

    async def try_it(world: World) -> list[Finding]:
        peer = configured or await _added(config, world, name)
        return await make_trial(config, world, keys=keys, tls=tls).run(peer)

    findings = run(try_it)
    well = all(each.ok for each in findings)
    if as_json_:
        print_json({"peer": name, "ok": well, "steps": [asdict(each) for each in findings]})
    else:
        for each in findings:
            print_line(f"ok: {each.told}" if each.ok else f"failed: {each.told}; {each.remedy}")
    sys.exit(0 if well else 1)


@click.command()
@config_option
@json_option
@name_argument
def resync(config_path: Path, as_json_: bool, name: str) -> None:  # noqa: FBT001 - as above
    """Compare what a peer knows of this server's statements with what is known here, and send what is missing there.

    For a peer that has lost something, after a restored backup for example, or that was removed and added again: what
    it still has although it was unbound here meanwhile is erased there. The server may run. A Sydent cannot be compared
    with: everything is pushed to it again.

    Example: sydentish peers resync id.example.net
    """
    config = read_config(config_path)
    keys, tls = _credentials(config, config_path)
    with progress(f"Comparing with {name}") as on_progress:
        found = run_with_database(config, _resync(config, keys, tls, name, on_progress))
    if as_json_:
        print_json({"peer": name, **_numbers(found)})
    else:
        _print(name, found)
    if found.failure is not None:
        cannot_run(f"{name}: broke off: {found.failure}; see sydentish peers test {name}")


def _credentials(config: Config, config_path: Path) -> tuple[KeyRing, PeerTls]:
    """Our keys and our certificate; ends the program without them."""
    keys = read_keys(config, config_path)
    try:
        tls = peer_tls(config)
    except TlsProblem as problem:
        refuse(str(problem))
    if tls is None:
        refuse(
            "[replication] certificate_file, ca_file: must be set: peers are shown a certificate, and show theirs"
        )
    return keys, tls


async def _added(config: Config, world: World, name: str) -> Peer:
    """A peer that does not stand in the configuration."""

    async def find(_: World, db: Database) -> PeerState:
        return await _in_use(db, name)

    return (await with_database(config, world, find)).peer


async def _in_use(db: Database, name: str) -> PeerState:
    state = await db.read(peer_rows.state, name)
    if state is None:
        raise CannotDo(f"{name}: the server knows no such peer; see sydentish peers list")
    if not state.in_use:
        raise CannotDo(f"{name}: is not in use; see sydentish peers show {name}")
    return state


def _resync(
    config: Config, keys: KeyRing, tls: PeerTls, name: str, on_progress: Progress
) -> Callable[[World, Database], Awaitable[Resynced]]:
    async def work(world: World, db: Database) -> Resynced:
        peer = (await _in_use(db, name)).peer
        made = make_resync(config, world, db=db, keys=keys, tls=tls, on_progress=on_progress)
        return await made.run(peer)

    return work


def _numbers(found: Resynced) -> dict[str, object]:
    refused = [{"id": number, "reason": reason} for number, reason in sorted(found.refused.items())]
    return asdict(found) | {"refused": refused}


def _print(name: str, found: Resynced) -> None:
    if found.starts_over:
        click.echo(
            f"{name}: answers 404 without JSON, and is taken for a Sydent, which cannot be compared with: "
            f"the server pushes everything to it again; if it is none: sydentish peers test {name}"
        )
        return
    click.echo(f"{name}: {found.compared} statements compared, {found.sent} sent again")
    for number, told in (
        (len(found.refused), "refused by it, and tried again later"),
        (found.outdated, "taken, but not kept: it knows newer ones of other servers"),
        (found.gone, "that it still had, though unbound and erased here, are erased there now"),
        (found.superseded, "known to it, but outdated: whoever has stated what is newer sends that"),
        (found.foreign, "known to it, but no longer here: was this database set back?"),
    ):
        if number:
            click.echo(f"{number} {told}")
    for number, reason in sorted(found.refused.items()):
        print_line(f"refused: {number}: {reason}")
