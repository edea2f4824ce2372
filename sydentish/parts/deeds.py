"""What callers can do."""

from sydentish.actions.accounts import Accounts, Gate
from sydentish.actions.associations import Associations
from sydentish.actions.lookup import Lookup
from sydentish.actions.outbox import OutboxWorker
from sydentish.actions.ports import OpenIdVerifier, SignsOfLife, VerificationSender
from sydentish.actions.validation import Validation
from sydentish.config import Config
from sydentish.domain.accounts import HomeserverPolicy
from sydentish.domain.keys import KeyRing
from sydentish.domain.validation import NextLinkPolicy
from sydentish.parts.world import World
from sydentish.store.database import Database


def make_accounts(
    config: Config,
    world: World,
    *,
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
        signs_of_life=signs_of_life,
        max_registering=options.max_registering,
        now_ms=world.now_ms,
        random_bytes=world.random_bytes,
    )


def make_associations(
    config: Config, world: World, gate: Gate, keys: KeyRing, outbox: OutboxWorker
) -> Associations:
    """Binding and unbinding."""
    return Associations(
        gate=gate,
        keys=keys,
        validity_ms=config.validation.association_lifetime,
        session_lifetime_ms=config.validation.session_lifetime,
        wake_outbox=outbox.wake,
        now_ms=world.now_ms,
    )


def make_lookup(config: Config, world: World, gate: Gate, signs_of_life: SignsOfLife) -> Lookup:
    """Looking addresses up."""
    return Lookup(
        gate=gate,
        allow_none=config.lookup.allow_none,
        max_addresses=config.lookup.max_addresses,
        pepper_grace_ms=config.lookup.pepper_grace,
        signs_of_life=signs_of_life,
        now_ms=world.now_ms,
    )


def make_validation(
    config: Config, world: World, db: Database, gate: Gate, sender: VerificationSender
) -> Validation:
    """Proving addresses."""
    allowed = config.validation.next_link_allowed
    return Validation(
        db=db,
        gate=gate,
        sender=sender,
        public_base_url=config.general.public_base_url,
        next_links=NextLinkPolicy(None if "*" in allowed else frozenset(allowed)),
        lifetime_ms=config.validation.session_lifetime,
        now_ms=world.now_ms,
        random_bytes=world.random_bytes,
    )
