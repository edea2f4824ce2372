"""Who is let in: for each listener what a caller must show before anything is done for them."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sydentish.actions.accounts import NOBODY, Caller, Gate
from sydentish.actions.budgets import Slots, SourceBudget
from sydentish.actions.ports import HomeserverProofs, PeerDirectory, SignedRequest
from sydentish.domain.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    MissingToken,
    NotJson,
    ProofRefused,
    UnknownToken,
)
from sydentish.web.auth import access_token
from sydentish.web.body import body_params, form_params
from sydentish.web.route import Auth, Route
from sydentish.web.sources import Sources

_TOKEN_NEEDED = "An access token is needed: Authorization: Bearer <token>"  # noqa: S105 - no token
_X_MATRIX = b"x-matrix"
# Whoever names homeservers that never answer must not hold up those that sign in earnest.
_MAX_PROVING = 20


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request.

    Attributes:
        method: as the client wrote it.
        path: the path as it was sent, percent-encoded.
        query: what stands behind the question mark.
        authorizations: the headers `Authorization`.
        content_type: the header of that name, or empty.
        accept_language: the header of that name, or empty.
        peer: the address at the other end of the connection; None for a unix socket.
        forwarded: the headers `X-Forwarded-For`.
        by_proxy: whether it has any header that proxies write.
        web_page: whether a browser has sent it for a web page, and said so (`Origin`).
        certificate_names: the names in the certificate that the client has shown, as TLS has verified it.
    """

    method: str
    path: str
    query: bytes
    authorizations: Sequence[bytes] = ()
    content_type: bytes = b""
    accept_language: bytes = b""
    peer: str | None = None
    forwarded: Sequence[bytes] = ()
    by_proxy: bool = False
    web_page: bool = False
    certificate_names: tuple[str, ...] = ()

    @property
    def authorization(self) -> bytes | None:
        """The first of the headers `Authorization`."""
        return next(iter(self.authorizations), None)


class Admission(Protocol):
    """What one listener asks of callers."""

    def caller(self, route: Route, head: Head) -> Caller:
        """Who asks, as far as the head tells.

        Raises:
            MissingToken, Forbidden: the head alone shows that this caller may not.
        """

    async def check(self, route: Route, caller: Caller) -> None:
        """Looks at the caller before anything else is looked at; raises why this one may not."""

    async def origin(self, route: Route, head: Head, body: bytes) -> str | None:
        """The server that is proved to ask: a homeserver by its signature, a peer by its certificate; else None.

        Raises:
            ProofRefused, KeysUnavailable: a homeserver claims to have signed, and that cannot be believed.
            UnknownPeer: it is nobody's certificate.
        """


class OpenAdmission:
    """Lets everybody in: whoever reaches the listener may ask."""

    def caller(self, _route: Route, _head: Head) -> Caller:
        """Nobody in particular."""
        return NOBODY

    async def check(self, _route: Route, _caller: Caller) -> None:
        """Nothing is asked."""

    async def origin(self, _route: Route, _head: Head, _body: bytes) -> str | None:
        """No server comes here."""
        return None


