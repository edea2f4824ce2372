"""A connection to a peer for its certificate alone."""

from typing import Any

from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sydentish.replication.link import LinkFailed
from sydentish.replication.troubles import why
from sydentish.waiting import cancellable, within


async def shown_certificate(
    endpoint: IStreamClientEndpoint, clock: IReactorTime, time_limit: float
) -> x509.Certificate:
    """Connects, and ends the connection again as soon as the other side has shown a certificate that is good.

    Args:
        endpoint: connects by TLS, and looks at the certificate.
        clock: what time is waited by.
        time_limit: seconds for everything.

    Raises:
        LinkFailed: there is no connection, or no good certificate.
    """
    try:
        return await within(time_limit, clock, _shown(endpoint))
    except (CancelledError, LinkFailed):
        raise
    except Exception as error:  # noqa: BLE001 - the network and OpenSSL fail in many ways
        raise LinkFailed(*why(error)) from None


async def _shown(endpoint: IStreamClientEndpoint) -> x509.Certificate:
    looking = _Looking()
    factory: Factory = Factory.forProtocol(lambda: looking)
    factory.noisy = False
    connecting: Deferred[IProtocol] = endpoint.connect(factory)
    try:
        await cancellable(connecting)
        return await looking.shown
    finally:
        looking.cut()


@implementer(IHandshakeListener)
class _Looking(Protocol):
    # That of TLS, which has more than the interface tells.
    transport: Any = None

    def __init__(self) -> None:
        self.shown: Deferred[x509.Certificate] = Deferred()

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()

    def handshakeCompleted(self) -> None:
        if not self.shown.called:
            certificate = self.transport.getPeerCertificate()
            self.shown.callback(certificate.to_cryptography())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.shown.called:
            self.shown.errback(reason)
