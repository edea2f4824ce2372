"""Metrics: figures that are right, under names that nobody from outside can choose."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sydentish.metrics import CONTENT_TYPE, Metrics


def samples(metrics):
    """Name and labels to value."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def outbox(metrics, figure, kind, state):
    return samples(metrics)[f"sydentish_outbox_{figure}", ("kind", kind), ("state", state)]


@pytest.fixture
def metrics():
    return Metrics()


def test_two_servers_in_one_process_count_for_themselves():
    one, other = Metrics(), Metrics()
    one.mails.labels("sent").inc()

    assert samples(one)["sydentish_mails_total", ("outcome", "sent")] == 1
    assert ("sydentish_mails_total", ("outcome", "sent")) not in samples(other)


def test_requests_are_counted_by_route_and_status(metrics):
    for status in ("200", "200", "404"):
        metrics.requests.labels("GET", "v2", status).inc()
    found = samples(metrics)
    labels = ("method", "GET"), ("route", "v2")

    assert found["sydentish_http_requests_total", *labels, ("status", "200")] == 2
    assert found["sydentish_http_requests_total", *labels, ("status", "404")] == 1


def test_messages_are_counted_by_how_their_hand_over_ended(metrics):
    for outcome in ("sent", "failed", "sent"):
        metrics.mails.labels(outcome).inc()
        metrics.sms.labels("twilio", outcome).inc()
    metrics.sms.labels("log", "sent").inc()
    found = samples(metrics)

    assert found["sydentish_mails_total", ("outcome", "sent")] == 2
    assert found["sydentish_sms_total", ("gateway", "twilio"), ("outcome", "sent")] == 2
    assert found["sydentish_sms_total", ("gateway", "log"), ("outcome", "sent")] == 1


def test_what_the_policy_finds_is_counted_by_what_became_of_it(metrics):
    for outcome in ("refused", "counted", "counted"):
        metrics.invite_policy.labels("word", outcome).inc()
    found = samples(metrics)

    assert found["sydentish_invite_policy_total", ("outcome", "refused"), ("reason", "word")] == 1
    assert found["sydentish_invite_policy_total", ("outcome", "counted"), ("reason", "word")] == 2


def test_the_time_of_requests_is_a_histogram(metrics):
    for seconds in (0.002, 0.2, 100):
        metrics.request_seconds.labels("v2").observe(seconds)
    found = samples(metrics)
    name = "sydentish_http_request_duration_seconds"

    assert found[f"{name}_count", ("route", "v2")] == 3
    assert found[f"{name}_sum", ("route", "v2")] == pytest.approx(100.202)
    assert found[f"{name}_bucket", ("le", "0.0025"), ("route", "v2")] == 1
    assert found[f"{name}_bucket", ("le", "0.25"), ("route", "v2")] == 2
    assert found[f"{name}_bucket", ("le", "+Inf"), ("route", "v2")] == 3


def test_an_empty_outbox_is_told_of_with_zeros(metrics):
    metrics.set_outbox(["onbind"], [], 1_000_000)

    for figure in ("rows", "oldest_seconds"):
        for state in ("pending", "dead"):
            assert outbox(metrics, figure, "onbind", state) == 0


def test_the_outbox_has_its_depth_and_age(metrics):
    metrics.set_outbox(["onbind"], [("onbind", "pending", 3, 990_000), ("onbind", "dead", 1, 0)], 1_000_000)

    assert outbox(metrics, "rows", "onbind", "pending") == 3
    assert outbox(metrics, "oldest_seconds", "onbind", "pending") == 10
    assert outbox(metrics, "rows", "onbind", "dead") == 1
    assert outbox(metrics, "oldest_seconds", "onbind", "dead") == 1000


def test_what_was_delivered_is_gone_from_the_figures(metrics):
    metrics.set_outbox(["onbind"], [("onbind", "pending", 3, 0)], 1_000_000)
    metrics.set_outbox(["onbind"], [], 2_000_000)

    assert outbox(metrics, "rows", "onbind", "pending") == 0
    assert outbox(metrics, "oldest_seconds", "onbind", "pending") == 0


def test_each_kind_has_figures_of_its_own(metrics):
    metrics.set_outbox(["onbind", "invite"], [("invite", "pending", 2, 998_000)], 1_000_000)

    assert outbox(metrics, "rows", "invite", "pending") == 2
    assert outbox(metrics, "oldest_seconds", "invite", "pending") == 2
    assert outbox(metrics, "rows", "invite", "dead") == outbox(metrics, "rows", "onbind", "pending") == 0


def test_kinds_that_are_not_known_make_no_label(metrics):
    metrics.set_outbox(["onbind"], [("canary", "pending", 3, 0), ("onbind", "canary", 3, 0)], 1_000_000)

    assert b"canary" not in metrics.render()


def test_a_clock_that_went_back_makes_no_negative_age(metrics):
    metrics.set_outbox(["onbind"], [("onbind", "pending", 1, 2_000_000)], 1_000_000)

    assert outbox(metrics, "oldest_seconds", "onbind", "pending") == 0


def test_the_process_tells_of_itself(metrics):
    names = {name for name, *_ in samples(metrics)}

    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert "python_gc_collections_total" in names


def test_the_format_is_named():
    assert CONTENT_TYPE.startswith("text/plain; version=")
