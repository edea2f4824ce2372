"""The metrics listener."""

import io

import pytest_twisted
from twisted.internet.task import Clock
from web.wire import PREFIX

from sydentish.logs import LogFile, RequestRecorder
from sydentish.metrics import CONTENT_TYPE, Metrics
from sydentish.web.admission import OpenAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.routes import metrics_routes


@pytest_twisted.async_yield_fixture
async def scraped(listen):
    metrics, clock = Metrics(), Clock()

    async def render():
        return metrics.render()

    dispatcher = Dispatcher(
        routes=metrics_routes(MetricsHandlers(render, CONTENT_TYPE)),
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
