"""What can go wrong on the way to a peer, in words for the operator."""

from OpenSSL import SSL
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError

from sydentish.domain.peers import FailureKind
from sydentish.outgoing import TIMED_OUT, Unusable, explain
from sydentish.replication.tls import CertificateRefused

_OURS = "it does not accept our certificate"
_NO_TLS = "it does not speak TLS"
_OLD_TLS = "it does not speak TLS 1.2 or later"
# What OpenSSL calls it, and what that is for the operator; the first that fits. An alert (RFC 8446, section 6) is
# what the other side says of us. In TLS 1.3 it comes after the handshake, when the request is sent already.
_TLS_TROUBLES = (
    ("alert certificate expired", f"{_OURS}: it has expired"),
    ("alert certificate revoked", f"{_OURS}: it was revoked"),
    (
        "alert unsupported certificate",
        f"{_OURS}: it is not one for clients, its extended key usage must have clientAuth",
    ),
    ("alert unknown ca", f"{_OURS}: it is not from an authority that is trusted there"),
    ("alert bad certificate", _OURS),
    ("alert certificate unknown", _OURS),
    ("alert certificate required", _OURS),
    ("alert no certificate", _OURS),
    ("alert access denied", _OURS),
    ("protocol version", _OLD_TLS),
    ("unsupported protocol", _OLD_TLS),
    ("alert handshake failure", "it does not agree to any way of TLS with us"),
    ("wrong version number", _NO_TLS),
    ("packet length too long", _NO_TLS),
    ("record layer failure", _NO_TLS),
)


def why(error: Exception) -> tuple[FailureKind, str]:
    """What has failed, as one word, and the reason, without addresses, URLs or secrets."""
    causes = _causes(error)
    tls = _tls_reason(causes)
    reason = explain(error)
    if tls is not None:
        return "certificate", tls
    if isinstance(error, DeferredTimeoutError):
        return "timeout", "no answer in time"
    if isinstance(error, ConnectError | DNSLookupError):
        return ("timeout", "no connection in time") if reason == TIMED_OUT else ("unreachable", reason)
    cut = any(isinstance(cause, ConnectionClosed) for cause in causes)
    if cut and not any(isinstance(cause, Unusable) for cause in causes):
        return "answer", "it closed the connection before it had answered"
    return "answer", reason


def _tls_reason(causes: list[BaseException]) -> str | None:
    for cause in causes:
        if isinstance(cause, CertificateRefused):
            return cause.reason
    for cause in causes:
        if isinstance(cause, SSL.Error):
            told = str(cause)
            return next((reason for sign, reason in _TLS_TROUBLES if sign in told), "TLS failed")
    return None


def _causes(error: BaseException) -> list[BaseException]:
    # Twisted's HTTP client wraps what happened to the connection, sometimes twice.
    found = [error]
    for failure in getattr(error, "reasons", ()):
        found += _causes(failure.value)
    return found
