"""A stand-in peer: an identity server that statements are exchanged with, over mutual TLS.

It takes what the real one would take, pushes what it is told to, and misbehaves when it shall. In-process for tests;
`python -m standins.peer --help` for a process of its own, which prints one JSON object per line: first where it
listens and what its key is, then each push that it was sent, and what it has answered.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from signedjson.key import (
    decode_verify_key_bytes,
    encode_verify_key_base64,
    generate_signing_key,
    get_verify_key,
)
from signedjson.sign import SignatureVerifyException, sign_json, verify_signed_json
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.task import react
from twisted.web.client import Agent
from twisted.web.http import Request
from twisted.web.iweb import IPolicyForHTTPS
from unpaddedbase64 import decode_base64
from zope.interface import implementer

from standins.behaviours import Behaviour, answer, close, raw
from standins.certificates import Authority, ServerCertificate, ServerOptions
from standins.serving import Arrival, Server, arrival

PUSH = "/_matrix/identity/replicate/v1/push"
YEARS_100_MS = 100 * 365 * 86_400_000
_SHOWN = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


def silent(request: Request) -> None:
    """Never answers."""


BEHAVIOURS: dict[str, Behaviour] = {
    "500": answer(500, {"errcode": "M_UNKNOWN", "error": "as the stand-in was told"}),
    "rubbish": raw(b"220 This is not HTTP\r\n"),
    "close": close,
    "silence": silent,
}


@dataclass(frozen=True, slots=True)
class Push:
    """What somebody has pushed.

    Attributes:
        sender: the common name of the certificate that was shown.
        statements: signed associations by origin id.
        answer: the JSON object that it was answered with.
    """

    sender: str
    statements: dict[int, dict[str, Any]]
    answer: dict[str, object]


class Peer:
    """A peer of a server; each of it can be made to go wrong.

    Attributes:
        name: its server name, and the common name of its certificate.
        signing_key: signs what it states.
        requests: everything that it received.
        statements: what it has taken, by the server that stated it and the number there.
        behaviours: answers to the next pushes instead of the proper ones, in this order.
        always: the answer to every push, once there are no others; None for the proper one.
        delay: seconds before each answer.
    """

    def __init__(
        self,
        name: str,
        authority: Authority,
        *,
        certificate: ServerCertificate | None = None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        """Listens nowhere yet.

        Args:
            name: its server name.
            authority: vouches for it, and for those that it believes.
            certificate: what it shows, instead of a good one.
            known: whose pushes it takes: their `ed25519:0` in unpadded base64, by server name; None for anybody's.
        """
        self.name = name
        self.signing_key = generate_signing_key("0")
        self.requests: list[Arrival] = []
        self.statements: dict[tuple[str, int], dict[str, Any]] = {}
        self.behaviours: list[Behaviour] = []
        self.always: Behaviour | None = None
        self.delay = 0.0
        self._known = known
        self._queue: DeferredQueue[Push] = DeferredQueue()
        self._shown = certificate or authority.issue("localhost", common_name=name)
        self._server = Server(self._handle, _ShownCertificate(self._shown.pem, authority))
        self.stop = self._server.stop

    def start(self, reactor: Any, port: int = 0) -> None:  # noqa: ANN401
        """Listens on 127.0.0.1; port 0 means any free one."""
        self._call_later = reactor.callLater
        self._server.start(reactor, port)

    @property
    def replication_url(self) -> str:
        """Where it takes pushes, as a URL without a path."""
        return f"https://localhost:{self._server.port}"

    @property
    def public_key(self) -> str:
        """What verifies its signatures, in unpadded base64."""
        return str(encode_verify_key_base64(get_verify_key(self.signing_key)))

    def next_push(self) -> Deferred[Push]:
        """The next push that it took or refused, or takes or refuses; each is given out once."""
        return self._queue.get()

    def states(self, address: str, mxid: str | None, ts: int) -> dict[str, Any]:
        """A signed association of an e-mail address.

        Args:
            address: the address.
            mxid: whose it is; None when it is nobody's any more.
            ts: since when, in ms.
        """
        until = None if mxid is None else ts + YEARS_100_MS
        since = None if mxid is None else ts
        statement = {"medium": "email", "address": address, "mxid": mxid, "ts": ts}
        return dict(
            sign_json(statement | {"not_before": since, "not_after": until}, self.name, self.signing_key)
        )

    async def push(
        self,
        reactor: Any,  # noqa: ANN401
        url: str,
        statements: Mapping[int, object],
        *,
        bare: bool = False,
    ) -> tuple[int, Any]:
        """Pushes to a server; what it answers: the HTTP status, and the JSON value.

        Args:
            reactor: connects.
            url: where that server takes pushes, without a path.
            statements: what is pushed, by number.
            bare: show no certificate.
        """
        creator = _Client(None if bare else self._shown)
        client = HTTPClient(Agent(reactor, contextFactory=creator))
        body = json.dumps({"sgAssocs": {str(number): each for number, each in statements.items()}}).encode()
        response = await client.post(url + PUSH, body, headers={"Content-Type": "application/json"})
        return response.code, await response.json()

    def _handle(self, request: Request) -> None:
        came = arrival(request)
        self.requests.append(came)
        respond = self.behaviours.pop(0) if self.behaviours else self.always
        if respond is None:
            respond = self._proper(came, _sender(request))
        if self.delay:
            answering = self._call_later(self.delay, respond, request)
            request.notifyFinish().addErrback(lambda _: answering.active() and answering.cancel())
        else:
            respond(request)

    def _proper(self, came: Arrival, sender: str) -> Behaviour:
        status, answered, statements = self._judge(came, sender)
        if status == 200:  # noqa: PLR2004 - it was taken
            self.statements |= {(sender, number): each for number, each in statements.items()}
        self._queue.put(Push(sender, statements, answered))
        return answer(status, answered)

    def _judge(self, came: Arrival, sender: str) -> tuple[int, dict[str, object], dict[int, dict[str, Any]]]:
        if (came.method, came.target) != ("POST", PUSH):
            return 404, {"errcode": "M_UNRECOGNIZED", "error": "There is only the push"}, {}
        if came.all("content-type") != ["application/json"]:
            return 400, {"errcode": "M_NOT_JSON", "error": "Content-Type"}, {}
        if self._known is not None and sender not in self._known:
            return 403, {"errcode": "M_UNKNOWN_PEER", "error": "This peer is not known to this server"}, {}
        statements = {int(number): each for number, each in json.loads(came.body)["sgAssocs"].items()}
        failed = [str(number) for number, each in statements.items() if not self._is_signed(each, sender)]
        if failed:
            refused = {"errcode": "M_VERIFICATION_FAILED", "error": "Verification failed"}
            return 400, {**refused, "failed_ids": failed}, statements
        return 200, {"success": True}, statements

    def _is_signed(self, statement: dict[str, Any], sender: str) -> bool:
        if self._known is None:
            return True
        key = decode_verify_key_bytes("ed25519:0", decode_base64(self._known[sender]))
        try:
            verify_signed_json(statement, sender, key)
        except SignatureVerifyException:
            return False
        return True


def _sender(request: Request) -> str:
    shown = request.channel.transport.getPeerCertificate().to_cryptography()
    return next((str(each.value) for each in shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


@dataclass(frozen=True, slots=True)
class _ShownCertificate(ServerCertificate):
    """A certificate that is shown to those who show one of an authority."""

    authority: Authority

    def options(self) -> ServerOptions:
        options = ServerCertificate.options(self)
        with NamedTemporaryFile() as file:
            self.authority.write_ca(Path(file.name))
            options.getContext().load_verify_locations(file.name)
        options.getContext().set_verify(_SHOWN)
        return options


@implementer(IPolicyForHTTPS, IOpenSSLClientConnectionCreator)
class _Client:
    """Shows a certificate, or none, to whomever it connects to."""

    def __init__(self, certificate: ServerCertificate | None) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if certificate is not None:
            with NamedTemporaryFile() as file:
                certificate.write(Path(file.name))
                self._context.use_certificate_chain_file(file.name)
                self._context.use_privatekey_file(file.name)

    def creatorForNetloc(self, hostname: bytes, port: int) -> "_Client":  # noqa: ARG002
        return self

    def clientConnectionForTLS(self, _tls: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m standins.peer",
        description="A stand-in peer. It writes ca.pem, and a certificate for itself and one for your server, each "
        "with its key as NAME.pem, where you say; its first line tells its URL and its key.",
    )
    parser.add_argument("folder", type=Path, help="where to write the certificates; it must be there")
    parser.add_argument("server_name", help="the name of your server")
    parser.add_argument("--name", default="peer.example.org", help="its name (default: peer.example.org)")
    parser.add_argument(
        "--key", help="ed25519:0 of your server, to check signatures with (default: believe all)"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="where to listen on 127.0.0.1 (default: any free port)"
    )
    parser.add_argument(
        "--answer", choices=sorted(BEHAVIOURS), help="what to do with every push, instead of the proper"
    )
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer (default: 0)")
    return parser.parse_args(arguments)


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def _serve(reactor: Any, arguments: argparse.Namespace) -> None:  # noqa: ANN401
    authority = Authority()
    authority.write_ca(arguments.folder / "ca.pem")
    for name in (arguments.server_name, arguments.name):
        certificate = authority.issue("localhost", common_name=name)
        file = arguments.folder / f"{name}.pem"
        file.touch(0o600)
        certificate.write(file)
    known = None if arguments.key is None else {arguments.server_name: arguments.key}
    peer = Peer(arguments.name, authority, certificate=certificate, known=known)
    if arguments.answer is not None:
        peer.always = _told(arguments.answer)
    peer.delay = arguments.delay
    peer.start(reactor, arguments.port)
    _say(event="listening", name=peer.name, url=peer.replication_url, keys=f"ed25519:0 {peer.public_key}")
    while True:
        push = await peer.next_push()
        _say(event="push", sender=push.sender, ids=sorted(push.statements), answer=push.answer)


def _told(name: str) -> Behaviour:
    def respond(request: Request) -> None:
        _say(event="push", sender=_sender(request), misbehaved=name)
        BEHAVIOURS[name](request)

    return respond


def main() -> None:
    """Runs until it is stopped."""
    arguments = _arguments(sys.argv[1:])
    react(lambda reactor: Deferred.fromCoroutine(_serve(reactor, arguments)))


if __name__ == "__main__":
    main()
