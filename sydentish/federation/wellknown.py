"""Delegation by `https://<host>/.well-known/matrix/server`, fetched with care and cached.

Server-Server API, "Resolving server names", step 3, and `GET /.well-known/matrix/server`.
"""

from collections import OrderedDict
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urljoin, urlsplit

import orjson
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from sydentish.domain.ids import ServerName, parse_server_name
from sydentish.federation.agent import Exchange, RawAnswer, Request
from sydentish.federation.discovery import direct_route
from sydentish.waiting import SharedWork, within

_HTTPS_PORT = 443
_MAX_BODY = 51_200
_MAX_REDIRECTS = 5
_OK = 200
_REDIRECTS = (301, 302, 303, 307, 308)

_DEFAULT_SECONDS = 24 * 3600
_MAX_SECONDS = 48 * 3600
# Also what "do not cache" means: a server may not make us fetch its file for each request.
_MIN_SECONDS = 300
_FIRST_ERROR_SECONDS = 60
_MAX_ERROR_SECONDS = 3600
_MAX_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class _Entry:
    delegated: ServerName | None
    expires: float
    failures: int


@dataclass(frozen=True, slots=True)
class _Found:
    delegated: ServerName
    seconds: float


def cache_seconds(headers: Headers, now: float) -> float:
    """How long an answer with these headers may be kept.

    Args:
        headers: of the answer; `Cache-Control` wins over `Expires` (RFC 9111 section 4.2.1).
        now: seconds since 1970, used when there is no usable `Date`.

    Returns:
        Seconds, from 5 minutes to 48 hours; 24 hours when the headers say nothing.
    """
    return min(max(_stated_seconds(headers, now), _MIN_SECONDS), _MAX_SECONDS)


def _stated_seconds(headers: Headers, now: float) -> float:
    directives = _cache_directives(headers)
    if "no-store" in directives or "no-cache" in directives:
        return 0
    if "max-age" in directives:
        age = directives["max-age"].strip('"')
        # The cut keeps absurd numbers from being computed with; the bounds above do the rest.
        return float(age[:10]) if age.isascii() and age.isdigit() else 0
    expires = _values(headers, "Expires")
    if not expires:
        return _DEFAULT_SECONDS
    ends, begins = _timestamp(expires[0]), _timestamp(*_values(headers, "Date")[:1])
    # "0" and other invalid dates are in the past (RFC 9111 section 5.3).
    return 0 if ends is None else ends - (now if begins is None else begins)


def _cache_directives(headers: Headers) -> dict[str, str]:
    directives: dict[str, str] = {}
    for part in ",".join(_values(headers, "Cache-Control")).split(","):
        name, _, value = part.strip().partition("=")
        directives.setdefault(name.strip().lower(), value.strip())
    return directives


def _values(headers: Headers, name: str) -> list[str]:
    # Whatever bytes a server sends there.
    return [value.decode("latin-1") for value in headers.getRawHeaders(name.encode("ascii"), [])]


def _timestamp(date: str = "") -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


class WellKnown:
    """Knows to which server name a host delegates."""

    def __init__(
        self, *, clock: IReactorTime, exchange: Exchange, time_limit: float, max_entries: int = 10_000
    ) -> None:
        """Takes what it uses.

        Args:
            clock: seconds since 1970, and the time limit.
            exchange: sends requests, with verified TLS and filtered addresses.
            time_limit: seconds that fetching may take, redirects included.
            max_entries: how many hosts are remembered.
        """
        self._clock = clock
        self._exchange = exchange
        self._time_limit = time_limit
        self._max_entries = max_entries
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._fetches: SharedWork[str, ServerName | None] = SharedWork()

    async def delegated(self, host: str) -> ServerName | None:
        """The server name that `host`, a DNS name in lower case, delegates to; None when it does not.

        Any error means that it does not, as the specification has it.
        """
        entry = self._entries.get(host)
        if entry is not None and self._clock.seconds() < entry.expires:
            self._entries.move_to_end(host)
            return entry.delegated
        return await self._fetches.result(host, lambda: self._refresh(host))

    async def _refresh(self, host: str) -> ServerName | None:
        try:
            found = await within(self._time_limit, self._clock, self._fetch(host))
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - every error means the same
            self._remember_failure(host)
            return None
        self._remember(host, found.delegated, found.seconds, failures=0)
        return found.delegated

    async def _fetch(self, host: str) -> _Found:
        location = f"https://{host}/.well-known/matrix/server"
        for _ in range(_MAX_REDIRECTS + 1):
            answer = await self._get(location)
            if answer.status not in _REDIRECTS:
                return _Found(_delegation(answer), cache_seconds(answer.headers, self._clock.seconds()))
            (target,) = _values(answer.headers, "Location")
            location = urljoin(location, target)
        raise ValueError("too many redirects")

    async def _get(self, location: str) -> RawAnswer:
        url = urlsplit(location)
        if url.scheme != "https":
            raise ValueError("a redirect must lead to https")
        # Refuses, among others, a user name before the host.
        route = direct_route(parse_server_name(url.netloc), _HTTPS_PORT)
        return await self._exchange(route, Request("GET", _path_of(url)), _MAX_BODY)

    def _remember_failure(self, host: str) -> None:
        earlier = self._entries.get(host)
        failures = 0 if earlier is None else earlier.failures
        seconds = _FIRST_ERROR_SECONDS * 2 ** min(failures, _MAX_DOUBLINGS)
        self._remember(host, None, min(seconds, _MAX_ERROR_SECONDS), failures + 1)

    def _remember(self, host: str, delegated: ServerName | None, seconds: float, failures: int) -> None:
        self._entries[host] = _Entry(delegated, self._clock.seconds() + seconds, failures)
        self._entries.move_to_end(host)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def _path_of(url: SplitResult) -> str:
    path = url.path or "/"
    return f"{path}?{url.query}" if url.query else path


def _delegation(answer: RawAnswer) -> ServerName:
    if answer.status != _OK:
        raise ValueError(f"status {answer.status}")
    body = orjson.loads(answer.body)
    if not isinstance(body, dict) or not isinstance(body.get("m.server"), str):
        raise ValueError("m.server must be a string")  # noqa: TRY004 - their value, not our type
    return parse_server_name(body["m.server"])
