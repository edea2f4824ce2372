"""What those are told who watch the server: metrics, and health."""

from collections.abc import Mapping
from importlib.metadata import version

from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.logger import Logger

from sydentish.actions.health import Health, HealthLimits
from sydentish.actions.outbox import KINDS
from sydentish.actions.survey import Seen, Surroundings, Survey
from sydentish.config import Config
from sydentish.domain.errors import IdentityError
from sydentish.domain.keys import KeyRing
from sydentish.keyfiles import KeyProblem, inventory
from sydentish.lifecycle import Listener, Stage
from sydentish.logs import LogFile
from sydentish.metrics import CONTENT_TYPE, Metrics
from sydentish.parts.answering import Web
from sydentish.parts.replication import Replication
from sydentish.parts.world import World
from sydentish.store import health as health_rows
from sydentish.store.migrate import shipped_steps
from sydentish.store.progress import PeerReport
from sydentish.store.sqlite import SqliteDatabase
from sydentish.web.handlers.health import HealthHandlers
from sydentish.web.handlers.metrics import MetricsHandlers

_log = Logger()


class Watching:
    """Brings the metrics up to date when they are asked for, and looks after the server's health.

    Args:
        config: what the operator has chosen.
        world: the time.
        db: the database.
        keys: the signing keys.
        log: where lines go.
        stage: how far the server is.
        metrics: what is brought up to date.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        *,
        db: SqliteDatabase,
        keys: KeyRing,
        log: LogFile,
        stage: Stage,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._keys = keys
        self._metrics = metrics
        self._now_ms = world.now_ms
        self._health = make_health(config, world, db=db, keys=keys, stage=stage)
        self._survey = Survey(
            db=db,
            server_name=config.general.server_name,
            look_around=self._look_around,
            clock=world.reactor,
            now_ms=world.now_ms,
        )
        metrics.set_build(version("sydentish"), version("twisted"))
        metrics.watch_database(db.measures)
        metrics.watch_log(lambda: log.lost)

    def listeners(self, web: Web, replication: Replication) -> list[Listener]:
        """Where the server listens for those who watch it.

        Raises:
            ListenerProblem: an endpoint string cannot be used.
        """
        self._metrics.watch_connections(web.connections)

        async def render() -> bytes:
            self._show_keys(web, replication)
            await self._show_health()
            await self._show_seen()
            return self._metrics.render()

        return web.metrics(MetricsHandlers(render, CONTENT_TYPE), HealthHandlers(self._health.checks))

    def _show_keys(self, web: Web, replication: Replication) -> None:
        self._metrics.set_keys(
            [(key.key_id, key.state.value) for key in self._keys.all], self._expiries(web, replication)
        )

    def _expiries(self, web: Web, replication: Replication) -> Mapping[str, float]:
        options = self._config.http
        kinds = {
            "public": options.listeners,
            "internal": options.internal_listeners,
            "metrics": options.metrics_listeners,
        }
        shown = [
            (kind, each.expires)
            for each in web.endpoints.with_certificates
            for kind, descriptions in kinds.items()
            if each.description in descriptions
        ]
        if (expires := replication.certificate_expires()) is not None:
            shown.append(("replication", expires))
        # The first that expires comes last, and stays.
        return dict(sorted(shown, key=lambda each: each[1], reverse=True))

    async def _show_health(self) -> None:
        checks = await self._health.checks()
        self._metrics.set_health({name: reason is None for name, reason in checks.items()})

    async def _show_seen(self) -> None:
        """What the database tells; when it does not, the other metrics are told of all the same."""
        try:
            show(self._metrics, await self._survey.seen(), self._now_ms())
        except (IdentityError, DeferredTimeoutError) as error:
            self._leave_out()
            _log.warn("some metrics are missing: {reason}", reason=str(error) or "the database is too slow")
        except Exception:  # noqa: BLE001 - whatever it is, it is no reason to tell nothing
            self._leave_out()
            _log.failure("some metrics are missing")

    def _leave_out(self) -> None:
        self._metrics.forget_database()
        self._metrics.scrape_errors.inc()

    def _look_around(self) -> Surroundings:
        path = self._config.database.path
        return Surroundings(
            health_rows.file_bytes(path),
            health_rows.free_bytes(path),
            written_at(self._config, self._keys.active.key_id),
        )


def make_health(config: Config, world: World, *, db: SqliteDatabase, keys: KeyRing, stage: Stage) -> Health:
    """What looks after the server itself."""
    options, path = config.health, config.database.path
    return Health(
        db=db,
        keys=keys,
        stage=lambda: stage.name,
        free_bytes=lambda: health_rows.free_bytes(path),
        limits=HealthLimits(
            schema=shipped_steps()[-1].number,
            outbox_ms=options.max_outbox_wait,
            free_bytes=options.min_free_space,
        ),
        clock=world.reactor,
        now_ms=world.now_ms,
    )


def written_at(config: Config, key_id: str) -> float | None:
    """When the file of a signing key was written, in s since 1970; None if there is none any more."""
    try:
        files = inventory(config.general.key_dir)
        return next((each.path.stat().st_mtime for each in files if each.key.key_id == key_id), None)
    except (KeyProblem, OSError):  # the keys are being changed, or told of where they matter
        return None


def show(metrics: Metrics, seen: Seen, now_ms: int) -> None:
    """Puts what was seen into the metrics.

    Args:
        metrics: where to.
        seen: what was seen a few seconds ago at the most.
        now_ms: the time, in ms.
    """
    metrics.set_outbox(KINDS, seen.outbox, now_ms)
    metrics.set_overdue(KINDS, seen.due_since, now_ms)
    metrics.set_replication([_figures(each, now_ms) for each in seen.peers])
    metrics.set_times(
        seen.around.key_since, None if seen.pepper_since_ms is None else seen.pepper_since_ms / 1000
    )
    metrics.set_space(seen.around.sizes, seen.around.free)


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
