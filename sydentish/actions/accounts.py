"""Accounts: registering with an OpenID token, logging out, and the gate that every other deed goes through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, TypeVar

from twisted.logger import Logger

from sydentish.actions.budgets import Slots
from sydentish.actions.ports import OpenIdVerifier, SignsOfLife
from sydentish.domain.accounts import (
    ACCESS_TOKEN_BYTES,
    TOUCH_AFTER_MS,
    Account,
    HomeserverPolicy,
    hash_secret,
    opaque_token,
)
from sydentish.domain.errors import Busy, LogoutUnknownToken, TermsNotSigned, UnknownToken
from sydentish.domain.ids import canonical_server_name
from sydentish.domain.ratelimit import Budgets, Charge
from sydentish.domain.terms import Terms
from sydentish.store import accounts as account_rows
from sydentish.store import budgets as budget_rows
from sydentish.store import terms as terms_rows
from sydentish.store.database import Database, P, Tx

T = TypeVar("T")

# Whoever names homeservers that never answer must not hold up the others.
_MAX_FROM_ONE_SOURCE = 20

_log = Logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as the request tells: nothing is known to be true before the gate has looked.

    Attributes:
        token: the access token as it was sent; None where none is asked for.
        needs_terms: whether the deed is only for accounts that have accepted all terms.
        source: where a request without an access token comes from, for budgets; empty where that is not counted.
        certificate_names: the names in the certificate that they have shown, as TLS has verified it.
    """

    token: str | None = field(repr=False)
    needs_terms: bool = True
    source: str = ""
    certificate_names: tuple[str, ...] = ()


NOBODY = Caller(None)
"""Whoever asks where no access token is asked for, and nothing is counted."""


