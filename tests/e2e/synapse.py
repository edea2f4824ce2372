"""A real homeserver: Synapse as a program of its own, out of the environment that `scripts/test` makes for it."""

import json
import os
import re
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from daemons import SECONDS, free_port
from signedjson.key import generate_signing_key, write_signing_keys
from standins.certificates import ServerCertificate
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

ENVIRONMENT = Path(__file__).parents[2] / ".venv-synapse"
# Written when everything else is there.
INSTALLED = ENVIRONMENT / "installed"
START_SECONDS = 90
CLIENT = "/_matrix/client/v3"
# Where it wants those to go whom it invites by mail.
WEB_CLIENT = "https://chat.example.org"
_ANSWERED = re.compile(r' (\d{3})!? "(\S+) (\S+) HTTP/1\.1"')
_PLENTY = {"per_second": 1000, "burst_count": 1000}


@implementer(IPolicyForHTTPS)
class _Trust:
    def __init__(self, ca_file: Path) -> None:
        found = load_pem_x509_certificates(ca_file.read_bytes())
        self._root = trustRootFromCertificates(
            [Certificate.load(c.public_bytes(Encoding.DER)) for c in found]
        )

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return optionsForClientTLS(hostname.decode("ascii"), trustRoot=self._root)


def trusting_client(ca_file: Path) -> HTTPClient:
    """An HTTP client that verifies certificates by one authority, and keeps no connections."""
    return HTTPClient(Agent(reactor, _Trust(ca_file)))


