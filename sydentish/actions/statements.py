"""Statements: what is written down when an address is bound or unbound, whoever asked for it."""

from canonicaljson import encode_canonical_json

from sydentish.actions.outbox import ONBIND
from sydentish.domain.associations import Association, onbind_body, statement_ts
from sydentish.domain.ids import canonical_server_name, server_name_of
from sydentish.domain.invites import Invitation, onbind_invite, signed_part
from sydentish.domain.keys import KeyRing
from sydentish.domain.threepids import Threepid
from sydentish.store import associations as association_rows
from sydentish.store import invites as invite_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store.counters import next_number
from sydentish.store.database import Tx


class Statements:
    """Makes statements about addresses, inside of others' transactions.

    Args:
        keys: what statements are signed with, and in whose name.
        validity_ms: how long a statement is valid, in ms.
    """

    def __init__(self, *, keys: KeyRing, validity_ms: int) -> None:
        self._keys = keys
        self._validity_ms = validity_ms

    def bind(self, tx: Tx, threepid: Threepid, mxid: str, now_ms: int) -> Association:
        """Binds an address to a user, and notes that the homeserver must hear of it, and of all that waited for it.

        Args:
            tx: the transaction.
            threepid: the address, normalised.
            mxid: a well-formed user ID.
            now_ms: the time, in ms.
        """
        known = association_rows.association(tx, threepid)
        invitations = invite_rows.waiting(tx, threepid, now_ms)
        if known is not None and known.mxid == mxid and not invitations and _untold(tx, known):
            # Saying the same again before it was heard once would only fill the outbox.
            return known
        if known is not None:
            self._withdraw(tx, known)
            invitations = invite_rows.waiting(tx, threepid, now_ms)
        association = self._statement(tx, threepid, mxid, known, now_ms)
        association_rows.put(tx, association)
        lookup_rows.set_mxid(tx, threepid, mxid)
        self._tell(tx, association, invitations, now_ms)
        return association

    def unbind(self, tx: Tx, threepid: Threepid, mxid: str) -> bool:
        """Removes the association of an address, if it is bound to that user; whether it was.

        What the homeserver was still to hear of it is withdrawn, and invitations wait for the next one to bind it. What it
        has refused to hear is deleted, since the address stands there, too.
        """
        known = association_rows.association(tx, threepid)
        if known is None or known.mxid != mxid:
            return False
        association_rows.delete(tx, threepid)
        lookup_rows.set_mxid(tx, threepid, None)
        self._withdraw(tx, known)
        for outbox_id in outbox_rows.rows_of(tx, _cause(known), "dead"):
            outbox_rows.withdraw(tx, outbox_id)
        return True

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

    def _tell(self, tx: Tx, association: Association, invitations: list[Invitation], now_ms: int) -> None:
        cause = _cause(association)
        if not invitations:
            self._tell_once(tx, association, cause, None, now_ms)
        for position, invitation in enumerate(invitations):
            signed = self._keys.sign(signed_part(invitation, association.mxid))
            invite = onbind_invite(invitation, association.mxid, signed)
            outbox_id = self._tell_once(tx, association, f"{cause}:{position}", invite, now_ms)
            invite_rows.hand_over(tx, invitation.token, outbox_id)

    def _tell_once(
        self, tx: Tx, association: Association, key: str, invite: dict[str, object] | None, now_ms: int
    ) -> int:
        outbox_id = outbox_rows.add(
            tx,
            kind=ONBIND,
            destination=canonical_server_name(server_name_of(association.mxid)),
            idempotency_key=key,
            payload=encode_canonical_json(self._keys.sign(onbind_body(association, invite))).decode(),
            now_ms=now_ms,
        )
        if outbox_id is None:
            raise LookupError(key)
        return outbox_id

    def _withdraw(self, tx: Tx, association: Association) -> None:
        untold = outbox_rows.rows_of(tx, _cause(association))
        invite_rows.take_back(tx, untold)
        for outbox_id in untold:
            outbox_rows.withdraw(tx, outbox_id)


def _untold(tx: Tx, association: Association) -> bool:
    return bool(outbox_rows.rows_of(tx, _cause(association)))


def _cause(association: Association) -> str:
    # A server name may end in a colon and a number, too.
    return f"{ONBIND}:{association.origin_server}#{association.origin_id}"
