"""How a stand-in can answer a request: properly, and in all the ways in which servers misbehave."""

import json
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.http import Request

Behaviour = Callable[[Request], None]

_CHUNK = b"x" * 16_384


def answer(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answers with a status and `body`: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()

    def respond(request: Request) -> None:
        request.setResponseCode(status)
        request.setHeader("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.setHeader(name, value)
        request.setHeader("Content-Length", str(len(content)))
        request.write(content)
        request.finish()

    return respond


def redirect(location: str, status: int = 302) -> Behaviour:
    """Redirects to `location`."""
    return answer(status, headers={"Location": location})


def error(status: int, errcode: str) -> Behaviour:
    """Answers with a Matrix error."""
    return answer(status, {"errcode": errcode, "error": "as the stand-in was told"})


def raw(data: bytes) -> Behaviour:
    """Writes `data` where an HTTP response should be, and closes."""

    def respond(request: Request) -> None:
        request.channel.write(data)
        request.channel.loseConnection()

    return respond


def close(request: Request) -> None:
    """Closes the connection without a word."""
    request.channel.transport.abortConnection()


class Silence:
    """Never answers.

    Attributes:
        asked: fires when the request came.
        gone: fires when the client has closed the connection.
    """

    def __init__(self) -> None:
        self.asked: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def __call__(self, request: Request) -> None:
        """Takes the request, and notices when the client goes."""
        request.notifyFinish().addErrback(lambda _: self.gone.callback(None))
        self.begin(request)
        self.asked.callback(None)

    def begin(self, request: Request) -> None:
        """What to do at first: nothing."""


class EndlessBody(Silence):
    """A body that never ends, as fast as the client takes it.

    Attributes:
        sent: bytes that the connection took so far.
    """

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.sent = 0
        self._headers = headers or {}

    def begin(self, request: Request) -> None:
        """Registers itself, so that it is asked for more whenever there is room."""
        for name, value in self._headers.items():
            request.setHeader(name, value)
        self._request = request
        request.registerProducer(self, streaming=False)

    def resumeProducing(self) -> None:
        """Writes one more piece."""
        self.sent += len(_CHUNK)
        self._request.write(_CHUNK)

    def stopProducing(self) -> None:
        """The connection is gone."""


class EndlessHeaders(EndlessBody):
    """A header section that never ends."""

    def begin(self, request: Request) -> None:
        """Begins a response by hand."""
        request.channel.write(b"HTTP/1.1 200 OK\r\n")
        super().begin(request)

    def resumeProducing(self) -> None:
        """Writes some more headers."""
        lines = b"X-More: and more\r\n" * 500
        self.sent += len(lines)
        self._request.channel.write(lines)


class Drip(Silence):
    """Sends one byte every `interval` seconds, for ever; each byte alone is in time.

    Attributes:
        flowing: fires when some bytes were sent.
    """

    def __init__(self, clock: IReactorTime, interval: float = 0.005) -> None:
        super().__init__()
        self.flowing: Deferred[None] = Deferred()
        self._sent = 0
        self._interval = interval
        self._tap = LoopingCall(self._drop)
        self._tap.clock = clock

    def begin(self, request: Request) -> None:
        """Begins to drip."""
        self._request = request
        request.notifyFinish().addErrback(lambda _: self._tap.stop())
        self._tap.start(self._interval)

    def _drop(self) -> None:
        self._request.write(b" ")
        self._sent += 1
        if self._sent == 3:  # noqa: PLR2004 - some
            self.flowing.callback(None)