class Gate:
    """The database behind a door: looks at the caller and acts, in one transaction.

    So a request costs one trip to a thread, and there is no moment between the check and the deed.
    Each call raises `UnknownToken` or `TermsNotSigned` instead of acting when the caller may not.

    Attributes:
        terms: what must be accepted; may be replaced at any time.
    """

    def __init__(self, *, db: Database, terms: Terms, now_ms: Callable[[], int]) -> None:
        self._db = db
        self.terms = terms
        self._now_ms = now_ms

    async def write(
        self,
        caller: Caller,
        fn: Callable[Concatenate[Tx, Account, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Runs `fn(tx, account, ...)` as `Database.write` does, for the caller's account."""
        now_ms = self._now_ms()

        def admit_and_act(tx: Tx) -> T:
            return fn(tx, self._admit_to_write(tx, caller, now_ms), *args, **kwargs)

        return await self._db.write(admit_and_act)

    async def write_for_anybody(
        self,
        caller: Caller,
        fn: Callable[Concatenate[Tx, Account | None, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `write`; whoever comes without an access token where none is asked for has no account."""
        now_ms = self._now_ms()

        def admit_and_act(tx: Tx) -> T:
            account = None if caller.token is None else self._admit_to_write(tx, caller, now_ms)
            return fn(tx, account, *args, **kwargs)

        return await self._db.write(admit_and_act)

    async def read(
        self,
        caller: Caller,
        fn: Callable[Concatenate[Tx, Account, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Runs `fn(tx, account, ...)` as `Database.read` does, for the caller's account."""

        def admit_and_act(tx: Tx) -> tuple[Account, T]:
            account = self._admit(tx, caller)
            return account, fn(tx, account, *args, **kwargs)

        account, result = await self._db.read(admit_and_act)
        now_ms = self._now_ms()
        if now_ms - account.last_used_ts > TOUCH_AFTER_MS:
            await self._touch(caller, now_ms)
        return result

    async def read_for_anybody(
        self,
        caller: Caller,
        fn: Callable[Concatenate[Tx, Account | None, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `read`; whoever comes without an access token where none is asked for has no account."""
        if caller.token is None:
            return await self._db.read(lambda tx: fn(tx, None, *args, **kwargs))
        return await self.read(caller, fn, *args, **kwargs)

    async def check(self, caller: Caller) -> Account:
        """Only looks at the caller."""
        return await self.read(caller, lambda _tx, account: account)

    async def _touch(self, caller: Caller, now_ms: int) -> None:
        try:
            await self._db.write(account_rows.touch_token, _hash_of(caller), now_ms)
        except Busy:
            _log.info("the use of an access token was not noted; it is noted next time")

    def _admit_to_write(self, tx: Tx, caller: Caller, now_ms: int) -> Account:
        account = self._admit(tx, caller)
        if now_ms - account.last_used_ts > TOUCH_AFTER_MS:
            account_rows.touch_token(tx, _hash_of(caller), now_ms)
        return account

    def _admit(self, tx: Tx, caller: Caller) -> Account:
        account = account_rows.account_of(tx, _hash_of(caller))
        if account is None:
            raise UnknownToken("Unrecognised access token")
        terms = self.terms
        if (
            caller.needs_terms
            and terms.policies
            and not terms.all_accepted(terms_rows.accepted(tx, account.user_id))
        ):
            raise TermsNotSigned("Please accept our current terms of service before continuing")
        return account


def _hash_of(caller: Caller) -> str:
    # Nobody has the empty token.
    return hash_secret(caller.token or "")


class Accounts:
    """What a user does with an account of ours (Identity Service API, "Authentication")."""

    def __init__(
        self,
        *,
        db: Database,
        gate: Gate,
        verifier: OpenIdVerifier,
        policy: HomeserverPolicy,
        budgets: Budgets,
        signs_of_life: SignsOfLife,
        max_registering: int | None,
        on_registered: Callable[[], None],
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._gate = gate
        self._verifier = verifier
        self._policy = policy
        self._budgets = budgets
        self._signs_of_life = signs_of_life
        self._registering = Slots(max_registering, _MAX_FROM_ONE_SOURCE)
        self._on_registered = on_registered
        self._now_ms = now_ms
        self._random_bytes = random_bytes

    async def register(self, caller: Caller, server_name: str, openid_token: str) -> str:
        """Exchanges an OpenID token for an access token of ours; makes the account if there is none.

        Args:
            caller: where the request comes from.
            server_name: the homeserver that the OpenID token comes from.
            openid_token: the token that its user gave the client.

        Raises:
            Forbidden: users of that homeserver may not register here.
            OpenIdRefused, HomeserverError, HomeserverTimeout: see `OpenIdVerifier`.
            LimitExceeded: so many registrations from there, or of one homeserver, are not made.
            Busy: too many others wait for their homeservers: nobody needs an account to make us ask one.
        """
        self._policy.check(server_name)
        charges = self._budgets.registration(caller.source)
        if charges:
            await self._db.write(budget_rows.charge, charges, self._now_ms())
        with self._registering.slot(caller.source):
            user_id = await self._verifier.user_id_of(server_name, openid_token)
        token = opaque_token(self._random_bytes(ACCESS_TOKEN_BYTES))
        charges = self._budgets.account(user_id)
        await self._db.write(_add_account, user_id, hash_secret(token), charges, self._now_ms())
        self._on_registered()
        self._signs_of_life.heard_from(canonical_server_name(server_name))
        return token

    async def user_id(self, caller: Caller) -> str:
        """Whom the access token belongs to."""
        return (await self._gate.check(caller)).user_id

    async def log_out(self, caller: Caller) -> None:
        """Ends the access token.

        Raises:
            LogoutUnknownToken: there is no such token.
        """
        if not await self._db.write(account_rows.delete_token, _hash_of(caller), self._now_ms()):
            raise LogoutUnknownToken("Unrecognised access token")


def _add_account(tx: Tx, user_id: str, token_hash: str, charges: Sequence[Charge], now_ms: int) -> None:
    budget_rows.charge(tx, charges, now_ms)
    account_rows.add_account(tx, user_id, now_ms)
    account_rows.add_token(tx, token_hash, user_id, now_ms)
