"""The peers, each by a real connection."""

from sydentish.cli.doctor.findings import Finding, failed, ok
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.domain.peers import Peer
from sydentish.parts.replication import make_trial
from sydentish.parts.world import World
from sydentish.replication.tls import PeerTls


async def peer_findings(
    config: Config, world: World, keys: KeyRing, tls: PeerTls, peer: Peer
) -> list[Finding]:
    """What `sydentish peers test` finds, in short: what is wrong, or that nothing is.

    Args:
        config: what the operator has chosen.
        world: time and sockets.
        keys: ours.
        tls: our certificate.
        peer: is tried.
    """
    check = f"peer {peer.name}"
    steps = await make_trial(config, world, keys=keys, tls=tls).run(peer)
    wrong = [step for step in steps if not step.ok]
    if wrong:
        return [failed(check, step.told, step.remedy) for step in wrong]
    clock = next((step.told for step in steps if step.step == "clock"), None)
    return [ok(check, f"is reached, and knows us{'' if clock is None else f'; {clock}'}")]
