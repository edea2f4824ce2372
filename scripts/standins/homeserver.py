"""A stand-in homeserver over HTTPS, with what an identity server needs of one.

In-process for tests; `python -m standins.homeserver --help` for a process of its own, which prints one JSON
object per line: first where it listens, then each onbind call that it receives.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from signedjson.types import SigningKey
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import react
from twisted.web.http import Request

from standins.behaviours import Behaviour, answer, error
from standins.certificates import Authority, ServerCertificate
from standins.serving import Server, arrival

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
        self._onbinds: DeferredQueue[Received] = DeferredQueue()
        self._server = Server(self._handle, certificate)
        self.start = self._server.start
        self.stop = self._server.stop

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

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

    def key_document(self, **changes: object) -> dict[str, object]:
        """What it publishes about its key, with some fields changed, and then signed."""
        document: dict[str, object] = {
            "server_name": self.server_name,
            "verify_keys": published(self.signing_key),
            "old_verify_keys": {},
            # Far away, and below what a double holds exactly.
            "valid_until_ts": 4_102_444_800_000,
            **changes,
        }
        return sign_json(document, str(document["server_name"]), self.signing_key)

    def authorization(
        self,
        method: str,
        uri: str,
        content: dict[str, object],
        destination: str,
        *,
        named: str = "destination_is",
    ) -> str:
        """The value of an `Authorization` header with its signature under a request.

        Args:
            method: the HTTP method.
            uri: path and query.
            content: the JSON object of the body.
            destination: whom the request is for.
            named: under which name the destination is signed: `destination_is`, as today's Synapse has it for
                identity servers, or `destination`, as the specification has it for everybody.
        """
        signed = {"method": method, "uri": uri, "origin": self.server_name, named: destination}
        return x_matrix(signed | {"content": content}, self.signing_key)

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
        answer(200, self.key_document())(request)


def x_matrix(request: dict[str, object], key: SigningKey) -> str:
    """A request signed with a key, as the value of an `Authorization` header."""
    origin = str(request["origin"])
    ((key_id, signature),) = sign_json(dict(request), origin, key)["signatures"][origin].items()
    destination = request.get("destination_is", request.get("destination"))
    parameters = {"origin": origin, "key": key_id, "sig": signature, "destination": destination}
    return "X-Matrix " + ",".join(
        f'{name}="{value}"' for name, value in parameters.items() if value is not None
    )


def published(*keys: SigningKey) -> dict[str, object]:
    """The public halves of keys, as `verify_keys` of a key document has them."""
    return {
        f"{key.alg}:{key.version}": {"key": encode_verify_key_base64(get_verify_key(key))} for key in keys
    }


def _received(request: Request) -> Received:
    came = arrival(request)
    headers = {name: ", ".join(came.all(name)) for name, _ in came.headers}
    return Received(came.method, came.target, headers, came.body)


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
