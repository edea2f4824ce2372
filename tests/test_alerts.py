"""The rules in docs/prometheus: they ask for what there is, do what they should, and somebody knows what to do then."""

import re
import subprocess
from pathlib import Path

import pytest
from promql import ALERTS, DOCS, RECORDING, declared, rules, troubles
from tools import tool

ALERT_RULES, RECORDING_RULES = rules(ALERTS), rules(RECORDING)
TESTS = Path(__file__).with_name("prometheus") / "rules.yml"
HANDBOOK = (DOCS / "handbook.md").read_text()
NAMES = [rule.name for rule in ALERT_RULES]


def promtool(*arguments):
    done = subprocess.run(
        [tool("promtool", "prometheus"), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_there_are_rules():
    assert len(NAMES) == len(set(NAMES)) == ALERTS.read_text().count("- alert:") > 20
    assert len(RECORDING_RULES) == RECORDING.read_text().count("- record:") > 5
    assert {"SydentishPeerLags", "SydentishNotReady"} <= set(NAMES)


@pytest.mark.parametrize("rule", [*ALERT_RULES, *RECORDING_RULES], ids=lambda rule: rule.name)
def test_a_rule_asks_for_what_there_is(rule):
    assert troubles(rule.expr) == []


@pytest.mark.parametrize(
    ("expr", "trouble"),
    [
        ("sydentish_mails_total > 1", "there is no metric sydentish_mails_total"),
        ('rate(sydentish_sends_total{chanel="sms"}[5m])', "sydentish_sends_total has no label chanel"),
        ('rate(sydentish_sends_total{channel="fax"}[5m])', "sydentish_sends_total has no channel fax"),
        ('sydentish_sends_total{outcome=~"sent|lost"}', "sydentish_sends_total has no outcome sent|lost"),
        ("sum by (medium) (sydentish_outbox_rows)", "nothing has a label medium"),
        (
            "histogram_quantile(0.9, sydentish_database_wait_seconds)",
            "there is no metric sydentish_database_wait_seconds",
        ),
        ("1 - on (instance) up / foo:bar:baz", "there is no metric foo:bar:baz"),
    ],
)
def test_this_would_find_what_there_is_not(expr, trouble):
    assert troubles(expr) == [trouble]


def test_what_a_rule_tells_of_are_labels_of_the_metrics():
    known = {label for labels in declared().values() for label in labels}
    for rule in ALERT_RULES:
        assert set(re.findall(r"\$labels\.(\w+)", rule.text)) <= known


@pytest.mark.parametrize("path", [ALERTS, RECORDING], ids=lambda path: path.name)
def test_prometheus_can_read_the_rules(path):
    status, said = promtool("check", "rules", str(path))
    assert status == 0, said


def test_the_rules_do_what_they_should():
    status, said = promtool("test", "rules", str(TESTS))
    assert status == 0, said


def test_a_rule_that_does_something_else_would_be_noticed(tmp_path):
    for path in (ALERTS, RECORDING):
        text = path.read_text().replace(
            "sydentish_replication_lag_seconds > 3600", "sydentish_replication_lag_seconds > 9e9"
        )
        (tmp_path / path.name).write_text(text)
    (tmp_path / "rules.yml").write_text(TESTS.read_text().replace("../../docs/prometheus/", ""))
    status, said = promtool("test", "rules", str(tmp_path / "rules.yml"))
    assert status != 0
    assert "SydentishPeerLags" in said


def test_each_alert_is_tested():
    text = TESTS.read_text()
    assert [name for name in NAMES if f'{{alertname="{name}", instance="ill"}}' not in text] == []


def test_the_handbook_says_of_each_alert_what_to_do():
    sections = dict(re.findall(r"^### (Sydentish\w+)\n(.*?)(?=^##|\Z)", HANDBOOK, re.MULTILINE | re.DOTALL))
    assert list(sections) == NAMES
    for name, text in sections.items():
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in text, (name, part)
    for rule in ALERT_RULES:
        assert f"runbook: docs/handbook.md#{rule.name.lower()}\n" in f"{rule.text}\n"
        assert {"summary", "description", "severity"} <= set(
            re.findall(r"^ +(\w+):", rule.text, re.MULTILINE)
        )
