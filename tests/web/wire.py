"""HTTP as bytes: what a client writes, and what it reads back."""

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

PREFIX = "/_matrix/identity/"
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}
NOT_JSON = ("text/html; charset=utf-8", "text/plain; version=", "application/x-ndjson")
_PATIENCE = 20


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def errcode(self):
        return self.json["errcode"]


class Wire(Protocol):
    """One connection of a client."""

    def __init__(self):
        self.received = b""
        self.lost = False
        self._waiting = None

    def dataReceived(self, data):
        self.received += data
        self._wake()

    def connectionLost(self, reason):
        self.lost = True
        self._wake()

    def send(self, *pieces):
        for piece in pieces:
            self.transport.write(piece)

    async def more(self):
        """Waits for bytes, or the end; a test that waits in vain fails instead of standing still."""
        assert not self.lost, f"the connection ended after {self.received!r}"
        self._waiting = Deferred()
        await self._waiting.addTimeout(_PATIENCE, reactor)

    async def answer(self, method="GET"):
        """The next answer; one of status 100 is an answer, too."""
        while b"\r\n\r\n" not in self.received:
            await self.more()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header came twice"
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        while len(self.received) < length:
            await self.more()
        body, self.received = self.received[:length], self.received[length:]
        answer = Answer(int(status_line.split(" ")[1]), headers, body)
        check_answer(answer, method)
        return answer

    async def ended(self):
        """Waits until the server has closed; what came before that."""
        while not self.lost:
            await self.more()
        return self.received

    def _wake(self):
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


def check_answer(answer, method):
    """What holds for every answer there is."""
    if answer.status == 100:
        return
    for name, value in CORS.items():
        assert answer.headers[name] == value
    if method == "HEAD":
        return
    if answer.headers["content-type"] == "application/json":
        assert isinstance(answer.json, dict)
        # That the server is not ready is an answer, and no error.
        if answer.status >= 400 and "ready" not in answer.json:
            assert answer.errcode.startswith("M_")
            assert answer.json["error"]
    else:
        assert answer.headers["content-type"].startswith(NOT_JSON)


def request(method, path, *, body=b"", headers=(), version="1.1", length=None):
    """The bytes of a request; `length` announces a body of another size."""
    lines = [f"{method} {path} HTTP/{version}", "Host: id.example.org", *headers]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces):
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class Client:
    """Asks a server; every request on a connection of its own unless one is given.

    Args:
        port: where the server listens.
        secure: puts TLS around an endpoint.
    """

    def __init__(self, port, secure=lambda endpoint: endpoint):
        self._endpoint = secure(TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        self._wires = []

    async def connect(self):
        wire = await connectProtocol(self._endpoint, Wire())
        self._wires.append(wire)
        return wire

    async def ask(
        self, method, path, params=None, *, token=None, query=None, raw=None, headers=(), wire=None
    ):
        """The answer to one request.

        Args:
            method: the method.
            path: below `/_matrix/identity/`, or with a slash in front.
            params: the body, as JSON.
            token: the access token for the header.
            query: parameters, or the query as it is.
            raw: the body as it is.
            headers: further header lines.
            wire: the connection.
        """
        target = path if path.startswith("/") else PREFIX + path
        if query is not None:
            target += "?" + (query if isinstance(query, str) else urlencode(query))
        headers = list(headers)
        if token is not None:
            headers.append(f"Authorization: Bearer {token}")
        body = json.dumps(params).encode() if params is not None else raw or b""
        wire = wire or await self.connect()
        wire.send(request(method, target, body=body, headers=headers))
        return await wire.answer(method)

    async def close(self):
        for wire in self._wires:
            if not wire.lost:  # over TLS there is nothing left then
                wire.transport.abortConnection()
        for wire in self._wires:
            await wire.ended()
