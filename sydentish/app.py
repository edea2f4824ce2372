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
from sydentish.logs import LogFile, RequestRecorder
from sydentish.metrics import CONTENT_TYPE, Metrics
from sydentish.parts.answering import Web, metrics_renderer, validation_pages
from sydentish.parts.deeds import make_accounts, make_associations, make_lookup, make_validation
from sydentish.parts.homeservers import make_homeservers, make_outbox
from sydentish.parts.people import checked_templates, email_sender
from sydentish.parts.store import database, peppers
from sydentish.parts.world import make_world
from sydentish.web.handlers.accounts import AccountHandlers
from sydentish.web.handlers.associations import AssociationHandlers
from sydentish.web.handlers.keys import KeyHandlers
from sydentish.web.handlers.lookup import LookupHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.handlers.status import StatusHandlers
from sydentish.web.handlers.terms import TermsHandlers
from sydentish.web.handlers.validation import ValidationHandlers
from sydentish.web.pages import Pages
from sydentish.web.routes import (
    PUBLIC_PREFIX,
    PublicHandlers,
    metrics_routes,
    public_routes,
)


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
        TemplateProblem, ListenerProblem: the templates, or a listener, cannot be used.
    """
    world = make_world(reactor)
    metrics = Metrics()
    db = database(config, world)
    homeservers = make_homeservers(config, world)
    outbox = make_outbox(config, world, db, homeservers, metrics)
    gate = Gate(db=db, terms=config.policies, now_ms=world.now_ms)
    templates = checked_templates(config)
    pages = Pages(templates, brand=config.general.default_brand, server_name=config.general.server_name)
    accounts = make_accounts(
        config, world, db=db, gate=gate, verifier=OpenId(homeservers), signs_of_life=outbox
    )
    validation = make_validation(config, world, db, gate, email_sender(config, world, templates, metrics))
    handlers = PublicHandlers(
        accounts=AccountHandlers(accounts),
        associations=AssociationHandlers(make_associations(config, world, gate, keys, outbox)),
        keys=KeyHandlers(PublicKeys(db=db, keys=keys, now_ms=world.now_ms)),
        lookup=LookupHandlers(make_lookup(config, world, gate, outbox)),
        status=StatusHandlers(),
        terms=TermsHandlers(TermsOfService(gate=gate, terms=config.policies, now_ms=world.now_ms)),
        validation=ValidationHandlers(validation),
        validation_pages=validation_pages(config, validation, pages),
    )
    figures = MetricsHandlers(metrics_renderer(world, db, metrics), CONTENT_TYPE)
    recorder = RequestRecorder(log, metrics, lines=config.log.level in ("debug", "info"))
    web = Web(config, world, recorder, connections)
    return App(
        services=[db, peppers(config, world, db), outbox],
        listeners=[
            *web.listeners(config.http.listeners, public_routes(handlers), PUBLIC_PREFIX, gate, pages),
            *web.listeners(config.http.metrics_listeners, metrics_routes(figures), "/"),
        ],
    )
