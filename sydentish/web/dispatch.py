"""What is the same for every endpoint, done once: find the route, look for the token, read, act, answer, note.

`Dispatcher` knows nothing of sockets; `sydentish.web.http` does nothing else than sockets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.actions.accounts import Caller, Gate
from sydentish.domain.errors import (
    Busy,
    IdentityError,
    InvalidParam,
    MissingToken,
    TooLarge,
    Unrecognized,
)
from sydentish.web.auth import access_token
from sydentish.web.body import body_params, form_params
from sydentish.web.errors import error_reply, internal_error_reply
from sydentish.web.models import Nothing, parse
from sydentish.web.pages import Pages
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Auth, Call, Route, Source
from sydentish.web.table import RouteTable

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

_log = Logger()


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request.

    Attributes:
        method: as the client wrote it.
        path: the path as it was sent, percent-encoded.
        query: what stands behind the question mark.
        authorization: the header of that name.
        content_type: the header of that name, or empty.
    """

    method: str
    path: str
    query: bytes
    authorization: bytes | None
    content_type: bytes


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request whose head has been looked at.

    Attributes:
        head: the head.
        request_id: what it is called in the log.
        started: when it began, in seconds of the clock.
        route: where it leads; None where it leads nowhere.
        path_params: what the braces of the route's path took.
        caller: who asks, as far as is known.
        refusal: the answer, if the head alone decides it; the body is not wanted then.
        body_limit: how large the body may be, in bytes; None for any size.
        free_body: how much of it is read before the caller is looked at, in bytes; None for all of it.
    """

    head: Head
    request_id: str
    started: float
    route: Route | None
    path_params: Mapping[str, str]
    caller: Caller
    refusal: Reply | None
    body_limit: int | None
    free_body: int | None

    def wants_admission(self, received: int) -> bool:
        """Whether so many bytes of a body are more than a caller gets who may be nobody."""
        return self.free_body is not None and received > self.free_body


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may cost; None stands for no limit.

    Attributes:
        body: the size of a body, in bytes.
        large_body: the same for look-ups.
        answer_seconds: how long an answer may take.
    """

    body: int | None
    large_body: int | None
    answer_seconds: float | None


