"""Taking over what a Sydent has kept of people: their accounts, invitations and validation sessions."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import InvalidParam
from sydentish.domain.ids import server_name_of
from sydentish.domain.invites import Invitation, room_id
from sydentish.domain.keys import decode_base64
from sydentish.domain.signatures import PUBLIC_KEY_BYTES
from sydentish.domain.takeover_invites import OldInvitation, OldKey, pair
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import MSISDN, normalise
from sydentish.domain.validation import NEVER_SENT, Session, hash_code, is_expired
from sydentish.store import accounts as account_rows
from sydentish.store import invites as invite_rows
from sydentish.store import takeover as rows
from sydentish.store import terms as terms_rows
from sydentish.store.database import Database, Row, Tx
from sydentish.store.sydent import SydentDatabase

ACCOUNTS = "accounts"
TOKENS = "access tokens"
TERMS = "accepted terms"
INVITATIONS = "invitations"
KEYS = "keys of invitations"
SESSIONS = "validation sessions"

TAKEN = "taken over"
KNOWN = "known here already"
SENT = "a homeserver was told of it"
EXPIRED = "expired"
NO_USER = "unusable: no user ID"
NO_ADDRESS = "unusable: no address"
NO_KEY = "unusable: no public key"
NO_ROOM = "unusable: no room ID"
OTHER_TERMS = "of terms that are not offered any more"

_S = 1000
_ACCOUNT, _TOKEN, _TERMS, _INVITATION, _KEY = "account", "token", "terms", "invitation", "key"

T = TypeVar("T")


def in_batches(many: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many of many at a time."""
    rest = iter(many)
    while batch := list(islice(rest, size)):
        yield batch


