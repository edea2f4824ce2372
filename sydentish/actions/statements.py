"""Statements: what is written down when an address is bound or unbound, whoever asked for it, here or at a peer."""

import hashlib
from collections.abc import Callable

from canonicaljson import encode_canonical_json

from sydentish.actions.outbox import ONBIND
from sydentish.domain.associations import Association, onbind_body, statement_ts
from sydentish.domain.ids import canonical_server_name, server_name_of
from sydentish.domain.invites import Invitation, onbind_invite, signed_part
from sydentish.domain.keys import KeyRing
from sydentish.domain.statements import Order, Statement, Tombstone, order_of
from sydentish.domain.threepids import Threepid
from sydentish.store import associations as association_rows
from sydentish.store import invites as invite_rows
from sydentish.store import lookup as lookup_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store.counters import STATEMENT, next_number, raise_to
from sydentish.store.database import Tx

_OUTDATED = "it has stated what is outdated by this, and is sent it again"


class Statements:
    """Makes statements about addresses, and takes those of peers, inside of others' transactions.

    Args:
        keys: what statements are signed with, and in whose name.
        validity_ms: how long a statement is valid, in ms.
        random_bytes: makes the key that addresses are erased with.
    """

    def __init__(self, *, keys: KeyRing, validity_ms: int, random_bytes: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._validity_ms = validity_ms
        self._random_bytes = random_bytes

    def bind(self, tx: Tx, threepid: Threepid, mxid: str, now_ms: int) -> Association:
        """Binds an address to a user, and notes that the homeserver must hear of it, and of all that waited for it.

        Args:
            tx: the transaction.
            threepid: the address, normalised.
            mxid: a well-formed user ID.
            now_ms: the time, in ms.
        """
        known, newest = self._known(tx, threepid)
        if known is not None and known.mxid == mxid and self._is_being_told(tx, known, now_ms):
            # Saying the same again before it was heard once would only fill the outbox.
            return known
        ts = statement_ts(now_ms, newest.ts if newest else None)
        association = Association(
            threepid=threepid,
            mxid=mxid,
            ts=ts,
            not_before=ts,
            not_after=ts + self._validity_ms,
            origin_server=self._keys.server_name,
            origin_id=next_number(tx, STATEMENT),
        )
        self._put(tx, known, newest, association, None)
        self._tell(tx, association, invite_rows.waiting(tx, threepid, now_ms), now_ms)
        return association

    def unbind(self, tx: Tx, threepid: Threepid, mxid: str, now_ms: int) -> bool:
        """Removes the association of an address, if it is bound to that user; whether it was.

        What the homeserver was still to hear of it is withdrawn, and invitations wait for the next one to bind it. What it
        has refused to hear is deleted, since the address stands there, too. Of the address nothing is kept longer than
        until every peer has heard of it.
        """
        known = association_rows.association(tx, threepid)
        if known is None or known.mxid != mxid:
            return False
        ts = statement_ts(now_ms, known.ts)
        tombstone = Tombstone(threepid, ts, self._keys.server_name, next_number(tx, STATEMENT))
        self._remove(tx, known, tombstone)
        if peer_rows.is_any(tx):
            statement_rows.add_tombstone(tx, tombstone)
        return True

    def take(self, tx: Tx, statement: Statement, signed: str | None, now_ms: int) -> bool:
        """Applies what a peer has stated, or this server itself under another program; see `StatementTaker`.

        Its homeserver hears of the bind from that peer. What it cannot hear of there are the invitations that wait here.
        """
        known, newest = self._known(tx, statement.threepid)
        if newest is not None and order_of(statement) <= newest:
            if order_of(statement) < newest:
                self._remind(tx, statement, newest, now_ms)
            return False
        self._apply(tx, statement, signed, known, newest, now_ms)
        return True

    def take_back(self, tx: Tx, statement: Statement, now_ms: int) -> bool:
        """Takes what was stated here, but lost with the database; see `OwnTaker`."""
        raise_to(tx, STATEMENT, statement.origin_id)
        known, newest = self._known(tx, statement.threepid)
        if newest is not None and order_of(statement) <= newest:
            return False
        self._apply(tx, statement, None, known, newest, now_ms)
        if isinstance(statement, Tombstone):
            statement_rows.add_tombstone(tx, statement)
        return True

    def _apply(  # noqa: PLR0917 - a statement and what is known
        self,
        tx: Tx,
        statement: Statement,
        signed: str | None,
        known: Association | None,
        newest: Order | None,
        now_ms: int,
    ) -> None:
        if isinstance(statement, Tombstone):
            self._remove(tx, known, statement)
            return
        self._put(tx, known, newest, statement, signed)
        invitations = invite_rows.waiting(tx, statement.threepid, now_ms)
        if invitations:
            self._tell(tx, statement, invitations, now_ms)

    def _remind(self, tx: Tx, outdated: Statement, newest: Order, now_ms: int) -> None:
        """Sees to it that a peer is sent what it should know: it was added late, or set back to a copy of its database.

        The address of an unbind may have been erased here since; the peer has just told it.
        """
        peer = peer_rows.state(tx, outdated.origin_server)
        if peer is None or newest.origin_server != self._keys.server_name:
            return
        ours = statement_rows.own_statement(tx, self._keys.server_name, newest.origin_id)
        if isinstance(outdated, Tombstone) and not isinstance(ours, Association):
            # One unbind has nothing to correct in another, and could be a guess which addresses were erased here.
            return
        if ours is None:
            tombstone = Tombstone(outdated.threepid, newest.ts, newest.origin_server, newest.origin_id)
            statement_rows.add_tombstone(tx, tombstone)
        if peer.acknowledged_id >= newest.origin_id:
            push_rows.hold_back(tx, peer.peer.name, [newest.origin_id], _OUTDATED, now_ms)

    def _is_being_told(self, tx: Tx, known: Association, now_ms: int) -> bool:
        untold = outbox_rows.rows_of(tx, onbind_cause(known, self._keys.server_name))
        return bool(untold) and not invite_rows.waiting(tx, known.threepid, now_ms)

    def _known(self, tx: Tx, threepid: Threepid) -> tuple[Association | None, Order | None]:
        """The association of an address, and where the newest statement about it stands, which may be an erased one."""
        known = association_rows.association(tx, threepid)
        if known is not None:
            return known, order_of(known)
        return None, statement_rows.newest_erased(tx, threepid, self._local_key(tx))

    def _put(
        self,
        tx: Tx,
        known: Association | None,
        newest: Order | None,
        association: Association,
        signed: str | None,
    ) -> None:
        threepid = association.threepid
        if known is not None:
            self._withdraw(tx, known)
        elif newest is not None:
            statement_rows.forget_erased(tx, threepid, self._local_key(tx))
            statement_rows.drop_tombstone(tx, threepid)
        association_rows.put(tx, association, signed)
        lookup_rows.set_mxid(tx, threepid, association.mxid)

    def _remove(self, tx: Tx, known: Association | None, tombstone: Tombstone) -> None:
        threepid = tombstone.threepid
        if known is not None:
            self._withdraw(tx, known, state="dead")
            self._withdraw(tx, known)
            association_rows.delete(tx, threepid)
            lookup_rows.set_mxid(tx, threepid, None)
        else:
            statement_rows.drop_tombstone(tx, threepid)
        statement_rows.remember_erased(tx, tombstone, self._local_key(tx))

    def _local_key(self, tx: Tx) -> bytes:
        return statement_rows.local_key(tx, self._random_bytes)

    def _tell(self, tx: Tx, association: Association, invitations: list[Invitation], now_ms: int) -> None:
        cause = onbind_cause(association, self._keys.server_name)
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

    def _withdraw(self, tx: Tx, known: Association, state: str = "pending") -> None:
        """What was to be told of an association is not told; its invitations wait again."""
        outbox_ids = outbox_rows.rows_of(tx, onbind_cause(known, self._keys.server_name), state)
        if state == "pending":
            invite_rows.take_back(tx, outbox_ids)
        for outbox_id in outbox_ids:
            outbox_rows.withdraw(tx, outbox_id)


def onbind_cause(association: Association, server_name: str) -> str:
    """What the rows of the outbox that tell of an association have as their cause; see `outbox.rows_of`.

    Args:
        association: whoever has stated it.
        server_name: our own.
    """
    # A server name may end in a colon and a number, too.
    cause = f"{ONBIND}:{association.origin_server}#{association.origin_id}"
    if association.origin_server == server_name:
        return cause
    # A peer that was set back to a copy of its database may use its numbers twice; a broken one, even at one time.
    threepid = association.threepid
    digest = hashlib.sha256(f"{threepid.medium} {threepid.address}".encode()).hexdigest()
    return f"{cause}@{association.ts}#{digest[:16]}"
