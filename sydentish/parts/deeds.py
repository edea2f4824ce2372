"""What callers can do."""

from dataclasses import dataclass, fields

from sydentish.actions.accounts import Accounts, Gate
from sydentish.actions.associations import Associations
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
from sydentish.domain.accounts import HomeserverPolicy
from sydentish.domain.invite_links import WebClients
from sydentish.domain.invites import InvitePolicy
from sydentish.domain.keys import KeyRing
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.threepids import EMAIL, MSISDN
from sydentish.domain.validation import NextLinkPolicy
from sydentish.metrics import Metrics
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


def make_accounts(
    config: Config,
    world: World,
    *,
    budgets: Budgets,
    db: Database,
    gate: Gate,
    verifier: OpenIdVerifier,
    signs_of_life: SignsOfLife,
) -> Accounts:
    """Registering and logging out."""
    options = config.homeservers
    return Accounts(
        db=db,
        gate=gate,
        verifier=verifier,
        policy=HomeserverPolicy(
            allow=frozenset(options.allow) if options.allow else None, deny=frozenset(options.deny)
        ),
        budgets=budgets,
        signs_of_life=signs_of_life,
        max_registering=options.max_registering,
        now_ms=world.now_ms,
        random_bytes=world.random_bytes,
    )


def make_budgets(config: Config) -> Budgets:
    """What may be asked for how often."""
    return Budgets(**{each.name: getattr(config.budgets, each.name) for each in fields(Budgets)})


def make_associations(
    config: Config, world: World, *, db: Database, gate: Gate, keys: KeyRing, onbinds: OutboxWorker
) -> Associations:
    """Binding and unbinding."""
    return Associations(
        db=db,
        gate=gate,
        statements=Statements(keys=keys, validity_ms=config.validation.association_lifetime),
        keys=keys,
        session_lifetime_ms=config.validation.session_lifetime,
        wake_outbox=onbinds.wake,
        now_ms=world.now_ms,
    )


def make_invites(
    config: Config,
    world: World,
    *,
    budgets: Budgets,
    gate: Gate,
    keys: KeyRing,
    mails: OutboxWorker,
    metrics: Metrics,
) -> Invites:
    """Inviting addresses."""
    options = config.invites
    return Invites(
        gate=gate,
        keys=keys,
        options=InviteOptions(
            enabled=options.enabled,
            lifetime_ms=options.lifetime,
            public_base_url=config.general.public_base_url,
            web_clients=WebClients(options.web_client, frozenset(options.web_clients_allowed)),
            shown=options.shown_characters,
            policy=InvitePolicy(
                frozenset(options.blocked_rooms),
                frozenset(options.blocked_homeservers),
                options.blocked_words,
            ),
            dry_run=options.policy_dry_run,
        ),
        budgets=budgets,
        wake_outbox=mails.wake,
        on_policy=lambda reason, outcome: metrics.invite_policy.labels(reason, outcome).inc(),
        now_ms=world.now_ms,
        random_bytes=world.random_bytes,
    )


def make_lookup(
    config: Config, world: World, *, gate: Gate, keys: KeyRing, signs_of_life: SignsOfLife
) -> Lookup:
    """Looking addresses up."""
    return Lookup(
        gate=gate,
        keys=keys,
        allow_none=config.lookup.allow_none,
        max_addresses=config.lookup.max_addresses,
        pepper_grace_ms=config.lookup.pepper_grace,
        signs_of_life=signs_of_life,
        now_ms=world.now_ms,
    )


def make_validation(
    config: Config,
    world: World,
    *,
    budgets: Budgets,
    db: Database,
    gate: Gate,
    mails: VerificationSender,
    codes: CodeSender,
) -> Validation:
    """Proving addresses."""
    allowed = config.validation.next_link_allowed
    messages: dict[str, Messages] = {
        EMAIL: Mails(
            sender=mails,
            public_base_url=config.general.public_base_url,
            budgets=budgets,
            random_bytes=world.random_bytes,
        ),
        MSISDN: Codes(
            sender=codes,
            strict=config.sms.strict_numbers,
            budgets=budgets,
            random_bytes=world.random_bytes,
        ),
    }
    return Validation(
        db=db,
        gate=gate,
        messages=messages,
        budgets=budgets,
        next_links=NextLinkPolicy(None if "*" in allowed else frozenset(allowed)),
        lifetime_ms=config.validation.session_lifetime,
        now_ms=world.now_ms,
        random_bytes=world.random_bytes,
    )
