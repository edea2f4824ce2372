"""Metrics: figures that are right, under names that nobody from outside can choose."""

import re
from functools import partial
from pathlib import Path
from platform import python_version
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sydentish.actions.outbox import KINDS
from sydentish.actions.sending import OUTCOMES, UNKNOWN
from sydentish.domain.keys import KeyState
from sydentish.domain.lookup import algorithms
from sydentish.domain.peers import FailureKind
from sydentish.domain.threepids import EMAIL, MSISDN
from sydentish.metrics import CONTENT_TYPE, Metrics
from sydentish.senders.email import Outcome as MailOutcome
from sydentish.senders.sms.sender import Outcome as SmsOutcome
from sydentish.store.measures import BUSY, FULL, READ, WRITE, Measures, Tally


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
    one.registrations.inc()

    assert samples(one)["sydentish_registrations_total",] == 1
    assert samples(other)["sydentish_registrations_total",] == 0


def test_what_can_be_counted_begins_with_nothing(metrics):
    found = samples(metrics)
    name = "sydentish_validations_total"

    assert found[name, ("medium", "msisdn"), ("outcome", "wrong_token")] == 0
    assert found["sydentish_bindings_removed_total", ("medium", "email"), ("source", "peer")] == 0
    assert not [labels for name, *labels in found if name == "sydentish_sends_total" and labels]


def test_requests_are_counted_by_route_and_status(metrics):
    for status in ("200", "200", "404"):
        metrics.requests.labels("GET", "v2", status).inc()
    found = samples(metrics)
    labels = ("method", "GET"), ("route", "v2")

    assert found["sydentish_http_requests_total", *labels, ("status", "200")] == 2
    assert found["sydentish_http_requests_total", *labels, ("status", "404")] == 1


def test_messages_are_counted_by_channel_provider_and_how_their_hand_over_ended(metrics):
    for outcome in ("sent", "failed", "sent"):
        metrics.sends.labels("email", "relay", outcome).inc()
        metrics.sends.labels("sms", "twilio", outcome).inc()
    metrics.sends.labels("sms", "log", "sent").inc()
    found = samples(metrics)
    name = "sydentish_sends_total"

    assert found[name, ("channel", "email"), ("outcome", "sent"), ("provider", "relay")] == 2
    assert found[name, ("channel", "sms"), ("outcome", "sent"), ("provider", "twilio")] == 2
    assert found[name, ("channel", "sms"), ("outcome", "sent"), ("provider", "log")] == 1


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


# --- the database --------------------------------------------------------------------------------------


def test_what_the_database_measures_is_read_when_it_is_asked_for(metrics):
    lengths = {"read": 0, "write": 3}
    measures = Measures({queue: partial(lengths.get, queue) for queue in lengths})
    metrics.watch_database(measures)
    writer, *readers = (measures.thread(queue) for queue in ("write", "read", "read"))
    writer.note([10.0, 10.001, 9.0], begun=10.002, ended=10.006)
    for reader in readers:
        reader.note([1.0], begun=1.5, ended=2.5)
        reader.refused += 1
    measures.note_full("write")
    found = samples(metrics)
    name = "sydentish_database_"

    assert found[f"{name}queued_calls", ("queue", "write")] == 3
    assert found[f"{name}wait_seconds_count", ("queue", "write")] == 3
    assert found[f"{name}wait_seconds_sum", ("queue", "write")] == pytest.approx(1.005)
    assert found[f"{name}wait_seconds_bucket", ("le", "0.005"), ("queue", "write")] == 2
    assert found[f"{name}wait_seconds_bucket", ("le", "+Inf"), ("queue", "write")] == 3
    assert found[f"{name}wait_seconds_bucket", ("le", "0.5"), ("queue", "read")] == 2
    assert found[f"{name}transaction_duration_seconds_bucket", ("le", "0.005"), ("queue", "write")] == 1
    assert found[f"{name}group_calls_bucket", ("le", "2.0")] == 0
    assert found[f"{name}group_calls_bucket", ("le", "4.0")] == 1
    assert (found[f"{name}group_calls_sum",], found[f"{name}group_calls_count",]) == (3, 1)
    assert found[f"{name}refused_calls_total", ("queue", "write"), ("reason", "full")] == 1
    assert found[f"{name}refused_calls_total", ("queue", "read"), ("reason", "busy")] == 2


@given(st.lists(st.floats(0, 1000)))
def test_a_tally_has_every_value_once_and_in_its_place(values):
    bounds = (0.5, 1, 10)
    tally = Tally(bounds)
    for value in values:
        tally.note(value)

    for position, bound in enumerate(bounds):
        assert sum(tally.counts[: position + 1]) == sum(value <= bound for value in values)
    assert sum(tally.counts) == len(values)
    assert tally.total == pytest.approx(sum(values))


def test_without_threads_there_are_no_figures_of_threads(metrics):
    metrics.watch_database(Measures({"read": int, "write": int}))

    assert samples(metrics)["sydentish_database_group_calls_count",] == 0


