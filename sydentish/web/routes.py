"""All routes: one row each, one list for each listener.

Paths are below `/_matrix/identity/` on the public listener, and whole on the others.
"""

from dataclasses import dataclass

from sydentish.web import models
from sydentish.web.handlers.accounts import AccountHandlers
from sydentish.web.handlers.associations import AssociationHandlers
from sydentish.web.handlers.keys import KeyHandlers
from sydentish.web.handlers.lookup import LookupHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.handlers.status import StatusHandlers
from sydentish.web.handlers.terms import TermsHandlers
from sydentish.web.handlers.validation import ValidationHandlers, ValidationPages
from sydentish.web.route import Auth, Route, Source

PUBLIC_PREFIX = "/_matrix/identity/"
CONFIRM_EMAIL = "pages/validate/email/submitToken"
"""Where the button of the confirmation page posts to: the specification's own POST asks for an access token."""


@dataclass(frozen=True, slots=True)
class PublicHandlers:
    """All that the public routes lead to."""

    accounts: AccountHandlers
    associations: AssociationHandlers
    keys: KeyHandlers
    lookup: LookupHandlers
    status: StatusHandlers
    terms: TermsHandlers
    validation: ValidationHandlers
    validation_pages: ValidationPages


def public_routes(to: PublicHandlers) -> list[Route]:
    """The routes of the public listener (Identity Service API)."""
    none, token, terms = Auth.NONE, Auth.TOKEN, Auth.TOKEN_AND_TERMS
    body = Source.BODY
    validation, pages = to.validation, to.validation_pages
    return [
        Route("GET", "versions", to.status.versions, models.Nothing, none),
        Route("GET", "v2", to.status.status, models.Nothing, none),
        Route("POST", "v2/account/register", to.accounts.register, models.OpenIdToken, none, source=body),
        Route("GET", "v2/account", to.accounts.account, models.Nothing, terms),
        Route("POST", "v2/account/logout", to.accounts.log_out, models.Nothing, token),
        Route("GET", "v2/terms", to.terms.offered, models.Nothing, none),
        Route("POST", "v2/terms", to.terms.accept, models.AcceptedTerms, token, source=body),
        Route("GET", "v2/hash_details", to.lookup.hash_details, models.Nothing, terms),
        Route("POST", "v2/lookup", to.lookup.lookup, models.LookupRequest, terms, source=body, large=True),
        Route(
            "POST",
            "v2/validate/email/requestToken",
            validation.request_email_token,
            models.EmailTokenRequest,
            terms,
            source=body,
        ),
        Route(
            "POST",
            "v2/validate/email/submitToken",
            validation.submit_token,
            models.SubmittedToken,
            terms,
            source=body,
        ),
        Route("GET", "v2/validate/email/submitToken", pages.follow, models.SubmittedToken, none, page=True),
        Route("HEAD", "v2/validate/email/submitToken", pages.look, models.Nothing, none, page=True),
        Route("POST", CONFIRM_EMAIL, pages.submit, models.SubmittedToken, none, source=body, page=True),
        Route("GET", "v2/3pid/getValidated3pid", validation.validated, models.SessionReference, terms),
        Route("POST", "v2/3pid/bind", to.associations.bind, models.BindRequest, terms, source=body),
        Route("POST", "v2/3pid/unbind", to.associations.unbind, models.UnbindRequest, terms, source=body),
        Route("GET", "v2/pubkey/isvalid", to.keys.is_valid, models.PublicKey, none),
        Route("GET", "v2/pubkey/ephemeral/isvalid", to.keys.is_ephemeral_valid, models.PublicKey, none),
        Route("GET", "v2/pubkey/{key_id}", to.keys.public_key, models.KeyReference, none),
    ]


def metrics_routes(to: MetricsHandlers) -> list[Route]:
    """The routes of the metrics listener."""
    return [Route("GET", "metrics", to.metrics, models.Nothing, Auth.NONE)]
