"""Servers that are each other's peers: processes of their own, over mutual TLS, and lines between them to cut."""

import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treq
from daemons import BASE, SECONDS, Daemon, free_port
from signedjson.key import decode_verify_key_bytes, generate_signing_key, get_verify_key
from standins.certificates import Authority, ServerCertificate
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyServer
from unpaddedbase64 import encode_base64

from sydentish.store.progress import report
from sydentish.store.sqlite import SqliteTx, connect

A, B, C = "a.example.org", "b.example.org", "c.example.org"
# A homeserver that nobody waits for: connections to it are refused at once.
ELSEWHERE = "127.0.0.1:1"

CONFIG = """
[http]
v1_endpoints = all
internal_listeners = tcp:{internal_port}:interface=127.0.0.1
[homeservers]
allowed_addresses = 127.0.0.0/8
ca_file = {folder}/ca.pem
[replication]
listeners = tcp:{replication_port}:interface=127.0.0.1
certificate_file = {folder}/tls.pem
ca_file = {folder}/ca.pem
"""
# Read by every Python before anything else: all that asks for the time is told another one.
CLOCK = """\
import time
_true = time.time
time.time = lambda: _true() + {seconds}
"""
_KNOWN = """
SELECT origin_server, origin_id, ts, address, mxid FROM associations
UNION ALL SELECT origin_server, origin_id, ts, NULL, NULL FROM erased_addresses ORDER BY 1, 2
"""
_OWN = """
SELECT address, ts, origin_server, origin_id, mxid FROM associations WHERE origin_server = ?
UNION ALL SELECT address, ts, ?, origin_id, NULL FROM tombstones
"""


async def eventually(holds: Callable[[], Awaitable[object]], what: str) -> Any:
    """Asks again and again, until the answer is yes; returns that."""
    late = reactor.seconds() + SECONDS
    while True:
        answer = await holds()
        if answer:
            return answer
        assert reactor.seconds() < late, f"not in {SECONDS} s: {what}"
        await deferLater(reactor, 0.05)


def behind(folder: Path, name: str, peer: str) -> int:
    """How many statements of a server a peer has not acknowledged; its metrics tell it a few seconds later."""
    with closing(connect(folder / "data" / "sydentish.db", 5000, read_only=True)) as connection:
        found = {each.state.peer.name: each.behind for each in report(SqliteTx(connection), name)}
    return found[peer]


