"""A stand-in homeserver over HTTPS, with what an identity server needs of one.

In-process for tests; `python -m standins.homeserver --help` for a process of its own, which prints one JSON
object per line: first where it listens, then each onbind call that it receives.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from standins.behaviours import Behaviour, answer, error
from standins.certificates import Authority, ServerCertificate

USERINFO = "/_matrix/federation/v1/openid/userinfo"
ONBIND = "/_matrix/federation/v1/3pid/onbind"
KEYS = "/_matrix/key/v2/server"
WELL_KNOWN = "/.well-known/matrix/server"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: `headers` by lower-case name, `body` byte for byte."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Homeserver:
    """Knows OpenID tokens, takes onbind calls, publishes its key; each of it can be made to go wrong.

    Attributes:
        host: its name in server names.
        tokens: user IDs by OpenID token.
        behaviours: instead of the proper answer, by path.
        onbind_methods: which methods its onbind knows; 405 for others.
        requests: everything that it received.
    """

    def __init__(self, certificate: ServerCertificate, host: str = "localhost") -> None:
        self.host = host
        self.tokens: dict[str, str] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.onbind_methods = {"POST", "PUT"}
        self.requests: list[Received] = []
        self.signing_key = generate_signing_key("standin")
        self._certificate = certificate
        self._onbinds: DeferredQueue[Received] = DeferredQueue()
        self._connections = _Connections(_QuietSite(_Everything(self._handle), timeout=None))
        self._port: IListeningPort | None = None

    def start(self, reactor: Any, port: int = 0, interface: str = "127.0.0.1") -> None:  # noqa: ANN401
        """Listens; port 0 means any free one."""
        options = self._certificate.options()
        self._port = reactor.listenSSL(port, self._connections, options, interface=interface)

    async def stop(self) -> None:
        """Stops listening, cuts all connections, and waits until they are gone."""
        if self._port is not None:
            await self._port.stopListening()
            self._port = None
        await self._connections.cut()

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._port is None:
            raise RuntimeError("the homeserver was not started")
        return self._port.getHost().port

    @property
    def server_name(self) -> str:
        """Its name, with the port."""
        return f"{self.host}:{self.port}"

    def log_in(self, token: str, localpart: str) -> str:
        """Makes an OpenID token known, and returns the user ID that it stands for."""
        self.tokens[token] = f"@{localpart}:{self.server_name}"
        return self.tokens[token]

    def next_onbind(self) -> Deferred[Received]:
        """The next onbind call that came, or comes, whatever it was answered with; each is given out once."""
        return self._onbinds.get()

    def _handle(self, request: Request) -> None:
        received = _received(request)
        self.requests.append(received)
        path = urlsplit(received.path).path
        if path == ONBIND:
            self._onbinds.put(received)
        proper: dict[str, Behaviour] = {USERINFO: self._userinfo, ONBIND: self._onbind, KEYS: self._keys}
        respond = self.behaviours.get(path) or proper.get(path.rstrip("/")) or error(404, "M_UNRECOGNIZED")
        respond(request)

    def _userinfo(self, request: Request) -> None:
        token = request.args.get(b"access_token", [b""])[0].decode("utf-8", "replace")
        user_id = self.tokens.get(token)
        respond = error(401, "M_UNKNOWN_TOKEN") if user_id is None else answer(200, {"sub": user_id})
        respond(request)

    def _onbind(self, request: Request) -> None:
        known = request.method.decode("ascii") in self.onbind_methods
        respond = answer(200) if known else error(405, "M_UNRECOGNIZED")
        respond(request)

    def _keys(self, request: Request) -> None:
        key = self.signing_key
        public = encode_verify_key_base64(get_verify_key(key))
        keys: dict[str, object] = {
            "server_name": self.server_name,
            "verify_keys": {f"{key.alg}:{key.version}": {"key": public}},
            "old_verify_keys": {},
            # Far away, and below what a double holds exactly.
            "valid_until_ts": 4_102_444_800_000,
        }
        answer(200, sign_json(keys, self.server_name, key))(request)


class _Everything(Resource):
    isLeaf = True

    def __init__(self, handle: Callable[[Request], None]) -> None:
        super().__init__()
        self._handle = handle

    def render(self, request: Request) -> int:
        self._handle(request)
        return NOT_DONE_YET


class _QuietSite(Site):
    noisy = False

    def log(self, request: Request) -> None:
        """Logs nothing: the URL has a token in it, and tests look for tokens in the log of those who ask."""


class _Connection(ProtocolWrapper):
    def connectionLost(self, reason: Any) -> None:  # noqa: ANN401
        super().connectionLost(reason)
        self.factory.lost.pop(self).callback(None)


class _Connections(WrappingFactory):
    """Knows the open connections, so that none is left behind."""

    protocol = _Connection
    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.lost: dict[_Connection, Deferred[None]] = {}

    def registerProtocol(self, p: _Connection) -> None:
        super().registerProtocol(p)
        self.lost[p] = Deferred()

    async def cut(self) -> None:
        gone = gatherResults(self.lost.values())
        for connection in list(self.lost):
            connection.transport.abortConnection()
        await gone


def _received(request: Request) -> Received:
    headers = {
        name.decode("ascii").lower(): b", ".join(values).decode("latin-1")
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    return Received(
        request.method.decode("ascii"), request.uri.decode("ascii"), headers, request.content.read()
    )


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m standins.homeserver", description="A stand-in homeserver."
    )
    parser.add_argument("--host", default="localhost", help="its name in server names (default: localhost)")
    parser.add_argument(
        "--port", type=int, default=0, help="where to listen on 127.0.0.1 (default: any free port)"
    )
    parser.add_argument(
        "--write-ca", type=Path, required=True, help="where to write the CA certificate to trust"
    )
    parser.add_argument(
        "--token", action="append", default=[], metavar="TOKEN=LOCALPART", help="an OpenID token"
    )
    parser.add_argument(
        "--onbind-status", type=int, default=None, help="answer every onbind with this status"
    )
    return parser.parse_args(arguments)


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def _serve(reactor: Any, arguments: argparse.Namespace) -> None:  # noqa: ANN401
    authority = Authority()
    authority.write_ca(arguments.write_ca)
    homeserver = Homeserver(authority.issue(arguments.host, "127.0.0.1"), arguments.host)
    homeserver.start(reactor, arguments.port)
    for pair in arguments.token:
        homeserver.log_in(*pair.split("=", 1))
    if arguments.onbind_status is not None:
        homeserver.behaviours[ONBIND] = error(arguments.onbind_status, "M_UNKNOWN")
    _say(event="listening", server_name=homeserver.server_name, port=homeserver.port)
    while True:
        received = await homeserver.next_onbind()
        _say(event="onbind", method=received.method, headers=received.headers, body=received.body.decode())


def main() -> None:
    """Runs until it is stopped."""
    arguments = _arguments(sys.argv[1:])
    react(lambda reactor: Deferred.fromCoroutine(_serve(reactor, arguments)))


if __name__ == "__main__":
    main()
