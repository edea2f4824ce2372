"""What the routes lead to."""

from sydentish.actions.outbox import KINDS
from sydentish.actions.ports import PushReceiver
from sydentish.config import Config
from sydentish.metrics import CONTENT_TYPE, Metrics
from sydentish.parts.deeds import Deeds
from sydentish.parts.world import World
from sydentish.store import outbox as outbox_rows
from sydentish.store import progress
from sydentish.store.database import Database
from sydentish.store.progress import PeerReport
from sydentish.web.handlers.accounts import AccountHandlers
from sydentish.web.handlers.associations import AssociationHandlers
from sydentish.web.handlers.internal import InternalHandlers
from sydentish.web.handlers.invites import InviteHandlers
from sydentish.web.handlers.keys import KeyHandlers
from sydentish.web.handlers.lookup import LookupHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.handlers.replication import ReplicationHandlers
from sydentish.web.handlers.status import StatusHandlers
from sydentish.web.handlers.terms import TermsHandlers
from sydentish.web.handlers.validation import ValidationHandlers, ValidationPages
from sydentish.web.pages import Pages
from sydentish.web.routes import CONFIRM_EMAIL, IDENTITY_PREFIX, PublicHandlers


def public_handlers(config: Config, deeds: Deeds, pages: Pages) -> PublicHandlers:
    """For the public API."""
    return PublicHandlers(
        accounts=AccountHandlers(deeds.accounts),
        associations=AssociationHandlers(deeds.associations),
        invites=InviteHandlers(deeds.invites),
        keys=KeyHandlers(deeds.keys),
        lookup=LookupHandlers(deeds.lookup),
        status=StatusHandlers(),
        terms=TermsHandlers(deeds.terms),
        validation=ValidationHandlers(deeds.validation),
        validation_pages=ValidationPages(
            deeds.validation,
            pages,
            confirm=config.validation.confirm_links,
            confirm_action=f"{config.general.public_base_url}{IDENTITY_PREFIX}{CONFIRM_EMAIL}",
        ),
    )


def internal_handlers(deeds: Deeds) -> InternalHandlers:
    """For the operator's own scripts."""
    return InternalHandlers(deeds.associations)


def replication_handlers(receiver: PushReceiver) -> ReplicationHandlers:
    """For peers."""
    return ReplicationHandlers(receiver)


def metrics_handlers(config: Config, world: World, db: Database, metrics: Metrics) -> MetricsHandlers:
    """For a Prometheus server; brings the figures up to date each time."""

    async def render() -> bytes:
        now_ms = world.now_ms()
        metrics.set_outbox(KINDS, await db.read(outbox_rows.counts), now_ms)
        reports = await db.read(progress.report, config.general.server_name)
        metrics.set_replication([_figures(each, now_ms) for each in reports if each.state.in_use])
        return metrics.render()

    return MetricsHandlers(render, CONTENT_TYPE)


def _figures(report: PeerReport, now_ms: int) -> tuple[str, int, float, int, float]:
    since_ts, success_ts = report.waiting_since_ts, report.state.last_success_ts
    waited_ms = 0 if since_ts is None else max(0, now_ms - since_ts)
    return (
        report.state.peer.name,
        report.behind,
        waited_ms / 1000,
        report.parked,
        (success_ts or 0) / 1000,
    )
