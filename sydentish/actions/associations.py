"""Associations: binding an address to a Matrix user, and unbinding it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.statements import Statements
from sydentish.actions.validation import Credentials, validated_session
from sydentish.domain.accounts import Account
from sydentish.domain.errors import (
    Forbidden,
    NotYourUser,
    NoValidSession,
    ProofRefused,
    SessionExpired,
    SessionNotValidated,
    UnbindProofFailed,
)
from sydentish.domain.ids import canonical_server_name, server_name_of
from sydentish.domain.keys import KeyRing
from sydentish.domain.threepids import Threepid, normalise
from sydentish.store import associations as association_rows
from sydentish.store.database import Database, Tx


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


@dataclass(frozen=True, slots=True)
class Provision:
    """What is to be so, by the word of the operator.

    Attributes:
        threepid: the address, normalised.
        mxid: the Matrix user.
        bound: whether it is to be bound to that user, or not to be.
    """

    threepid: Threepid
    mxid: str
    bound: bool


class Outcome(Enum):
    """What becomes of what is to be so."""

    BOUND = "bound"
    UNBOUND = "unbound"
    UNCHANGED = "unchanged"


def outcome(tx: Tx, wanted: Provision) -> Outcome:
    """What would become of it now; nothing is changed.

    What is so already is left alone: a script that says it every night must not tell the homeserver every night. What
    is bound to another user is not unbound.
    """
    known = association_rows.association(tx, wanted.threepid)
    is_so = known is not None and known.mxid == wanted.mxid
    if is_so == wanted.bound:
        return Outcome.UNCHANGED
    return Outcome.BOUND if wanted.bound else Outcome.UNBOUND


def provide(tx: Tx, statements: Statements, wanted: Sequence[Provision], now_ms: int) -> list[Outcome]:
    """Binds and unbinds without any proof; what became of each."""
    outcomes = []
    for each in wanted:
        found = outcome(tx, each)
        if found is Outcome.BOUND:
            statements.bind(tx, each.threepid, each.mxid, now_ms)
        elif found is Outcome.UNBOUND:
            statements.unbind(tx, each.threepid, each.mxid, now_ms)
        outcomes.append(found)
    return outcomes


class Associations:
    """What is done with associations (Identity Service API, "Establishing associations").

    Args:
        db: for those who need no access token.
        gate: for all others.
        statements: writes down what was done.
        keys: what answers are signed with.
        session_lifetime_ms: how long a validation session lives after its last change, in ms.
        on_outcome: hears of each address that was bound or unbound: by whose word (`api`, `internal`), and its medium.
        on_stated: called when something may have been stated: there is something to be told.
        now_ms: the time, in ms.
    """

    def __init__(
        self,
        *,
        db: Database,
        gate: Gate,
        statements: Statements,
        keys: KeyRing,
        session_lifetime_ms: int,
        on_outcome: Callable[[str, Outcome, str], None],
        on_stated: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._gate = gate
        self._statements = statements
        self._keys = keys
        self._session_lifetime_ms = session_lifetime_ms
        self._on_outcome = on_outcome
        self._on_stated = on_stated
        self._now_ms = now_ms

    async def bind(self, caller: Caller, credentials: Credentials, mxid: str) -> dict[str, object]:
        """Binds the address that a session has proved, and notes that the homeserver must hear of it.

        Returns:
            The signed association.

        Raises:
            NotYourUser: the caller has an account, and `mxid` is another user.
            NoValidSession, SessionExpired, SessionNotValidated: the session has proved no address.
        """
        signed = await self._gate.write_for_anybody(caller, self._bind, credentials, mxid, self._now_ms())
        self._on_outcome("api", Outcome.BOUND, str(signed["medium"]))
        self._on_stated()
        return signed

    async def unbind(self, caller: Caller, request: Unbind) -> None:
        """Removes the association of an address that a session has proved.

        The user need not be the caller: whoever holds the address now may free it from the one before. What
        is not bound to that user is left as it is, which is a success.

        Raises:
            Forbidden: no session was named, or it is one of another address.
            UnbindProofFailed: the session has proved no address.
        """
        if await self._gate.write_for_anybody(caller, self._unbind, request, self._now_ms()):
            self._on_outcome("api", Outcome.UNBOUND, request.threepid.medium)
        self._on_stated()

    async def unbind_for_homeserver(self, origin: str, request: Unbind) -> None:
        """Removes the association of an address with a user of the homeserver that asks for it.

        What is not bound to that user, or can't be an address, is left as it is, which is a success: the homeserver
        wants to know that nothing is bound any more.

        Args:
            origin: the homeserver that has signed the request, in its canonical form.
            request: what is asked for.

        Raises:
            ProofRefused: the user is one of another homeserver.
        """
        try:
            server_name = canonical_server_name(server_name_of(request.mxid))
        except ValueError:
            server_name = None
        # The whole name is compared: a suffix would let evil-example.org speak for example.org.
        if server_name != origin:
            raise ProofRefused("mxid: must be a user of the homeserver that signed the request")
        threepid = normalise(request.threepid.medium, request.threepid.address)
        if threepid is not None:
            if await self._db.write(self._statements.unbind, threepid, request.mxid, self._now_ms()):
                self._on_outcome("api", Outcome.UNBOUND, threepid.medium)
            self._on_stated()

    async def provision(self, wanted: Sequence[Provision]) -> None:
        """Binds and unbinds without any proof, all or nothing."""
        outcomes = await self._db.write(provide, self._statements, wanted, self._now_ms())
        for each, became in zip(wanted, outcomes, strict=True):
            if became is not Outcome.UNCHANGED:
                self._on_outcome("internal", became, each.threepid.medium)
        self._on_stated()

    def _bind(
        self, tx: Tx, account: Account | None, credentials: Credentials, mxid: str, now_ms: int
    ) -> dict[str, object]:
        if account is not None and mxid != account.user_id:
            raise NotYourUser("mxid: must be the user whom the access token belongs to")
        threepid = validated_session(tx, credentials, now_ms, self._session_lifetime_ms).threepid
        return self._keys.sign(self._statements.bind(tx, threepid, mxid, now_ms).to_json())

    def _unbind(self, tx: Tx, _account: Account | None, request: Unbind, now_ms: int) -> bool:
        if request.credentials is None:
            raise Forbidden("sid, client_secret: both are needed to prove that the address is yours")
        try:
            proved = validated_session(tx, request.credentials, now_ms, self._session_lifetime_ms).threepid
        except (NoValidSession, SessionExpired, SessionNotValidated) as error:
            raise UnbindProofFailed(error) from error
        if normalise(request.threepid.medium, request.threepid.address) != proved:
            raise Forbidden("threepid: must be the address that the session has proved")
        return self._statements.unbind(tx, proved, request.mxid, now_ms)
