"""The metrics listener."""

import io

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from replication.mesh import DOWN as TIMED_OUT
from replication.mesh import OURS, A, AnsweringLink, B, C, Mesh, address, peer
from store_tools import START_MS
from twisted.internet.task import Clock
from web.wire import PREFIX

from sydentish.actions.survey import Surroundings, Survey
from sydentish.domain.associations import Association
from sydentish.logs import LogFile, RequestRecorder
from sydentish.metrics import CONTENT_TYPE, Metrics
from sydentish.parts.watching import show
from sydentish.store import peers as peer_rows
from sydentish.web.admission import OpenAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.handlers.health import HealthHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.routes import metrics_routes


@pytest_twisted.async_yield_fixture
async def scraped(listen):
    metrics, clock = Metrics(), Clock()

    async def render():
        return metrics.render()

    dispatcher = Dispatcher(
        routes=metrics_routes(MetricsHandlers(render, CONTENT_TYPE), HealthHandlers(render)),
        prefix="/",
        admission=OpenAdmission(),
        pages=None,
        limits=RequestLimits(1000, 1000, 60.0),
        clock=clock,
        new_request_id=lambda: "1",
        log=RequestRecorder(LogFile(io.StringIO(), json=True), metrics, lines=True),
    )
    yield await listen(dispatcher, clock)


@pytest_twisted.ensureDeferred
async def test_figures_are_given_in_the_format_of_prometheus(scraped):
    answer = await scraped.ask("GET", "/metrics")

    assert answer.status == 200
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert b"# TYPE sydentish_http_requests_total counter" in answer.body


@pytest_twisted.ensureDeferred
async def test_nothing_else_is_there(scraped):
    assert (await scraped.ask("GET", "/")).status == 404
    assert (await scraped.ask("GET", PREFIX + "v2")).status == 404
    assert (await scraped.ask("POST", "/metrics")).status == 405


@pytest_twisted.ensureDeferred
async def test_nothing_that_a_caller_sends_becomes_a_label(scraped):
    for method, path in [
        ("CANARY", "/metrics"),
        ("GET", "/canary"),
        ("GET", "/metrics?canary=canary"),
        ("canary", "/canary"),
    ]:
        await scraped.ask(method, path, headers=["Canary: canary", "Authorization: Bearer canary"])
    found = (await scraped.ask("GET", "/metrics")).body.decode()

    assert "canary" not in found.lower()
    assert 'sydentish_http_requests_total{method="OTHER",route="unmatched",status="404"} 1.0' in found
    assert 'sydentish_http_requests_total{method="GET",route="metrics",status="200"} 1.0' in found


# --- replication ---------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path / "sydentish.db")
    yield mesh
    await mesh.close()


@pytest.fixture
def figures(mesh):
    """What is given of replication, by peer."""
    around = Surroundings(sizes={}, free=1, key_since=None)

    async def figures():
        found = {}
        survey = Survey(
            db=mesh.db,
            server_name=OURS,
            look_around=lambda: around,
            clock=mesh.clock,
            now_ms=mesh.clock.now_ms,
        )
        metrics = Metrics()
        show(metrics, await survey.seen(), mesh.clock.now_ms())
        for family in text_string_to_metric_families(metrics.render().decode()):
            for sample in family.samples:
                if "peer" in sample.labels:
                    name = sample.name.removeprefix("sydentish_replication_")
                    found.setdefault(sample.labels["peer"], {})[name] = sample.value
        return found

    return figures


def of_peer(entries, seconds, parked, success):
    return {
        "lag_entries": entries,
        "lag_seconds": seconds,
        "parked_entries": parked,
        "last_success_timestamp_seconds": success,
    }


@pytest_twisted.ensureDeferred
async def test_a_peer_lags_by_what_it_has_not_acknowledged(mesh, figures):
    assert await figures() == {}
    await mesh.add_peers(A)
    assert await figures() == {A: of_peer(0, 0, 0, 0)}
    mesh.clock.advance(10)
    await mesh.bind(3)
    mesh.clock.advance(5.5)
    await mesh.bind()
    assert await figures() == {A: of_peer(4, 5.5, 0, 0)}
    mesh.start(AnsweringLink())
    await mesh.settled()
    assert await figures() == {A: of_peer(0, 0, 0, START_MS / 1000 + 15.5)}


@pytest_twisted.ensureDeferred
async def test_an_old_statement_waits_for_a_new_peer_only_since_it_is_one(mesh, figures):
    await mesh.bind(3)
    mesh.clock.advance(1_000_000)
    await mesh.add_peers(A)
    mesh.clock.advance(7)
    assert await figures() == {A: of_peer(3, 7, 0, 0)}


@pytest_twisted.ensureDeferred
async def test_an_unbind_lags_as_a_bind_does(mesh, figures):
    await mesh.add_peers(A)
    await mesh.bind()
    await mesh.engine.write(mesh.statements.unbind, address(0), "@carol:hs.example.org", START_MS)
    mesh.clock.advance(60)
    # Time of a statement: behind the one before it.
    assert await figures() == {A: of_peer(1, 59.999, 0, 0)}


@pytest_twisted.ensureDeferred
async def test_each_peer_lags_for_itself(mesh, figures):
    await mesh.add_peers(A, B)
    await mesh.bind(3)
    link = AnsweringLink({A: [TIMED_OUT] * 9}, {B: {2}})
    mesh.start(link)
    await mesh.settled()
    mesh.clock.advance(0.5)
    assert await figures() == {A: of_peer(3, 0.5, 0, 0), B: of_peer(1, 0.5, 1, START_MS / 1000)}


@pytest_twisted.ensureDeferred
async def test_a_clock_that_went_back_makes_no_negative_lag(mesh, figures):
    await mesh.add_peers(A)
    await mesh.engine.write(mesh.statements.bind, address(1), "@carol:hs.example.org", START_MS + 1_000_000)
    assert await figures() == {A: of_peer(1, 0, 0, 0)}


@pytest_twisted.ensureDeferred
async def test_a_peer_that_was_removed_or_is_gone_has_no_figures_any_more(mesh, figures):
    await mesh.engine.write(peer_rows.configure, [peer(A), peer(B)], START_MS)
    await mesh.add_peers(C)
    await mesh.bind()
    assert set(await figures()) == {A, B, C}
    await mesh.engine.write(peer_rows.configure, [peer(A)], START_MS)
    await mesh.engine.write(peer_rows.remove, C)
    assert await figures() == {A: of_peer(1, 0, 0, 0)}


@pytest_twisted.ensureDeferred
async def test_what_peers_have_stated_makes_no_lag(mesh, figures):
    await mesh.add_peers(A, B)
    await mesh.bind()
    theirs = Association(address(7), "@carol:hs.example.org", START_MS, START_MS, START_MS, A, 99)
    await mesh.engine.write(mesh.statements.take, theirs, "{}", START_MS)
    assert (await figures())[B]["lag_entries"] == 1


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_paused_lags(mesh, figures):
    await mesh.add_peers(A)
    await mesh.engine.write(peer_rows.pause, A, paused=True)
    await mesh.bind()
    mesh.clock.advance(3600)
    assert await figures() == {A: of_peer(1, 3600, 0, 0)}
