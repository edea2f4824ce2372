"""What an expression of Prometheus asks for, and what there is: for tests of rules and dashboards."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sydentish.metrics import Metrics

DOCS = Path(__file__).parents[1] / "docs"
ALERTS = DOCS / "prometheus" / "alerts.yml"
RECORDING = DOCS / "prometheus" / "recording.yml"

# What Prometheus adds to everything that it scrapes, and what it knows itself.
_ALWAYS = {"instance": None, "job": None}
_OWN = {"up": {}, "ALERTS": {"alertname": None, "alertstate": ("firing", "pending"), "severity": None}}
_WORDS = {
    *(
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "or",
        "and",
        "unless",
        "offset",
        "bool",
    ),
    *("inf", "nan"),
}
_MATCHER = re.compile(r"""(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*""")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_HISTOGRAM = {"_bucket": {"le": None}, "_sum": {}, "_count": {}}


@dataclass(frozen=True)
class Rule:
    """A rule, by the kind of its name (`alert`, `record`)."""

    kind: str
    name: str
    expr: str
    text: str


def rules(path):
    """The rules of a file, in order."""
    found = []
    for text in re.split(r"^      - (?=alert:|record:)", path.read_text(), flags=re.MULTILINE)[1:]:
        kind, name = re.match(r"(\w+): (\S+)", text).groups()
        expr = re.search(r"^        expr: (?:>-\n)?((?:.+)(?:\n {10,}.+)*)", text, re.MULTILINE)[1]
        found.append(Rule(kind, name, " ".join(expr.split()), text))
    return found


def metrics_in(expr):
    """Pairs of the name of each metric and its matchers, as triples of label, operator and value."""
    bare = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", expr))
    found = []
    for match in re.finditer(
        r"[a-zA-Z_:][\w:]*", re.sub(r'\{[^}]*\}|"[^"]*"', lambda each: " " * len(each[0]), bare)
    ):
        rest = bare[match.end() :].lstrip()
        if rest.startswith("(") or match[0].lower() in _WORDS:
            continue
        matchers = rest[1 : rest.index("}")] if rest.startswith("{") else ""
        left = _MATCHER.sub("", matchers).replace(",", "").strip()
        if left:
            raise ValueError(f"{match[0]} has matchers that cannot be read: {left}")
        found.append((match[0], _MATCHER.findall(matchers)))
    return found


def grouped_by(expr):
    """The labels that an expression names beside metrics."""
    return {
        label.strip() for labels in _GROUPING.findall(expr) for label in labels.split(",") if label.strip()
    }


@cache
def declared():
    """The labels of every metric that can be asked for, each with the values that it can have, or None."""
    metrics = Metrics()
    kinds = {family.name: family.type for family in metrics.registry.collect()}
    found = dict(_OWN)
    for name, labels in metrics.labels.items():
        if kinds.get(name) == "histogram":
            found.update({f"{name}{suffix}": {**labels, **more} for suffix, more in _HISTOGRAM.items()})
        else:
            found[name] = labels
    for family in metrics.registry.collect():
        if family.name.startswith(("process_", "python_")):
            found.update({sample.name: dict.fromkeys(sample.labels) for sample in family.samples})
    for rule in rules(RECORDING):
        found[rule.name] = dict.fromkeys(grouped_by(rule.expr) - {"le"})
    return {name: {**_ALWAYS, **labels} for name, labels in found.items()}


def troubles(expr):
    """What an expression asks for that there is not."""
    found, labels = [], {"le"}
    for name, matchers in metrics_in(expr):
        known = declared().get(name)
        if known is None:
            found.append(f"there is no metric {name}")
            continue
        labels |= known.keys()
        for label, operator, value in matchers:
            if label not in known:
                found.append(f"{name} has no label {label}")
            elif known[label] is not None and "$" not in value:
                values = [each for each in known[label] if re.fullmatch(value, each)]
                wanted = [value] if operator in ("=", "!=") else value.split("|")
                if not values or (re.fullmatch(r"[\w|]+", value) and not set(wanted) <= set(known[label])):
                    found.append(f"{name} has no {label} {value}")
    return found + [f"nothing has a label {label}" for label in sorted(grouped_by(expr) - labels)]