class Member(Daemon):
    """A server that has peers.

    Attributes:
        name: its server name, and the common name of its certificate.
        replication_url: where its peers push to.
    """

    def __init__(
        self, folder: Path, name: str, authority: Authority, *sections: str, show: str | None = None
    ) -> None:
        """Is nobody's peer yet.

        Args:
            folder: must be there, and empty.
            name: its server name.
            authority: vouches for it, and for those that it believes.
            sections: more configuration.
            show: the common name of its certificate, if not `name`.
        """
        self.name = name
        replication_port, internal_port = free_port(), free_port()
        self._port = replication_port
        self.replication_url = f"https://localhost:{replication_port}"
        self._internal = f"http://127.0.0.1:{internal_port}{BASE}/internal/"
        self._key = generate_signing_key("0")
        text = CONFIG.format(folder=folder, replication_port=replication_port, internal_port=internal_port)
        super().__init__(folder, text, *sections, server_name=name)
        authority.write_ca(folder / "ca.pem")
        self.shows(authority.issue("localhost", common_name=show or name))
        self._write_key()

    def _write_key(self) -> None:
        keys = self.folder / "data" / "keys"
        keys.mkdir(mode=0o700, parents=True)
        keys.parent.chmod(0o700)
        with os.fdopen(os.open(keys / "ed25519_0.key", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(f"ed25519 0 {encode_base64(self._key.encode())}\n")

    @property
    def public_key(self) -> str:
        """What verifies its signatures, in unpadded base64."""
        return encode_base64(get_verify_key(self._key).encode())

    @property
    def verify_key(self) -> Any:
        """The same, as signedjson has it."""
        return decode_verify_key_bytes("ed25519:0", get_verify_key(self._key).encode())

    @property
    def replication_port(self) -> int:
        """Where its peers connect to."""
        return self._port

    def shows(self, certificate: ServerCertificate) -> None:
        """From its next start on, this is its certificate."""
        path = self.folder / "tls.pem"
        path.touch(0o600)
        certificate.write(path)

    def configure(self, text: str) -> None:
        """Adds to its configuration; for its next start."""
        with self.config.open("a") as config:
            config.write(f"\n{text}\n")

    def knows(self, *peers: Any, at: str | None = None) -> None:
        """Others become its peers, at its next start; `at` is a URL instead of their own."""
        for peer in peers:
            self.configure(
                f"[peer {peer.name}]\nurl = {at or peer.replication_url}\nkeys = ed25519:0 {peer.public_key}"
            )

    def live_in(self, seconds: int) -> None:
        """From its next start on, its clock is so far ahead."""
        folder = self.folder / "clock"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(CLOCK.format(seconds=seconds))
        self.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))

    async def bind(self, address: str, mxid: str) -> None:
        """Binds an e-mail address here."""
        await self._order("bind", json.dumps(_threepid(address, mxid)))

    async def unbind(self, address: str, mxid: str) -> None:
        """Unbinds it here, wherever it was bound."""
        await self._order("unbind", json.dumps(_threepid(address, mxid)))

    async def bind_all(self, owners: dict[str, str]) -> None:
        """Binds many addresses at once, each to a user."""
        lines = [json.dumps(_threepid(address, mxid)) for address, mxid in owners.items()]
        answers = await self._order("bulk", "\n".join(lines))
        assert answers.splitlines() == ["{}"] * len(owners)

    async def _order(self, verb: str, body: str) -> str:
        response = await treq.post(self._internal + verb, body.encode(), timeout=SECONDS, persistent=False)
        text = await response.text()
        assert response.code == 200, text
        return text

    async def association(self, address: str) -> dict[str, Any]:
        """What it tells everybody of an address; empty where it belongs to nobody."""
        query = {"medium": "email", "address": address}
        status, found = await self.ask("GET", "/api/v1/lookup", params=query)
        assert status == 200, found
        return found

    async def owner(self, address: str) -> str | None:
        """To whom it says that an address belongs."""
        return (await self.association(address)).get("mxid")

    async def comes_to_know(self, address: str, mxid: str | None) -> None:
        """Returns when it tells everybody that an address belongs to a user, or to nobody."""

        async def holds() -> bool:
            return await self.owner(address) == mxid

        await eventually(holds, f"{self.name} knows whose {address} is:\n{self.last_words}")

    def rows(self, statement: str, *parameters: object) -> list[Any]:
        """What is in its database."""
        path = self.folder / "data" / "sydentish.db"
        # For reading only: else this would tidy up after a process that was killed.
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def known(self) -> list[Any]:
        """All that it knows, as all servers should: the newest statement of each address."""
        return self.rows(_KNOWN)

    def own(self) -> list[Any]:
        """What its peers are to know, and some of them do not yet: address, order and owner."""
        return self.rows(_OWN, self.name, self.name)

    def number_from(self, origin: str) -> int:
        """How many associations of another server it knows."""
        ((number,),) = self.rows("SELECT count(*) FROM associations WHERE origin_server = ?", origin)
        return number

    async def has_from(self, origin: str, number: int) -> None:
        """Returns when it knows so many associations of another server, or more."""

        async def holds() -> bool:
            return self.number_from(origin) >= number

        await eventually(holds, f"{self.name} has {number} of {origin}:\n{self.last_words}")

    def peer(self, name: str) -> dict[str, Any]:
        """What its database has of a peer."""
        names = (
            "acknowledged_id",
            "failures",
            "failing_since_ts",
            "retry_ts",
            "last_failure_ts",
            "last_failure",
        )
        ((*values,),) = self.rows(f"SELECT {', '.join(names)} FROM peers WHERE name = ?", name)
        return dict(zip(names, values, strict=True))

    async def figure(self, metric: str, **labels: str) -> float:
        """One of its metrics; 0 where there is none of these labels."""
        told = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
        wanted = f"{metric}{{{told}}} "
        lines = [line for line in (await self.metrics()).splitlines() if line.startswith(wanted)]
        return float(lines[0].removeprefix(wanted)) if lines else 0.0

    def lag(self, peer: str) -> int:
        """How many of its statements a peer has not acknowledged."""
        return behind(self.folder, self.name, peer)

    @property
    def last_words(self) -> str:
        """The end of its log, for those who wonder."""
        return (self.process.output if self.process else self.output)[-3000:]


def _threepid(address: str, mxid: str) -> dict[str, str]:
    return {"medium": "email", "address": address, "mxid": mxid}


