"""What delivers the rows of the outbox, a worker for each kind."""

from typing import Any

from sydentish.actions.outbox import INVITE, ONBIND, OutboxWorker
from sydentish.actions.ports import Deliverer
from sydentish.config import Config
from sydentish.federation.client import HomeserverClient
from sydentish.federation.notifier import OnbindNotifier
from sydentish.metrics import Metrics
from sydentish.parts.world import World
from sydentish.senders.email import EmailSender
from sydentish.senders.invites import InviteMailer
from sydentish.store.database import Database

# How much longer a lease lasts than what is done with it.
_LEASE_MARGIN_MS = 5000
# A lease must not hold up for long what a killed process has left.
_MAIL_LIMIT_MS = 10_000


def onbind_outbox(
    config: Config, world: World, db: Database, homeservers: HomeserverClient, metrics: Metrics
) -> OutboxWorker:
    """What tells homeservers of binds."""
    options = config.onbind
    return _worker(
        world,
        db,
        metrics,
        kind=ONBIND,
        deliverer=OnbindNotifier(client=homeservers, clock=world.reactor, time_limit=options.timeout / 1000),
        limit_ms=options.timeout,
        max_in_flight=options.max_in_flight,
        retry_for_ms=options.retry_for,
        keeps_payload=True,
    )


def invite_outbox(
    config: Config, world: World, db: Database, mails: EmailSender, metrics: Metrics
) -> OutboxWorker:
    """What hands the mails of invitations over."""
    limit_ms = min(config.email.timeout, _MAIL_LIMIT_MS)
    mailer = InviteMailer(
        sender=mails,
        clock=world.reactor,
        time_limit=limit_ms / 1000,
        on_result=lambda outcome: metrics.sends.labels("email", "relay", outcome).inc(),
    )
    return _worker(
        world,
        db,
        metrics,
        kind=INVITE,
        deliverer=mailer,
        limit_ms=limit_ms,
        max_in_flight=max(2, config.email.max_connections),
        retry_for_ms=config.invites.retry_for,
        # The link in it accepts the invitation.
        keeps_payload=False,
    )


def _worker(
    world: World,
    db: Database,
    metrics: Metrics,
    *,
    kind: str,
    deliverer: Deliverer,
    limit_ms: int,
    **rest: Any,  # noqa: ANN401 - as the worker has them
) -> OutboxWorker:
    return OutboxWorker(
        db=db,
        kind=kind,
        deliverer=deliverer,
        clock=world.reactor,
        lease_ms=limit_ms + _LEASE_MARGIN_MS,
        now_ms=world.now_ms,
        jitter=world.jitter,
        on_result=lambda outcome: metrics.deliveries.labels(kind, outcome).inc(),
        **rest,
    )
