"""Every metric, declared here and nowhere else. Labels come from fixed lists: nothing a caller sends is one."""

from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "sydentish_http_requests", "Requests that were answered.", "method", "route", "status"
        )
        self.request_seconds = Histogram(
            "sydentish_http_request_duration_seconds",
            "From a request's headers to its answer.",
            ["route"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.mails = self._counter("sydentish_mails", "Mails by how their hand-over ended.", "outcome")
        self.sms = self._counter(
            "sydentish_sms", "SMS by gateway, and by how their hand-over ended.", "gateway", "outcome"
        )
        self.budget_refusals = self._counter(
            "sydentish_budget_refusals", "Requests refused because a budget was used up, by budget.", "budget"
        )
        self.invite_policy = self._counter(
            "sydentish_invite_policy",
            "Invitations that the policy does not want, by what it found, and whether they were refused.",
            "reason",
            "outcome",
        )
        self.deliveries = self._counter(
            "sydentish_outbox_deliveries",
            "Tries to deliver a row of the outbox, by how they ended.",
            "kind",
            "outcome",
        )
        self.outbox_rows = self._gauge("sydentish_outbox_rows", "Rows of the outbox.", "kind", "state")
        self.outbox_oldest_seconds = self._gauge(
            "sydentish_outbox_oldest_seconds",
            "Age of the oldest row of the outbox; 0 without rows.",
            "kind",
            "state",
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, registry=self.registry)

    def set_outbox(
        self, kinds: Iterable[str], counts: Iterable[tuple[str, str, int, int]], now_ms: int
    ) -> None:
        """Brings the figures of the outbox up to date.

        Args:
            kinds: every kind of row, so that one without rows is told of, too.
            counts: kind, state, number of rows, and the time of the oldest in ms.
            now_ms: the time, in ms.
        """
        found = {(kind, state): (number, oldest_ts) for kind, state, number, oldest_ts in counts}
        for kind in kinds:
            for state in ("pending", "dead"):
                number, oldest_ts = found.get((kind, state), (0, now_ms))
                self.outbox_rows.labels(kind, state).set(number)
                self.outbox_oldest_seconds.labels(kind, state).set(max(0, now_ms - oldest_ts) / 1000)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
