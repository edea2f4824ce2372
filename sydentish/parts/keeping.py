"""What looks after that which is kept: it replaces what has become old, and deletes what was kept long enough."""

from twisted.application.service import Service

from sydentish.actions.purge import Purge, Times, rules
from sydentish.config import Config
from sydentish.metrics import Metrics
from sydentish.parts.store import peppers
from sydentish.parts.world import World
from sydentish.store.database import Database


def keepers(config: Config, world: World, db: Database, metrics: Metrics) -> list[Service]:
    """What looks after the database while the server runs."""
    return [peppers(config, world, db), make_purge(config, world, db, metrics)]


def make_purge(config: Config, world: World, db: Database, metrics: Metrics) -> Purge:
    """The purge service."""
    keeping = config.keeping
    times = Times(
        sessions=config.validation.session_lifetime + keeping.sessions,
        dead_letters=keeping.dead_letters,
        access_tokens=keeping.access_tokens,
        accounts=keeping.accounts,
    )
    return Purge(
        db=db,
        rules=rules(times),
        clock=world.reactor,
        now_ms=world.now_ms,
        on_purged=lambda what, number: metrics.purged_rows.labels(what).inc(number),
    )
