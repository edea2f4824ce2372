"""HTTP to a peer: one connection for each request, nothing followed or remembered, answers bounded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.http_headers import Headers

from sydentish.domain.peers import PUSH_PATH, Accepted, Failed, FailureKind, Outcome, Peer, Refused
from sydentish.domain.statements import read_origin_id
from sydentish.outgoing import exchange
from sydentish.replication.tls import PeerTls
from sydentish.replication.troubles import why
from sydentish.waiting import within

_OK = 200
_BAD_REQUEST = 400
_FORBIDDEN = 403
_NOT_FOUND = 404
_TOO_LARGE = 413
_MOST_FAILED_IDS = 10_000
_LONGEST_REASON = 200
_HTTPS = 443
_ERRCODE = re.compile(r"[A-Za-z0-9_.]{1,64}")
_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class LinkFailed(Exception):
    """A peer has given no answer.

    Attributes:
        kind: in one word, see `Failed`.
        reason: what went wrong, for the operator; without secrets.
    """

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer answered.

    Attributes:
        status: the HTTP status.
        body: the JSON object of the body, or None when the body is something else.
        date_ms: the time of the answer by the clock of the peer, in ms; None where it does not tell.
    """

    status: int
    body: Mapping[str, object] | None = field(default=None, repr=False)
    date_ms: int | None = None

    @property
    def errcode(self) -> str | None:
        """The Matrix error code, when there is one that looks like one."""
        code = None if self.body is None else self.body.get("errcode")
        return code if isinstance(code, str) and _ERRCODE.fullmatch(code) else None


class Link(Protocol):
    """The way to peers, as far as pushes go."""

    async def push(self, peer: Peer, body: bytes) -> Outcome:
        """Pushes once, within its own time limit. Whatever goes wrong is an outcome, not an exception."""


class PeerLink:
    """Asks peers; redirects are answers, not followed.

    Args:
        reactor: resolves names, connects and keeps the time.
        tls: our certificate, and whose certificates we trust.
        time_limit: seconds for everything: resolving, connecting, sending and the whole answer.
        connect_limit: seconds for one attempt to connect.
        max_bytes: how large the body of an answer may be.
        user_agent: the value of `User-Agent`.
    """

    def __init__(
        self,
        *,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        tls: PeerTls,
        time_limit: float,
        connect_limit: float,
        max_bytes: int,
        user_agent: str,
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._time_limit = time_limit
        self._connect_limit = connect_limit
        self._max_bytes = max_bytes
        self._user_agent = user_agent

    async def push(self, peer: Peer, body: bytes) -> Outcome:
        """Posts statements to a peer; what it makes of them.

        Args:
            peer: whom to tell.
            body: a JSON object, `{"sgAssocs": {"<origin id>": <signed association>}}`.
        """
        try:
            answer = await self.ask(peer, PUSH_PATH, body)
        except LinkFailed as failed:
            return Failed(failed.kind, failed.reason)
        return outcome_of(answer, self._tls.certificate_names)

    async def ask(self, peer: Peer, path: str, body: bytes) -> Answer:
        """Posts a JSON text. When this returns or raises, its connection is closed.

        Args:
            peer: whom to ask.
            path: encoded, from the first slash on.
            body: a JSON text; sent as it is.

        Raises:
            LinkFailed: there is no usable answer.
        """
        try:
            return await within(self._time_limit, self._reactor, self._ask(peer, path, body))
        except (CancelledError, LinkFailed):
            raise
        except Exception as error:  # noqa: BLE001 - the network, OpenSSL and HTTP fail in many ways
            raise LinkFailed(*why(error)) from None

    async def _ask(self, peer: Peer, path: str, body: bytes) -> Answer:
        response, content = await exchange(
            self._reactor,
            self.endpoint(peer),
            self._max_bytes,
            method="POST",
            url=f"{peer.url}{path}",
            headers=self._headers(),
            body=body,
        )
        return Answer(response.code, _json_object(content), date_ms(response.headers))

    def endpoint(self, peer: Peer) -> IStreamClientEndpoint:
        """Connects to a peer, by TLS; what it then fails with, `why` explains.

        Raises:
            LinkFailed: its URL cannot be used.
        """
        try:
            parts = urlsplit(peer.url)
            creator = self._tls.client(peer)
            port = parts.port or _HTTPS
        except ValueError:
            raise LinkFailed("unreachable", "its URL is not one of https") from None
        plain = HostnameEndpoint(self._reactor, parts.hostname or "", port, self._connect_limit)
        return wrapClientTLS(creator, plain)

    def _headers(self) -> Headers:
        headers = Headers({"User-Agent": [self._user_agent], "Accept": ["application/json"]})
        # Nothing that unpacks to more than it was.
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        # Exactly this: Sydent takes no other.
        headers.setRawHeaders("Content-Type", ["application/json"])
        return headers


def is_answer_of_sydent(answer: Answer) -> bool:
    """Whether it is what a Sydent answers to a question that it does not know: a 404 that is a page, not JSON."""
    return answer.status == _NOT_FOUND and answer.body is None


def outcome_of(answer: Answer, certificate_names: Sequence[str]) -> Outcome:
    """What a peer makes of what was pushed.

    Args:
        answer: what it answered.
        certificate_names: the names that our certificate is for.
    """
    body = answer.body or {}
    if answer.status == _OK:
        if body.get("success") is True:
            return Accepted()
        return Failed("answer", "HTTP 200, but its body is not that of a success")
    ids = body.get("failed_ids")
    if answer.status == _BAD_REQUEST and answer.errcode == "M_VERIFICATION_FAILED" and isinstance(ids, list):
        return Refused(_origin_ids(ids), _told(body.get("error")))
    if answer.status == _FORBIDDEN and answer.errcode == "M_UNKNOWN_PEER":
        names = ", ".join(certificate_names) or "nobody"
        return Failed("unknown_peer", f"it knows no peer with our certificate, which is for {names}")
    if answer.status == _TOO_LARGE or (answer.status == _BAD_REQUEST and answer.errcode == "M_INVALID_PARAM"):
        return Failed("too_large", f"it takes no pushes of this size: {_told(body.get('error'))}")
    code = f" {answer.errcode}" if answer.errcode else ""
    return Failed("status", f"HTTP {answer.status}{code}")


def _origin_ids(ids: list[object]) -> frozenset[int]:
    """Those that can be read; Sydent has had them as texts, others may have numbers."""
    found = set()
    for each in islice(ids, _MOST_FAILED_IDS):
        if isinstance(each, str | int) and not isinstance(each, bool):
            try:
                found.add(read_origin_id(str(each)))
            except ValueError:
                continue
    return frozenset(found)


def _told(error: object) -> str:
    text = error if isinstance(error, str) else ""
    shown = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_REASON]).strip()
    return shown or "it does not say why"


def _json_object(content: bytes) -> Mapping[str, object] | None:
    try:
        value = orjson.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def date_ms(headers: Headers) -> int | None:
    """The time that an answer tells, in ms; None where it tells none."""
    (told,) = headers.getRawHeaders("Date", [""])[:1]
    try:
        return int(datetime.strptime(told, _DATE).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None
