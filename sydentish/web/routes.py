"""All routes: one row each, one list for each listener.

Paths are below `/_matrix/identity/`, and whole on the listener of the metrics.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sydentish.domain.threepids import EMAIL, MSISDN
from sydentish.web import models, models_peers
from sydentish.web.handlers.accounts import AccountHandlers
from sydentish.web.handlers.associations import AssociationHandlers
from sydentish.web.handlers.health import HealthHandlers
from sydentish.web.handlers.internal import InternalHandlers
from sydentish.web.handlers.invites import InviteHandlers
from sydentish.web.handlers.keys import KeyHandlers
from sydentish.web.handlers.lookup import LookupHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.handlers.replication import ReplicationHandlers
from sydentish.web.handlers.status import StatusHandlers
from sydentish.web.handlers.terms import TermsHandlers
from sydentish.web.handlers.validation import ValidationHandlers, ValidationPages
from sydentish.web.route import Auth, Handler, Params, Route

IDENTITY_PREFIX = "/_matrix/identity/"
CONFIRM_EMAIL = "pages/validate/email/submitToken"
"""Where the button of the confirmation page posts to: the specification's own POST asks for an access token."""


@dataclass(frozen=True, slots=True)
class PublicHandlers:
    """All that the public routes lead to."""

    accounts: AccountHandlers
    associations: AssociationHandlers
    invites: InviteHandlers
    keys: KeyHandlers
    lookup: LookupHandlers
    status: StatusHandlers
    terms: TermsHandlers
    validation: ValidationHandlers
    validation_pages: ValidationPages


def public_routes(to: PublicHandlers, v1_endpoints: Collection[str]) -> list[Route]:
    """The routes of the public listener (Identity Service API).

    Args:
        to: what they lead to.
        v1_endpoints: which of the older version are served, by the words in `v1_routes`.
    """
    v1 = [route for word, route in v1_routes(to) if word in v1_endpoints]
    return [*_entrance(to), *_validation(to), *_associations(to), *_keys(to), *v1]


def _entrance(to: PublicHandlers) -> list[Route]:
    none, token, terms = Auth.NONE, Auth.TOKEN, Auth.TOKEN_AND_TERMS
    body = Params.BODY
    return [
        Route("GET", "versions", to.status.versions, models.Nothing, none),
        Route("GET", "v2", to.status.status, models.Nothing, none),
        Route("POST", "v2/account/register", to.accounts.register, models.OpenIdToken, none, params=body),
        Route("GET", "v2/account", to.accounts.account, models.Nothing, terms),
        Route("POST", "v2/account/logout", to.accounts.log_out, models.Nothing, token),
        Route("GET", "v2/terms", to.terms.offered, models.Nothing, none),
        Route("POST", "v2/terms", to.terms.accept, models.AcceptedTerms, token, params=body),
        Route("GET", "v2/hash_details", to.lookup.hash_details, models.Nothing, terms),
        Route("POST", "v2/lookup", to.lookup.lookup, models.LookupRequest, terms, params=body, large=True),
    ]


def _validation(to: PublicHandlers) -> list[Route]:
    none, terms = Auth.NONE, Auth.TOKEN_AND_TERMS
    body = Params.BODY
    email, msisdn = "v2/validate/email/", "v2/validate/msisdn/"
    deeds, pages = to.validation, to.validation_pages
    mail, sms, token = models.EmailTokenRequest, models.MsisdnTokenRequest, models.SubmittedToken
    return [
        Route("POST", f"{email}requestToken", deeds.request_email_token, mail, terms, params=body),
        Route("POST", f"{email}submitToken", deeds.submit_token, token, terms, params=body),
        Route("GET", f"{email}submitToken", pages.follow, token, none, page=EMAIL),
        Route("HEAD", f"{email}submitToken", pages.look, models.Nothing, none, page=EMAIL),
        Route("POST", CONFIRM_EMAIL, pages.submit, token, none, params=body, page=EMAIL),
        Route("POST", f"{msisdn}requestToken", deeds.request_msisdn_token, sms, terms, params=body),
        Route("POST", f"{msisdn}submitToken", deeds.submit_token, token, terms, params=body),
        Route("GET", f"{msisdn}submitToken", pages.follow_msisdn, token, none, page=MSISDN),
        Route("HEAD", f"{msisdn}submitToken", pages.look, models.Nothing, none, page=MSISDN),
        Route("GET", "v2/3pid/getValidated3pid", deeds.validated, models.SessionReference, terms),
    ]


def _associations(to: PublicHandlers) -> list[Route]:
    terms, body = Auth.TOKEN_AND_TERMS, Params.BODY
    bind, unbind = to.associations.bind, to.associations.unbind
    return [
        Route("POST", "v2/3pid/bind", bind, models.BindRequest, terms, params=body),
        Route("POST", "v2/3pid/unbind", unbind, models.UnbindRequest, terms, params=body, signed=True),
        Route("POST", "v2/store-invite", to.invites.store, models.StoredInvite, terms, params=body),
        Route("POST", "v2/sign-ed25519", to.invites.sign, models.InviteToSign, terms, params=body),
    ]


def _keys(to: PublicHandlers, version: str = "v2") -> list[Route]:
    none, keys = Auth.NONE, to.keys
    ephemeral = f"{version}/pubkey/ephemeral/isvalid"
    return [
        Route("GET", f"{version}/pubkey/isvalid", keys.is_valid, models.PublicKey, none),
        Route("GET", ephemeral, keys.is_ephemeral_valid, models.PublicKey, none),
        Route("GET", f"{version}/pubkey/{{key_id}}", keys.public_key, models.KeyReference, none),
    ]


