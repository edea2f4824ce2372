"""Associations: binding an address to a Matrix user, and unbinding it."""

from collections.abc import Callable
from dataclasses import dataclass

from canonicaljson import encode_canonical_json

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.outbox import ONBIND
from sydentish.actions.validation import Credentials, validated_session
from sydentish.domain.accounts import Account
from sydentish.domain.associations import Association, onbind_body, statement_ts
from sydentish.domain.errors import (
    Forbidden,
    InvalidEmail,
    NotYourUser,
    NoValidSession,
    SessionExpired,
    SessionNotValidated,
    UnbindProofFailed,
)
from sydentish.domain.ids import canonical_server_name, server_name_of
from sydentish.domain.keys import KeyRing
from sydentish.domain.threepids import EMAIL, Threepid, normalise_email
from sydentish.store import associations as association_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store.counters import next_number
from sydentish.store.database import Tx


@dataclass(frozen=True, slots=True)
class Unbind:
    """A request to remove an association.

    Attributes:
        threepid: the address, as the request has it.
        mxid: the Matrix user it is bound to.
        credentials: the session that proves the address, or None when none was named.
    """

    threepid: Threepid
    mxid: str
    credentials: Credentials | None


class Associations:
    """What a user does with associations (Identity Service API, "Establishing associations").

    Args:
        gate: the way to the database.
        keys: what statements are signed with, and in whose name.
        validity_ms: how long a statement is valid, in ms.
        session_lifetime_ms: how long a validation session lives after its last change, in ms.
        wake_outbox: tells the outbox that something is due.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        keys: KeyRing,
        validity_ms: int,
        session_lifetime_ms: int,
        wake_outbox: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._gate = gate
        self._keys = keys
        self._validity_ms = validity_ms
        self._session_lifetime_ms = session_lifetime_ms
        self._wake_outbox = wake_outbox
        self._now_ms = now_ms

    async def bind(self, caller: Caller, credentials: Credentials, mxid: str) -> dict[str, object]:
        """Binds the address that a session has proved to the caller, and notes that the homeserver must hear of it.

        Returns:
            The signed association.

        Raises:
            NotYourUser: `mxid` is not the caller.
            NoValidSession, SessionExpired, SessionNotValidated: the session has proved no address.
        """
        signed = await self._gate.write(caller, self._bind, credentials, mxid, self._now_ms())
        self._wake_outbox()
        return signed

    async def unbind(self, caller: Caller, request: Unbind) -> None:
        """Removes the association of an address that a session has proved.

        The user need not be the caller: whoever holds the address now may free it from the one before. What
        is not bound to that user is left as it is, which is a success.

        Raises:
            Forbidden: no session was named, or it is one of another address.
            UnbindProofFailed: the session has proved no address.
        """
        await self._gate.write(caller, self._unbind, request, self._now_ms())

    def _bind(
        self, tx: Tx, account: Account, credentials: Credentials, mxid: str, now_ms: int
    ) -> dict[str, object]:
        if mxid != account.user_id:
            raise NotYourUser("mxid: must be the user whom the access token belongs to")
        threepid = validated_session(tx, credentials, now_ms, self._session_lifetime_ms).threepid
        known = association_rows.association(tx, threepid)
        if known is not None and known.mxid == mxid and outbox_rows.is_pending(tx, _onbind_key(known)):
            # Saying the same again before it was heard once would only fill the outbox.
            return self._keys.sign(known.to_json())
        association = self._statement(tx, threepid, mxid, known, now_ms)
        association_rows.put(tx, association)
        lookup_rows.set_mxid(tx, threepid, mxid)
        outbox_rows.add(
            tx,
            kind=ONBIND,
            destination=canonical_server_name(server_name_of(mxid)),
            idempotency_key=_onbind_key(association),
            payload=encode_canonical_json(self._keys.sign(onbind_body(association))).decode(),
            now_ms=now_ms,
        )
        return self._keys.sign(association.to_json())

    def _statement(
        self, tx: Tx, threepid: Threepid, mxid: str, known: Association | None, now_ms: int
    ) -> Association:
        ts = statement_ts(now_ms, known.ts if known else None)
        return Association(
            threepid=threepid,
            mxid=mxid,
            ts=ts,
            not_before=ts,
            not_after=ts + self._validity_ms,
            origin_server=self._keys.server_name,
            origin_id=next_number(tx, "statement"),
        )

    def _unbind(self, tx: Tx, _account: Account, request: Unbind, now_ms: int) -> None:
        if request.credentials is None:
            raise Forbidden("sid, client_secret: both are needed to prove that the address is yours")
        try:
            proved = validated_session(tx, request.credentials, now_ms, self._session_lifetime_ms).threepid
        except (NoValidSession, SessionExpired, SessionNotValidated) as error:
            raise UnbindProofFailed(error) from error
        if _normalised(request.threepid) != proved:
            raise Forbidden("threepid: must be the address that the session has proved")
        known = association_rows.association(tx, proved)
        if known is not None and known.mxid == request.mxid:
            association_rows.delete(tx, proved)
            lookup_rows.set_mxid(tx, proved, None)


def _onbind_key(association: Association) -> str:
    return f"{ONBIND}:{association.origin_server}:{association.origin_id}"


def _normalised(threepid: Threepid) -> Threepid | None:
    """The address in the form that is stored; None when it can't be one."""
    if threepid.medium != EMAIL:
        return None
    try:
        return Threepid(EMAIL, normalise_email(threepid.address))
    except InvalidEmail:
        return None
