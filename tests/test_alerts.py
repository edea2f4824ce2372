"""The alert rules in docs/ ask for metrics and labels that there are."""

import re
from pathlib import Path

import pytest

from sydentish.metrics import Metrics

RULES = (Path(__file__).parents[1] / "docs" / "prometheus" / "alerts.yml").read_text()
EXPRESSIONS = re.findall(r"^ +expr: (.+)$", RULES, re.MULTILINE)


def exposed():
    """The names of all metrics, and the labels of each."""
    metrics = Metrics()
    metrics.set_replication([("id.example.net", 1, 2.0, 3, 4.0)])
    metrics.replication_received.labels("id.example.net", "refused").inc()
    found = re.findall(r"^(sydentish_\w+){(.*)} ", metrics.render().decode(), re.MULTILINE)
    return {name: set(re.findall(r"(\w+)=", labels)) for name, labels in found}


def test_there_are_rules():
    assert len(EXPRESSIONS) == RULES.count("- alert:") > 3
    assert any("lag_seconds > 3600" in expression for expression in EXPRESSIONS)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_rule_asks_for_what_there_is(expression):
    (name,) = re.findall(r"sydentish_\w+", expression)
    assert set(re.findall(r"(\w+)=", expression)) <= exposed()[name]


def test_what_a_rule_tells_of_are_labels_of_the_metrics_or_of_prometheus():
    told = set(re.findall(r"\$labels\.(\w+)", RULES))
    assert told <= {"instance", *(label for labels in exposed().values() for label in labels)}
