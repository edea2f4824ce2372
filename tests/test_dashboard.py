"""The dashboard in docs/grafana: each of its queries asks for what there is."""

import json
import re

import pytest
from promql import DOCS, declared, metrics_in, troubles

DASHBOARD = json.loads((DOCS / "grafana" / "sydentish.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


def filled(text):
    """A query as Grafana would send it."""
    return text.replace("$__rate_interval", "1m").replace("$instance", ".+")


def test_there_is_a_row_for_each_part_of_the_server():
    parts = "Overview, Requests, Validation and sends, Outbox, Replication, Database, Process"
    assert ", ".join(ROWS) == parts
    assert len(QUERIES) > 50


@pytest.mark.parametrize(("title", "target"), QUERIES, ids=lambda each: each if isinstance(each, str) else "")
def test_a_query_asks_for_what_there_is(title, target):
    assert title
    assert troubles(target["expr"]) == []
    # Of another instance, nobody wants to know anything.
    assert all(("instance", "=~", "$instance") in matchers for _, matchers in metrics_in(target["expr"]))


def test_this_would_find_a_query_for_nothing():
    expr = QUERIES[0][1]["expr"].replace("sydentish_health_check", "sydentish_health_checks")
    assert "there is no metric sydentish_health_checks" in troubles(expr)


def test_a_legend_has_only_labels_that_the_query_leaves():
    for title, target in QUERIES:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        left = re.findall(r"\bby \(([^)]*)\)", target["expr"])
        kept = {label.strip() for labels in left for label in labels.split(",")} if left else {"instance"}
        assert named <= kept, title


def test_every_metric_of_the_server_is_shown():
    shown = {name for _, target in QUERIES for name, _ in metrics_in(target["expr"])}
    shown |= {"sydentish_signing_key_info"}  # a list, which tells little in a graph
    roots = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    missing = [
        name
        for name in declared()
        if name.startswith("sydentish_") and re.sub(r"_(bucket|sum|count)$", "", name) not in roots
    ]
    assert missing == []


def test_data_source_and_instance_are_chosen_by_whoever_looks():
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for panel in PANELS:
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    (query,) = re.findall(r"label_values\((\w+), instance\)", VARIABLES["instance"]["definition"])
    assert query in declared()


def test_panels_have_names_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
