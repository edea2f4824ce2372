"""Where the server listens: endpoint strings, sockets that systemd has made, and certificates that can change."""

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from sydentish.config import endpoints
from sydentish.lifecycle import ListenerProblem
from sydentish.supervision.endpoint import InheritedEndpoint
from sydentish.supervision.sockets import Inherited, SocketProblem


class Endpoints:
    """Makes endpoints of endpoint strings.

    Args:
        reactor: makes sockets, and watches them.
        sockets: those that were handed over.

    Attributes:
        with_certificates: those that listen with a certificate of their own.
    """

    def __init__(self, reactor: Any, sockets: Inherited) -> None:  # noqa: ANN401 - several interfaces
        self._reactor = reactor
        self._sockets = sockets
        self.with_certificates: list[SslEndpoint] = []

    def make(self, description: str, *, local_only: bool) -> tuple[str, IStreamServerEndpoint]:
        """An endpoint, and what to call it.

        Args:
            description: the endpoint string.
            local_only: whether it must be one that only this machine reaches; the configuration has seen to that,
                except where it cannot know.

        Raises:
            ListenerProblem: it cannot be used.
        """
        if (which := endpoints.inherited(description)) is not None:
            return self._inherited(description, *which, local_only=local_only)
        if description.startswith("ssl:"):
            secured = SslEndpoint(description, self._reactor)
            self.with_certificates.append(secured)
            return description, secured
        try:
            return description, serverFromString(self._reactor, description)
        except Exception as error:  # whatever Twisted and its plugins find wrong with it
            raise ListenerProblem(f"{description}: cannot be used: {error}") from error

    def _inherited(
        self, description: str, name: str | None, index: int | None, *, local_only: bool
    ) -> tuple[str, IStreamServerEndpoint]:
        try:
            sockets = self._sockets.take(name=name, index=index)
        except SocketProblem as problem:
            raise ListenerProblem(f"{description}: {problem}") from None
        where = ", ".join(each.address for each in sockets)
        if local_only and not all(each.is_local for each in sockets):
            raise ListenerProblem(
                f"{description}: must be a unix socket or have a loopback address, and not {where}: what is served there "
                "needs no proof of anything"
            )
        return f"{description} ({where})", InheritedEndpoint(sockets, self._reactor)


@implementer(IStreamServerEndpoint, IOpenSSLServerConnectionCreator)
class SslEndpoint:
    """An endpoint of the kind `ssl`, whose certificate can be read again while it listens.

    Args:
        description: the endpoint string.
        reactor: makes the socket.

    Raises:
        ListenerProblem: a file in it cannot be used.

    Attributes:
        description: the endpoint string.
    """

    def __init__(self, description: str, reactor: Any) -> None:  # noqa: ANN401 - several interfaces
        self.description = description
        self._reactor = reactor
        self._options, self._where = self._read()

    def read(self) -> CertificateOptions:
        """What the files have now, for `adopt`.

        Raises:
            ListenerProblem: one cannot be used.
        """
        return self._read()[0]

    @property
    def expires(self) -> float:
        """When the certificate expires that new connections are shown, in s since 1970."""
        certificate = self._options.certificate
        return certificate.to_cryptography().not_valid_after_utc.timestamp() if certificate else 0.0

    def is_shown(self, options: CertificateOptions) -> bool:
        """Whether new connections are shown that certificate already."""
        return _fingerprint(options) == _fingerprint(self._options)

    def adopt(self, options: CertificateOptions) -> None:
        """Has new connections shown another certificate; those that are there keep theirs."""
        self._options = options

    def listen(self, protocolFactory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """See `IStreamServerEndpoint`."""
        listening: Deferred[IListeningPort] = execute(
            self._reactor.listenSSL, factory=protocolFactory, contextFactory=self, **self._where
        )
        return listening

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002
        """See `IOpenSSLServerConnectionCreator`."""
        return SSL.Connection(self._options.getContext(), None)

    def _read(self) -> tuple[CertificateOptions, dict[str, Any]]:
        listening = _Listening()
        try:
            # Twisted reads the files here, and no later.
            serverFromString(listening, self.description).listen(Factory())
            listening.options.getContext()
        except Exception as error:  # whatever Twisted and OpenSSL find wrong with it
            raise ListenerProblem(f"{self.description}: cannot be used: {_told(error)}") from error
        return listening.options, listening.where


class _Listening:
    """Stands where Twisted expects a reactor, and only notes how it would listen."""

    options: CertificateOptions
    where: dict[str, Any]

    def listenSSL(
        self, port: int, factory: object, contextFactory: CertificateOptions, **where: object
    ) -> None:
        del factory
        self.options, self.where = contextFactory, {"port": port, **where}


def _fingerprint(options: CertificateOptions) -> bytes | None:
    return options.certificate.digest("sha256") if options.certificate else None


def _told(error: Exception) -> str:
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return str(error.args[0][-1][-1])
    return str(error)
