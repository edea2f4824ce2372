"""The composition root: makes each part once, and gives it what it uses, by name.

To read `build` is to read the architecture. This is the only file that knows all parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import gatherResults

from sydentish.actions.accounts import Gate
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.federation.openid import OpenId
from sydentish.lifecycle import Listener, Ordered, Stage
from sydentish.logs import LogFile
from sydentish.metrics import Metrics
from sydentish.parts.answering import Web, public_admission, request_recorder
from sydentish.parts.deeds import DeedMaker, Senders, make_budgets, make_statements
from sydentish.parts.gateways import sms_sender
from sydentish.parts.homeservers import make_homeservers, make_proofs
from sydentish.parts.keeping import keepers
from sydentish.parts.outboxes import invite_outbox, onbind_outbox
from sydentish.parts.people import checked_templates, email_sender
from sydentish.parts.reloading import Changeable, Reloading
from sydentish.parts.replication import make_replication
from sydentish.parts.store import database, watchdog
from sydentish.parts.watching import Watching
from sydentish.parts.world import make_world
from sydentish.supervision.manager import Manager


class App(Ordered):
    """The whole server.

    Args:
        services: what works, in the order in which it starts.
        listeners: where requests come from.
        watched: where those come from who watch the server; they are answered until nothing else is left of it.
        stage: shows how far it is.
        reloading: takes up what was changed while it runs.
    """

    def __init__(
        self,
        services: Sequence[Any],
        listeners: Sequence[Listener],
        watched: Sequence[Listener],
        *,
        stage: Stage,
        reloading: Reloading,
    ) -> None:
        MultiService.__init__(self)
        self.listeners = (*listeners, *watched)
        self.stage = stage
        self.reloading = reloading
        for service in (_together(watched), *services, _together(listeners)):
            service.setServiceParent(self)

    async def listening(self) -> None:
        """Returns once every listener listens; raises the reason if one cannot."""
        await gatherResults([listener.listening for listener in self.listeners], consumeErrors=True)
        self.stage.name = "ready"

    async def stopService(self) -> None:
        """See `Ordered`."""
        self.stage.name = "stopping"
        await super().stopService()


def _together(listeners: Sequence[Listener]) -> MultiService:
    """Unlike the rest, listeners stop side by side: their requests have the same time to finish."""
    together = MultiService()
    for listener in listeners:
        Service.setServiceParent(listener, together)
    return together


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is around the server.

    Attributes:
        reactor: time, threads and sockets.
        log: where lines go.
        connections: how many connections each public listener holds; None for any number.
        manager: who has started it.
    """

    reactor: Any
    log: LogFile
    connections: int | None
    manager: Manager = field(default_factory=Manager)


def build(config: Config, keys: KeyRing, outside: Outside) -> App:
    """Makes the server, which listens once it is started.

    Args:
        config: what the operator has chosen.
        keys: what it signs with.
        outside: what is around it.

    Raises:
        TemplateProblem, GatewayProblem, ListenerProblem, TlsProblem: one of these cannot be used.
    """
    world = make_world(outside.reactor, outside.manager.sockets)
    metrics, stage = Metrics(), Stage()
    db = database(config, world)
    homeservers = make_homeservers(config, world)
    onbinds = onbind_outbox(config, world, db, homeservers, metrics)
    statements = make_statements(config, world, keys)
    replication = make_replication(
        config, world, db=db, keys=keys, statements=statements, on_taken=onbinds.wake, metrics=metrics
    )
    gate = Gate(db=db, terms=config.policies, now_ms=world.now_ms)
    budgets = make_budgets(config)
    templates = checked_templates(config)
    mailer = email_sender(config, world, templates, metrics)
    mails = invite_outbox(config, world, db, mailer, metrics)
    proofs = make_proofs(config, world, homeservers)
    senders = Senders(mailer, sms_sender(config, world, templates, metrics), mails, onbinds)
    make = DeedMaker(config, world, db=db, gate=gate, budgets=budgets, keys=keys, metrics=metrics)
    deeds = make.all(statements, OpenId(homeservers), senders, on_stated=replication.wake)
    admission = public_admission(config, world, budgets=budgets, db=db, gate=gate, proofs=proofs)
    recorder = request_recorder(config, outside.log, metrics)
    web = Web(config, world, recorder, outside.connections)
    listeners = [*web.public(deeds, admission, templates), *web.internal(deeds), *replication.listeners(web)]
    watching = Watching(config, world, db=db, keys=keys, log=outside.log, stage=stage, metrics=metrics)
    watched = watching.listeners(web, replication)
    shared = Changeable(web.endpoints, gate, keys, outside.log, recorder, replication, templates, deeds.terms)
    reloading = Reloading(config, shared, world.reactor)
    services = [
        db,
        *watchdog(outside.manager, world, db),
        *keepers(config, world, db, metrics),
        onbinds,
        mails,
    ]
    return App([*services, *replication.services], listeners, watched, stage=stage, reloading=reloading)
