"""The composition root: makes each part once, and gives it what it uses, by name.

To read `build` is to read the architecture. This is the only file that knows all parts.
"""

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import gatherResults

from sydentish.actions.accounts import Gate
from sydentish.actions.keys import PublicKeys
from sydentish.actions.terms import TermsOfService
from sydentish.config import Config
from sydentish.domain.keys import KeyRing
from sydentish.federation.openid import OpenId
from sydentish.lifecycle import Listener, Ordered
from sydentish.logs import LogFile
from sydentish.metrics import Metrics
from sydentish.parts.answering import Web, public_admission, request_recorder
from sydentish.parts.deeds import (
    Deeds,
    make_accounts,
    make_associations,
    make_budgets,
    make_invites,
    make_lookup,
    make_validation,
)
from sydentish.parts.gateways import sms_sender
from sydentish.parts.homeservers import make_homeservers, make_proofs
from sydentish.parts.outboxes import invite_outbox, onbind_outbox
from sydentish.parts.people import checked_templates, email_sender
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
        TemplateProblem, GatewayProblem, ListenerProblem: one of these cannot be used.
    """
    world = make_world(reactor)
    metrics = Metrics()
    db = database(config, world)
    homeservers = make_homeservers(config, world)
    onbinds = onbind_outbox(config, world, db, homeservers, metrics)
    gate = Gate(db=db, terms=config.policies, now_ms=world.now_ms)
    budgets = make_budgets(config)
    templates = checked_templates(config)
    mailer = email_sender(config, world, templates, metrics)
    mails = invite_outbox(config, world, db, mailer, metrics)
    codes = sms_sender(config, world, templates, metrics)
    verifier, proofs = OpenId(homeservers), make_proofs(config, world, homeservers)
    deeds = Deeds(
        accounts=make_accounts(
            config, world, budgets=budgets, db=db, gate=gate, verifier=verifier, signs_of_life=onbinds
        ),
        associations=make_associations(config, world, db=db, gate=gate, keys=keys, onbinds=onbinds),
        invites=make_invites(
            config, world, budgets=budgets, gate=gate, keys=keys, mails=mails, metrics=metrics
        ),
        keys=PublicKeys(db=db, keys=keys, now_ms=world.now_ms),
        lookup=make_lookup(config, world, gate=gate, keys=keys, signs_of_life=onbinds),
        terms=TermsOfService(gate=gate, terms=config.policies, now_ms=world.now_ms),
        validation=make_validation(
            config, world, budgets=budgets, db=db, gate=gate, mails=mailer, codes=codes
        ),
    )
    admission = public_admission(config, world, budgets=budgets, db=db, gate=gate, proofs=proofs)
    web = Web(config, world, request_recorder(config, log, metrics), connections)
    listeners = [*web.public(deeds, admission, templates), *web.internal(deeds), *web.metrics(db, metrics)]
    return App([db, peppers(config, world, db), onbinds, mails], listeners)
