"""Validation: proving that an e-mail address is one's own."""

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.ports import VerificationSender
from sydentish.domain.accounts import Account, hash_secret, opaque_token
from sydentish.domain.threepids import Threepid
from sydentish.domain.validation import (
    MAIL_TOKENS_KEPT,
    NEVER_SENT,
    SID_BYTES,
    TOKEN_BYTES,
    NextLinkPolicy,
    Session,
    check_live,
    check_token,
    check_validated,
    is_expired,
    must_send,
    validation_link,
)
from sydentish.store import validation as validation_rows
from sydentish.store.database import Database, Tx


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a message with a token.

    Attributes:
        threepid: the address, normalised: this is the one that the message goes to.
        client_secret: what the client will prove the session with.
        send_attempt: the client's number of the attempt.
        next_link: where a browser goes after the validation, or None.
    """

    threepid: Threepid
    client_secret: str = field(repr=False)
    send_attempt: int
    next_link: str | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves that a session is the caller's."""

    sid: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Validated:
    """An address that was proved, and when, in ms."""

    threepid: Threepid
    validated_ts: int


class _Sending:
    """A message on its way; requests for the same attempt wait for it instead of sending another one."""

    def __init__(self, send_attempt: int) -> None:
        self.send_attempt = send_attempt
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> "Deferred[None]":
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def end(self, error: Exception | None) -> None:
        for waiter in self._waiting:
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)


class Validation:
    """What a user does with validation sessions (Identity Service API, "Establishing associations").

    Args:
        db: for deeds without an access token.
        gate: for all others.
        sender: hands the mail over.
        public_base_url: what the link in the mail begins with.
        next_links: where browsers may be sent after a validation.
        lifetime_ms: how long a session lives after its last change, in ms.
        now_ms: the time, in ms.
        random_bytes: so many random bytes.
    """

    def __init__(
        self,
        *,
        db: Database,
        gate: Gate,
        sender: VerificationSender,
        public_base_url: str,
        next_links: NextLinkPolicy,
        lifetime_ms: int,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._gate = gate
        self._sender = sender
        self._public_base_url = public_base_url
        self._next_links = next_links
        self._lifetime_ms = lifetime_ms
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._sending: dict[str, _Sending] = {}

    async def request_token(self, caller: Caller, request: TokenRequest) -> str:
        """Sends a mail with a validation link, unless this attempt was sent before; the session's sid.

        Raises:
            InvalidParam: browsers are not sent to that `next_link`.
            EmailSendError: the mail could not be handed over; the attempt number is not used up.
        """
        sid = opaque_token(self._random_bytes(SID_BYTES))
        session = await self._gate.write(caller, self._open_session, request, sid, self._now_ms())
        if not must_send(session, request.send_attempt):
            return session.sid
        # Replies of the store arrive in the order of its transactions, so a message whose attempt number was
        # not yet stored when the session was read is still to be found here.
        sending = self._sending.get(session.sid)
        if sending is not None and sending.send_attempt >= request.send_attempt:
            await sending.wait()
        else:
            await self._send_once(session, request)
        return session.sid

    async def submit_token(self, caller: Caller | None, credentials: Credentials, token: str) -> str | None:
        """Proves the address of a session with the token that was sent to it.

        A token proves once. It may come again, as links are opened again, and is a success again, but it gives
        the proof no new time: whoever has seen an old link could keep it young for ever.

        Args:
            caller: who submits it; None for a browser, which has no access token.
            credentials: what proves that the session is the caller's.
            token: the token from the message.

        Returns:
            Where a browser goes from here, or None.

        Raises:
            NoValidSession, SessionExpired, TokenIncorrect: it proves nothing.
        """
        now_ms = self._now_ms()
        if caller is None:
            return await self._db.write(_submit_token, credentials, token, now_ms, self._lifetime_ms)
        return await self._gate.write(
            caller,
            lambda tx, _account: _submit_token(tx, credentials, token, now_ms, self._lifetime_ms),
        )

    async def validated(self, caller: Caller, credentials: Credentials) -> Validated:
        """The address that a session has proved.

        Raises:
            NoValidSession, SessionExpired, SessionNotValidated: it has proved none.
        """
        return await self._gate.read(
            caller,
            lambda tx, _account: validated_session(tx, credentials, self._now_ms(), self._lifetime_ms),
        )

    def _open_session(
        self, tx: Tx, _account: Account, request: TokenRequest, new_sid: str, now_ms: int
    ) -> Session:
        """The session of this address and secret; a new one if there is none, or it has expired."""
        if request.next_link is not None:
            self._next_links.check("next_link", request.next_link)
        secret_hash = hash_secret(request.client_secret)
        found = validation_rows.latest_session(tx, request.threepid, secret_hash)
        if found is not None and not is_expired(found, now_ms, self._lifetime_ms):
            return found
        session = Session(
            sid=new_sid,
            threepid=request.threepid,
            client_secret_hash=secret_hash,
            send_attempt=NEVER_SENT,
            next_link=request.next_link,
            changed_ts=now_ms,
            validated_ts=None,
        )
        validation_rows.add_session(tx, session)
        return session

    async def _send_once(self, session: Session, request: TokenRequest) -> None:
        sending = self._sending[session.sid] = _Sending(request.send_attempt)
        failure: Exception | None = None
        try:
            await self._send(session, request)
        except Exception as error:
            failure = error
            raise
        finally:
            # A later attempt of the same session may have taken the place in the meantime.
            if self._sending.get(session.sid) is sending:
                del self._sending[session.sid]
            sending.end(failure)

    async def _send(self, session: Session, request: TokenRequest) -> None:
        token = opaque_token(self._random_bytes(TOKEN_BYTES))
        # The token is stored before the mail leaves: somebody may follow the link at once.
        number = await self._db.write(validation_rows.add_token, session.sid, hash_secret(token))
        link = validation_link(self._public_base_url, session.sid, request.client_secret, token)
        try:
            await self._sender.send_verification(session.threepid.address, link)
        except Exception:
            await self._db.write(validation_rows.delete_token, session.sid, number)
            raise
        await self._db.write(_note_sent, session.sid, number, request, self._now_ms())


def validated_session(tx: Tx, credentials: Credentials, now_ms: int, lifetime_ms: int) -> Validated:
    """The address that a session has proved, for a transaction that acts on the proof.

    Raises:
        NoValidSession, SessionExpired, SessionNotValidated: it has proved none.
    """
    session = _live_session(tx, credentials, now_ms, lifetime_ms)
    return Validated(session.threepid, check_validated(session))


def _live_session(tx: Tx, credentials: Credentials, now_ms: int, lifetime_ms: int) -> Session:
    session = validation_rows.session(tx, credentials.sid)
    return check_live(session, credentials.client_secret, now_ms, lifetime_ms)


def _note_sent(tx: Tx, sid: str, number: int, request: TokenRequest, now_ms: int) -> None:
    validation_rows.set_sent(tx, sid, request.send_attempt, request.next_link, now_ms)
    validation_rows.keep_newest_tokens(tx, sid, number, MAIL_TOKENS_KEPT)


def _submit_token(tx: Tx, credentials: Credentials, token: str, now_ms: int, lifetime_ms: int) -> str | None:
    session = _live_session(tx, credentials, now_ms, lifetime_ms)
    sent = check_token(token, validation_rows.tokens(tx, session.sid))
    if not sent.used:
        validation_rows.set_validated(tx, session.sid, sent.number, now_ms)
    return session.next_link
