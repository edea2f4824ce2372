"""Mutual TLS with peers: each side shows a certificate, and knows whose it sees."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import idna
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sydentish.domain.certificates import names_in
from sydentish.domain.peers import Peer
from sydentish.replication.credentials import MUST_SHOW, check_key, read_certificate, read_file, tls_context

_MOST_NAMES_SHOWN = 5
_MOST_LETTERS_SHOWN = 100
_MOST_FROM_ONE_SOURCE = 20

_log = Logger()

_CODES = SSL.X509VerificationCodes
NOT_TRUSTED = "is not from an authority that is trusted here"
# Why OpenSSL refuses a certificate that it is shown, as far as operators meet it.
_REFUSALS = {
    _CODES.ERR_CERT_HAS_EXPIRED: "has expired",
    _CODES.ERR_CERT_NOT_YET_VALID: "is not valid yet",
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT: NOT_TRUSTED,
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: NOT_TRUSTED,
    _CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: NOT_TRUSTED,
    _CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: NOT_TRUSTED,
    _CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN: NOT_TRUSTED,
}


class CertificateRefused(Exception):
    """The certificate of a peer is not good.

    Attributes:
        reason: why, for the operator.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WrongCertificateName(CertificateRefused):
    """The certificate is good, but somebody else's.

    Attributes:
        names: those in it.
    """

    def __init__(self, names: tuple[str, ...], wanted: Sequence[str]) -> None:
        super().__init__(f"its certificate is for {shown_names(names)}, not for {shown_names(wanted)}")
        self.names = names


@dataclass(slots=True)
class PeerTls:
    """Our certificate, and whose certificates we trust; made by `load`.

    All who connect share one, so that a change of certificates reaches all of them.

    Attributes:
        certificate_names: the names that our certificate is for, see `names_in`.
        not_after_ms: when it expires, in ms.
        fingerprint: tells other files from these: of our certificates and those that we trust.
    """

    certificate_names: tuple[str, ...]
    not_after_ms: int
    fingerprint: bytes
    _server: SSL.Context = field(repr=False)
    _client: SSL.Context = field(repr=False)

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path | None, ca_file: Path) -> Self:
        """Reads the files; later changes of them are not noticed, but see `adopt`.

        Args:
            certificate_file: our certificate, then those between it and its authority (PEM).
            key_file: its private key without a passphrase (PEM); None when it is in `certificate_file`.
            ca_file: the certificates of the authorities that certificates of peers may come from (PEM).

        Raises:
            TlsProblem: a file cannot be used. That a certificate has expired is no problem here.
        """
        key_file = key_file or certificate_file
        certificate = read_certificate(certificate_file)
        check_key(key_file, certificate)
        fingerprint = sha256(read_file(certificate_file) + read_file(ca_file)).digest()
        files = (certificate_file, key_file, ca_file)
        return cls(
            certificate_names=names_in(certificate),
            not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
            fingerprint=fingerprint,
            _server=tls_context(*files),
            _client=tls_context(*files),
        )

    def adopt(self, other: "PeerTls") -> None:
        """Has the files of another one from now on; connections that are there keep what they were made with."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def server_context(self) -> IOpenSSLServerConnectionCreator:
        """Makes connections that show our certificate, and want one of a client from an authority of `ca_file`."""
        return _ServerSide(lambda: self._server)

    def client(self, peer: Peer) -> IOpenSSLClientConnectionCreator:
        """Makes connections that show our certificate, and end unless the other one is that of `peer`.

        They fail with `CertificateRefused`, or `WrongCertificateName`, before anything is written.

        Raises:
            ValueError: the URL of the peer has no host that can be used.
        """
        return _ClientSide(self._client, peer)


@implementer(IStreamServerEndpoint)
class TlsEndpoint:
    """Puts mutual TLS in front of what another endpoint accepts.

    Args:
        endpoint: where to listen.
        tls: our certificate, and whom we trust.
        clock: gathers small writes.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, tls: PeerTls, clock: IReactorTime) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._clock = clock

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See `IStreamServerEndpoint`."""
        factory = _TlsFactory(self._tls, protocolFactory, self._clock)
        listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
        return listening


class _TlsFactory(TLSMemoryBIOFactory):
    """Bounds how many connections one source can have, which needs no certificate to hold one until it times out.

    It lets the factory behind it turn connections away, too; Twisted's own would fail with each of them.
    """

    noisy = False

    def __init__(self, tls: PeerTls, wrapped: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(tls.server_context(), False, wrapped, clock)  # noqa: FBT003
        self._connected: Counter[str] = Counter()

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        source = getattr(addr, "host", "")
        if source and self._connected[source] >= _MOST_FROM_ONE_SOURCE:
            return None
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        self._connected[source] += 1
        return _TlsProtocol(self, inner, partial(self._gone, source))

    def _gone(self, source: str) -> None:
        self._connected[source] -= 1
        if not self._connected[source]:
            del self._connected[source]


class _TlsProtocol(TLSMemoryBIOProtocol):
    def __init__(self, factory: _TlsFactory, inner: IProtocol, gone: Callable[[], None]) -> None:
        super().__init__(factory, inner)  # type: ignore[no-untyped-call]
        self._gone = gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


@implementer(IOpenSSLServerConnectionCreator)
class _ServerSide:
    def __init__(self, context: Callable[[], SSL.Context]) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002
        connection = SSL.Connection(self._context(), None)
        connection.set_verify(MUST_SHOW, _told_if_refused)
        return connection


def _told_if_refused(_: SSL.Connection, shown: crypto.X509, code: int, _depth: int, good: int) -> bool:
    """The other side is told by an alert; whoever shows nothing at all is no peer, and not worth a line."""
    if not good:
        _log.warn(
            "a certificate for {names} was refused: it {reason}",
            names=shown_names(_names(shown)),
            reason=_reason(code, of_client=True),
        )
    return bool(good)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientSide:
    def __init__(self, context: SSL.Context, peer: Peer) -> None:
        self._context = context
        self._names = peer.certificate_names
        self._host = _host_sent(peer.url)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._host is not None:
            connection.set_tlsext_host_name(self._host)

        def check(_: SSL.Connection, shown: crypto.X509, code: int, depth: int, good: int) -> bool:
            refused = self._refused(shown, code, depth, good=bool(good))
            if refused is not None:
                tlsProtocol.failVerification(Failure(refused))
            return refused is None

        connection.set_verify(MUST_SHOW, check)
        return connection

    def _refused(self, shown: crypto.X509, code: int, depth: int, *, good: bool) -> CertificateRefused | None:
        """Why not this certificate of the chain; the peer's own is the last, at depth 0."""
        if not good:
            return CertificateRefused(trouble_with_server(code, depth))
        if depth:
            return None
        names = _names(shown)
        return None if set(names) & set(self._names) else WrongCertificateName(names, self._names)


