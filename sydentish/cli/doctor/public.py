"""The server itself, and its public URL: whether it runs, is reached, and is this one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from sydentish.cli.doctor.asking import SECONDS, Asker, any_certificate, endpoint_to, parts_of
from sydentish.cli.doctor.certificates import Inspector, look_at_certificate
from sydentish.cli.doctor.clocks import Clocks
from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.cli.doctor.identity import API, Verdict, who_answers
from sydentish.cli.doctor.proxy import Proxy
from sydentish.cli.doctor.together import all_findings, side_by_side
from sydentish.config import Config, endpoints
from sydentish.config.suspicions import is_behind_unknown_proxy
from sydentish.domain.ids import parse_server_name
from sydentish.domain.keys import KeyRing
from sydentish.parts.world import World

_ONE_SOURCE = "[http] trusted_proxies is not set, so that all clients count as one source where budgets go by the address"


class PublicUrl:
    """Looks at the running server, from near and from afar.

    Args:
        config: what the operator has chosen.
        world: time and sockets.
        keys: ours.
        clocks: hear what time it is elsewhere.
        ca_file: the authorities (PEM) to trust for the certificate of the public URL; None for those of the system.
        seconds: how long one answer may take.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        *,
        keys: KeyRing,
        clocks: Clocks,
        ca_file: Path | None,
        seconds: float = SECONDS,
    ) -> None:
        self._config = config
        self._world = world
        self._keys = keys
        self._clocks = clocks
        self._ca_file = ca_file
        self._seconds = seconds
        self._url = config.general.public_base_url.rstrip("/")

    async def findings(self) -> list[Finding]:
        """All that is found; where the server does not run, little more than that."""
        asker = Asker(self._world, f"{self._url}{API}", seconds=self._seconds)
        listeners = [each for each in self._config.http.listeners if _can_be_tried(each)]
        near = [who_answers(self._near(each), self._keys) for each in listeners]
        public, *verdicts = await side_by_side([who_answers(asker, self._keys), *near])
        if listeners and not public.is_us and not any(verdict.answer for verdict in verdicts):
            return self._not_running(listeners, public)
        found = _server(dict(zip(listeners, verdicts, strict=True)))
        found += self._untried(runs=public.is_us or any(verdict.is_us for verdict in verdicts))
        if not public.is_us:
            return [*found, self._not_us(public), *await self._certificate()]
        if public.answer is not None:
            self._clocks.note(
                self._url, public.answer.headers, public.answer.sent_ms, public.answer.received_ms
            )
        found.append(ok("public URL", f"{self._url} is reached, and is this server"))
        proxy = Proxy(asker, self._keys, self._config.http.lookup_body_limit)
        rest = await all_findings([self._certificate(), proxy.findings()])
        return [*found, *rest, *self._hints()]

    def _near(self, listener: str) -> Asker:
        endpoint = self._endpoint(listener)
        return Asker(self._world, f"http://localhost{API}", endpoint, seconds=self._seconds)

    def _endpoint(self, listener: str) -> IStreamClientEndpoint:
        if endpoints.is_unix(listener):
            return UNIXClientEndpoint(self._world.reactor, str(endpoints.socket_path(listener)), SECONDS)
        host, port = endpoints.address(listener)
        tls = any_certificate(host) if endpoints.has_tls(listener) else None
        return endpoint_to(self._world, host, port, tls)

    def _untried(self, *, runs: bool) -> list[Finding]:
        left = [each for each in self._config.http.listeners if not _can_be_tried(each)]
        if not left:
            return []
        told = f"not tried from here: {', '.join(f'{each} ({_why_untried(each)})' for each in left)}"
        if runs:
            return [ok("server", told)]
        remedy = "does it run? systemctl status 'sydentish*.socket' sydentish"
        return [warning("server", told, remedy)]

    def _not_running(self, listeners: Iterable[str], public: Verdict) -> list[Finding]:
        told = f"does not run, or hangs: it does not answer at {', '.join(listeners)}"
        remedy = "start it: systemctl start sydentish, or sydentish serve; what needs it was not looked at"
        found = [failed("server", told, remedy)]
        return found if public.silent else [*found, self._not_us(public)]

    def _not_us(self, public: Verdict) -> Finding:
        return failed("public URL", f"{self._url}: {public.told}", public.remedy)

    async def _certificate(self) -> list[Finding]:
        scheme, host, port = parts_of(self._url)
        if scheme == "http":
            remedy = "let a reverse proxy add TLS, unless this is a test"
            return [warning("certificate", "there is none to look at: the public URL is plain http", remedy)]
        inspector = Inspector(host, self._ca_file)
        endpoint = endpoint_to(self._world, host, port, inspector)
        return await look_at_certificate(self._world, "certificate", inspector, endpoint)

    def _hints(self) -> list[Finding]:
        found = [_names(self._config)]
        # With telephone numbers there is a warning about the configuration.
        if is_behind_unknown_proxy(self._config) and not self._config.sms.gateways:
            remedy = "name the proxy there, and have it send X-Forwarded-For"
            found.append(warning("client address", _ONE_SOURCE, remedy))
        return found


def _can_be_tried(listener: str) -> bool:
    """Whether it is known where to connect to."""
    if endpoints.inherited(listener) is not None:
        return False
    return endpoints.is_unix(listener) or bool(endpoints.address(listener)[1])


def _why_untried(listener: str) -> str:
    if endpoints.inherited(listener) is not None:
        return "the socket is systemd's, which knows where it listens"
    return "its port is another one at each start"


def _server(near: Mapping[str, Verdict]) -> list[Finding]:
    reached = [listener for listener, verdict in near.items() if verdict.is_us]
    found = [ok("server", f"runs, and answers at {' and '.join(reached)}")] if reached else []
    # Else it may run on another machine, or in a container.
    judge = failed if reached else warning
    for listener, verdict in near.items():
        if verdict.answer is not None and not verdict.is_us:
            remedy = "does another program listen there? Else have the server read its keys again: systemctl reload sydentish"
            found.append(failed("server", f"at {listener}: {verdict.told}", remedy))
        elif not verdict.is_us:
            told = f"does not answer on this machine at {listener}: {verdict.told}"
            found.append(judge("server", told, "was it restarted since [http] listeners was changed?"))
    return found


def _names(config: Config) -> Finding:
    general = config.general
    public = parse_server_name(urlsplit(general.public_base_url).netloc).host
    names = list(dict.fromkeys([general.server_name, *general.server_name_aliases, public]))
    told = f"homeservers may call this server {', '.join(names)}"
    hosts = {parse_server_name(name).host for name in (general.server_name, *general.server_name_aliases)}
    related = any(public == host or public.endswith(f".{host}") for host in hosts)
    if related:
        return ok("server name", told)
    remedy = "is server_name right? A former name, or another one, goes into [general] server_name_aliases"
    return warning("server name", f"{told}: the name and the public URL have nothing in common", remedy)
