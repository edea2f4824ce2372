"""HTTP from us to others: one connection for each request, which is metered and can be cut, and what went wrong."""

from functools import partial
from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import Deferred, succeed
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
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

NOT_ACCEPTED = "certificate not accepted"
TIMED_OUT = "timed out"
TOO_LARGE = "the answer is too large"


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
