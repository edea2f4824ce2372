"""Invitations: storing one for an address that has no user yet, and signing for whoever accepts it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.logger import Logger

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.outbox import INVITE
from sydentish.domain.accounts import Account, hash_secret, opaque_token
from sydentish.domain.ephemeral import (
    EphemeralKey,
    ephemeral_key,
    public_key_of,
    public_keys_json,
    sign_invite,
)
from sydentish.domain.errors import (
    Forbidden,
    InvalidEmail,
    InvalidParam,
    InvitationNotWanted,
    NotYourUser,
    ThreepidInUse,
    UnknownInvitation,
    UnrecognizedMedium,
)
from sydentish.domain.invite_links import WebClients, invitation_link, sign_url
from sydentish.domain.invites import (
    TOKEN_BYTES,
    Finding,
    Invitation,
    InviteDetails,
    InviteMail,
    InvitePolicy,
    redact,
)
from sydentish.domain.keys import SEED_BYTES, KeyRing
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.threepids import EMAIL, Threepid, normalise_email
from sydentish.store import associations as association_rows
from sydentish.store import budgets as budget_rows
from sydentish.store import invites as invite_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store.database import Tx

# So many mails are handed over at a time.
_LANES = 16

_log = Logger()


@dataclass(frozen=True, slots=True)
class InviteRequest:
    """A request to keep an invitation.

    Attributes:
        threepid: whom it is for, as the request has it.
        room_id: where to.
        sender: who invites.
        details: what else the mail may say.
        web_client: which web client the link is to lead to, if the request says.
        brand: how the mail is to look, if the request says.
    """

    threepid: Threepid
    room_id: str
    sender: str
    details: InviteDetails
    web_client: str | None
    brand: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteOptions:
    """What the operator has chosen.

    Attributes:
        enabled: whether invitations are taken at all.
        lifetime_ms: how long one waits, in ms.
        public_base_url: where clients and homeservers reach us.
        web_clients: where links lead.
        shown: how many characters of each part of an address others may see.
        policy: what is not passed on.
        dry_run: the policy only counts.
    """

    enabled: bool
    lifetime_ms: int
    public_base_url: str
    web_clients: WebClients
    shown: int
    policy: InvitePolicy
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is made for an invitation before anything is known of it."""

    token: str = field(repr=False)
    key: EphemeralKey
    now_ms: int