class InternalAdmission(OpenAdmission):
    """What the internal listener asks of callers.

    Args:
        token: what they must know; None where it is enough to reach the listener.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    def caller(self, _route: Route, head: Head) -> Caller:
        """Nobody in particular, but one who knows the token.

        Raises:
            Forbidden: it is a web page, which a browser on this machine lets speak to it.
            MissingToken, UnknownToken: the token is missing, or another.
        """
        if head.web_page:
            raise Forbidden("The internal API is not for web pages")
        if self._token is not None:
            given = access_token(head.authorization, {}, allow_query=False)
            if given is None:
                raise MissingToken(_TOKEN_NEEDED)
            if not hmac.compare_digest(given.encode(), self._token):
                raise UnknownToken("Unrecognised token")
        return NOBODY


class PeerAdmission:
    """What the replication listener asks of callers: a certificate of a peer.

    Args:
        peers: knows whose it is.
    """

    def __init__(self, peers: PeerDirectory) -> None:
        self._peers = peers

    def caller(self, _route: Route, head: Head) -> Caller:
        """Somebody with a certificate, who may be nobody's peer.

        Raises:
            Forbidden: it is a web page, which a browser that has the certificate lets speak for its owner.
        """
        if head.web_page:
            raise Forbidden("Replication is not for web pages")
        return Caller(None, certificate_names=head.certificate_names)

    async def check(self, _route: Route, caller: Caller) -> None:
        """Raises `UnknownPeer` for everybody else."""
        await self._peers.peer_of(caller.certificate_names)

    async def origin(self, _route: Route, head: Head, _body: bytes) -> str | None:
        """The server name of the peer.

        Raises:
            UnknownPeer: it is not, or no longer, a peer.
        """
        return await self._peers.peer_of(head.certificate_names)


class PublicAdmission:
    """What the public listener asks of callers.

    Args:
        gate: knows the access tokens.
        sources: knows where requests come from.
        budget: counts those who need no access token.
        proofs: checks what homeservers sign.
        token_in_query: whether an access token in the query counts.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        sources: Sources,
        budget: SourceBudget,
        proofs: HomeserverProofs,
        token_in_query: bool,
    ) -> None:
        self._gate = gate
        self._sources = sources
        self._budget = budget
        self._proofs = proofs
        self._token_in_query = token_in_query
        self._proving = Slots(None, _MAX_PROVING)

    def caller(self, route: Route, head: Head) -> Caller:
        """See `Admission.caller`."""
        if route.auth.needs_token:
            if route.signed and _is_signed(head):
                return NOBODY
            return Caller(self._token(head), needs_terms=route.auth is Auth.TOKEN_AND_TERMS)
        source = self._sources.find(head.peer, head.forwarded, by_proxy=head.by_proxy)
        if route.auth is Auth.TRUSTED_SOURCE and (head.web_page or not source.trusted):
            # A web page speaks for whoever made it, and not for the machine that it is shown on.
            raise Forbidden(
                "This endpoint is only for servers in the networks that the operator trusts (v1_trusted_networks)"
            )
        # A homeserver speaks for all its users: what one user may do is nothing to count it by.
        return Caller(None, source="" if source.trusted else source.key)

    async def check(self, route: Route, caller: Caller) -> None:
        """See `Admission.check`."""
        if caller.token is not None:
            await self._gate.check(caller)
        elif route.auth is Auth.SOURCE:
            await self._budget.charge(caller.source)

    async def origin(self, route: Route, head: Head, body: bytes) -> str | None:
        """See `Admission.origin`."""
        if not route.signed or not _is_signed(head):
            return None
        try:
            content = body_params(body, b"")
        except (NotJson, BadJson):
            # It is not a 400, which homeservers take for "cannot unbind at all".
            raise ProofRefused("The body must be the JSON object that was signed") from None
        request = SignedRequest(head.method, _target(head), head.authorizations, dict(content))
        source = self._sources.find(head.peer, head.forwarded, by_proxy=head.by_proxy).key
        with self._proving.slot(source):
            return await self._proofs.origin_of(request)

    def _token(self, head: Head) -> str:
        try:
            query = form_params(head.query, "query")
        except InvalidParam:  # is told of after the caller was looked at, and only if the query matters
            query = {}
        token = access_token(head.authorization, query, allow_query=self._token_in_query)
        if token is None:
            raise MissingToken(_TOKEN_NEEDED)
        return token


def _is_signed(head: Head) -> bool:
    return any(header.split(b" ", 1)[0].strip().lower() == _X_MATRIX for header in head.authorizations)


def _target(head: Head) -> str:
    return f"{head.path}?{head.query.decode('latin-1')}" if head.query else head.path