def v1_routes(to: PublicHandlers) -> list[tuple[str, Route]]:
    """The routes of version 1, each with the word that an operator switches it on and off by.

    They lead where their twins of version 2 lead; what differs is what is asked of the caller, and that parameters
    may stand anywhere.
    """
    source, trusted = Auth.SOURCE, Auth.TRUSTED_SOURCE
    status = Route("GET", "api/v1", to.status.status, models.Nothing, Auth.NONE)
    return [
        ("status", status),
        *(("pubkey", route) for route in _keys(to, "api/v1")),
        *_v1_validation(to),
        _v1("sign-ed25519", "POST", "sign-ed25519", to.invites.sign, models.InviteToSign, source),
        _v1("store-invite", "POST", "store-invite", to.invites.store, models.StoredInvite, source),
        _v1("lookup", "GET", "lookup", to.lookup.lookup_one, models.LookupOne, source),
        _v1(
            "bulk_lookup", "POST", "bulk_lookup", to.lookup.lookup_many, models.LookupMany, source, large=True
        ),
        _v1(
            "getValidated3pid",
            "GET",
            "3pid/getValidated3pid",
            to.validation.validated,
            models.SessionReference,
            trusted,
        ),
        _v1("bind", "POST", "3pid/bind", to.associations.bind, models.BindRequest, source),
        _v1(
            "unbind", "POST", "3pid/unbind", to.associations.unbind, models.UnbindRequest, source, signed=True
        ),
    ]


def _v1_validation(to: PublicHandlers) -> list[tuple[str, Route]]:
    deeds, pages = to.validation, to.validation_pages
    mail, sms, token = models.EmailTokenRequest, models.MsisdnTokenRequest, models.SubmittedToken
    email, msisdn = "validate/email", "validate/msisdn"
    source, trusted, links = Auth.SOURCE, Auth.TRUSTED_SOURCE, "submit-links"
    submit_email, submit_msisdn = f"{email}/submitToken", f"{msisdn}/submitToken"
    return [
        _v1(email, "POST", f"{email}/requestToken", deeds.request_email_token, mail, source),
        _v1(email, "POST", submit_email, deeds.submit_token, token, source),
        _v1(links, "GET", submit_email, pages.follow, token, source, page=EMAIL),
        _v1(links, "HEAD", submit_email, pages.look, models.Nothing, Auth.NONE, page=EMAIL),
        _v1(msisdn, "POST", f"{msisdn}/requestToken", deeds.request_msisdn_token, sms, trusted),
        _v1(msisdn, "POST", submit_msisdn, deeds.submit_token, token, trusted),
        _v1(links, "GET", submit_msisdn, pages.follow_msisdn, token, source, page=MSISDN),
        _v1(links, "HEAD", submit_msisdn, pages.look, models.Nothing, Auth.NONE, page=MSISDN),
    ]


def _v1(  # noqa: PLR0917 - as `Route`
    word: str,
    method: str,
    path: str,
    handler: Handler,
    model: type[Any],
    auth: Auth,
    **flags: Any,  # noqa: ANN401 - as `Route`
) -> tuple[str, Route]:
    return word, Route(method, f"api/v1/{path}", handler, model, auth, params=Params.ANYWHERE, **flags)


def internal_routes(to: InternalHandlers) -> list[Route]:
    """The routes of the internal listener, for scripts of the operator; there is no specification of them."""
    operator, body, raw = Auth.OPERATOR, Params.BODY, Params.RAW
    return [
        Route("POST", "internal/bind", to.bind, models.Provisioned, operator, params=body),
        Route("POST", "internal/unbind", to.unbind, models.Provisioned, operator, params=body),
        Route("POST", "internal/bulk", to.bulk, models.Lines, operator, params=raw, large=True),
    ]


def replication_routes(to: ReplicationHandlers) -> list[Route]:
    """The routes of the replication listener, for peers; the first is Sydent's, the others are ours."""
    peer, body, raw = Auth.PEER, Params.BODY, Params.RAW
    push, digests, statements = models_peers.Push, models_peers.DigestsRequest, models_peers.StatementsRequest
    unbound = models_peers.UnboundRequest
    return [
        Route("POST", "replicate/v1/push", to.push, push, peer, params=raw, large=True),
        Route("POST", "replicate/v1/check", to.check, models_peers.Greeting, peer, params=raw),
        Route("POST", "replicate/v1/digests", to.digests, digests, peer, params=body),
        Route("POST", "replicate/v1/statements", to.statements, statements, peer, params=body),
        Route("POST", "replicate/v1/recall", to.recall, models_peers.RecallRequest, peer, params=body),
        Route("POST", "replicate/v1/log", to.log, models_peers.RecallRequest, peer, params=body),
        Route("POST", "replicate/v1/unbound", to.unbound, unbound, peer, params=body, large=True),
    ]


def metrics_routes(metrics: MetricsHandlers, health: HealthHandlers) -> list[Route]:
    """The routes of the metrics listener; nothing is asked of callers there."""
    return [
        Route("GET", path, handler, models.Nothing, Auth.NONE)
        for path, handler in (
            ("metrics", metrics.metrics),
            ("health/live", health.live),
            ("health/ready", health.ready),
        )
    ]
