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
        self._declare_replication()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _declare_replication(self) -> None:
        self.replication_pushes = self._counter(
            "sydentish_replication_pushes", "Pushes to peers by how they ended.", "peer", "outcome"
        )
        self.replication_push_seconds = Histogram(
            "sydentish_replication_push_duration_seconds",
            "How long a push of statements took that a peer has accepted.",
            ["peer"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.replication_received = self._counter(
            "sydentish_replication_received_statements",
            "Statements that peers have pushed here: new, known (or outdated), unusable, or refused.",
            "peer",
            "outcome",
        )
        self._lag = (
            self._gauge(
                "sydentish_replication_lag_entries", "Statements that a peer has not acknowledged.", "peer"
            ),
            self._gauge(
                "sydentish_replication_lag_seconds", "How long the oldest of them has waited.", "peer"
            ),
            self._gauge(
                "sydentish_replication_parked_entries", "Statements that a peer has refused by name.", "peer"
            ),
            self._gauge(
                "sydentish_replication_last_success_timestamp_seconds",
                "When a peer has last acknowledged a push; 0 if it never has.",
                "peer",
            ),
        )

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

    def set_replication(self, figures: Iterable[tuple[str, int, float, int, float]]) -> None:
        """Brings the figures of replication up to date.

        Args:
            figures: of each peer: its name, how many statements it has not acknowledged, how long the oldest of them
                has waited in s, how many are parked, and when it last acknowledged anything in s since 1970.
        """
        for gauge in self._lag:
            gauge.clear()
        for peer, *values in figures:
            for gauge, value in zip(self._lag, values, strict=True):
                gauge.labels(peer).set(value)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