class RequestLog(Protocol):
    """Hears of every request that was answered: for the log, and for the metrics."""

    def answered(self, *, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """Notes one answer; `route` is the path of the route, never the one that was asked for."""


class Dispatcher:
    """Answers the requests of one listener.

    Args:
        routes: its rows.
        prefix: what stands in front of every path of a row.
        gate: looks at callers whose request cannot even be read.
        pages: errors of routes that people read; None where there are none.
        limits: what a request may cost.
        token_in_query: whether an access token in the query counts.
        clock: what time is taken by.
        new_request_id: makes a name for a request.
        log: hears of every answer.
    """

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        prefix: str,
        gate: Gate | None,
        pages: Pages | None,
        limits: RequestLimits,
        token_in_query: bool,
        clock: IReactorTime,
        new_request_id: Callable[[], str],
        log: RequestLog,
    ) -> None:
        self._table = RouteTable(routes, prefix)
        self._gate = gate
        self._pages = pages
        self._limits = limits
        self._token_in_query = token_in_query
        self._clock = clock
        self._new_request_id = new_request_id
        self._log = log

    def open(self, head: Head) -> OpenRequest:
        """Looks at the head of a request: what can be refused now, is."""
        route: Route | None = None
        path_params: Mapping[str, str] = {}
        caller, refusal = Caller(""), None
        try:
            route, path_params = self._table.find(head.method, head.path)
            if head.method == "OPTIONS":
                refusal = json_reply({})
            else:
                caller = self._caller(route, head)
        except IdentityError as error:
            refusal = self._error(route, error)
        return OpenRequest(
            head=head,
            request_id=self._new_request_id(),
            started=self._clock.seconds(),
            route=route,
            path_params=path_params,
            caller=caller,
            refusal=refusal,
            body_limit=self._limits.large_body if route and route.large else self._limits.body,
            free_body=self._limits.body if route and route.large else None,
        )

    def too_large(self, opened: OpenRequest) -> Reply:
        """The answer to a body that is larger than its limit."""
        return self._error(opened.route, TooLarge(f"The body must have at most {opened.body_limit} bytes"))

    async def admission(self, opened: OpenRequest) -> Reply | None:
        """Looks at the caller before the whole body is there; the answer, if it must not come. Never raises."""
        try:
            if opened.route is not None:
                await self._admit(opened, opened.route)
        except IdentityError as error:
            return self._error(opened.route, error)
        except Exception:  # noqa: BLE001 - as for answers
            _log.failure("request {request_id} broke", request_id=opened.request_id)
            return internal_error_reply(opened.request_id)
        return None

    async def answer(self, opened: OpenRequest, body: bytes) -> Reply:
        """Answers a request whose body is complete. Never raises."""
        try:
            return await self._answer(opened, body)
        except Exception:  # noqa: BLE001 - the last resort of every request
            _log.failure("request {request_id} broke", request_id=opened.request_id)
            return internal_error_reply(opened.request_id)

    def note(self, opened: OpenRequest, status: int) -> None:
        """Notes that a request was answered."""
        method = opened.head.method
        self._log.answered(
            method=method if method in _KNOWN_METHODS else "OTHER",
            route=opened.route.path if opened.route else "unmatched",
            status=status,
            seconds=self._clock.seconds() - opened.started,
            request_id=opened.request_id,
        )

    def _caller(self, route: Route, head: Head) -> Caller:
        if route.auth is Auth.NONE:
            return Caller("")
        try:
            query = form_params(head.query, "query")
        except InvalidParam:  # is told of after the caller was looked at, and only if the query matters
            query = {}
        token = access_token(head.authorization, query, allow_query=self._token_in_query)
        if token is None:
            raise MissingToken("An access token is needed: Authorization: Bearer <token>")
        return Caller(token, needs_terms=route.auth is Auth.TOKEN_AND_TERMS)

    async def _answer(self, opened: OpenRequest, body: bytes) -> Reply:
        if opened.refusal is not None or opened.route is None:
            return opened.refusal or self._error(None, Unrecognized("Unrecognized request"))
        try:
            return await self._within_limit(Deferred.fromCoroutine(self._act(opened, opened.route, body)))
        except IdentityError as error:
            return self._error(opened.route, error)

    async def _act(self, opened: OpenRequest, route: Route, body: bytes) -> Reply:
        try:
            params = _read(route, opened, body)
        except IdentityError:
            # Whoever may not ask learns just that, and not what was wrong with the question.
            await self._admit(opened, route)
            raise
        return await route.handler(Call(params, opened.caller))

    async def _admit(self, opened: OpenRequest, route: Route) -> None:
        if route.auth is not Auth.NONE and self._gate is not None:
            await self._gate.check(opened.caller)

    async def _within_limit(self, acting: "Deferred[Reply]") -> Reply:
        if self._limits.answer_seconds is not None:
            acting.addTimeout(self._limits.answer_seconds, self._clock)
        try:
            return await acting
        except (DeferredTimeoutError, CancelledError):
            raise Busy("The server could not answer in time: try again soon") from None

    def _error(self, route: Route | None, error: IdentityError) -> Reply:
        if route is not None and route.page and self._pages is not None:
            try:
                return self._pages.failed(error)
            except Exception:  # noqa: BLE001 - the caller is to hear of the error all the same
                _log.failure("the page that tells of an error cannot be made")
        return error_reply(error)


def _read(route: Route, opened: OpenRequest, body: bytes) -> Any:  # noqa: ANN401 - the route's model
    if route.model is Nothing:
        return Nothing()
    if route.source is Source.BODY:
        return parse(route.model, body_params(body, opened.head.content_type))
    return parse(route.model, {**form_params(opened.head.query, "query"), **opened.path_params})
