"""Several servers that keep the same associations, with one of them killed on the way."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import treq
from standins.certificates import Authority
from standins.ports import free_port
from twisted.internet import reactor
from twisted.internet.task import deferLater

from demonstration.daemon import BASE, Daemon
from demonstration.showing import Failed, check, paint, pretty, show, step
from demonstration.surroundings import SECONDS

CONFIG = """\
[general]
server_name = {server_name}
public_base_url = {base_url}
data_dir = {folder}/data

[http]
listeners = tcp:{port}:interface=127.0.0.1
metrics_listeners = tcp:{metrics_port}:interface=127.0.0.1
# Where addresses are bound without proof, for scripts of the operator.
internal_listeners = tcp:{internal_port}:interface=127.0.0.1
v1_endpoints = all
v1_trusted_networks = 127.0.0.0/8

[replication]
listeners = tcp:{peers_port}:interface=127.0.0.1
certificate_file = {folder}/tls.pem
ca_file = {ca_file}

[log]
file = {log_file}
"""

PEER = """
[peer {server_name}]
url = {url}
keys = ed25519:0 {public_key}
"""

MANY = 1000
ALICE, BOB = "@alice:hs.example.org", "@bob:hs.example.org"


class PeerServer(Daemon):
    """A server of a mesh.

    Attributes:
        server_name: its name.
        section: what its peers have to know of it, once it has a key.
    """

    def __init__(self, folder: Path, server_name: str, authority: Authority, ca_file: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._internal_port, peers_port = free_port(), free_port()
        super().__init__(
            folder,
            CONFIG,
            server_name=server_name,
            internal_port=self._internal_port,
            peers_port=peers_port,
            ca_file=ca_file,
        )
        self.server_name = server_name
        self._url = f"https://localhost:{peers_port}"
        authority.issue(server_name, common_name=server_name).write(folder / "tls.pem")
        self.section = ""

    def make_key(self) -> None:
        """Makes its signing key."""
        public_key = self.run("keys", "generate").split()[-1]
        self.section = PEER.format(server_name=self.server_name, url=self._url, public_key=public_key)

    async def provision(self, *lines: dict[str, object]) -> None:
        """Binds and unbinds by the word of the operator, a line for each."""
        response = await treq.post(
            f"http://127.0.0.1:{self._internal_port}{BASE}/internal/bulk",
            data="\n".join(map(json.dumps, lines)).encode(),
            timeout=SECONDS,
        )
        answers = (await response.text()).split()
        if answers != ["{}"] * len(lines):
            raise Failed(f"{self.server_name} did not bind: {answers[:3]}")

    async def association(self, address: str) -> Any:  # noqa: ANN401 - JSON
        """What it says of an address, signed; empty if it is nobody's."""
        response = await treq.get(
            f"{self.base_url}{BASE}/api/v1/lookup",
            params={"medium": "email", "address": address},
            timeout=SECONDS,
        )
        return await response.json()

    async def users(self, addresses: Sequence[str]) -> dict[str, str]:
        """Whose these addresses are, of those that are somebody's."""
        response = await treq.post(
            f"{self.base_url}{BASE}/api/v1/bulk_lookup",
            json={"threepids": [["email", address] for address in addresses]},
            timeout=SECONDS,
        )
        return {address: mxid for _, address, mxid in (await response.json())["threepids"]}

    def has_written(self, text: str) -> bool:
        """Whether a text stands in its database."""
        return any(text.encode() in file.read_bytes() for file in (self._folder / "data").glob("*.db*"))


def bound(address: str, mxid: str) -> dict[str, object]:
    """A line that binds."""
    return {"medium": "email", "address": address, "mxid": mxid}


def unbound(address: str, mxid: str) -> dict[str, object]:
    """A line that unbinds."""
    return bound(address, mxid) | {"action": "unbind"}


