"""A stand-in SMS gateway, over HTTP or HTTPS: it takes nothing that the real one would refuse.

In-process for tests; `python -m standins.gateway --help` for a process of its own, which prints one JSON object
per line: first where it listens, then each SMS that it took, and what was wrong with what it did not take.
"""

import argparse
import json
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import react
from twisted.web.http import Request

from standins.behaviours import Behaviour, answer, close, raw
from standins.certificates import Authority, ServerCertificate
from standins.gateways import KINDS, Message, Refused
from standins.serving import Arrival, Server, arrival


def silent(request: Request) -> None:
    """Never answers."""


BEHAVIOURS: dict[str, Behaviour] = {
    "500": answer(500, {"error": "as the stand-in was told"}),
    "rubbish": raw(b"220 This is not HTTP\r\n"),
    "close": close,
    "silence": silent,
}


class Gateway:
    """Takes SMS in the way of one kind of gateway.

    Attributes:
        requests: everything that it received.
        messages: the SMS that it took.
        refusals: why it did not take others, in words.
        behaviours: answers to the next requests instead of the proper ones, in this order.
        always: the answer to every request, once there are no others; None for the proper one.
        delay: seconds before each answer.
        on_refusal: is told of each refusal.
    """

    def __init__(
        self,
        kind: str,
        certificate: ServerCertificate | None = None,
        *,
        username: str | None = "standin",
        password: str = "open sesame",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Listens nowhere yet.

        Args:
            kind: one of `KINDS`: `http` (see `standins.gateways`), `openmarket` or `twilio`.
            certificate: for HTTPS; without one it is plain HTTP.
            username: that Basic authentication must have; None for none. To `twilio` it is the account SID.
            password: to go with it.
            headers: those that a request must have, by lower-case name.
        """
        self.requests: list[Arrival] = []
        self.messages: list[Message] = []
        self.refusals: list[str] = []
        self.behaviours: list[Behaviour] = []
        self.always: Behaviour | None = None
        self.delay = 0.0
        self.on_refusal: Callable[[str], None] = lambda _problem: None
        self._kind = KINDS[kind]
        self._username = username
        self._password = password
        self._headers = headers or {}
        self._scheme = "http" if certificate is None else "https"
        self._queue: DeferredQueue[Message] = DeferredQueue()
        self._server = Server(self._handle, certificate)
        self.stop = self._server.stop
        self.no_connections = self._server.no_connections

    def start(self, reactor: Any, port: int = 0) -> None:  # noqa: ANN401
        """Listens on 127.0.0.1; port 0 means any free one."""
        self._call_later = reactor.callLater
        self._server.start(reactor, port)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def url(self) -> str:
        """Where it listens, as a URL without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def next_message(self) -> Deferred[Message]:
        """The next SMS that it took, or takes; each is given out once."""
        return self._queue.get()

    def _handle(self, request: Request) -> None:
        came = arrival(request)
        self.requests.append(came)
        respond = self.behaviours.pop(0) if self.behaviours else self.always
        if respond is None:
            respond = self._proper(came)
        if self.delay:
            answering = self._call_later(self.delay, respond, request)
            request.notifyFinish().addErrback(lambda _: answering.active() and answering.cancel())
        else:
            respond(request)

    def _proper(self, came: Arrival) -> Behaviour:
        try:
            self._check(came)
            message = self._kind.read(came, self._username)
        except Refused as refused:
            self.refusals.append(refused.problem)
            self.on_refusal(refused.problem)
            return self._kind.refuse(refused)
        self.messages.append(message)
        self._queue.put(message)
        return self._kind.accept(message)

    def _check(self, came: Arrival) -> None:
        for problem in _wrong_headers(came, self.port):
            raise Refused(400, problem)
        expected = [] if self._username is None else [_basic(self._username, self._password)]
        if came.all("authorization") != expected:
            raise Refused(401, "Authorization")
        for name, value in self._headers.items():
            if came.all(name) != [value]:
                raise Refused(403, name)


def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def _wrong_headers(came: Arrival, port: int) -> Iterator[str]:
    if len(came.all("host")) != 1 or not came.all("host")[0].endswith(f":{port}"):
        yield "Host"
    if came.all("cookie"):
        yield "Cookie: nobody gave one"
    if came.method != "GET" and came.all("content-length") != [str(len(came.body))]:
        yield "Content-Length"
    if came.method == "GET" and came.body:
        yield "a body with GET"
    if len(came.all("content-type")) != (1 if came.body else 0):
        yield "Content-Type"


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m standins.gateway", description="A stand-in SMS gateway.")
    parser.add_argument("--kind", choices=sorted(KINDS), default="http", help="what it is (default: http)")
    parser.add_argument(
        "--port", type=int, default=0, help="where to listen on 127.0.0.1 (default: any free port)"
    )
    parser.add_argument("--write-ca", type=Path, help="be HTTPS, and write the CA certificate to trust there")
    parser.add_argument("--username", default="standin", help="what it must be told (default: standin)")
    parser.add_argument(
        "--password", default="open sesame", help="what it must be told (default: open sesame)"
    )
    parser.add_argument(
        "--answer",
        choices=sorted(BEHAVIOURS),
        help="what to do with every request, instead of the proper",
    )
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer (default: 0)")
    return parser.parse_args(arguments)


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def _serve(reactor: Any, arguments: argparse.Namespace) -> None:  # noqa: ANN401
    certificate = None
    if arguments.write_ca is not None:
        authority = Authority()
        authority.write_ca(arguments.write_ca)
        certificate = authority.issue("localhost", "127.0.0.1")
    gateway = Gateway(arguments.kind, certificate, username=arguments.username, password=arguments.password)
    if arguments.answer is not None:
        gateway.always = BEHAVIOURS[arguments.answer]
    gateway.delay = arguments.delay
    gateway.on_refusal = lambda problem: _say(event="refused", problem=problem)
    gateway.start(reactor, arguments.port)
    _say(event="listening", url=gateway.url, port=gateway.port)
    while True:
        message = await gateway.next_message()
        _say(event="sms", originator=message.originator, number=message.number, text=message.text)


def main() -> None:
    """Runs until it is stopped."""
    arguments = _arguments(sys.argv[1:])
    react(lambda reactor: Deferred.fromCoroutine(_serve(reactor, arguments)))


if __name__ == "__main__":
    main()
