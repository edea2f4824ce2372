"""What those are told who watch the server: the parts as they are put together, over real sockets."""

import os
import sqlite3
from contextlib import closing

import pytest
import pytest_twisted
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families
from standins.certificates import Authority
from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher
from web.wire import Client

from sydentish.config import load
from sydentish.keyfiles import generate_key, load_keys
from sydentish.lifecycle import Stage
from sydentish.logs import RequestRecorder, open_log
from sydentish.metrics import Metrics
from sydentish.parts.answering import Web
from sydentish.parts.replication import Replication
from sydentish.parts.store import database
from sydentish.parts.watching import Watching
from sydentish.parts.world import make_world
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.web.admission import OpenAdmission

# Twisted makes its own certificates of the objects of pyOpenSSL.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

CONFIGURATION = """\
[general]
server_name = id.example.org
public_base_url = https://id.example.org
data_dir = {folder}
[http]
listeners =
  ssl:0:interface=127.0.0.1:privateKey={folder}/late.pem
  ssl:0:interface=127.0.0.1:privateKey={folder}/soon.pem
  tcp:0:interface=127.0.0.1
metrics_listeners = tcp:0:interface=127.0.0.1
max_connections = 7
"""


class Watched:
    """A server of which only what is watched was made."""

    def __init__(self, folder):
        self.folder = folder
        authority = Authority()
        for name in ("late", "soon"):
            authority.issue("id.example.org").write(folder / f"{name}.pem")
        conf = folder / "sydentish.conf"
        conf.write_text(CONFIGURATION.format(folder=folder))
        conf.chmod(0o600)
        self.config = load(conf, {})
        generate_key(self.config.general.key_dir, "a", bytes(range(32)))
        self.keys = load_keys(self.config.general.key_dir, "id.example.org")
        migrate_sqlite(self.config.database.path, 5000, 0, shipped_steps())
        world = make_world(reactor)
        self.db = database(self.config, world)
        self.stage, self.metrics = Stage(), Metrics()
        self.log = open_log(folder / "a.log", json=False)
        self.watching = Watching(
            self.config,
            world,
            db=self.db,
            keys=self.keys,
            log=self.log,
            stage=self.stage,
            metrics=self.metrics,
        )
        self.web = Web(self.config, world, RequestRecorder(self.log, self.metrics, lines=True), 7)

    async def start(self):
        self.db.startService()
        dispatcher = self.web._dispatcher((), "/", OpenAdmission(), self.web._request_limits())
        public = self.web._listeners("public", self.config.http.listeners, dispatcher, 7)
        self.listeners = [*public, *self.watching.listeners(self.web, Replication(None, None))]
        for listener in self.listeners:
            listener.startService()
            await listener.listening
        self.client = Client(self.listeners[-1]._port.getHost().port)
        self.stage.name = "ready"

    async def figures(self):
        """The values of our metrics by name and labels, without those that are counted in buckets."""
        answer = await self.client.ask("GET", "/metrics")
        assert answer.status == 200
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    async def stop(self):
        await self.client.close()
        for listener in self.listeners:
            await listener.stopService()
        if self.db.running:
            await self.db.stopService()
        self.log.close()


@pytest_twisted.async_yield_fixture
async def watched(tmp_path):
    watched = Watched(tmp_path)
    await watched.start()
    yield watched
    await watched.stop()


@pytest.fixture
def told():
    lines = []

    def note(event):
        if event["log_namespace"].endswith("watching"):
            lines.append((event["log_level"].name, formatEvent(event)))

    globalLogPublisher.addObserver(note)
    yield lines
    globalLogPublisher.removeObserver(note)


def expiry(path):
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()


@pytest_twisted.ensureDeferred
async def test_keys_certificates_space_and_connections_are_told_of(watched):
    (key,) = watched.config.general.key_dir.glob("*.key")
    os.utime(key, (1_600_000_000, 1_600_000_000))
    found = await watched.figures()

    assert found["sydentish_signing_key_info", ("key_id", "ed25519:a"), ("state", "active")] == 1
    assert found["sydentish_signing_key_timestamp_seconds",] == 1_600_000_000
    expiries = [expiry(watched.folder / f"{name}.pem") for name in ("late", "soon")]
    name = "sydentish_certificate_expiry_timestamp_seconds"
    assert found[name, ("listener", "public")] == min(expiries)
    assert (name, ("listener", "metrics")) not in found
    assert found["sydentish_http_connections", ("listener", "metrics")] == 1
    assert found["sydentish_http_connections_limit", ("listener", "public")] == 21
    assert (
        found["sydentish_database_size_bytes", ("file", "main")]
        == watched.config.database.path.stat().st_size
    )
    assert found["sydentish_database_free_bytes",] > 0
    assert found["sydentish_health_check", ("check", "disk")] == 1
    assert found["sydentish_outbox_rows", ("kind", "onbind"), ("state", "pending")] == 0
    assert found["sydentish_log_lost_lines_total",] == 0
    assert ("sydentish_lookup_pepper_timestamp_seconds",) not in found


@pytest_twisted.ensureDeferred
async def test_while_the_key_is_being_changed_its_time_is_left_out(watched):
    for key in watched.config.general.key_dir.glob("*.key"):
        key.unlink()
    found = await watched.figures()
    assert ("sydentish_signing_key_timestamp_seconds",) not in found
    assert found["sydentish_signing_key_info", ("key_id", "ed25519:a"), ("state", "active")] == 1


@pytest_twisted.ensureDeferred
async def test_when_the_database_does_not_answer_the_rest_is_told(watched, told):
    await watched.db.stopService()
    found = await watched.figures()

    assert found["sydentish_scrape_errors_total",] == 1
    assert not [name for name, *_ in found if name.startswith("sydentish_outbox_rows")]
    assert ("sydentish_database_free_bytes",) not in found
    assert found["sydentish_health_check", ("check", "database")] == 0
    assert found["sydentish_database_queued_calls", ("queue", "read")] == 0
    assert told == [("warn", "some metrics are missing: The server is stopping")]
    ready = await watched.client.ask("GET", "/health/ready")
    assert (ready.status, ready.json["checks"]["database"]["reason"]) == (503, "The server is stopping")


@pytest_twisted.ensureDeferred
async def test_a_mistake_in_the_database_is_told_with_its_traceback(watched, told):
    with closing(sqlite3.connect(watched.config.database.path)) as other:
        other.execute("DROP TABLE peers")
    found = await watched.figures()

    assert found["sydentish_scrape_errors_total",] == 1
    assert found["sydentish_health_check", ("check", "database")] == 1
    assert told == [("critical", "some metrics are missing")]


@pytest_twisted.ensureDeferred
async def test_while_it_stops_only_that_is_told(watched):
    watched.stage.name = "stopping"
    found = await watched.figures()
    checks = {
        labels: value
        for (name, *rest), value in found.items()
        if name == "sydentish_health_check"
        for labels in rest
    }
    assert checks == {("check", "server"): 0}