class People:
    """Takes over what belongs to people.

    Args:
        db: our database.
        old: the Sydent's.
        now_ms: the time, in ms.
        batch: how much is written in one transaction.
        count: hears of each thing of what kind it is, and what became of it.
    """

    def __init__(
        self,
        *,
        db: Database,
        old: SydentDatabase,
        now_ms: int,
        batch: int,
        count: Callable[[str, str], None],
    ) -> None:
        self._db = db
        self._old = old
        self._now_ms = now_ms
        self._batch = batch
        self._count = count

    async def accounts(self, terms: Terms, edition: str | None) -> None:
        """Takes over accounts, their access tokens, and what they have accepted of the terms that are offered.

        Args:
            terms: what is offered.
            edition: what a Sydent calls all of that together. Who has accepted another edition is asked again.
        """
        former: set[str] = set()

        def accounts() -> Iterator[tuple[str, int]]:
            for user_id, created_ts, accepted in self._old.accounts():
                if accepted is not None and accepted != edition:
                    former.add(user_id)
                yield user_id, created_ts

        await self._each(ACCOUNTS, accounts(), self._account)
        await self._each(TOKENS, self._old.tokens(), self._token)
        accepted = ((user, urls, user in former) for user, urls in self._old.accepted_urls())
        await self._each(TERMS, accepted, lambda tx, row: self._accept(tx, terms, *row))

    async def invitations(self, lifetime_ms: int) -> None:
        """Takes over invitations that wait, and the keys that accept them.

        Args:
            lifetime_ms: how long invitations wait from now on, and keys without one from when they were made, in ms.
        """
        pairs = pair(self._old.invitations(), self._old.keys())
        for batch in in_batches(pairs, self._batch):
            self._tell(await self._db.write(self._invite_all, batch, lifetime_ms))

    async def sessions(self, lifetime_ms: int) -> None:
        """Takes over validation sessions that have not expired; their links and codes go on to work."""
        await self._each(SESSIONS, self._old.sessions(), lambda tx, row: self._session(tx, row, lifetime_ms))

    async def _each(self, kind: str, many: Iterable[T], take: Callable[[Tx, T], str]) -> None:
        def take_all(tx: Tx, batch: Sequence[T]) -> list[tuple[str, str]]:
            return [(kind, take(tx, each)) for each in batch]

        for batch in in_batches(many, self._batch):
            self._tell(await self._db.write(take_all, batch))

    def _tell(self, outcomes: Iterable[tuple[str, str]]) -> None:
        for kind, outcome in outcomes:
            self._count(kind, outcome)

    def _account(self, tx: Tx, account: tuple[str, int]) -> str:
        user_id, created_ts = account
        if not _is_user(user_id):
            return NO_USER
        created_ts = min(max(0, int(created_ts)), self._now_ms)
        # Also of an account that was here before: it may be erased before the next time.
        if not rows.is_new(tx, _ACCOUNT, user_id):
            return KNOWN
        return TAKEN if rows.add_account(tx, user_id, created_ts, self._now_ms) else KNOWN

    def _token(self, tx: Tx, row: tuple[str, str]) -> str:
        token, user_id = row
        if not account_rows.has_account(tx, user_id):
            return _of_nobody(tx, user_id)
        if not rows.is_new(tx, _TOKEN, token):
            return KNOWN
        # When it was last used is not known: now, for all that is.
        account_rows.add_token(tx, hash_secret(token), user_id, self._now_ms)
        return TAKEN

    def _accept(self, tx: Tx, terms: Terms, user_id: str, urls: Sequence[str], is_former: bool) -> str:  # noqa: FBT001
        if not account_rows.has_account(tx, user_id):
            return _of_nobody(tx, user_id)
        acceptances = [] if is_former else terms.acceptances(urls)
        if not acceptances:
            return OTHER_TERMS
        acceptances = [
            each
            for each in acceptances
            if rows.is_new(tx, _TERMS, json.dumps([user_id, each.policy_id, each.version]))
        ]
        known = terms_rows.accepted(tx, user_id)
        terms_rows.add_acceptances(tx, user_id, acceptances, self._now_ms)
        return TAKEN if known != terms_rows.accepted(tx, user_id) else KNOWN

    def _invite_all(
        self, tx: Tx, batch: Sequence[tuple[OldInvitation | None, OldKey | None]], lifetime_ms: int
    ) -> list[tuple[str, str]]:
        outcomes = []
        for invitation, key in batch:
            is_waiting = False
            if invitation is not None:
                outcome = self._invite(tx, invitation, lifetime_ms)
                is_waiting = outcome == TAKEN
                outcomes.append((INVITATIONS, outcome))
            if key is not None:
                until = (self._now_ms if is_waiting else key.made_s * _S) + lifetime_ms
                outcomes.append((KEYS, self._key(tx, key, invitation, until)))
        return outcomes

    def _invite(self, tx: Tx, invitation: OldInvitation, lifetime_ms: int) -> str:
        if invitation.is_sent:
            return SENT
        threepid = normalise(invitation.medium, invitation.address)
        if threepid is None:
            return NO_ADDRESS
        if not _is_user(invitation.sender):
            return NO_USER
        if not _is_room(invitation.room_id):
            return NO_ROOM
        if not rows.is_new(tx, _INVITATION, invitation.token):
            return KNOWN
        invite_rows.put(
            tx,
            Invitation(
                token=invitation.token,
                threepid=threepid,
                room_id=invitation.room_id,
                sender=invitation.sender,
                created_ts=min(invitation.received_s * _S, self._now_ms),
                expires_ts=self._now_ms + lifetime_ms,
            ),
        )
        return TAKEN

    def _key(self, tx: Tx, key: OldKey, invitation: OldInvitation | None, until: int) -> str:
        public_key = decode_base64(key.public_key)
        if public_key is None or len(public_key) != PUBLIC_KEY_BYTES:
            return NO_KEY
        if until <= self._now_ms:
            return EXPIRED
        if not rows.is_new(tx, _KEY, public_key.hex()):
            return KNOWN
        whose = (invitation.token, invitation.sender) if invitation else (None, None)
        return TAKEN if invite_rows.put_key(tx, public_key, until, *whose) else KNOWN

    def _session(self, tx: Tx, row: Row, lifetime_ms: int) -> str:
        sid, medium, address, client_secret, is_validated, changed_ts, token, attempt = row
        threepid = normalise(medium, address)
        if threepid is None:
            return NO_ADDRESS
        session = Session(
            sid=str(sid),
            threepid=threepid,
            client_secret_hash=hash_secret(client_secret),
            send_attempt=max(NEVER_SENT, attempt),
            next_link=None,
            changed_ts=min(changed_ts, self._now_ms),
            # When it was, is not noted; the session was changed last when it was asked for.
            validated_ts=min(changed_ts, self._now_ms) if is_validated else None,
        )
        if is_expired(session, self._now_ms, lifetime_ms):
            return EXPIRED
        hash_token = _hash_token(medium, client_secret, token)
        return TAKEN if rows.put_session(tx, session, hash_token) else KNOWN


def _of_nobody(tx: Tx, user_id: str) -> str:
    """What becomes of something of a user who has no account: the account may have been erased here since."""
    return KNOWN if rows.was_taken(tx, _ACCOUNT, user_id) else NO_USER


def _hash_token(medium: str, client_secret: str, token: str | None) -> str | None:
    if token is None:
        return None
    return hash_code(token, client_secret) if medium == MSISDN else hash_secret(token)


def _is_user(user_id: str) -> bool:
    try:
        server_name_of(user_id)
    except ValueError:
        return False
    return True


def _is_room(value: str) -> bool:
    try:
        room_id("room_id", value)
    except InvalidParam:
        return False
    return True
