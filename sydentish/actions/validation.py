"""Validation: proving that an address is one's own."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.messages import Messages, TokenRequest
from sydentish.actions.sending import Attempt, Sending
from sydentish.domain.accounts import Account, hash_secret, opaque_token
from sydentish.domain.errors import IdentityError, NoValidSession, TokenIncorrect
from sydentish.domain.ratelimit import Budgets, Charge
from sydentish.domain.threepids import MSISDN, Threepid
from sydentish.domain.validation import (
    NEVER_SENT,
    SID_BYTES,
    NextLinkPolicy,
    Session,
    check_live,
    check_token,
    check_validated,
    guessable,
    is_expired,
    must_send,
)
from sydentish.store import budgets as budget_rows
from sydentish.store import validation as validation_rows
from sydentish.store.database import Database, Tx


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


class Validation:
    """What a user does with validation sessions (Identity Service API, "Establishing associations").

    Args:
        db: for what is noted while a message is on its way.
        gate: for all that is asked for.
        messages: what is sent, by medium.
        budgets: what a guess costs.
        next_links: where browsers may be sent after a validation.
        lifetime_ms: how long a session lives after its last change, in ms.
        on_outcome: hears what became of each request for a message and of each token that came back: its medium, and the
            outcome in a word; see `Attempt`.
        now_ms: the time, in ms.
        random_bytes: so many random bytes.
    """

    def __init__(
        self,
        *,
        db: Database,
        gate: Gate,
        messages: Mapping[str, Messages],
        budgets: Budgets,
        next_links: NextLinkPolicy,
        lifetime_ms: int,
        on_outcome: Callable[[str, str], None],
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._gate = gate
        self._messages = messages
        self._budgets = budgets
        self._next_links = next_links
        self._lifetime_ms = lifetime_ms
        self._on_outcome = on_outcome
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._sending: dict[str, Sending] = {}

    async def request_token(self, caller: Caller, request: TokenRequest) -> str:
        """Sends a message with a token, unless this attempt was sent before; the session's sid.

        Raises:
            InvalidParam: browsers are not sent to that `next_link`.
            LimitExceeded: so many messages are not sent.
            InvalidAddress, DestinationRejected: no message can be sent there.
            EmailSendError, SendError: it could not be handed over; the attempt number is not used up.
        """
        attempt = Attempt("sent", request.threepid.medium)
        with attempt.told(self._on_outcome):
            return await self._request_token(caller, request, attempt)

    async def _request_token(self, caller: Caller, request: TokenRequest, attempt: Attempt) -> str:
        sid = opaque_token(self._random_bytes(SID_BYTES))
        session, charges = await self._gate.write_for_anybody(
            caller, self._open_session, caller.source, request, sid, self._now_ms()
        )
        if not must_send(session, request.send_attempt):
            attempt.outcome = "repeated"
            return session.sid
        # Replies of the store arrive in the order of its transactions, so a message whose attempt number was
        # not yet stored when the session was read is still to be found here.
        while (sending := self._sending.get(session.sid)) is not None:
            if sending.send_attempt >= request.send_attempt:
                attempt.outcome = "repeated"
                await sending.wait()
                return session.sid
            if self._messages[session.threepid.medium].kept > 1:
                break
            # Only the newest code is valid: so there is never another one on its way.
            with suppress(IdentityError):
                await sending.wait()
        await self._send_once(session, request, charges)
        return session.sid

    async def submit_token(
        self, caller: Caller, credentials: Credentials, token: str, medium: str | None = None
    ) -> str | None:
        """Proves the address of a session with the token that was sent to it.

        A token proves once. It may come again, as links are opened again, and is a success again, but it gives
        the proof no new time: whoever has seen an old link could keep it young for ever.

        Args:
            caller: who submits it; a browser has no access token.
            credentials: what proves that the session is the caller's.
            token: the token from the message.
            medium: what the session must be of; None for any.

        Returns:
            Where a browser goes from here, or None.

        Raises:
            NoValidSession, SessionExpired, TokenIncorrect: it proves nothing.
            LimitExceeded: too many codes were tried.
        """
        attempt = Attempt("validated")
        with attempt.told(self._on_outcome):
            judged = await self._gate.write_for_anybody(
                caller, self._submit, credentials, token, medium, attempt, self._now_ms()
            )
            if isinstance(judged, TokenIncorrect):
                raise judged
        return judged.next_link

    async def validated(self, caller: Caller, credentials: Credentials) -> Validated:
        """The address that a session has proved.

        Raises:
            NoValidSession, SessionExpired, SessionNotValidated: it has proved none.
        """
        return await self._gate.read_for_anybody(
            caller,
            lambda tx, _account: validated_session(tx, credentials, self._now_ms(), self._lifetime_ms),
        )

    def _open_session(  # noqa: PLR0917 - as the transaction needs them
        self, tx: Tx, account: Account | None, source: str, request: TokenRequest, new_sid: str, now_ms: int
    ) -> tuple[Session, list[Charge]]:
        """The session of this address and secret, and what a message costs; a new one if there is none, or it has expired.

        A new session has paid for its first message: without it, nobody can open one. Later ones are paid for when they
        are made: who waits for one on its way makes none.
        """
        if request.next_link is not None:
            self._next_links.check("next_link", request.next_link)
        messages = self._messages[request.threepid.medium]
        messages.check(request)
        charges = messages.charges(account.user_id if account else None, source, request)
        found = self._found(tx, request, now_ms)
        if found is not None:
            return found, charges
        budget_rows.charge(tx, charges, now_ms)
        return _add_session(tx, request, new_sid, now_ms), []

    def _found(self, tx: Tx, request: TokenRequest, now_ms: int) -> Session | None:
        found = validation_rows.latest_session(tx, request.threepid, hash_secret(request.client_secret))
        return None if found is None or is_expired(found, now_ms, self._lifetime_ms) else found

    def _submit(  # noqa: PLR0917 - as the transaction needs them
        self,
        tx: Tx,
        _account: Account | None,
        credentials: Credentials,
        token: str,
        medium: str | None,
        attempt: Attempt,
        now_ms: int,
    ) -> Session | TokenIncorrect:
        """Judges a token; a wrong one is returned, not raised, since what is noted of it must stay."""
        found = validation_rows.session(tx, credentials.sid)
        if found is not None:
            attempt.medium = found.threepid.medium
        session = check_live(found, credentials.client_secret, now_ms, self._lifetime_ms)
        if medium not in (None, session.threepid.medium):
            raise NoValidSession("No valid session was found matching that sid and client secret")
        sent = validation_rows.tokens(tx, session.sid)
        if session.threepid.medium == MSISDN:
            sent = guessable(sent)
            budget_rows.charge(tx, self._budgets.guess(session.threepid), now_ms)
        given = self._messages[session.threepid.medium].token_hash(token, credentials.client_secret)
        try:
            proof = check_token(given, sent)
        except TokenIncorrect as wrong:
            validation_rows.add_wrong_guess(tx, session.sid)
            return wrong
        if not proof.used:
            validation_rows.set_validated(tx, session.sid, proof.number, now_ms)
        return session

    async def _send_once(self, session: Session, request: TokenRequest, charges: list[Charge]) -> None:
        sending = self._sending[session.sid] = Sending(request.send_attempt)
        failure: Exception | None = None
        try:
            await self._send(session, request, charges)
        except Exception as error:
            failure = error
            raise
        finally:
            # A later attempt of the same session may have taken the place in the meantime.
            if self._sending.get(session.sid) is sending:
                del self._sending[session.sid]
            sending.end(failure)

    async def _send(self, session: Session, request: TokenRequest, charges: list[Charge]) -> None:
        messages = self._messages[session.threepid.medium]
        token = messages.new_token()
        # The token is stored before the message leaves: somebody may follow the link at once.
        token_hash = messages.token_hash(token, request.client_secret)
        number = await self._db.write(_add_token, session.sid, token_hash, charges, self._now_ms())
        try:
            await messages.send(session.sid, request, token)
        except Exception:
            await self._db.write(validation_rows.delete_token, session.sid, number)
            raise
        await self._db.write(_note_sent, session.sid, number, messages.kept, request, self._now_ms())


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


def _add_session(tx: Tx, request: TokenRequest, sid: str, now_ms: int) -> Session:
    session = Session(
        sid=sid,
        threepid=request.threepid,
        client_secret_hash=hash_secret(request.client_secret),
        send_attempt=NEVER_SENT,
        next_link=request.next_link,
        changed_ts=now_ms,
        validated_ts=None,
    )
    validation_rows.add_session(tx, session)
    return session


def _add_token(tx: Tx, sid: str, token_hash: str, charges: list[Charge], now_ms: int) -> int:
    budget_rows.charge(tx, charges, now_ms)
    return validation_rows.add_token(tx, sid, token_hash)


def _note_sent(  # noqa: PLR0917 - as the transaction needs them
    tx: Tx, sid: str, number: int, kept: int, request: TokenRequest, now_ms: int
) -> None:
    validation_rows.set_sent(tx, sid, request.send_attempt, request.next_link, now_ms)
    validation_rows.keep_newest_tokens(tx, sid, number, kept)
