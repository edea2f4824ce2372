"""A reverse proxy in front of one server, which can be made to spoil what passes through it."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http import Request
from twisted.web.http_headers import Headers

from standins.behaviours import Behaviour, answer
from standins.certificates import ServerCertificate
from standins.serving import Server

# They belong to one connection, or to one body.
_OWN = (b"connection", b"content-length", b"host", b"transfer-encoding")


@dataclass
class Passing:
    """A request, or the answer to one, on its way.

    Attributes:
        target: path and query of the request, as they came.
        headers: those of the request, and then of the answer.
        body: the same.
        status: of the answer.
    """

    target: bytes
    headers: Headers
    body: bytes
    status: int = 0


def _as_it_is(_: Passing) -> None:
    """Spoils nothing."""


class Proxy:
    """Passes everything on, byte for byte, and tells for whom (`X-Forwarded-For`).

    Attributes:
        spoil_request: what it does to requests.
        spoil_answer: what it does to answers.
        instead: answers for the server, where it gives an answer to method, target and body of a request.
    """

    def __init__(self, backend: str, certificate: ServerCertificate | None = None) -> None:
        """Listens nowhere yet.

        Args:
            backend: the URL of the server, without a path.
            certificate: for HTTPS; without one it is plain HTTP.
        """
        self.spoil_request: Callable[[Passing], object] = _as_it_is
        self.spoil_answer: Callable[[Passing], object] = _as_it_is
        self.instead: Callable[[str, str, bytes], Behaviour | None] = lambda *_: None
        self._backend = backend
        self._server = Server(self._handle, certificate)
        self.stop = self._server.stop

    def start(self, reactor: Any) -> None:  # noqa: ANN401
        """Listens on 127.0.0.1."""
        self._agent = Agent(reactor)
        self._cooperator = Cooperator(scheduler=lambda step: reactor.callLater(0, step))
        self._server.start(reactor)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def _handle(self, request: Request) -> None:
        body = request.content.read()
        respond = self.instead(request.method.decode(), request.uri.decode(), body)
        if respond is not None:
            respond(request)
        else:
            Deferred.fromCoroutine(self._pass(request, body))

    async def _pass(self, request: Request, body: bytes) -> None:
        headers = _passed_on(request.requestHeaders)
        headers.setRawHeaders("X-Forwarded-For", [request.getClientAddress().host])
        passing = Passing(request.uri, headers, body)
        self.spoil_request(passing)
        try:
            await self._ask(request.method, passing)
        except Exception:  # noqa: BLE001 - whatever it is, proxies say no more
            answer(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})(request)
            return
        self.spoil_answer(passing)
        request.setResponseCode(passing.status)
        for name, values in passing.headers.getAllRawHeaders():
            request.responseHeaders.setRawHeaders(name, values)
        request.setHeader("Content-Length", str(len(passing.body)))
        request.write(passing.body)
        request.finish()

    async def _ask(self, method: bytes, passing: Passing) -> None:
        producer = FileBodyProducer(BytesIO(passing.body), self._cooperator) if passing.body else None
        url = self._backend.encode() + passing.target
        response = await self._agent.request(method, url, passing.headers, producer)
        passing.body = await treq.content(response)
        passing.status, passing.headers = response.code, _passed_on(response.headers)


def _passed_on(headers: Headers) -> Headers:
    return Headers({name: values for name, values in headers.getAllRawHeaders() if name.lower() not in _OWN})
