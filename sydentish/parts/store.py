"""The database, and what looks after it."""

from sydentish.actions.peppers import PepperRotation
from sydentish.config import Config
from sydentish.parts.world import World
from sydentish.store.database import Database, Tx
from sydentish.store.sqlite import SqliteDatabase
from sydentish.supervision.manager import Manager
from sydentish.supervision.watchdog import Watchdog


def database(config: Config, world: World) -> SqliteDatabase:
    """The embedded database."""
    return SqliteDatabase(
        config.database.path,
        world.reactor,
        readers=config.database.readers,
        max_queue=config.database.max_queue,
        busy_timeout_ms=config.database.busy_timeout,
    )


def peppers(config: Config, world: World, db: Database) -> PepperRotation:
    """What replaces the look-up pepper."""
    return PepperRotation(
        db=db,
        clock=world.reactor,
        interval_ms=config.lookup.pepper_rotation,
        grace_ms=config.lookup.pepper_grace,
        now_ms=world.now_ms,
        random_bytes=world.random_bytes,
    )


def watchdog(manager: Manager, world: World, db: SqliteDatabase) -> list[Watchdog]:
    """What tells the service manager that the server works, if it wants to know."""
    if manager.watchdog_seconds is None:
        return []
    return [
        Watchdog(
            alive=manager.notifier.alive,
            interval=manager.watchdog_seconds / 2,
            turns=lambda: db.turns,
            ping=lambda: db.write(_nothing),
            clock=world.reactor,
        )
    ]


def _nothing(_tx: Tx) -> None:
    pass