class Invites:
    """What is done with invitations (Identity Service API, "Invitation storage" and "Ephemeral invitation signing").

    Args:
        gate: the way to the database.
        keys: whose name ephemeral keys sign in, and the long-term key that is told of.
        options: what the operator has chosen.
        budgets: what an invitation costs.
        on_stored: called when an invitation was kept: its mail is due in the outbox.
        on_policy: hears of why an invitation is not wanted (`room`, `homeserver`, `word`), and of what became of it
            (`refused` or `counted`).
        now_ms: the time, in ms.
        random_bytes: so many random bytes.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        keys: KeyRing,
        options: InviteOptions,
        budgets: Budgets,
        on_stored: Callable[[], None],
        on_policy: Callable[[str, str], None],
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._gate = gate
        self._keys = keys
        self._options = options
        self._budgets = budgets
        self._on_stored = on_stored
        self._on_policy = on_policy
        self._now_ms = now_ms
        self._random_bytes = random_bytes

    async def store(self, caller: Caller, request: InviteRequest) -> dict[str, object]:
        """Keeps an invitation until somebody binds the address, and sends a mail there.

        Returns:
            What the inviting homeserver puts into the room (`POST /store-invite`).

        Raises:
            NotYourUser: the caller has an account, and `sender` is another user.
            UnrecognizedMedium: the address is none of e-mail.
            InvalidEmail: it is none that a mail could be sent to.
            Forbidden: invitations are not taken.
            InvitationNotWanted: not this one.
            ThreepidInUse: the address is bound already.
            LimitExceeded: so many invitations are not taken.
        """
        draft = _Draft(
            opaque_token(self._random_bytes(TOKEN_BYTES)),
            ephemeral_key(self._random_bytes(SEED_BYTES)),
            self._now_ms(),
        )
        finding = self._options.policy.find(request.room_id, request.sender, request.details)
        refused = finding is not None and not self._options.dry_run
        try:
            answer = await self._gate.write_for_anybody(
                caller, self._store, caller.source, request, draft, refused
            )
        except InvitationNotWanted:
            self._note(finding, "refused")
            raise
        self._note(finding, "counted")
        self._on_stored()
        return answer

    async def sign(self, caller: Caller, token: str, mxid: str, private_key: str) -> dict[str, object]:
        """Signs for a user who accepts an invitation, with the ephemeral key from its mail.

        Raises:
            UnknownInvitation: there is none with this token, or it has expired.
            InvalidParam: the key is none, or not that of the invitation.
        """
        sender = await self._gate.read_for_anybody(caller, self._sender, token, private_key)
        return sign_invite(
            private_key, mxid=mxid, sender=sender, token=token, server_name=self._keys.server_name
        )

    def _note(self, finding: Finding | None, outcome: str) -> None:
        """Tells the operator what a list of theirs has done; nothing of the invitation itself."""
        if finding is not None:
            _log.info(
                "an invitation was {outcome}: [invites] blocks {entry} ({reason})",
                outcome=outcome,
                entry=finding.entry,
                reason=finding.reason,
            )
            self._on_policy(finding.reason, outcome)

    def _store(  # noqa: PLR0917 - as the transaction needs them
        self,
        tx: Tx,
        account: Account | None,
        source: str,
        request: InviteRequest,
        draft: _Draft,
        refused: bool,  # noqa: FBT001
    ) -> dict[str, object]:
        threepid = self._check(account, request, refused)
        known = association_rows.association(tx, threepid)
        if known is not None:
            raise ThreepidInUse(known.mxid)
        charges = self._budgets.invitation(request.sender, source, threepid.address)
        budget_rows.charge(tx, charges, draft.now_ms)
        invitation = Invitation(
            token=draft.token,
            threepid=threepid,
            room_id=request.room_id,
            sender=request.sender,
            created_ts=draft.now_ms,
            expires_ts=draft.now_ms + self._options.lifetime_ms,
        )
        invite_rows.add(tx, invitation, draft.key.public_key)
        outbox_rows.add(
            tx,
            kind=INVITE,
            destination=_lane(threepid.address),
            idempotency_key=mail_key(draft.token),
            payload=self._mail(invitation, request, draft.key).to_json(),
            now_ms=draft.now_ms,
        )
        return self._answer(invitation, draft.key)

    def _check(self, account: Account | None, request: InviteRequest, refused: bool) -> Threepid:  # noqa: FBT001
        """The address, normalised, if it may be invited."""
        if account is not None and request.sender != account.user_id:
            raise NotYourUser("sender: must be the user whom the access token belongs to")
        if request.threepid.medium != EMAIL:
            raise UnrecognizedMedium(f"medium: must be {EMAIL}, the only one that can be invited")
        try:
            threepid = Threepid(EMAIL, normalise_email(request.threepid.address))
        except InvalidEmail as error:
            # Here the parameter has another name.
            raise InvalidEmail(f"address{error.message.removeprefix('email')}") from None
        if not self._options.enabled:
            raise Forbidden("This server takes no invitations")
        if refused:
            raise InvitationNotWanted("This invitation is not passed on here")
        return threepid

    def _mail(self, invitation: Invitation, request: InviteRequest, key: EphemeralKey) -> InviteMail:
        web_client = self._options.web_clients.choose(request.web_client)
        signing = sign_url(self._options.public_base_url, invitation.token, key.private_key)
        return InviteMail(
            address=invitation.threepid.address,
            link=invitation_link(web_client, invitation, request.details, signing),
            sender=invitation.sender,
            details=request.details,
            brand=request.brand,
        )

    def _answer(self, invitation: Invitation, key: EphemeralKey) -> dict[str, object]:
        return {
            "token": invitation.token,
            "display_name": redact(invitation.threepid.address, self._options.shown),
            **public_keys_json(self._keys.active.public_key, key, self._options.public_base_url),
        }

    def _sender(self, tx: Tx, _account: Account | None, token: str, private_key: str) -> str:
        # Read here, since a caller who may not ask learns just that.
        public_key, now_ms = public_key_of(private_key), self._now_ms()
        sender = invite_rows.sender_of(tx, token, public_key, now_ms)
        if sender is not None:
            return sender
        if invite_rows.is_known(tx, token, now_ms):
            raise InvalidParam("private_key", "must be the key from the mail of this invitation")
        raise UnknownInvitation("There is no invitation with this token, or it has expired")


def _lane(address: str) -> str:
    """Which of the lanes to the relay a mail takes: what fails there holds up only that lane."""
    return f"relay-{hashlib.sha256(address.encode()).digest()[0] % _LANES}"


def mail_key(token: str) -> str:
    """The idempotency key of the mail that tells of an invitation."""
    return f"{INVITE}:{hash_secret(token)}"
