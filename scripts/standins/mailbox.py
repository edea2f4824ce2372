"""A mail relay that keeps what it is given: an SMTP sink on aiosmtpd, in a thread of its own."""

import email
import email.policy
import hmac
import queue
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads

_CHALLENGE = b"<1.2@mailbox.example>"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was delivered.

    Attributes:
        sender: the address of MAIL FROM.
        recipients: the addresses of RCPT TO.
        mail_options: what followed the address in MAIL FROM.
        raw: the message as it came, without the doubling of dots.
        message: the same, parsed.
        login: the name that the client logged in with, or None.
        tls: whether it came over TLS.
    """

    sender: str
    recipients: tuple[str, ...]
    mail_options: tuple[str, ...]
    raw: bytes
    message: EmailMessage
    login: str | None
    tls: bool


class Mailbox:
    """The sink. Start it, use its `port`, stop it.

    Attributes:
        host: where it listens, which is loopback.
        mails: everything that was delivered, in order.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        reactor: IReactorFromThreads | None = None,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        mechanisms: Sequence[str] = ("CRAM-MD5", "PLAIN", "LOGIN"),
        smtputf8: bool = True,
        port: int = 0,
    ) -> None:
        """Does not listen yet.

        Args:
            reactor: tells of mails there (`next_mail`); without it there is `wait_for_mail` only.
            starttls: offer STARTTLS with this certificate, and require it.
            tls: speak TLS from the first byte with this certificate.
            login: the user name and password that are required.
            mechanisms: the logins that are offered.
            smtputf8: whether SMTPUTF8 is offered.
            port: where to listen; 0 for any.
        """
        self.mails: list[Mail] = []
        self._reactor = reactor
        self._arrived: queue.SimpleQueue[Mail] = queue.SimpleQueue()
        self._unread: list[Mail] = []
        self._waiting: list[Deferred[Mail]] = []
        handler = _Handler(self, login=login, implicit_tls=tls is not None)
        self._controller = _Controller(
            handler,
            hostname=self.host,
            port=port,
            ssl_context=tls,
            server_hostname="mailbox.example",
            enable_SMTPUTF8=smtputf8,
            tls_context=starttls,
            require_starttls=starttls is not None,
            auth_require_tls=starttls is not None,
            auth_exclude_mechanism={"CRAM-MD5", "PLAIN", "LOGIN"} - set(mechanisms if login else ()),
            authenticator=handler.authenticate,
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._controller.port

    def start(self) -> None:
        """Listens, and returns when mails can come."""
        self._controller.start()

    def stop(self) -> None:
        """Closes everything, and returns when that is done."""
        self._controller.stop()

    def next_mail(self) -> Deferred[Mail]:
        """The oldest mail that was not asked for yet, as soon as there is one. For the reactor's thread."""
        if self._unread:
            return succeed(self._unread.pop(0))
        waiting: Deferred[Mail] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def wait_for_mail(self, timeout: float) -> Mail:
        """As `next_mail`, for programs without a reactor: blocks for at most `timeout` seconds.

        Raises:
            TimeoutError: no mail came.
        """
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("no mail came") from None

    def put(self, mail: Mail) -> None:
        """Keeps a mail; called in the thread of the sink."""
        self.mails.append(mail)
        if self._reactor is None:
            self._arrived.put(mail)
        else:
            self._reactor.callFromThread(self._tell, mail)

    def _tell(self, mail: Mail) -> None:
        if self._waiting:
            self._waiting.pop(0).callback(mail)
        else:
            self._unread.append(mail)


class _Handler:
    def __init__(self, mailbox: Mailbox, *, login: tuple[str, str] | None, implicit_tls: bool) -> None:
        self._mailbox = mailbox
        self._login = login
        self._implicit_tls = implicit_tls

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: LoginPassword
    ) -> AuthResult:
        right = self._login == (given.login.decode(), given.password.decode())
        return AuthResult(success=right, handled=False, auth_data=given)

    async def auth_CRAM__MD5(self, server: SMTP, _args: list[str]) -> AuthResult:
        answer = await server.challenge_auth(_CHALLENGE)
        if self._login is None or not isinstance(answer, bytes):
            return AuthResult(success=False)
        name, password = self._login
        digest = hmac.new(password.encode(), _CHALLENGE, "md5").hexdigest()
        right = answer == f"{name} {digest}".encode()
        return AuthResult(success=right, handled=False, auth_data=LoginPassword(name.encode(), b""))

    async def handle_MAIL(
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._login is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        raw = envelope.content if isinstance(envelope.content, bytes) else b""
        message = email.message_from_bytes(raw, EmailMessage, policy=email.policy.SMTPUTF8)
        login = session.auth_data.login.decode() if session.authenticated else None
        self._mailbox.put(
            Mail(
                sender=envelope.mail_from or "",
                recipients=tuple(envelope.rcpt_tos),
                mail_options=tuple(envelope.mail_options),
                raw=raw,
                message=message,
                login=login,
                tls=self._implicit_tls or session.ssl is not None,
            )
        )
        return "250 OK"


class _Controller(Controller):
    """aiosmtpd's controller, for any free port, and with an end that leaves no socket open."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()

    def cancel_tasks(self, stop_loop: bool = True) -> None:  # noqa: FBT001, FBT002 - aiosmtpd's interface
        self.server.close()
        # Only the loop knows of connections whose TLS handshake goes on or has failed.
        for transport in list(self.loop._transports.values()):  # noqa: SLF001
            transport.abort()
        # Aborting takes a turn of the loop, and telling the protocol another.
        self.loop.call_soon(self.loop.call_soon, super().cancel_tasks, stop_loop)
