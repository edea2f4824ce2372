"""Another kind of identity server: Sydent as a program of its own, out of the environment that `scripts/test` makes.

It is started, killed, asked and, where it has no API for it, set up by its database. Its pusher wakes at its
start and then every ten seconds.
"""

import os
import re
import signal
import sqlite3
from collections.abc import Mapping
from configparser import ConfigParser
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treq
from daemons import SECONDS, free_port
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.types import SigningKey
from standins.certificates import Authority
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from unpaddedbase64 import encode_base64

ENVIRONMENT = Path(__file__).parents[2] / ".venv-sydent"
# Written when everything else is there.
INSTALLED = ENVIRONMENT / "installed"
NAME = "sydent.example.org"
_ADD_PEER = "INSERT OR IGNORE INTO peers (name, active) VALUES (?, 1)"
_ADD_KEY = "INSERT OR REPLACE INTO peer_pubkeys (peername, alg, key) VALUES (?, 'ed25519', ?)"


@dataclass(frozen=True, slots=True)
class Peer:
    """One that a Sydent replicates to and from.

    Attributes:
        name: its server name, which must be the common name of its client certificate.
        url: the base of its replication URL, such as `https://localhost:4434`.
        public_key: in unpadded Base64; verifies signatures by the key ID `ed25519:0`.
    """

    name: str
    url: str
    public_key: str