def trouble_with_server(code: int, depth: int) -> str:
    """Why OpenSSL refuses a certificate that a server shows, for the operator.

    Args:
        code: what OpenSSL says.
        depth: how far from the server's own certificate it has found that; 0 for that one.
    """
    reason = _reason(code, of_client=False)
    of_its_own = not depth or reason == NOT_TRUSTED
    return f"{'its certificate' if of_its_own else 'the certificate of its authority'} {reason}"


def _reason(code: int, *, of_client: bool) -> str:
    if code == _CODES.ERR_INVALID_PURPOSE:
        whom, usage = ("clients", "clientAuth") if of_client else ("servers", "serverAuth")
        return f"is not one for {whom}: its extended key usage must have {usage}"
    return _REFUSALS.get(code, f"is not good (OpenSSL: {code})")


def _names(shown: crypto.X509) -> tuple[str, ...]:
    try:
        return names_in(shown.to_cryptography())
    except (ValueError, x509.InvalidVersion):  # OpenSSL can read what others cannot
        return ()


def _host_sent(url: str) -> bytes | None:
    """What is sent as the name of the server: not an address (RFC 6066, section 3)."""
    host = urlsplit(url).hostname
    if not host:
        raise ValueError("the URL has no host")
    if isIPAddress(host) or isIPv6Address(host):
        return None
    return host.encode("ascii") if host.isascii() else idna.encode(host)


def shown_names(names: Sequence[str]) -> str:
    """Some names for the operator, of which others may have chosen what is in them."""
    shown = ["".join(c if c.isprintable() else "?" for c in name[:_MOST_LETTERS_SHOWN]) for name in names]
    more = ["and more"] if len(shown) > _MOST_NAMES_SHOWN else []
    return ", ".join(shown[:_MOST_NAMES_SHOWN] + more) or "nobody"
