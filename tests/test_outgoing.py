"""What went wrong with a request, in words; the connections themselves are tested with those who use them."""

import pytest
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from sydentish.outgoing import AnswerTooLarge, explain


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DeferredTimeoutError(), "timed out"),
        (ConnectTimeoutError(), "timed out"),
        (TCPTimedOutError(), "timed out"),
        (DNSLookupError(), "its name cannot be resolved"),
        (RefusedError(), "connection refused"),
        (NoRouteError(), "no route to it"),
        (ConnectError(), "it cannot be connected to"),
        (AnswerTooLarge(), "the answer is too large"),
        (VerificationError([]), "certificate not accepted"),
        (CertificateError(), "certificate not accepted"),
        (SSL.Error([("SSL routines", "", "certificate verify failed")]), "certificate not accepted"),
        (SSL.Error([("SSL routines", "", "wrong version number")]), "TLS failed"),
        (ConnectionDone(), "no usable answer"),
        (KeyError("secret"), "no usable answer"),
    ],
)
def test_each_trouble_has_its_words(error, reason):
    assert explain(error) == reason
    assert explain(ResponseNeverReceived([Failure(ConnectionDone()), Failure(error)])) == reason
