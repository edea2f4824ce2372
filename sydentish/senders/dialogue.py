"""One connection to a mail relay, on which one mail is handed over, or none to try it.

What a relay says can hold the addressee, and what is said to it the password: neither gets into an error or
a log. An error names the step and the reply code, which is what an operator needs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    ITLSTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.mail.smtp import (
    CramMD5ClientAuthenticator,
    ESMTPClient,
    LOGINAuthenticator,
    PLAINAuthenticator,
    SMTPClientError,
)
from twisted.python.failure import Failure

from sydentish.domain.threepids import Mailbox
from sydentish.senders.relay import MailUnfit, Relay, RelayError, RelayFailed, RelayRefused

_REPLY = re.compile(rb"[2-5][0-9]{2}(?:[ -].*)?", re.DOTALL)
# RFC 5321 section 4.5.3.1.5 allows 512 octets a reply line, and nobody needs a hundred of them.
_MAX_REPLY_LINE = 2048
_MAX_REPLY_LINES = 100
_OK = list(range(200, 300))
_START_MAIL_INPUT = [354]
_UNFIT_FOR_A_PATH = re.compile(r"[\x00-\x20\x7f<>]")
_VERBS = frozenset((b"EHLO", b"STARTTLS", b"AUTH", b"MAIL", b"RCPT", b"DATA"))
# How long a relay may take to close a connection after we said that we are done, in seconds.
_FAREWELL = 5.0


@dataclass(frozen=True, slots=True, repr=False)
class Mail:
    """What is handed over: the envelope and the message, with CRLF at the end of each line."""

    sender: str
    recipient: Mailbox
    message: bytes

    def __post_init__(self) -> None:
        if _UNFIT_FOR_A_PATH.search(self.sender + self.recipient.envelope):
            raise MailUnfit("an address of the envelope holds what no address can hold")

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address can only be written with SMTPUTF8 (RFC 6531)."""
        return self.recipient.needs_smtputf8 or not self.sender.isascii()


