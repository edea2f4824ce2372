"""HTTP from us to others: one connection for each request, which is metered and can be cut, and what went wrong."""

from functools import partial
from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import (
    ConnectError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.internet.error import (
    ConnectionRefusedError as RefusedError,
)
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from sydentish.waiting import cancellable

NOT_ACCEPTED = "certificate not accepted"
TIMED_OUT = "timed out"
TOO_LARGE = "the answer is too large"

# What status line and headers may take; real servers send less than 1 KiB.
_MAX_HEAD = 64 * 1024


class Unusable(Exception):
    """Others may go on, but we do not.

    Attributes:
        reason: why, in a few words without addresses, URLs or secrets.
    """

    reason: str


class AnswerTooLarge(Unusable):
    """More bytes came, or were announced, than the limit."""

    reason = TOO_LARGE


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class OneConnection:
    """Connects an agent to one endpoint, whatever the URL says, and keeps hold of the connection."""

    def __init__(self, endpoint: IStreamClientEndpoint, max_bytes: int) -> None:
        """Connects to nothing yet.

        Args:
            endpoint: connects.
            max_bytes: how many bytes may come back, headers and what chunks cost included; at the next one the
                connection is cut, and the request fails with `AnswerTooLarge`.
        """
        self._endpoint = endpoint
        self._max_bytes = max_bytes
        self._connected: _Metered | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002 - the interface's
        """See `IAgentEndpointFactory`."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        metering: WrappingFactory[_Metered] = WrappingFactory(protocolFactory)
        metering.protocol = partial(_Metered, self._max_bytes)
        # Each request would be two lines in the log.
        metering.noisy = metering.wrappedFactory.noisy = False
        connecting: Deferred[Any] = self._endpoint.connect(metering)
        return connecting.addCallback(self._note)

    def _note(self, connected: "_Metered") -> IProtocol:
        self._connected = connected
        protocol: IProtocol = connected.wrappedProtocol
        return protocol

    def abort(self) -> None:
        """Cuts the connection, if there is one."""
        if self._connected is not None:
            self._connected.abortConnection()


class _Metered(ProtocolWrapper):
    """Lets a limited number of bytes through, and cuts the connection at the next one."""

    def __init__(self, max_bytes: int, factory: "WrappingFactory[_Metered]", wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self._left = max_bytes

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.abortConnection()
        else:
            self.wrappedProtocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        ProtocolWrapper.connectionLost(self, Failure(AnswerTooLarge()) if self._left < 0 else reason)


@implementer(IBodyProducer)
class WholeBody:
    """A body that is written at once; Twisted's own goes through a scheduler of the global reactor."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See `IBodyProducer`."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing to pause: all was written at once."""

    resumeProducing = stopProducing = pauseProducing


async def exchange(
    reactor: Any,  # noqa: ANN401 - several interfaces at once
    endpoint: IStreamClientEndpoint,
    max_bytes: int,
    *,
    method: str,
    url: str,
    headers: Headers,
    body: bytes | None = None,
) -> tuple[IResponse, bytes]:
    """Asks once, and waits for the whole answer; redirects are answers, not followed.

    When this returns or raises, its connection is closed.

    Args:
        reactor: keeps the time.
        endpoint: connects, whatever host is in the URL.
        max_bytes: how large the body of the answer may be.
        method: the HTTP method.
        url: absolute and encoded; `Host` is from it where `headers` has none.
        headers: those of the request.
        body: or None.

    Raises:
        AnswerTooLarge: headers or body are larger than allowed.
        Exception: whatever Twisted, OpenSSL and service_identity raise when a connection fails.
    """
    # A body in chunks of one byte is six times its size; more is nobody's honest answer.
    connection = OneConnection(endpoint, _MAX_HEAD + 6 * max_bytes)
    agent = Agent.usingEndpointFactory(reactor, connection)
    producer = None if body is None else WholeBody(body)
    try:
        asking: Deferred[IResponse] = agent.request(method.encode(), url.encode(), headers, producer)
        response = await cancellable(asking)
        content = await cancellable(_content(response, max_bytes))
    finally:
        connection.abort()
    return response, content


def _content(response: IResponse, max_bytes: int) -> "Deferred[bytes]":
    if isinstance(response.length, int) and response.length > max_bytes:
        return fail(AnswerTooLarge())
    collector = _Collector(max_bytes)
    response.deliverBody(collector)
    return collector.result


class _Collector(Protocol):
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._content = bytearray()
        self.result: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > self._max_bytes and not self.result.called:
            self.result.errback(AnswerTooLarge())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.result.called:
            return
        # PotentialDataLoss: neither length nor chunks, as HTTP/1.0 has it; the JSON shows whether it is whole.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.result.callback(bytes(self._content))
        else:
            self.result.errback(reason)


# The first class that fits wins; what fits none is no usable HTTP.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (DNSLookupError, "its name cannot be resolved"),
    (RefusedError, "connection refused"),
    (NoRouteError, "no route to it"),
    (DeferredTimeoutError, TIMED_OUT),
    (TCPTimedOutError, TIMED_OUT),
    (ConnectTimeoutError, TIMED_OUT),
    (ConnectError, "it cannot be connected to"),
    (VerificationError, NOT_ACCEPTED),
    (CertificateError, NOT_ACCEPTED),
)


def explain(error: BaseException) -> str:
    """What went wrong with a request, in a few words without addresses, URLs or secrets."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, Unusable):
            return cause.reason
    for kind, reason in _REASONS:
        if any(isinstance(cause, kind) for cause in causes):
            return reason
    for cause in causes:
        if isinstance(cause, SSL.Error):
            return NOT_ACCEPTED if "certificate" in str(cause) else "TLS failed"
    return "no usable answer"


def _causes(error: BaseException) -> list[BaseException]:
    # Twisted's HTTP client wraps what happened to the connection, sometimes twice.
    found = [error]
    for failure in getattr(error, "reasons", ()):
        found += _causes(failure.value)
    return found