def test_what_the_database_does_not_tell_is_left_out(metrics):
    metrics.set_outbox(["onbind"], [], 1)
    metrics.set_overdue(["onbind"], {}, 1)
    metrics.set_replication([("a.example.net", 12, 34.5, 2, 1)])
    metrics.set_times(1.0, 2.0)
    metrics.set_space({"main": 1}, 2)
    metrics.set_keys([("ed25519:0", "active")], {"public": 3.0})
    before = {name for name, *_ in samples(metrics)}
    metrics.forget_database()
    gone = before - {name for name, *_ in samples(metrics)}

    assert gone == {
        *("sydentish_outbox_rows", "sydentish_outbox_oldest_seconds", "sydentish_outbox_overdue_seconds"),
        *(f"sydentish_replication_{gauge}" for gauge in GAUGES),
        *("sydentish_signing_key_timestamp_seconds", "sydentish_lookup_pepper_timestamp_seconds"),
        *("sydentish_database_size_bytes", "sydentish_database_free_bytes"),
    }


# --- what the server shows -----------------------------------------------------------------------------


def test_keys_certificates_and_versions_are_told_of(metrics):
    metrics.set_keys([("ed25519:0", "retired"), ("ed25519:1", "active")], {"replication": 1_700_000_000.5})
    metrics.set_build("1.2.3", "26.10.0")
    metrics.set_times(1_600_000_000.5, None)
    metrics.set_health({"database": True, "disk": False})
    found = samples(metrics)

    assert found["sydentish_signing_key_info", ("key_id", "ed25519:0"), ("state", "retired")] == 1
    assert (
        found["sydentish_certificate_expiry_timestamp_seconds", ("listener", "replication")]
        == 1_700_000_000.5
    )
    assert found["sydentish_signing_key_timestamp_seconds",] == 1_600_000_000.5
    assert ("sydentish_lookup_pepper_timestamp_seconds",) not in found
    assert found["sydentish_health_check", ("check", "disk")] == 0
    build = ("python", python_version()), ("twisted", "26.10.0"), ("version", "1.2.3")
    assert found["sydentish_build_info", *build] == 1


# --- names and labels ----------------------------------------------------------------------------------


def test_names_are_by_the_conventions_of_prometheus(metrics):
    units = ("_total", "_seconds", "_bytes", "_info", "_rows", "_entries", "_calls", "_connections", "_limit")
    for name in metrics.labels:
        assert re.fullmatch(r"sydentish(_[a-z]+)+", name)
        assert name.endswith((*units, "_health_check"))
    kinds = {family.name: family.type for family in metrics.registry.collect()}
    for name in metrics.labels:
        assert (kinds[name.removesuffix("_total")] == "counter") == name.endswith("_total")


def test_the_values_of_labels_are_those_that_the_code_has(metrics):
    values = metrics.labels
    assert values["sydentish_outbox_rows"]["kind"] == KINDS
    assert (
        set(values["sydentish_sends_total"]["outcome"])
        == set(get_args(MailOutcome))
        == set(get_args(SmsOutcome))
    )
    assert set(values["sydentish_signing_key_info"]["state"]) == {state.value for state in KeyState}
    assert set(values["sydentish_lookup_addresses_asked_total"]["algorithm"]) == set(
        algorithms(allow_none=True)
    )
    assert values["sydentish_database_queued_calls"]["queue"] == (READ, WRITE)
    assert values["sydentish_database_refused_calls_total"]["reason"] == (FULL, BUSY)
    medium, outcome = values["sydentish_validations_total"].values()
    assert set(medium) == {EMAIL, MSISDN, UNKNOWN}
    assert set(OUTCOMES.values()) | {"sent", "repeated", "validated"} == set(outcome)


DOCUMENTED = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(sydentish_\w+)` \|(.*?)\| (\w+) \| (.+) \|$", re.MULTILINE)


def test_each_metric_is_documented_with_its_labels_and_kind(metrics):
    documented = {
        name: (kind, re.findall(r"`(\w+)`", labels)) for name, labels, kind, _ in ROW.findall(DOCUMENTED)
    }
    kinds = {family.name: family.type for family in metrics.registry.collect()}
    assert documented == {
        name: (kinds[name.removesuffix("_total")], list(labels)) for name, labels in metrics.labels.items()
    }


def test_each_value_that_a_label_can_have_is_documented(metrics):
    rows = {name: about for name, _, _, about in ROW.findall(DOCUMENTED)}
    for name, labels in metrics.labels.items():
        for label, values in labels.items():
            missing = [value for value in values or () if f"`{value}`" not in rows[name]]
            assert not missing or f"`{label}` as above" in rows[name], (name, label, missing)


# --- the process ---------------------------------------------------------------------------------------


def test_the_process_tells_of_itself(metrics):
    names = {name for name, *_ in samples(metrics)}

    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert "python_gc_collections_total" in names


def test_the_format_is_named():
    assert CONTENT_TYPE.startswith("text/plain; version=")
