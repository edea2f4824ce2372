"""Requests to homeservers by name: found, asked and answered within one time limit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode

import orjson
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sydentish.domain.errors import HomeserverError, HomeserverTimeout
from sydentish.federation.agent import Exchange, RawAnswer, Request
from sydentish.federation.discovery import NoRoute, Route
from sydentish.outgoing import TIMED_OUT, explain
from sydentish.waiting import within

_MAX_ANSWER = 64 * 1024
_ERRCODE = re.compile(r"[A-Za-z0-9_.]{1,64}")

_log = Logger()


class Routes(Protocol):
    """Finds the route to a homeserver."""

    async def route(self, server_name: str) -> Route:
        """How to reach `server_name`; raises `NoRoute` when there is no way."""


class ExchangeFailed(Exception):
    """No answer came.

    Attributes:
        reason: what went wrong, without addresses, URLs or secrets.
        timed_out: whether it was the time limit.
    """

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Answer:
    """What a homeserver answered.

    Attributes:
        status: the HTTP status.
        body: the JSON object of the body, or None when the body is something else.
    """

    status: int
    body: dict[str, object] | None = field(default=None, repr=False)

    @property
    def errcode(self) -> str | None:
        """The Matrix error code, when there is one that looks like one."""
        code = None if self.body is None else self.body.get("errcode")
        return code if isinstance(code, str) and _ERRCODE.fullmatch(code) else None


class HomeserverClient:
    """Asks homeservers; redirects are answers, not followed."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        routes: Routes,
        exchange: Exchange,
        time_limit: float,
        max_bytes: int = _MAX_ANSWER,
    ) -> None:
        """Takes what it uses.

        Args:
            clock: for the time limit.
            routes: finds homeservers.
            exchange: sends requests.
            time_limit: seconds for everything: discovery, connecting, headers and body.
            max_bytes: how large the body of an answer may be.
        """
        self._clock = clock
        self._routes = routes
        self._exchange = exchange
        self._time_limit = time_limit
        self._max_bytes = max_bytes

    async def request(
        self,
        method: str,
        server_name: str,
        path: str,
        query: Mapping[str, str] | None = None,
        json_body: bytes | None = None,
    ) -> Answer:
        """As `attempt`, with domain errors.

        Raises:
            HomeserverError: it cannot be found, reached or understood.
            HomeserverTimeout: it did not answer in time.
        """
        try:
            return await self.attempt(method, server_name, path, query, json_body)
        except ExchangeFailed as failed:
            if failed.timed_out:
                raise HomeserverTimeout("The homeserver did not answer in time") from None
            # Anybody may make us ask any name: what exactly is wrong there would make us a scanner of networks.
            _log.info(
                "{server_name} could not be asked: {reason}", server_name=server_name, reason=failed.reason
            )
            raise HomeserverError(
                "The homeserver cannot be reached, or does not answer as a homeserver does"
            ) from None

    async def attempt(
        self,
        method: str,
        server_name: str,
        path: str,
        query: Mapping[str, str] | None = None,
        json_body: bytes | None = None,
    ) -> Answer:
        """Sends one request to `server_name`, within the time limit.

        Args:
            method: the HTTP method.
            server_name: the homeserver.
            path: encoded, from `/_matrix` on.
            query: not encoded.
            json_body: sent as it is, with `Content-Type: application/json`.

        Raises:
            ExchangeFailed: no usable HTTP answer came.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        work = self._exchanged(server_name, Request(method, target, json_body))
        try:
            return _answer(await within(self._time_limit, self._clock, work))
        except CancelledError:
            raise
        except NoRoute as error:
            raise ExchangeFailed(error.reason) from None
        except DeferredTimeoutError:
            raise ExchangeFailed(TIMED_OUT, timed_out=True) from None
        except Exception as error:  # noqa: BLE001 - the network, OpenSSL and HTTP fail in many ways
            # Without its cause: that may show the URL, and with it a token.
            reason = explain(error)
            raise ExchangeFailed(reason, timed_out=reason == TIMED_OUT) from None

    async def _exchanged(self, server_name: str, request: Request) -> RawAnswer:
        route = await self._routes.route(server_name)
        return await self._exchange(route, request, self._max_bytes)


def _answer(raw: RawAnswer) -> Answer:
    try:
        body = orjson.loads(raw.body)
    except ValueError:
        body = None
    return Answer(raw.status, body if isinstance(body, dict) else None)