async def agree(servers: Sequence[PeerServer], expected: dict[str, str], also: Sequence[str] = ()) -> None:
    """Waits until all servers say the same of some addresses.

    Args:
        servers: who is asked.
        expected: whose the addresses are.
        also: addresses that must be nobody's.
    """
    for _ in range(SECONDS * 20):
        answers = [await server.users([*expected, *also]) for server in servers]
        if all(answer == expected for answer in answers):
            return
        await deferLater(reactor, 0.05)
    raise Failed(f"The servers did not agree within {SECONDS} s")


async def replication(folder: Path, number: int) -> None:
    """The story, in steps."""
    authority = Authority()
    ca_file = authority.write_ca(folder / "ca.pem")
    names = [f"{letter}.example.org" for letter in "abcdefghi"[:number]]
    servers = [PeerServer(folder / name, name, authority, ca_file) for name in names]
    try:
        await meet(servers)
        await share(servers)
        await survive(servers)
        await forget(servers)
        print(f"\n{paint('1;32', 'All of it held.')}")
        for server in servers:
            await server.stop()
    finally:
        for server in servers:
            server.kill()


async def meet(servers: Sequence[PeerServer]) -> None:
    """They are told of one another, and started."""
    step(f"{len(servers)} servers, each with a signing key, and a certificate of one authority")
    for server in servers:
        server.make_key()
    step("Each is told of the others")
    for server in servers:
        for other in servers:
            if other is not server:
                server.add_to_config(other.section)
    show(" ", "".join(other.section for other in servers[1:]).strip())
    for server in servers:
        await server.start()
    first, second = servers[:2]
    first.run("peers", "test", second.server_name)


async def share(servers: Sequence[PeerServer]) -> None:
    """One binds, all know."""
    first, second = servers[:2]
    step(f"Alice's address is bound at {first.server_name}, and all servers know it")
    await first.provision(bound("alice@example.org", ALICE))
    await agree(servers, {"alice@example.org": ALICE})
    association = await second.association("alice@example.org")
    show("←", f"{second.server_name} says:\n{pretty(association)}")
    signers = set(association["signatures"])
    check(
        f"it is signed by {first.server_name}, who stated it, and by {second.server_name}, who says so",
        holds=signers == {first.server_name, second.server_name},
    )


async def survive(servers: Sequence[PeerServer]) -> None:
    """One is killed, the others go on; it comes back."""
    first, second, last = servers[0], servers[1], servers[-1]
    step(f"{last.server_name} is killed; meanwhile, {MANY} addresses are bound, and Alice's changes hands")
    last.kill()
    many = {f"user{n}@example.org": f"@user{n}:hs.example.org" for n in range(MANY)}
    await first.provision(*(bound(address, mxid) for address, mxid in many.items()))
    await first.provision(bound("alice@example.org", BOB))
    rest = [server for server in servers if server is not last]
    await agree(rest, many | {"alice@example.org": BOB})
    check("the servers that are left agree", holds=True)
    first.run("peers", "list")
    step(f"{last.server_name} is started again, and learns all of it")
    await last.start()
    await agree(servers, many | {"alice@example.org": BOB})
    check(f"all {len(servers)} servers say the same of all {MANY + 1} addresses", holds=True)
    await agree_about_conflict(first if second is last else second, last, servers)


async def agree_about_conflict(one: PeerServer, other: PeerServer, servers: Sequence[PeerServer]) -> None:
    """Two servers bind the same address to different users, one after the other."""
    step(f"Carol's address is bound at {one.server_name}, and then to another user at {other.server_name}")
    await one.provision(bound("carol@example.org", ALICE))
    await agree(servers, {"carol@example.org": ALICE})
    await other.provision(bound("carol@example.org", BOB))
    await agree(servers, {"carol@example.org": BOB})
    check("the newest statement has won everywhere", holds=True)


async def forget(servers: Sequence[PeerServer]) -> None:
    """An address is unbound, and gone."""
    first = servers[0]
    step("Alice's address is unbound, which erases it")
    await first.provision(unbound("alice@example.org", BOB))
    await agree(servers, {}, ["alice@example.org"])
    check("no server knows it any more", holds=True)
    for server in servers:
        await server.stop()
    written = [server.server_name for server in servers if server.has_written("alice@example.org")]
    check("it stands in no database: a keyed hash of it is all that is left", holds=not written)
