"""A real Prometheus scrapes a real server: names, rules and the queries of the dashboard are what it understands."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
import treq
from daemons import SECONDS
from e2e.mesh import eventually
from prometheus_client.parser import text_string_to_metric_families
from promql import ALERTS, DOCS, RECORDING, rules
from standins.ports import free_port
from tools import tool
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from sydentish.metrics import Metrics

CONFIG = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files:
  - {recording}
  - {alerts}
scrape_configs:
  - job_name: sydentish
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""
Found = list[tuple[dict[str, str], float]]
QUERIES = [
    target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".+")
    for panel in json.loads((DOCS / "grafana" / "sydentish.json").read_text())["panels"]
    for target in panel.get("targets", ())
]


class Prometheus(ProcessProtocol):
    """A Prometheus in a process of its own.

    Args:
        folder: where it keeps what it finds.
        metrics_port: what it scrapes.
    """

    def __init__(self, folder: Path, metrics_port: int) -> None:
        self.output = ""
        self.ended: Deferred[None] = Deferred()
        self._port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(recording=RECORDING, alerts=ALERTS, port=metrics_port))
        program = tool("prometheus", "prometheus")
        arguments = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        reactor.spawnProcess(self, program, arguments, env=os.environ)

    def errReceived(self, data: bytes) -> None:
        self.output += data.decode()

    def processEnded(self, _reason: object) -> None:
        self.ended.callback(None)

    async def ask(self, path: str, **params: str) -> object:
        """What its HTTP API answers; None as long as it does not."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        try:
            response = await treq.get(url, params=params, timeout=SECONDS, persistent=False)
            answer = json.loads(await response.content())
        except Exception:  # noqa: BLE001 - it is still starting, and whoever waits has a deadline
            return None
        assert answer["status"] == "success", (params, answer)
        return answer["data"]

    async def query(self, expr: str) -> Found:
        """The labels and the value of each series."""
        data = await self.ask("query", query=expr)
        return [(each["metric"], float(each["value"][1])) for each in data["result"]] if data else []

    async def until(self, expr: str, is_wanted: Callable[[Found], object]) -> None:
        """Asks until the answer is as wanted."""

        async def holds() -> object:
            return is_wanted(await self.query(expr))

        await eventually(holds, expr)

    async def end(self) -> None:
        if not self.ended.called:
            self.transport.signalProcess("KILL")
            await self.ended


@pytest_twisted.async_yield_fixture
async def prometheus(town, tmp_path):
    prometheus = Prometheus(tmp_path, town.daemon.metrics_port)
    yield prometheus
    await prometheus.end()


def is_one(found):
    return [value for _, value in found] == [1]