class Synapse:
    """A homeserver in a process of its own, with SQLite in `folder`; speaks TLS only.

    Attributes:
        server_name: its name, with the port.
        base_url: where it is reached.
        client: verifies certificates by the authority that vouches for it.
    """

    def __init__(self, folder: Path, certificate: ServerCertificate, ca_file: Path, msisdn_url: str) -> None:
        """Writes its configuration.

        Args:
            folder: for its database, its key and its media; must be there and empty.
            certificate: of `localhost`.
            ca_file: the authority that vouches for it, and for the identity servers that it asks.
            msisdn_url: the base URL of the identity server that validates telephone numbers for it.
        """
        port = free_port()
        self.server_name = f"localhost:{port}"
        self.base_url = f"https://{self.server_name}"
        self.client = trusting_client(ca_file)
        self._folder = folder
        self._environment = {"SSL_CERT_FILE": str(ca_file), "PATH": os.environ["PATH"], "no_proxy": "*"}
        self._process: _Process | None = None
        certificate.write(folder / "tls.pem")
        with (folder / "signing.key").open("w") as file:
            write_signing_keys(file, [generate_signing_key("real")])
        (folder / "log.json").write_text(json.dumps(_LOG))
        surroundings = {
            "server_name": self.server_name,
            "public_baseurl": self.base_url,
            "listeners": [{**_LISTENER, "port": port}],
            "federation_custom_ca_list": [str(ca_file)],
            "account_threepid_delegates": {"msisdn": msisdn_url},
        }
        # Any JSON is YAML, too.
        (folder / "homeserver.yaml").write_text(json.dumps(_configuration(folder) | surroundings))

    @property
    def last_words(self) -> str:
        """The end of its log, for those who wonder about an answer."""
        return self._process.output[-5000:] if self._process else ""

    async def start(self) -> None:
        """Returns when it listens."""
        self._process = _Process()
        arguments = [
            str(ENVIRONMENT / "bin" / "python"),
            "-m",
            "synapse.app.homeserver",
            "-c",
            "homeserver.yaml",
        ]
        reactor.spawnProcess(
            self._process, arguments[0], arguments, env=self._environment, path=str(self._folder)
        )
        await self._process.ready.addTimeout(START_SECONDS, reactor)

    async def stop(self) -> None:
        """Returns when it is gone."""
        if self._process is not None and self._process.running:
            self._process.transport.signalProcess(signal.SIGKILL)
            await self._process.ended.addTimeout(SECONDS, reactor)

    def next_answer(self, method: str, path: str) -> "Deferred[int]":
        """The status of its next answer on a path, from now on; each is told to one who waits."""
        waiting: Deferred[int] = Deferred()
        self._process.waiting.append((method, path, waiting))
        return waiting.addTimeout(SECONDS, reactor)

    async def ask(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> tuple[int, Any]:
        """A request with its status and JSON answer."""
        response = await self.client.request(
            method,
            self.base_url + path,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=SECONDS,
            **({} if body is None else {"json": body}),
        )
        return response.code, await response.json()

    async def sign_up(self, localpart: str) -> "User":
        """A new user."""
        password = secrets.token_hex()
        body = {"username": localpart, "password": password, "auth": {"type": "m.login.dummy"}}
        status, answer = await self.ask("POST", f"{CLIENT}/register", body)
        assert status == 200, answer
        return User(self, answer["user_id"], answer["access_token"], password)


@dataclass
class User:
    """Somebody with an account on the homeserver, logged in."""

    synapse: Synapse
    mxid: str
    token: str
    password: str

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """A request of the client-server API, with its status and JSON answer."""
        return await self.synapse.ask(method, CLIENT + path, body, self.token)

    async def does(self, method: str, path: str, body: object = None) -> Any:
        """As `ask`, where nothing else than success will do."""
        return self._only_good(await self.ask(method, path, body))

    async def ask_with_password(self, path: str, body: dict[str, object]) -> tuple[int, Any]:
        """As `ask`, where the homeserver wants the password first (user-interactive authentication)."""
        status, wanted = await self.ask("POST", path, body)
        assert status == 401, wanted
        auth = {
            "type": "m.login.password",
            "session": wanted["session"],
            "identifier": {"type": "m.id.user", "user": self.mxid},
            "password": self.password,
        }
        return await self.ask("POST", path, {**body, "auth": auth})

    async def does_with_password(self, path: str, body: dict[str, object]) -> Any:
        """As `does`, with the password."""
        return self._only_good(await self.ask_with_password(path, body))

    async def openid_token(self) -> dict[str, object]:
        """A token that tells others who this is."""
        return await self.does("POST", f"/user/{quote(self.mxid)}/openid/request_token", {})

    async def invited_to(self, room_id: str) -> dict[str, Any]:
        """Waits until an invitation to a room is there, and returns what the user may know of it."""
        return await self._synced(lambda rooms: rooms.get("invite", {}).get(room_id))

    async def joined(self, room_id: str) -> dict[str, Any]:
        """Waits until the user is in a room."""
        return await self._synced(lambda rooms: rooms.get("join", {}).get(room_id))

    def _only_good(self, response: tuple[int, Any]) -> Any:
        status, answer = response
        assert status == 200, f"{answer}\n{self.synapse.last_words}"
        return answer

    async def _synced(self, find: Callable[[dict[str, Any]], Any]) -> Any:
        since = ""
        deadline = reactor.seconds() + SECONDS
        while reactor.seconds() < deadline:
            # It answers as soon as there is something new, and the first time at once.
            answer = await self.does("GET", f"/sync?timeout={SECONDS * 500}{since}")
            since = f"&since={answer['next_batch']}"
            found = find(answer.get("rooms", {}))
            if found is not None:
                return found
        raise AssertionError("what was waited for did not come by sync")


class _Process(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        self.running = True
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.waiting: list[tuple[str, str, Deferred[int]]] = []
        self._line = ""

    def outReceived(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        self.output += text
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._read(line)

    errReceived = outReceived

    def _read(self, line: str) -> None:
        if "now listening on TCP port" in line and not self.ready.called:
            self.ready.callback(None)
        if answered := _ANSWERED.search(line):
            status, method, path = answered.groups()
            waiting = next((one for one in self.waiting if one[:2] == (method, path)), None)
            if waiting is not None:
                self.waiting.remove(waiting)
                waiting[2].callback(int(status))

    def processEnded(self, reason: Failure) -> None:
        self.running = False
        if not self.ready.called:
            self.ready.errback(RuntimeError(f"Synapse did not start:\n{self.output}"))
        self.ended.callback(None)


_LISTENER = {
    "type": "http",
    "tls": True,
    "bind_addresses": ["127.0.0.1"],
    "resources": [{"names": ["client", "federation"]}],
}

_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}


def _configuration(folder: Path) -> dict[str, object]:
    """What does not depend on who is around."""
    return {
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "signing_key_path": str(folder / "signing.key"),
        "tls_certificate_path": str(folder / "tls.pem"),
        "tls_private_key_path": str(folder / "tls.pem"),
        "media_store_path": str(folder / "media"),
        "log_config": str(folder / "log.json"),
        "macaroon_secret_key": secrets.token_hex(),
        "form_secret": secrets.token_hex(),
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "report_stats": False,
        "trusted_key_servers": [],
        "presence": {"enabled": False},
        "email": {"invite_client_location": WEB_CLIENT, "notif_from": "Synapse <synapse@example.org>"},
        # Everybody lives on loopback here, which it would not talk to else.
        "ip_range_whitelist": ["127.0.0.0/8", "::1/128"],
        # The tests' passwords need no protection, and take their time.
        "bcrypt_rounds": 4,
        **_without_rate_limits(),
    }


def _without_rate_limits() -> dict[str, object]:
    names = ("registration", "message", "third_party_invite", "3pid_validation")
    return {
        **{f"rc_{name}": _PLENTY for name in names},
        "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _PLENTY),
        "rc_joins": dict.fromkeys(("local", "remote"), _PLENTY),
        "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _PLENTY),
    }
