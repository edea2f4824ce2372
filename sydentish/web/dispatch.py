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

from sydentish.actions.accounts import NOBODY, Caller
from sydentish.domain.errors import (
    Busy,
    IdentityError,
    LimitExceeded,
    ProofRefused,
    TooLarge,
    Unrecognized,
)
from sydentish.web.admission import Admission, Head
from sydentish.web.body import body_params, form_params
from sydentish.web.errors import error_reply, internal_error_reply
from sydentish.web.languages import languages
from sydentish.web.models import Nothing
from sydentish.web.pages import Pages
from sydentish.web.readers import parse
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Auth, Call, Params, Route
from sydentish.web.table import RouteTable

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

_log = Logger()


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

    def wants_admission(self, size: int) -> bool:
        """Whether so many bytes of a body are more than a caller gets who may be nobody."""
        return self.free_body is not None and size > self.free_body

    def is_too_large(self, size: int) -> bool:
        """Whether a body may not have so many bytes."""
        return self.body_limit is not None and size > self.body_limit


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may cost; None stands for no limit.

    Attributes:
        body: the size of a body, in bytes.
        large_body: the same where a route says that it may be large, such as for look-ups.
        answer_seconds: how long an answer may take.
    """

    body: int | None
    large_body: int | None
    answer_seconds: float | None


class RequestLog(Protocol):
    """Hears of every request that was answered: for the log, and for the metrics."""

    def answered(self, *, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """Notes one answer; `route` is the path of the route, never the one that was asked for."""

    def limited(self, budget: str) -> None:
        """Notes that something was refused because this budget is used up."""


class Dispatcher:
    """Answers the requests of one listener.

    Args:
        routes: its rows.
        prefix: what stands in front of every path of a row.
        admission: what is asked of callers.
        pages: errors of routes that people read; None where there are none.
        limits: what a request may cost.
        clock: what time is taken by.
        new_request_id: makes a name for a request.
        log: hears of every answer.
    """

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        prefix: str,
        admission: Admission,
        pages: Pages | None,
        limits: RequestLimits,
        clock: IReactorTime,
        new_request_id: Callable[[], str],
        log: RequestLog,
    ) -> None:
        self._table = RouteTable(routes, prefix)
        self._admission = admission
        self._pages = pages
        self._limits = limits
        self._clock = clock
        self._new_request_id = new_request_id
        self._log = log

    def open(self, head: Head) -> OpenRequest:
        """Looks at the head of a request: what can be refused now, is."""
        route: Route | None = None
        path_params: Mapping[str, str] = {}
        caller, refusal = NOBODY, None
        try:
            route, path_params = self._table.find(head.method, head.path)
            if head.method == "OPTIONS":
                refusal = json_reply({})
            else:
                caller = self._admission.caller(route, head)
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
            free_body=None if route is None else self._free_body(route),
        )

    def _free_body(self, route: Route) -> int | None:
        if route.auth is Auth.PEER:  # whoever is none learns just that, and nothing about the body
            return 0
        return self._limits.body if route.large else None

    def too_large(self, opened: OpenRequest) -> Reply:
        """The answer to a body that is larger than its limit."""
        return self._error(opened.route, TooLarge(f"The body must have at most {opened.body_limit} bytes"))

    async def admission(self, opened: OpenRequest) -> Reply | None:
        """Looks at the caller before the whole body is there; the answer, if it must not come. Never raises."""
        try:
            if opened.route is not None:
                await self._admission.check(opened.route, opened.caller)
        except IdentityError as error:
            return self._error(opened.route, error)
        except Exception:  # noqa: BLE001 - as for answers
            _log.failure("request {request_id} broke", request_id=opened.request_id)
            return internal_error_reply(opened.request_id)
        return None

    async def answer(self, opened: OpenRequest, body: bytes, *, admitted: bool = False) -> Reply:
        """Answers a request whose body is complete; `admitted` once `admission` let it come. Never raises."""
        try:
            return await self._answer(opened, body, admitted=admitted)
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

    async def _answer(self, opened: OpenRequest, body: bytes, *, admitted: bool) -> Reply:
        if opened.refusal is not None or opened.route is None:
            return opened.refusal or self._error(None, Unrecognized("Unrecognized request"))
        try:
            acting = self._act(opened, opened.route, body, admitted=admitted)
            return await self._within_limit(Deferred.fromCoroutine(acting))
        except IdentityError as error:
            return self._error(opened.route, error)

    async def _act(self, opened: OpenRequest, route: Route, body: bytes, *, admitted: bool) -> Reply:
        head, caller = opened.head, opened.caller
        if not route.auth.needs_token and not admitted:  # nobody is counted twice
            await self._admission.check(route, caller)
        origin = await self._admission.origin(route, head, body)
        try:
            params = _read(route, opened, body)
        except IdentityError as error:
            if origin is not None and route.signed:
                # Homeservers take a 400 for "cannot do that at all".
                raise ProofRefused(error.message) from error
            # Whoever may not ask learns just that, and not what was wrong with the question.
            if route.auth.needs_token:
                await self._admission.check(route, caller)
            raise
        return await route.handler(Call(params, caller, origin, languages(head.accept_language)))

    async def _within_limit(self, acting: "Deferred[Reply]") -> Reply:
        if self._limits.answer_seconds is not None:
            acting.addTimeout(self._limits.answer_seconds, self._clock)
        try:
            return await acting
        except (DeferredTimeoutError, CancelledError):
            raise Busy("The server could not answer in time: try again soon") from None

    def _error(self, route: Route | None, error: IdentityError) -> Reply:
        if isinstance(error, LimitExceeded) and error.budget is not None:
            self._log.limited(error.budget)
        if route is not None and route.page and self._pages is not None:
            try:
                return self._pages.failed(error, route.page)
            except Exception:  # noqa: BLE001 - the caller is to hear of the error all the same
                _log.failure("the page that tells of an error cannot be made")
        return error_reply(error)


def _read(route: Route, opened: OpenRequest, body: bytes) -> Any:  # noqa: ANN401 - the route's model
    if route.model is Nothing:
        return Nothing()
    head = opened.head
    if route.params is Params.RAW:
        return parse(route.model, {"body": body})
    if route.params is Params.BODY:
        return parse(route.model, body_params(body, head.content_type))
    query = form_params(head.query, "query")
    if route.params is Params.ANYWHERE:
        return parse(route.model, {**query, **body_params(body, head.content_type)})
    return parse(route.model, {**query, **opened.path_params})