async def live(town):
    """What people do: each kind of figure has something to tell of."""
    mxid = await town.register()
    session = await town.prove("alice@example.org")
    wrong = {**session, "token": "wrong"}
    assert (await town.daemon.ask("POST", "/v2/validate/email/submitToken", wrong))[0] == 400
    assert (await town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": mxid}))[0] == 200
    await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    _, details = await town.daemon.ask("GET", "/v2/hash_details")
    asked = ["alice@example.org email", "bob@example.org email"]
    body = {"algorithm": "none", "pepper": details["lookup_pepper"], "addresses": asked}
    assert (await town.daemon.ask("POST", "/v2/lookup", body))[0] == 200
    invitation = {
        "medium": "email",
        "address": "carol@example.org",
        "room_id": "!room:example.org",
        "sender": mxid,
    }
    assert (await town.daemon.ask("POST", "/v2/store-invite", invitation))[0] == 200
    await town.mail_to("carol@example.org")
    threepid = {"medium": "email", "address": "alice@example.org"}
    unbind = {**session, "mxid": mxid, "threepid": threepid}
    assert (await town.daemon.ask("POST", "/v2/3pid/unbind", unbind))[0] == 200


FIGURES = {
    "sydentish_registrations_total": 1,
    'sydentish_validations_total{medium="email",outcome="sent"}': 1,
    'sydentish_validations_total{medium="email",outcome="validated"}': 1,
    'sydentish_validations_total{medium="email",outcome="wrong_token"}': 1,
    'sydentish_sends_total{channel="email",provider="relay",outcome="sent"}': 2,
    'sydentish_bindings_made_total{medium="email",source="api"}': 1,
    'sydentish_bindings_removed_total{medium="email",source="api"}': 1,
    'sydentish_lookup_addresses_asked_total{algorithm="none"}': 2,
    'sydentish_lookup_addresses_found_total{algorithm="none"}': 1,
    "sydentish_invitations_stored_total": 1,
    'sydentish_outbox_deliveries_total{kind="onbind",outcome="delivered"}': 1,
    'sydentish_outbox_rows{kind="onbind",state="pending"}': 0,
    'sydentish_health_check{check="database"}': 1,
    'sydentish_http_connections_limit{listener="metrics"}': 50,
    "sydentish_scrape_errors_total": 0,
}


@pytest_twisted.ensureDeferred
async def test_prometheus_finds_what_was_done(town, prometheus):
    await live(town)
    await prometheus.until("up", is_one)
    for figure, wanted in FIGURES.items():
        await prometheus.until(figure, lambda found, wanted=wanted: [value for _, value in found] == [wanted])
    for figure in ("wait_seconds", "transaction_duration_seconds", "group_calls"):
        ((_, count),) = await prometheus.query(f"sum(sydentish_database_{figure}_count)")
        assert count > 0
    ((labels, _),) = await prometheus.query("sydentish_build_info")
    assert {"version", "python", "twisted"} <= labels.keys()


@pytest_twisted.ensureDeferred
async def test_prometheus_understands_the_rules_and_the_dashboard(town, prometheus):
    await live(town)
    # What is there from its first scrape on may have been so always: only what is added to it counts.
    await town.daemon.ask("GET", "/v2")
    await prometheus.until('sydentish_http_requests_total{route="v2"}', is_one)
    await town.daemon.ask("GET", "/v2")
    recorded = "instance:sydentish_http_requests:rate5m"
    await prometheus.until(recorded, lambda found: found and found[0][1] > 0)
    found = [rule for group in (await prometheus.ask("rules"))["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {
        rule.name for path in (ALERTS, RECORDING) for rule in rules(path)
    }
    assert [rule["name"] for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []
    empty = [query for query in QUERIES if not await prometheus.query(query)]
    # Nothing is replicated, nothing listens with a certificate, and no budget is used up.
    assert [query for query in empty if not re.search("replication|certificate|budget", query)] == []
    firing = await prometheus.query('ALERTS{alertname=~"Sydentish.*"}')
    assert [labels["alertname"] for labels, _ in firing] == []
    await town.daemon.end()
    await prometheus.until('ALERTS{alertname="SydentishDown",alertstate="pending"}', is_one)
    await town.daemon.start()


@pytest_twisted.ensureDeferred
async def test_labels_have_the_values_that_are_declared_and_nothing_of_what_was_sent(town):
    await live(town)
    await town.daemon.ask("POST", "/v2/canary", {"canary": "canary"})
    text = await town.daemon.metrics()
    for secret in ("canary", "alice", "carol", "room", "openid", town.daemon.token, "s3cret"):
        assert not re.search(rf'="[^"]*{re.escape(secret)}', text.replace('reason="room"', ""))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.name.startswith("sydentish_"):
                check(family.name, sample.labels)


def check(family, labels):
    declared = Metrics().labels
    known = declared.get(family) or declared.get(f"{family}_total") or {}
    assert set(labels) - {"le"} == set(known), family
    for label, value in labels.items():
        if label != "le" and known[label] is not None:
            assert value in known[label], (family, label, value)


def test_this_would_notice_another_label_or_value():
    check("sydentish_outbox_rows", {"kind": "onbind", "state": "dead"})
    for labels in ({"kind": "onbind", "state": "lost"}, {"kind": "onbind"}):
        with pytest.raises(AssertionError):
            check("sydentish_outbox_rows", labels)