def people(number: int, where: str = "example.org") -> dict[str, str]:
    """Addresses of many users."""
    return {f"u{each}@{where}": f"@u{each}:{ELSEWHERE}" for each in range(number)}


@dataclass
class Mesh:
    """Some servers, each a peer of all others."""

    folder: Path
    authority: Authority
    members: list[Member]

    def add(self, name: str, *sections: str, show: str | None = None) -> Member:
        """A server that nobody knows yet."""
        folder = self.folder / name
        folder.mkdir()
        member = Member(folder, name, self.authority, *sections, show=show)
        self.members.append(member)
        return member

    def of(self, *names: str, sections: Iterable[str] = ()) -> list[Member]:
        """Servers that all know each other."""
        found = [self.add(name, *sections) for name in names]
        for member in found:
            member.knows(*(other for other in found if other is not member))
        return found

    async def start(self, *members: Member) -> None:
        """Starts some, else all, side by side."""
        await side_by_side(*(member.start() for member in members or self.members))

    async def exchange(self, *members: Member) -> None:
        """Waits until each of some, else of all, has told the others what was said to it."""
        members = members or tuple(self.members)
        for member in members:
            for other in members:
                if other is not member:
                    await self._has_told(member, other)

    async def agree(self, *members: Member) -> list[Any]:
        """Waits for the same; returns what all of them know then."""
        await self.exchange(*members)
        first, *rest = [member.known() for member in members or self.members]
        assert all(known == first for known in rest)
        return first

    async def _has_told(self, member: Member, other: Member) -> None:
        async def holds() -> bool:
            return member.lag(other.name) == 0

        what = f"{member.name} has told {other.name} all:\n{member.last_words}\n{other.last_words}"
        await eventually(holds, what)

    async def clean_up(self) -> None:
        """Ends all of them."""
        await side_by_side(*(member.clean_up() for member in self.members))


async def side_by_side(*doings: Any) -> None:
    """Does all at once."""
    await gatherResults([Deferred.fromCoroutine(doing) for doing in doings], consumeErrors=True)


class _Far(ProxyClient):
    """The connection to whom it is a line to."""

    def dataReceived(self, data: bytes) -> None:
        if not self.peer.factory.line.mutes(self.peer):
            super().dataReceived(data)


class _FarFactory(ProxyClientFactory):
    protocol = _Far
    noisy = False


class _Near(ProxyServer):
    """The connection of whom has called."""

    clientProtocolFactory = _FarFactory
    said = 0

    def connectionMade(self) -> None:
        self.factory.line.calls[self] = Deferred()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self.said += len(data)
        if self.factory.line.passes_on(self):
            super().dataReceived(data)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        self.factory.line.calls.pop(self).callback(None)


class Line:
    """A way to a server that can be cut, and that can stop in the middle of what is said.

    Attributes:
        url: where it begins.
        held: fires when something was held back.
        calls: the open connections; each fires when it is gone.
    """

    def __init__(self, to_port: int) -> None:
        """Leads nowhere until it is joined."""
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.calls: dict[_Near, Deferred[None]] = {}
        self.held: Deferred[None] = Deferred()
        self._limit: int | None = None
        self._answers_only = False
        self._factory = Factory.forProtocol(_Near)
        self._factory.noisy = False
        self._factory.host, self._factory.port, self._factory.line = "127.0.0.1", to_port, self
        self._listening: Any = None

    def join(self) -> None:
        """Leads to the server."""
        self._listening = reactor.listenTCP(self.port, self._factory, interface="127.0.0.1")

    async def cut(self) -> None:
        """Leads nowhere, from now on."""
        if self._listening is not None:
            await self._listening.stopListening()
            self._listening = None
        gone = list(self.calls.values())
        for call in list(self.calls):
            call.transport.abortConnection()
        await gatherResults(gone)

    def hold(self, after: int, *, answers: bool = False) -> None:
        """Holds back what is said after so many bytes, or the answers to that."""
        self._limit, self._answers_only, self.held = after, answers, Deferred()

    def release(self) -> None:
        """Holds nothing back of what will be said; what was held back is lost."""
        self._limit = None

    def passes_on(self, call: _Near) -> bool:
        """Whether what was said gets through."""
        return self._answers_only or not self._is_held(call)

    def mutes(self, call: _Near) -> bool:
        """Whether an answer is held back."""
        return self._answers_only and self._is_held(call)

    def _is_held(self, call: _Near) -> bool:
        held = self._limit is not None and call.said > self._limit
        if held and not self.held.called:
            self.held.callback(None)
        return held
