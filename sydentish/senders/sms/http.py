"""Any gateway that takes an SMS by an HTTP request, described by configuration."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime

from sydentish.senders.sms.client import GatewayAnswer, GatewayClient, GatewayRequest
from sydentish.senders.sms.fields import (
    PLACEHOLDERS,
    FieldTemplate,
    body_template,
    url_template,
    values_of,
)
from sydentish.senders.sms.gateway import GatewayError, Sms, check_originator

METHODS = ("POST", "PUT", "PATCH", "GET")
SUCCESS = frozenset(range(200, 300))

# RFC 9110 section 5.6.2.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# What belongs to the connection, to the body, or to other options.
_OURS = frozenset(
    ("host", "connection", "content-length", "content-type", "transfer-encoding", "te", "upgrade", "expect")
)


@dataclass(frozen=True, slots=True)
class HttpRules:
    """What a gateway is asked, and how its yes is known.

    Attributes:
        url: where requests go; its path and query can have placeholders, see `url_template`.
        method: one of `METHODS`.
        headers: names and values, sent as they are.
        body: can have placeholders, see `body_template`; None for none.
        content_type: of the body.
        success_statuses: the HTTP statuses that say that the SMS was taken; if empty, `SUCCESS`.
        success_pattern: a regular expression that is to be found in the first 64 KiB of the answer's body, too.
        originator: who an SMS is from where nothing is set for its country; empty where nothing is needed.
    """

    url: str = field(repr=False)
    method: str = "POST"
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: str | None = field(default=None, repr=False)
    content_type: str = "application/json"
    success_statuses: Collection[int] = SUCCESS
    success_pattern: str | re.Pattern[str] | None = None
    originator: str = ""


class HttpGateway:
    """An `SmsGateway` for a gateway that the operator describes."""

    def __init__(
        self,
        *,
        name: str,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        clock: IReactorTime,
        rules: HttpRules,
        username: str | None = None,
        password: str = "",
        ca_file: Path | None = None,
    ) -> None:
        """Checks everything, and connects to nothing yet.

        Args:
            name: how the operator calls it.
            reactor: opens connections and resolves names.
            clock: measures the limits.
            rules: what to ask.
            username: for Basic authentication (RFC 7617), or None for none.
            password: to go with it.
            ca_file: certificates (PEM) of the authorities to trust instead of those of the system.

        Raises:
            OSError: `ca_file` cannot be read.
            ValueError: something cannot be used; the message begins with its name.
        """
        self.name = name
        self._originator = rules.originator
        self._method = _method(rules)
        self._headers = _headers(rules, login=username is not None)
        self._url = _named("url", lambda: url_template(rules.url))
        self._body = _body(rules)
        self._statuses = frozenset(rules.success_statuses) or SUCCESS
        self._pattern = _pattern(rules.success_pattern)
        self._client = GatewayClient(
            reactor=reactor, clock=clock, url=rules.url, username=username, password=password, ca_file=ca_file
        )
        _check_completeness(self._url.names | (self._body.names if self._body else frozenset()))

    async def send(self, sms: Sms, time_limit: float) -> None:
        """See `SmsGateway.send`."""
        answer = await self._client.ask(self._request(sms), time_limit, self._wants_body)
        if answer.status not in self._statuses:
            raise GatewayError(f"it answered {answer.status}", temporary=answer.temporary, refused=True)
        if not self._fits(answer):
            reason = f"it answered {answer.status}, but success_pattern is not in the body"
            raise GatewayError(reason, temporary=False, refused=True)

    def _request(self, sms: Sms) -> GatewayRequest:
        values = values_of(sms) | {"originator": sms.originator or self._originator}
        body = None if self._body is None else self._body.fill(values).encode(errors="replace")
        return GatewayRequest(self._method, self._url.fill(values), self._headers, body)

    def _wants_body(self, status: int) -> bool:
        return self._pattern is not None and status in self._statuses

    def _fits(self, answer: GatewayAnswer) -> bool:
        return self._pattern is None or self._pattern.search(answer.body.decode(errors="replace")) is not None


def _method(rules: HttpRules) -> str:
    if rules.method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}")
    if rules.method == "GET" and rules.body is not None:
        raise ValueError("body: must not be set for GET")
    if rules.originator:
        check_originator(rules.originator)
    return rules.method


def _headers(rules: HttpRules, *, login: bool) -> list[tuple[str, str]]:
    for name, _ in rules.headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError("headers: the name of a header has letters, digits and -, and no blank")
        if name.lower() in _OURS:
            raise ValueError(f"headers: {name} cannot be set there")
        if login and name.lower() == "authorization":
            raise ValueError("headers: Authorization must not be set with username")
    headers = [(name, _value("headers", value)) for name, value in rules.headers]
    if rules.body is not None:
        headers.append(("Content-Type", _value("content_type", rules.content_type)))
    return headers


def _value(option: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"{option}: a header can have ASCII characters only, and none that controls")
    if any(f"{{{name}}}" in value for name in PLACEHOLDERS):
        raise ValueError(f"{option}: a header cannot have placeholders")
    return value


def _body(rules: HttpRules) -> FieldTemplate | None:
    body = rules.body
    return None if body is None else _named("body", lambda: body_template(body, rules.content_type))


def _named(option: str, make: Callable[[], FieldTemplate]) -> FieldTemplate:
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _pattern(pattern: str | re.Pattern[str] | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ValueError(f"success_pattern: is not a regular expression: {error}") from None


def _check_completeness(names: frozenset[str]) -> None:
    if "text" not in names or not names & {"destination", "destination_e164"}:
        raise ValueError(
            "url, body: {text}, and {destination} or {destination_e164}, must stand in one of them"
        )