class Dialogue(ESMTPClient):
    """One connection, one mail; without a mail it ends where one would begin: greeted and logged in.

    Twisted's client knows the order of things, STARTTLS and the logins. Replaced here are its bounds on what
    comes in, its extensions, addresses and messages, and its errors, which quote the dialogue. Its methods
    are called by its name since it has no annotations.

    Attributes:
        step: what is waited for, in words for the operator.
        result: fires when the relay has taken the mail, or with a `RelayError`; cancelling it closes the
            connection.
        closed: fires when the connection is gone; never if there was none.
    """

    transport: ITLSTransport

    # True would make Twisted keep the dialogue for the texts of its errors.
    debug = False
    # HELO offers nothing that we need.
    heloFallback = False
    MAX_LENGTH = _MAX_REPLY_LINE

    def __init__(self, clock: IReactorTime, relay: Relay, mail: Mail | None) -> None:
        self._starttls = relay.tls if relay.security == "starttls" else None
        ESMTPClient.__init__(self, relay.password.encode(), self._starttls, relay.ehlo)
        self.requireTransportSecurity = relay.security != "plain"
        self.requireAuthentication = relay.username is not None
        if relay.username is not None:
            name = relay.username.encode()
            # In the order of preference; only CRAM-MD5 keeps the password from a relay without TLS.
            self.authenticators = [
                CramMD5ClientAuthenticator(name),
                PLAINAuthenticator(name),
                LOGINAuthenticator(name),
            ]
        self._clock = clock
        self._mail = mail
        self._extensions: dict[bytes, bytes | None] = {}
        self._farewell: IDelayedCall | None = None
        self._done = False
        self.step = "free connection"
        self.result: Deferred[None] = Deferred(self._cancelled)
        self.closed: Deferred[None] = Deferred()

    @property
    def offers_smtputf8(self) -> bool:
        """Whether the relay has said that it takes addresses beyond ASCII (RFC 6531)."""
        return b"SMTPUTF8" in self._extensions

    # --- the connection --------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Waits for the greeting."""
        self.step = "greeting"
        ESMTPClient.connectionMade(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Ends the dialogue, if it had not ended before."""
        ESMTPClient.connectionLost(self, reason)
        if self._farewell is not None and self._farewell.active():
            self._farewell.cancel()
        self._end(RelayFailed(f"{_why_lost(reason.value)} at {self.step}"))
        self.closed.callback(None)

    def lineReceived(self, line: bytes) -> None:
        """Takes a line of a reply, if it is one."""
        if len(self.resp) >= _MAX_REPLY_LINES or not _REPLY.fullmatch(line):
            self._hang_up()
        else:
            ESMTPClient.lineReceived(self, line)

    def lineLengthExceeded(self, _line: bytes) -> None:
        """No reply is that long."""
        self._hang_up()

    def sendLine(self, line: bytes) -> None:
        """Sends a command, and notes which one if it is no part of a login."""
        verb = line.partition(b" ")[0]
        if verb in _VERBS:
            self.step = verb.decode()
        ESMTPClient.sendLine(self, line)

    # --- the steps: each is the answer to the one before -----------------------------------------------

    def esmtpState_serverConfig(self, code: int, resp: bytes) -> None:
        """EHLO was answered: STARTTLS or login or mail comes next."""
        words = [line.upper().split(None, 1) for line in resp.split(b"\n")]
        self._extensions = {word[0]: word[1] if len(word) > 1 else None for word in words if word}
        ESMTPClient.tryTLS(self, code, resp, self._extensions)

    def esmtpState_starttls(self, code: int, resp: bytes) -> None:
        """STARTTLS was accepted. What came in the clear after that could be anybody's (RFC 3207 section 6)."""
        if self._buffer or self._starttls is None:
            self._hang_up()
            return
        self.transport.startTLS(self._starttls)
        self._tlsMode = True
        ESMTPClient.esmtpState_ehlo(self, code, resp)

    def smtpState_from(self, _code: int, _resp: bytes) -> None:
        """Greeted and logged in: begins the mail."""
        mail = self._mail
        if mail is None:
            self._quit(None)
            return
        options = b""
        if mail.needs_smtputf8:
            if not self.offers_smtputf8:
                self._quit(MailUnfit("the relay does not offer SMTPUTF8, which the address needs"))
                return
            options = b" SMTPUTF8 BODY=8BITMIME"
        self._failresponse = self.smtpTransferFailed
        self._ask(
            b"MAIL FROM:<%b>%b" % (mail.sender.encode(), options), lambda *_: self._name_recipient(mail)
        )

    def _name_recipient(self, mail: Mail) -> None:
        """The sender was accepted."""
        self._ask(b"RCPT TO:<%b>" % mail.recipient.envelope.encode(), lambda *_: self._announce(mail))

    def _announce(self, mail: Mail) -> None:
        """The recipient was accepted."""
        self._ask(b"DATA", lambda *_: self._hand_over(mail), _START_MAIL_INPUT)

    def _hand_over(self, mail: Mail) -> None:
        """The message is wanted; a dot that begins a line is doubled (RFC 5321 section 4.5.2)."""
        self.step = "message"
        stuffed = re.sub(rb"(?m)^\.", b"..", mail.message.removesuffix(b"\r\n"))
        self._ask(stuffed + b"\r\n.", self.smtpState_msgSent)

    def smtpState_msgSent(self, _code: int, _resp: bytes) -> None:
        """The relay has taken the mail."""
        self._quit(None)

    def _ask(self, line: bytes, then: Callable[[int, bytes], None], expected: list[int] = _OK) -> None:
        self._expected = expected
        self._okresponse = then
        self.sendLine(line)

    # --- the ends --------------------------------------------------------------------------------------

    def sendError(self, exc: SMTPClientError) -> None:
        """What Twisted's client calls when a step fails."""
        self._refused(exc.code)

    def smtpTransferFailed(self, code: int, _resp: bytes) -> None:
        """The relay said no to sender, recipient or message."""
        self._refused(code)

    def esmtpEHLORequired(self, code: int = -1, _resp: bytes | None = None) -> None:
        """The relay said no to EHLO."""
        self._refused(code)

    def esmtpTLSRequired(self, _code: int = -1, _resp: bytes | None = None) -> None:
        """We never go on in the clear."""
        self._quit(RelayFailed("the relay does not offer STARTTLS"))

    def esmtpAUTHRequired(self, _code: int = -1, _resp: bytes | None = None) -> None:
        """We never go on without the login that was asked for."""
        self._quit(RelayFailed("the relay does not offer a login with CRAM-MD5, PLAIN or LOGIN"))

    def _refused(self, code: int) -> None:
        if 400 <= code <= 599:  # noqa: PLR2004 - RFC 5321 section 4.2.1
            self._quit(RelayRefused(code, self.step))
        else:
            self._quit(RelayFailed(f"the relay answered {code} to {self.step}, which is out of place"))

    def _hang_up(self) -> None:
        self.transport.abortConnection()
        self._end(RelayFailed(f"the relay does not speak SMTP at {self.step}"))

    def _quit(self, error: RelayError | None) -> None:
        # The outcome is known: nobody waits for the answer to this.
        self.sendLine(b"QUIT")
        self.transport.loseConnection()
        self._farewell = self._clock.callLater(_FAREWELL, self.transport.abortConnection)
        self._end(error)

    def _cancelled(self, _result: Deferred[None]) -> None:
        self._done = True
        self.transport.abortConnection()

    def _end(self, error: RelayError | None) -> None:
        if self._done:
            return
        self._done = True
        if error is None:
            self.result.callback(None)
        else:
            self.result.errback(error)


def _why_lost(error: BaseException | None) -> str:
    if isinstance(error, VerificationError):
        return "the relay's certificate is for another name"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return f"TLS failed ({error.args[0][-1][-1]})"
    return "the relay closed the connection"
