"""One request on a connection: it may be refused before its body came."""

from http import HTTPStatus
from io import BytesIO
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.web.http import Request

from sydentish.web.admission import Head
from sydentish.web.dispatch import Dispatcher, OpenRequest
from sydentish.web.reply import Reply

# Identity Service API, "Web browser clients".
CORS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"GET, POST, PUT, DELETE, OPTIONS"),
    (b"Access-Control-Allow-Headers", b"X-Requested-With, Content-Type, Authorization"),
)
# How much of a refused body is read and thrown away before the connection is cut: closing at once would take
# the answer away from a client that is still writing.
_DISCARD_BYTES = 16 * 1024 * 1024

_PROXIES_WRITE = (
    b"x-forwarded-for",
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"x-forwarded-proto",
    b"x-forwarded-host",
)

# Twisted's own list ends before 429.
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Connection(Protocol):
    """What a request uses of the connection that it came on.

    Attributes:
        persistent: whether another request may follow.
    """

    persistent: bool

    @property
    def closing(self) -> bool:
        """Whether the listener is going away, so that this is the connection's last request."""

    @property
    def peer(self) -> str | None:
        """The address at the other end; None for a unix socket."""

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The names in the client's certificate, as TLS has verified it; none if it has shown none."""

    def date(self) -> bytes:
        """The time now, as a header has it."""

    def received(self) -> None:
        """The request at hand has arrived."""

    def pause_reading(self) -> None:
        """Reads nothing more until `resume_reading`."""

    def resume_reading(self) -> None:
        """Goes on reading."""

    def loseConnection(self) -> None:
        """Ends the connection once everything is written."""


class HttpRequest(Request):
    """One request: collects the body within its limit, and writes the answer.

    Attributes:
        opened: what the dispatcher made of its head; None until that is there.
    """

    channel: Connection  # type: ignore[assignment]

    def __init__(self, channel: Connection, dispatcher: Dispatcher) -> None:
        super().__init__(channel, queued=False)  # type: ignore[arg-type]
        self._dispatcher = dispatcher
        self.opened: OpenRequest | None = None
        self._body = bytearray()
        self._received = 0
        self._refused = False
        self._excess = False
        # Whether the body may come: None until that was asked, and False until that is known.
        self._admitted: bool | None = None
        self._complete = False

    def begin(self, method: bytes, target: bytes, version: bytes) -> None:
        """Called when all headers are there, before any of the body is."""
        self.method, self.uri, self.clientproto = method, target, version
        path, _, query = target.partition(b"?")
        headers = self.requestHeaders
        head = Head(
            method=method.decode("ascii", "replace"),
            path=path.decode("latin-1"),
            query=query,
            authorizations=headers.getRawHeaders(b"authorization", []),
            content_type=next(iter(headers.getRawHeaders(b"content-type", [])), b""),
            accept_language=next(iter(headers.getRawHeaders(b"accept-language", [])), b""),
            peer=self.channel.peer,
            forwarded=headers.getRawHeaders(b"x-forwarded-for", []),
            by_proxy=any(map(headers.hasHeader, _PROXIES_WRITE)),
            web_page=headers.hasHeader(b"origin"),
            certificate_names=self.channel.certificate_names,
        )
        self.opened = self._dispatcher.open(head)

    def gotLength(self, length: int | None) -> None:
        """Called with the announced length of the body, None if it comes in chunks."""
        self.content = BytesIO()
        opened = self.opened
        if opened is None or length == 0:
            return
        if opened.refusal is not None:
            self._refuse(opened.refusal)
        elif length is not None and opened.is_too_large(length):
            self._exceed(opened, length)
        if self._refused or self._excess:
            # Nobody is asked to go on with a body that is not wanted.
            self.requestHeaders.removeHeader(b"expect")

    def handleContentChunk(self, data: bytes) -> None:
        """Called with each piece of the body."""
        self._received += len(data)
        opened = self.opened
        if self._refused:
            if self._received > _DISCARD_BYTES:
                self.channel.loseConnection()
        elif opened and opened.is_too_large(self._received):
            self._exceed(opened, self._received)
        elif not self._excess:
            self._body += data
            if opened and opened.wants_admission(self._received):
                self._look_at_caller(opened)

    def _exceed(self, opened: OpenRequest, size: int) -> None:
        """Refuses a body that is too large; where the caller is looked at first, whoever may not ask is told that."""
        self._excess = True
        self._body.clear()
        if self._admitted or not opened.wants_admission(size):
            self._refuse(self._dispatcher.too_large(opened))
        else:
            self._look_at_caller(opened)

    def _look_at_caller(self, opened: OpenRequest) -> None:
        if self._admitted is None:
            self._admitted = False
            self.channel.pause_reading()
            Deferred.fromCoroutine(self._ask_admission(opened))

    async def _ask_admission(self, opened: OpenRequest) -> None:
        """Goes on with a body only if its sender may ask at all."""
        refusal = await self._dispatcher.admission(opened)
        self._admitted = True
        if refusal is None and self._excess:
            refusal = self._dispatcher.too_large(opened)
        if refusal is not None:
            self._body.clear()
            if self._disconnected:
                self._dispatcher.note(opened, refusal.status)
                return
            self._refuse(refusal)
        if self._complete:
            self._respond()
        elif not self._disconnected:
            self.channel.resume_reading()

    def requestReceived(self, _command: bytes, _path: bytes, _version: bytes) -> None:
        """Called when the body is complete."""
        self._complete = True
        self.channel.received()
        if self._admitted is not False:
            self._respond()

    def _respond(self) -> None:
        if self._refused:
            self.finish()
        elif self.opened is not None:
            Deferred.fromCoroutine(self._answer(self.opened))

    async def _answer(self, opened: OpenRequest) -> None:
        reply = await self._dispatcher.answer(opened, bytes(self._body), admitted=bool(self._admitted))
        if self._disconnected:
            self._dispatcher.note(opened, reply.status)
            return
        self._send(opened, reply)
        self.finish()

    def _refuse(self, reply: Reply) -> None:
        """Answers at once; what is still to come of the body is thrown away, and the connection ends with it."""
        self._refused = True
        self.channel.persistent = False
        if self.opened is not None:
            self._send(self.opened, reply)

    def _send(self, opened: OpenRequest, reply: Reply) -> None:
        if self.channel.closing:
            self.channel.persistent = False
        self.setResponseCode(reply.status, _PHRASES[reply.status])
        set_header = self.responseHeaders.setRawHeaders
        set_header(b"Date", [self.channel.date()])
        set_header(b"Content-Type", [reply.content_type])
        if reply.body or self.method != b"HEAD":  # RFC 9110, 8.6: else it would be the length of a GET's body
            set_header(b"Content-Length", [b"%d" % len(reply.body)])
        set_header(b"Cache-Control", [b"no-store"])
        for name, value in (*CORS, *reply.headers):
            set_header(name, [value])
        if not self.channel.persistent:
            set_header(b"Connection", [b"close"])
        self.write(reply.body)
        self._dispatcher.note(opened, reply.status)