class Sydent:
    """An identity server in a process of its own, with SQLite in `folder`; may be killed and started again.

    Attributes:
        name: its server name, and the common name of its certificate.
        replication_url: the base URL where it takes pushes, by mutual TLS.
        signing_key: its `ed25519:0`.
        process: what runs, or None.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        name: str = NAME,
        further: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Chooses ports and keys.

        Args:
            folder: for its configuration, its database and its certificate; must be there and empty.
            authority: vouches for it, and for the peers that it believes.
            name: its server name.
            further: more options for its configuration, by section.
        """
        self.name = name
        self._further = further or {}
        self.signing_key: SigningKey = generate_signing_key("0")
        self.process: _Process | None = None
        self._folder = folder
        self._peers: dict[str, Peer] = {}
        self._client_port, self._internal_port, self._replication_port = (free_port() for _ in range(3))
        self.replication_url = f"https://localhost:{self._replication_port}"
        authority.write_ca(folder / "ca.pem")
        authority.issue("localhost", "127.0.0.1", common_name=name).write(folder / "tls.pem")

    @property
    def config(self) -> Path:
        """Its configuration, from its first start on."""
        return self._folder / "sydent.conf"

    @property
    def client_url(self) -> str:
        """The base URL of its client API."""
        return f"http://127.0.0.1:{self._client_port}"

    @property
    def public_key(self) -> str:
        """What verifies its signatures, in unpadded Base64."""
        return encode_base64(get_verify_key(self.signing_key).encode())

    @property
    def last_words(self) -> str:
        """The end of its log, for those who wonder about an answer."""
        return self.process.output[-5000:] if self.process else ""

    def knows(self, peer: Peer) -> None:
        """Adds a peer; takes effect at the next start."""
        self._peers[peer.name] = peer

    async def start(self) -> None:
        """Returns when it listens, and has begun to push what its peers do not have."""
        self._write_configuration()
        if not self._database.exists():
            # It makes its tables, and reads who its peers are before one could tell it.
            await self._run()
            await self.kill()
        with closing(sqlite3.connect(self._database)) as database, database:
            for peer in self._peers.values():
                database.execute(_ADD_PEER, (peer.name,))
                database.execute(_ADD_KEY, (peer.name, peer.public_key))
        await self._run()

    async def kill(self) -> None:
        """Returns when it is gone."""
        process, self.process = self.process, None
        if process is not None and not process.ended.called:
            process.transport.signalProcess(signal.SIGKILL)
            await process.ended.addTimeout(SECONDS, reactor)

    async def bind(self, medium: str, address: str, mxid: str) -> dict[str, Any]:
        """Binds an address, and returns the signed association; the next push has it."""
        return await self._internal("bind", medium, address, mxid)

    async def unbind(self, medium: str, address: str, mxid: str) -> None:
        """Unbinds an address that was bound here; it knows no way to unbind what came from a peer."""
        await self._internal("unbind", medium, address, mxid)

    async def association(self, medium: str, address: str) -> dict[str, Any] | None:
        """What it tells of an address, wherever it was bound: signed by the origin, and by itself."""
        answer = await self._ask(
            "GET",
            f"{self.client_url}/_matrix/identity/api/v1/lookup",
            params={"medium": medium, "address": address},
        )
        return answer or None

    async def mxid(self, medium: str, address: str) -> str | None:
        """Whom it tells an address to belong to."""
        found = await self.association(medium, address)
        return found["mxid"] if found else None

    async def has_taken(self, origin: str, origin_id: int) -> None:
        """Waits until a peer's statement has been taken, which may be a deletion; looks back to its start."""
        await self.process.says(f"Stored association origin ID {origin_id} from {origin}")
        # What it says, it says in the middle of its transaction, and answers nobody before the end.
        await self.mxid("email", "nobody@example.org")

    async def next_push(self, peer: Peer) -> str:
        """Waits for the end of the next push to a peer, from now on, and returns what its log says of it."""
        place = rf"updates to {re.escape(peer.url.rstrip('/'))}/"
        return await self.process.next_line(re.compile(rf"Pushed {place} with|Error pushing {place}"))

    async def has_pushed(self, peer: Peer) -> None:
        """Waits until a peer has acknowledged all that has been bound and unbound here so far."""
        newest = self._read("SELECT coalesce(max(id), 0) FROM local_threepid_associations")
        acknowledged = "SELECT coalesce(lastSentVersion, 0) FROM peers WHERE name = ?"
        while self._read(acknowledged, peer.name) < newest:
            await self.next_push(peer)

    async def _internal(self, verb: str, medium: str, address: str, mxid: str) -> Any:
        return await self._ask(
            "POST",
            f"http://127.0.0.1:{self._internal_port}/_matrix/identity/internal/{verb}",
            json={"medium": medium, "address": address, "mxid": mxid},
        )

    async def _ask(self, method: str, url: str, **options: Any) -> Any:
        response = await treq.request(method, url, timeout=SECONDS, persistent=False, **options)
        answer = await response.json()
        assert response.code == 200, f"{answer}\n{self.last_words}"
        return answer

    def _read(self, statement: str, *parameters: str) -> int:
        with closing(sqlite3.connect(self._database)) as database:
            return database.execute(statement, parameters).fetchone()[0]

    async def _run(self) -> None:
        # What listens last.
        self.process = _Process(f"starting on {self._internal_port}$")
        program = str(ENVIRONMENT / "bin" / "python")
        environment = {"SYDENT_CONF": "sydent.conf", "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
        reactor.spawnProcess(
            self.process, program, [program, "-m", "sydent.sydent"], env=environment, path=str(self._folder)
        )
        await self.process.ready.addTimeout(SECONDS, reactor)

    @property
    def _database(self) -> Path:
        return self._folder / "sydent.db"

    def _write_configuration(self) -> None:
        configuration = ConfigParser(interpolation=None)
        configuration.read_dict(
            {
                "general": {"server.name": self.name, "pidfile.path": ""},
                "db": {"db.file": str(self._database)},
                "http": {
                    "clientapi.http.bind_address": "127.0.0.1",
                    "clientapi.http.port": str(self._client_port),
                    "internalapi.http.bind_address": "127.0.0.1",
                    "internalapi.http.port": str(self._internal_port),
                    "replication.https.bind_address": "127.0.0.1",
                    "replication.https.port": str(self._replication_port),
                    "replication.https.certfile": str(self._folder / "tls.pem"),
                    "replication.https.cacert": str(self._folder / "ca.pem"),
                },
                "crypto": {"ed25519.signingkey": f"ed25519 0 {encode_base64(self.signing_key.encode())}"},
            }
            | {"email": {}}
            | {f"peer.{peer.name}": {"base_replication_url": peer.url} for peer in self._peers.values()}
        )
        for section, options in self._further.items():
            configuration[section].update(options)
        with self.config.open("w") as file:
            configuration.write(file)


class _Process(ProcessProtocol):
    def __init__(self, ready: str) -> None:
        self.output = ""
        self.ended: Deferred[None] = Deferred()
        self._line = ""
        self._waiting: list[tuple[re.Pattern[str], Deferred[str]]] = []
        self.ready = self._next(re.compile(ready))

    def says(self, text: str) -> "Deferred[str]":
        """Fires when a line of the output ends with this text."""
        if f"{text}\n" in self.output:
            return succeed(text)
        return self.next_line(re.compile(rf"{re.escape(text)}$"))

    def next_line(self, pattern: re.Pattern[str]) -> "Deferred[str]":
        """Fires at the next line, from now on, in which a pattern is found."""
        return self._next(pattern).addTimeout(SECONDS, reactor)

    def _next(self, pattern: re.Pattern[str]) -> "Deferred[str]":
        waiting: Deferred[str] = Deferred()
        self._waiting.append((pattern, waiting))
        return waiting

    def outReceived(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        self.output += text
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            found = [one for one in self._waiting if one[0].search(line)]
            self._waiting = [one for one in self._waiting if one not in found]
            for _pattern, waiting in found:
                waiting.callback(line)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if not self.ready.called:
            self.ready.errback(RuntimeError(f"Sydent did not start:\n{self.output}"))
        self.ended.callback(None)
