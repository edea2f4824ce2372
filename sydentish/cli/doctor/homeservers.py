"""Homeservers, step by step as the server goes to them: found, connected to, and asked."""

from typing import Any

from twisted.internet.defer import CancelledError

from sydentish.cli.doctor.asking import json_object, quoted
from sydentish.cli.doctor.certificates import Inspector, look_at_certificate
from sydentish.cli.doctor.clocks import Clocks
from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.config import Config
from sydentish.domain.errors import Forbidden
from sydentish.federation.addresses import AddressRefused
from sydentish.federation.agent import RawAnswer, Request
from sydentish.federation.discovery import NoRoute, Route
from sydentish.federation.keyring import KEYS_PATH, read_keys
from sydentish.outgoing import NOT_ACCEPTED, explain
from sydentish.parts.homeservers import Way, homeserver_policy, make_way
from sydentish.parts.world import World
from sydentish.waiting import within

_VERSION = "/_matrix/federation/v1/version"
_USERINFO = "/_matrix/federation/v1/openid/userinfo?access_token=doctor"
_OK = 200


class _Unreached(Exception):
    """Nothing more can be asked.

    Attributes:
        findings: why.
    """

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__()
        self.findings = findings


class Homeservers:
    """Tries homeservers.

    Args:
        config: what the operator has chosen.
        world: time and sockets.
        clocks: hear what time it is elsewhere.
    """

    def __init__(self, config: Config, world: World, clocks: Clocks) -> None:
        self._config = config
        self._world = world
        self._clocks = clocks
        self._way: Way = make_way(config, world)

    async def findings(self, name: str) -> list[Finding]:
        """All that is found about one of them, up to what the rest cannot do without.

        Args:
            name: its server name, in the canonical form.
        """
        check = f"homeserver {name}"
        try:
            route = await self._way.discovery.route(name)
        except NoRoute as no:
            return [
                failed(
                    check, f"cannot be found: {no.reason}", "correct its DNS and .well-known/matrix/server"
                )
            ]
        try:
            version = await self._ask(check, route, _VERSION)
            keys = await self._ask(check, route, KEYS_PATH)
            userinfo = await self._ask(check, route, _USERINFO)
        except _Unreached as unreached:
            return unreached.findings
        told = f"is reached at {_where(name, route)}{_program(version)}"
        findings = [ok(check, told), self._keys(check, name, keys), _openid(check, userinfo)]
        return findings if self._may_register(name) else [*findings, _not_allowed(check)]

    async def _ask(self, check: str, route: Route, path: str) -> RawAnswer:
        options = self._config.homeservers
        sent_ms = self._world.now_ms()
        asking = self._way.exchange(route, Request("GET", path), options.response_limit)
        try:
            answer = await within(options.timeout / 1000, self._world.reactor, asking)
        except CancelledError:
            raise
        except AddressRefused as refused:
            raise _Unreached([_blocked(check, refused.addresses)]) from None
        except Exception as error:  # noqa: BLE001 - the network, OpenSSL and HTTP fail in many ways
            raise _Unreached(await self._why(check, route, explain(error))) from None
        self._clocks.note(check, answer.headers, sent_ms, self._world.now_ms())
        return answer

    async def _why(self, check: str, route: Route, reason: str) -> list[Finding]:
        targets = ", ".join(f"{target.host}:{target.port}" for target in route.targets)
        if reason == NOT_ACCEPTED:
            inspector = Inspector(route.tls_name, self._config.homeservers.ca_file)
            endpoint = self._way.exchange.endpoint(route, lambda _name: inspector)
            findings = await look_at_certificate(self._world, check, inspector, endpoint)
            if any(each.result == "failed" for each in findings):
                return findings
        remedy = "is it up, and its DNS right? Does a firewall here let connections out?"
        return [failed(check, f"was found at {targets}, but {reason}", remedy)]

    def _keys(self, check: str, name: str, answer: RawAnswer) -> Finding:
        document = json_object(answer.body)
        if answer.status != _OK or document is None:
            told = f"does not publish its keys: HTTP {answer.status}"
            return failed(check, told, "its federation listener must serve /_matrix/key/v2/server")
        try:
            published = read_keys(document, name, self._world.now_ms())
        except ValueError as error:
            told = f"its keys cannot be used: {error}"
            return failed(check, told, "is that its server name, as in the user IDs? Is its clock right?")
        return ok(check, f"its keys were fetched: {quoted(', '.join(published.keys))}")

    def _may_register(self, name: str) -> bool:
        try:
            homeserver_policy(self._config).check(name)
        except Forbidden:
            return False
        return True


def _blocked(check: str, addresses: tuple[str, ...]) -> Finding:
    told = f"its address is one that is never connected to: {', '.join(addresses) or 'none else'}"
    return failed(check, told, "if it is yours, put the address into [homeservers] allowed_addresses")


def _not_allowed(check: str) -> Finding:
    return warning(check, "its users may not register", "[homeservers] allow or deny says so")


def _where(name: str, route: Route) -> str:
    target = route.targets[0]
    where = f"{target.host}:{target.port}"
    if route.host_header != name:
        return f"{where}, as its .well-known/matrix/server says"
    return where if target.host == route.tls_name else f"{where}, as its SRV record says"


def _program(answer: RawAnswer) -> str:
    server: Any = (json_object(answer.body) or {}).get("server")
    told = [server.get(key) for key in ("name", "version")] if isinstance(server, dict) else []
    words = " ".join(word for word in told if isinstance(word, str))
    return f"; it is a {quoted(words)}" if words else ""


def _openid(check: str, answer: RawAnswer) -> Finding:
    document = json_object(answer.body) or {}
    if answer.status == 401 and "errcode" in document:  # noqa: PLR2004 - Server-Server API, "OpenID"
        return ok(check, "answers when it is asked who its users are, as registering needs")
    told = f"does not tell who its users are, so that none can register: HTTP {answer.status}"
    return failed(
        check, told, "its federation listener must serve openid/userinfo (Synapse: the resource openid)"
    )
