"""The composition root: makes each part once, and gives it what it uses, by name.

To read `build` is to read the architecture. This is the only file that knows all parts.
"""

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import gatherResults

from sydentish.actions.accounts import Gate
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.federation.openid import OpenId
from sydentish.lifecycle import Listener, Ordered
from sydentish.logs import LogFile
from sydentish.metrics import Metrics
from sydentish.parts.answering import Web, public_admission, request_recorder
from sydentish.parts.deeds import DeedMaker, Deeds, make_budgets, make_statements
from sydentish.parts.gateways import sms_sender
from sydentish.parts.homeservers import make_homeservers, make_proofs
from sydentish.parts.outboxes import invite_outbox, onbind_outbox
from sydentish.parts.people import checked_templates, email_sender
from sydentish.parts.replication import make_replication
from sydentish.parts.store import database, peppers
from sydentish.parts.world import make_world


class App(Ordered):
    """The whole server."""

    def __init__(self, services: Sequence[Any], listeners: Sequence[Listener]) -> None:
        MultiService.__init__(self)
        self.listeners = listeners
        # Unlike the rest, listeners stop side by side: their requests have the same time to finish.
        together = MultiService()
        for listener in listeners:
            Service.setServiceParent(listener, together)
        for service in (*services, together):
            service.setServiceParent(self)

    async def listening(self) -> None:
        """Returns once every listener listens; raises the reason if one cannot."""
        await gatherResults([listener.listening for listener in self.listeners], consumeErrors=True)


def build(config: Config, keys: KeyRing, reactor: Any, log: LogFile, connections: int | None) -> App:  # noqa: ANN401 - several interfaces
    """Makes the server, which listens once it is started.

    Args:
        config: what the operator has chosen.
        keys: what it signs with.
        reactor: time, threads and sockets.
        log: where the lines of requests go.
        connections: how many connections each listener holds; None for any number.

    Raises:
        TemplateProblem, GatewayProblem, ListenerProblem, TlsProblem: one of these cannot be used.
    """
    world = make_world(reactor)
    metrics = Metrics()
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
    codes = sms_sender(config, world, templates, metrics)
    verifier, proofs = OpenId(homeservers), make_proofs(config, world, homeservers)
    make = DeedMaker(config=config, world=world, db=db, gate=gate, budgets=budgets, keys=keys)
    deeds = Deeds(
        accounts=make.accounts(verifier, onbinds),
        associations=make.associations(statements, onbinds.wake, replication.wake),
        invites=make.invites(mails, metrics),
        keys=make.public_keys(),
        lookup=make.lookup(onbinds),
        terms=make.terms(),
        validation=make.validation(mailer, codes),
    )
    admission = public_admission(config, world, budgets=budgets, db=db, gate=gate, proofs=proofs)
    web = Web(config, world, request_recorder(config, log, metrics), connections)
    listeners = [*web.public(deeds, admission, templates), *web.internal(deeds)]
    listeners += [*web.metrics(db, metrics), *replication.listeners(web)]
    return App([db, peppers(config, world, db), onbinds, mails, *replication.services], listeners)
