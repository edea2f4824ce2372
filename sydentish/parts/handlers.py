"""What the routes lead to."""

from sydentish.actions.ports import PushReceiver
from sydentish.config import Config
from sydentish.parts.deeds import Deeds
from sydentish.web.handlers.accounts import AccountHandlers
from sydentish.web.handlers.associations import AssociationHandlers
from sydentish.web.handlers.internal import InternalHandlers
from sydentish.web.handlers.invites import InviteHandlers
from sydentish.web.handlers.keys import KeyHandlers
from sydentish.web.handlers.lookup import LookupHandlers
from sydentish.web.handlers.replication import ReplicationHandlers
from sydentish.web.handlers.status import StatusHandlers
from sydentish.web.handlers.terms import TermsHandlers
from sydentish.web.handlers.validation import ValidationHandlers, ValidationPages
from sydentish.web.pages import Pages
from sydentish.web.routes import CONFIRM_EMAIL, IDENTITY_PREFIX, PublicHandlers


def public_handlers(config: Config, deeds: Deeds, pages: Pages) -> PublicHandlers:
    """For the public API."""
    return PublicHandlers(
        accounts=AccountHandlers(deeds.accounts),
        associations=AssociationHandlers(deeds.associations),
        invites=InviteHandlers(deeds.invites),
        keys=KeyHandlers(deeds.keys),
        lookup=LookupHandlers(deeds.lookup),
        status=StatusHandlers(),
        terms=TermsHandlers(deeds.terms),
        validation=ValidationHandlers(deeds.validation),
        validation_pages=ValidationPages(
            deeds.validation,
            pages,
            confirm=config.validation.confirm_links,
            confirm_action=f"{config.general.public_base_url}{IDENTITY_PREFIX}{CONFIRM_EMAIL}",
        ),
    )


def internal_handlers(deeds: Deeds) -> InternalHandlers:
    """For the operator's own scripts."""
    return InternalHandlers(deeds.associations)


def replication_handlers(receiver: PushReceiver) -> ReplicationHandlers:
    """For peers."""
    return ReplicationHandlers(receiver)
