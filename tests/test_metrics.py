"""Metrics: figures that are right, under names that nobody from outside can choose."""

from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sydentish.domain.peers import FailureKind
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


# --- replication ---------------------------------------------------------------------------------------

GAUGES = ("lag_entries", "lag_seconds", "parked_entries", "last_success_timestamp_seconds")


def replication(metrics, peer):
    """The figures of a peer, in the order of `GAUGES`; None where there are none."""
    found = samples(metrics)
    return [found.get((f"sydentish_replication_{gauge}", ("peer", peer))) for gauge in GAUGES]


def test_each_peer_has_its_lag_and_its_last_success(metrics):
    metrics.set_replication([("a.example.net", 12, 34.5, 2, 1_700_000_000.25), ("b.example.net", 0, 0, 0, 0)])

    assert replication(metrics, "a.example.net") == [12, 34.5, 2, 1_700_000_000.25]
    assert replication(metrics, "b.example.net") == [0, 0, 0, 0]


def test_figures_of_replication_are_those_of_now(metrics):
    metrics.set_replication([("a.example.net", 12, 34.5, 2, 1_700_000_000)])
    metrics.set_replication([("a.example.net", 0, 0, 0, 1_700_000_060)])

    assert replication(metrics, "a.example.net") == [0, 0, 0, 1_700_000_060]


def test_a_peer_that_was_removed_has_no_figures_any_more(metrics):
    metrics.set_replication([("a.example.net", 12, 34.5, 2, 1), ("b.example.net", 1, 1, 1, 1)])
    metrics.set_replication([("b.example.net", 1, 1, 1, 1)])

    assert replication(metrics, "a.example.net") == [None] * 4
    assert replication(metrics, "b.example.net") == [1] * 4
    assert b"a.example.net" not in metrics.render()


def test_without_peers_there_are_no_figures_of_replication(metrics):
    metrics.set_replication([])

    assert not [name for name, *labels in samples(metrics) if dict(labels).get("peer")]


def test_pushes_are_counted_by_peer_and_by_how_they_ended(metrics):
    for outcome in ("accepted", "accepted", "parked", *get_args(FailureKind)):
        metrics.replication_pushes.labels("a.example.net", outcome).inc()
    metrics.replication_pushes.labels("b.example.net", "timeout").inc()
    found = samples(metrics)
    name = "sydentish_replication_pushes_total"

    assert found[name, ("outcome", "accepted"), ("peer", "a.example.net")] == 2
    for outcome in ("parked", *get_args(FailureKind)):
        assert found[name, ("outcome", outcome), ("peer", "a.example.net")] == 1
    assert found[name, ("outcome", "timeout"), ("peer", "b.example.net")] == 1


def test_the_time_of_pushes_is_a_histogram_for_each_peer(metrics):
    for seconds in (0.002, 0.2, 100):
        metrics.replication_push_seconds.labels("a.example.net").observe(seconds)
    found = samples(metrics)
    name = "sydentish_replication_push_duration_seconds"

    assert found[f"{name}_count", ("peer", "a.example.net")] == 3
    assert found[f"{name}_sum", ("peer", "a.example.net")] == pytest.approx(100.202)
    assert found[f"{name}_bucket", ("le", "0.25"), ("peer", "a.example.net")] == 2


def test_what_peers_push_is_counted_by_what_it_was(metrics):
    for outcome, number in (("new", 5), ("known", 3), ("unusable", 0)):
        metrics.replication_received.labels("a.example.net", outcome).inc(number)
    found = samples(metrics)
    name = "sydentish_replication_received_statements_total"

    assert found[name, ("outcome", "new"), ("peer", "a.example.net")] == 5
    assert found[name, ("outcome", "known"), ("peer", "a.example.net")] == 3
    assert found[name, ("outcome", "unusable"), ("peer", "a.example.net")] == 0


# --- the process ---------------------------------------------------------------------------------------


def test_the_process_tells_of_itself(metrics):
    names = {name for name, *_ in samples(metrics)}

    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert "python_gc_collections_total" in names


def test_the_format_is_named():
    assert CONTENT_TYPE.startswith("text/plain; version=")
