"""All checks: which there are, side by side, each within its time."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError

from sydentish.cli.doctor.clocks import Clocks
from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.cli.doctor.homeservers import Homeservers
from sydentish.cli.doctor.machine import Setup, key_findings, look_at_database
from sydentish.cli.doctor.peers import peer_findings
from sydentish.cli.doctor.public import PublicUrl
from sydentish.cli.doctor.senders import gateway_findings, mail_findings
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import Peer
from sydentish.parts.replication import peer_tls
from sydentish.parts.world import World
from sydentish.replication.credentials import TlsProblem
from sydentish.waiting import within

_SECONDS = 45.0
_MOST_HOMESERVERS = 10

Work = Coroutine[Any, Any, list[Finding]]


class Examination:
    """Examines a server.

    Args:
        config: what the operator has chosen.
        setup: what was found about that.
        keys: ours; None where they cannot be read.
        homeservers: those to try; if none, those that [homeservers] allow names.
        ca_file: the authorities (PEM) to trust for the public URL; None for those of the system.
        show: hears of every finding as soon as those before it are there, too.
        seconds: how long each check may take, whatever its own limits are.
    """

    def __init__(
        self,
        config: Config,
        setup: Setup,
        keys: KeyRing | None,
        *,
        homeservers: Sequence[str],
        ca_file: Path | None,
        show: Callable[[Finding], None],
        seconds: float = _SECONDS,
    ) -> None:
        self._config = config
        self._setup = setup
        self._keys = keys
        self._homeservers = homeservers
        self._ca_file = ca_file
        self._show = show
        self._seconds = seconds
        self._clocks = Clocks()
        self._findings: list[Finding] = []

    async def run(self, world: World) -> list[Finding]:
        """All findings, in an order that does not depend on who answers first."""
        self._take(self._setup.findings)
        peers = {peer.name: peer for peer in self._config.peers}
        database = self._config.database.path
        if not self._setup.is_told_of(database) and not self._setup.is_told_of(database.parent):
            found, known = await look_at_database(self._config, world)
            self._take(found)
            peers |= {peer.name: peer for peer in known if peer.name not in peers}
        running = [
            (check, Deferred.fromCoroutine(within(self._seconds, world.reactor, work)))
            for check, work in self._works(world, list(peers.values()))
        ]
        for check, findings in running:
            self._take(await self._settled(check, findings))
        self._take(self._clocks.findings(world.now_ms()))
        return self._findings

    async def _settled(self, check: str, findings: Deferred[list[Finding]]) -> list[Finding]:
        try:
            return await findings
        except DeferredTimeoutError:
            told = f"there is no result after {self._seconds:g} s"
            return [failed(check, told, "who is asked there answers too slowly: look into its log")]

    def _take(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._findings.append(finding)
            self._show(finding)

    def _works(self, world: World, peers: Sequence[Peer]) -> Iterator[tuple[str, Work]]:
        config = self._config
        if self._keys is not None:
            self._take(key_findings(config, self._keys))
            yield "public URL", self._public(world, self._keys)
        yield from self._homeserver_works(world)
        yield "mail relay", mail_findings(config, world)
        if not config.sms_gateways:
            yield "SMS gateway", _only(ok("SMS gateway", "none is set: no telephone numbers are validated"))
        for gateway in config.sms_gateways:
            yield f"SMS gateway {gateway.name}", gateway_findings(world, gateway)
        yield from self._peer_works(world, peers)

    def _public(self, world: World, keys: KeyRing) -> Work:
        return PublicUrl(
            self._config, world, keys=keys, clocks=self._clocks, ca_file=self._ca_file
        ).findings()

    def _homeserver_works(self, world: World) -> Iterator[tuple[str, Work]]:
        allowed = [name for name in self._config.homeservers.allow if not name.startswith("*.")]
        names = list(self._homeservers or allowed[:_MOST_HOMESERVERS])
        if not names:
            told = "none was named, so none was tried"
            yield (
                "homeserver",
                _only(warning("homeserver", told, "try the one of your users: --homeserver NAME")),
            )
            return
        examiner = Homeservers(self._config, world, self._clocks)
        for name in names:
            yield f"homeserver {name}", examiner.findings(name)

    def _peer_works(self, world: World, peers: Sequence[Peer]) -> Iterator[tuple[str, Work]]:
        try:
            tls = peer_tls(self._config)
        except TlsProblem:  # is told of with the configuration
            return
        if not peers:
            yield "peers", _only(ok("peers", "there are none"))
        elif tls is None:
            told = "nothing can be exchanged: [replication] certificate_file is not set"
            yield "peers", _only(failed("peers", told, "set it, and ca_file"))
        elif self._keys is not None:
            for peer in peers:
                yield f"peer {peer.name}", peer_findings(self._config, world, self._keys, tls, peer)


async def _only(finding: Finding) -> list[Finding]:
    return [finding]
