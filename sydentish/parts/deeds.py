"""What callers can do."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields

from sydentish.actions.accounts import Accounts, Gate
from sydentish.actions.associations import Associations, Outcome
from sydentish.actions.invites import InviteOptions, Invites
from sydentish.actions.keys import PublicKeys
from sydentish.actions.lookup import Lookup
from sydentish.actions.messages import Codes, Mails, Messages
from sydentish.actions.outbox import OutboxWorker
from sydentish.actions.ports import CodeSender, OpenIdVerifier, SignsOfLife, VerificationSender
from sydentish.actions.statements import Statements
from sydentish.actions.terms import TermsOfService
from sydentish.actions.validation import Validation
from sydentish.config import Config
from sydentish.domain.invite_links import WebClients
from sydentish.domain.invites import InvitePolicy
from sydentish.domain.keys import KeyRing
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.threepids import EMAIL, MSISDN
from sydentish.domain.validation import NextLinkPolicy
from sydentish.metrics import Metrics
from sydentish.parts.homeservers import homeserver_policy
from sydentish.parts.world import World
from sydentish.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Deeds:
    """All that callers can do."""

    accounts: Accounts
    associations: Associations
    invites: Invites
    keys: PublicKeys
    lookup: Lookup
    terms: TermsOfService
    validation: Validation


def make_budgets(config: Config) -> Budgets:
    """What may be asked for how often."""
    return Budgets(**{each.name: getattr(config.budgets, each.name) for each in fields(Budgets)})


def make_statements(config: Config, world: World, keys: KeyRing) -> Statements:
    """What writes down who has which address."""
    return Statements(
        keys=keys, validity_ms=config.validation.association_lifetime, random_bytes=world.random_bytes
    )


@dataclass(frozen=True, slots=True)
class Senders:
    """What brings things to people and homeservers.

    Attributes:
        mails: sends the mails of validations, at once.
        codes: sends SMS, at once.
        invites: sends the mails of invitations, from the outbox.
        onbinds: tells homeservers of binds, from the outbox.
    """

    mails: VerificationSender
    codes: CodeSender
    invites: OutboxWorker
    onbinds: OutboxWorker


@dataclass(frozen=True, slots=True)
class DeedMaker:
    """Makes what callers can do; what all of that shares is given once."""

    config: Config
    world: World
    _: KW_ONLY
    db: Database
    gate: Gate
    budgets: Budgets
    keys: KeyRing
    metrics: Metrics

    def all(
        self,
        statements: Statements,
        verifier: OpenIdVerifier,
        senders: Senders,
        *,
        on_stated: Callable[[], None],
    ) -> Deeds:
        """All of it.

        Args:
            statements: writes down who has which address.
            verifier: asks homeservers who somebody is.
            senders: bring things to people and homeservers.
            on_stated: called when something may have been stated that peers must hear of.
        """
        return Deeds(
            accounts=self.accounts(verifier, senders.onbinds),
            associations=self.associations(statements, senders.onbinds.wake, on_stated),
            invites=self.invites(senders.invites),
            keys=self.public_keys(),
            lookup=self.lookup(senders.onbinds),
            terms=self.terms(),
            validation=self.validation(senders.mails, senders.codes),
        )

    def accounts(self, verifier: OpenIdVerifier, signs_of_life: SignsOfLife) -> Accounts:
        """Registering and logging out."""
        return Accounts(
            db=self.db,
            gate=self.gate,
            verifier=verifier,
            policy=homeserver_policy(self.config),
            budgets=self.budgets,
            signs_of_life=signs_of_life,
            max_registering=self.config.homeservers.max_registering,
            on_registered=self.metrics.registrations.inc,
            now_ms=self.world.now_ms,
            random_bytes=self.world.random_bytes,
        )

    def associations(self, statements: Statements, *on_stated: Callable[[], None]) -> Associations:
        """Binding and unbinding."""

        def stated() -> None:
            for tell in on_stated:
                tell()

        return Associations(
            db=self.db,
            gate=self.gate,
            statements=statements,
            keys=self.keys,
            session_lifetime_ms=self.config.validation.session_lifetime,
            on_outcome=self._note_binding,
            on_stated=stated,
            now_ms=self.world.now_ms,
        )

    def _note_binding(self, source: str, outcome: Outcome, medium: str) -> None:
        counter = self.metrics.bindings_made if outcome is Outcome.BOUND else self.metrics.bindings_removed
        counter.labels(medium, source).inc()

    def invites(self, mails: OutboxWorker) -> Invites:
        """Inviting addresses."""

        def stored() -> None:
            self.metrics.invitations.inc()
            mails.wake()

        options = self.config.invites
        return Invites(
            gate=self.gate,
            keys=self.keys,
            options=InviteOptions(
                enabled=options.enabled,
                lifetime_ms=options.lifetime,
                public_base_url=self.config.general.public_base_url,
                web_clients=WebClients(options.web_client, frozenset(options.web_clients_allowed)),
                shown=options.shown_characters,
                policy=InvitePolicy(
                    frozenset(options.blocked_rooms),
                    frozenset(options.blocked_homeservers),
                    options.blocked_words,
                ),
                dry_run=options.policy_dry_run,
            ),
            budgets=self.budgets,
            on_stored=stored,
            on_policy=lambda reason, outcome: self.metrics.invite_policy.labels(reason, outcome).inc(),
            now_ms=self.world.now_ms,
            random_bytes=self.world.random_bytes,
        )

    def public_keys(self) -> PublicKeys:
        """Asking for our keys."""
        return PublicKeys(db=self.db, keys=self.keys, now_ms=self.world.now_ms)

    def lookup(self, signs_of_life: SignsOfLife) -> Lookup:
        """Looking addresses up."""
        return Lookup(
            gate=self.gate,
            keys=self.keys,
            allow_none=self.config.lookup.allow_none,
            max_addresses=self.config.lookup.max_addresses,
            pepper_grace_ms=self.config.lookup.pepper_grace,
            signs_of_life=signs_of_life,
            on_lookup=self._note_lookup,
            now_ms=self.world.now_ms,
        )

    def _note_lookup(self, algorithm: str, asked: int, found: int) -> None:
        self.metrics.lookup_asked.labels(algorithm).inc(asked)
        self.metrics.lookup_found.labels(algorithm).inc(found)

    def terms(self) -> TermsOfService:
        """Reading and accepting the terms."""
        return TermsOfService(gate=self.gate, terms=self.config.policies, now_ms=self.world.now_ms)

    def validation(self, mails: VerificationSender, codes: CodeSender) -> Validation:
        """Proving addresses."""
        allowed = self.config.validation.next_link_allowed
        messages: dict[str, Messages] = {
            EMAIL: Mails(
                sender=mails,
                public_base_url=self.config.general.public_base_url,
                budgets=self.budgets,
                random_bytes=self.world.random_bytes,
            ),
            MSISDN: Codes(
                sender=codes,
                strict=self.config.sms.strict_numbers,
                budgets=self.budgets,
                random_bytes=self.world.random_bytes,
            ),
        }
        return Validation(
            db=self.db,
            gate=self.gate,
            messages=messages,
            budgets=self.budgets,
            next_links=NextLinkPolicy(None if "*" in allowed else frozenset(allowed)),
            lifetime_ms=self.config.validation.session_lifetime,
            on_outcome=lambda medium, outcome: self.metrics.validations.labels(medium, outcome).inc(),
            now_ms=self.world.now_ms,
            random_bytes=self.world.random_bytes,
        )
