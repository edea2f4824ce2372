"""How a metric is declared: its name, one sentence, and its labels with all values that they can have."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, product

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""In seconds."""

Values = Sequence[str] | None
"""The values of a label; None where the operator's configuration or our routes say them."""

Figure = tuple[tuple[str, ...], float]
"""The values of the labels, and the figure."""

Spread = tuple[tuple[str, ...], Sequence[float], Sequence[int], float]
"""The values of the labels, upper bounds, how many were found up to each (and one more for those above), and their sum."""


class Declarer:
    """Declares the metrics of one process.

    Counters begin with 0 where all values of all labels are known: what is counted for the first time would seem to
    have been so always, else.

    Attributes:
        labels: the labels of each metric by its name, with their values.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.labels: dict[str, dict[str, Values]] = {}

    def counter(self, name: str, about: str, **labels: Values) -> Counter:
        """Something that is counted when it happens; `_total` is added to its name."""
        counter = Counter(name, about, list(labels), registry=self._registry)
        self._begin(f"{name}_total", counter, labels)
        return counter

    def histogram(self, name: str, about: str, **labels: Values) -> Histogram:
        """How long something takes, in seconds."""
        histogram = Histogram(name, about, list(labels), buckets=LATENCY_BUCKETS, registry=self._registry)
        self._begin(name, histogram, labels)
        return histogram

    def read_counter(self, name: str, about: str, **labels: Values) -> "Read":
        """As `counter`, of something that is counted elsewhere."""
        self.labels[f"{name}_total"] = labels
        return self._read(lambda: CounterMetricFamily(name, about, labels=list(labels)))

    def gauge(self, name: str, about: str, **labels: Values) -> "Read":
        """A figure of the moment."""
        self.labels[name] = labels
        return self._read(lambda: GaugeMetricFamily(name, about, labels=list(labels)))

    def read_histogram(self, name: str, about: str, **labels: Values) -> "ReadSpread":
        """As `histogram`, of what is measured elsewhere, in any unit."""
        self.labels[name] = labels
        read = ReadSpread(lambda: HistogramMetricFamily(name, about, labels=list(labels)))
        self._registry.register(read)
        return read

    def _begin(self, name: str, metric: Counter | Histogram, labels: dict[str, Values]) -> None:
        self.labels[name] = labels
        values = [each for each in labels.values() if each is not None]
        if labels and len(values) == len(labels):
            for each in product(*values):
                metric.labels(*each)

    def _read(self, family: Callable[[], CounterMetricFamily | GaugeMetricFamily]) -> "Read":
        read = Read(family)
        self._registry.register(read)
        return read


class Read:
    """A metric whose figures are kept elsewhere, and read when somebody wants to know them; at first there are none.

    Attributes:
        source: reads them; it is quick and never fails.
    """

    def __init__(self, family: Callable[[], CounterMetricFamily | GaugeMetricFamily]) -> None:
        self._family = family
        self.source: Callable[[], Iterable[Figure]] = tuple

    def set(self, figures: Iterable[Figure]) -> None:
        """Has these figures until others are set; none of those that were set before."""
        kept = tuple(figures)
        self.source = lambda: kept

    def describe(self) -> list[Metric]:
        """What is declared, without figures."""
        return [self._family()]

    def collect(self) -> list[Metric]:
        """The figures as they are now."""
        family = self._family()
        for labels, value in self.source():
            family.add_metric(labels, value)
        return [family]


class ReadSpread:
    """As `Read`, for a histogram."""

    def __init__(self, family: Callable[[], HistogramMetricFamily]) -> None:
        self._family = family
        self.source: Callable[[], Iterable[Spread]] = tuple

    def describe(self) -> list[Metric]:
        """What is declared, without figures."""
        return [self._family()]

    def collect(self) -> list[Metric]:
        """The figures as they are now."""
        family = self._family()
        for labels, bounds, counts, total in self.source():
            names = [*(str(float(bound)) for bound in bounds), "+Inf"]
            buckets = zip(names, accumulate(counts), strict=True)
            family.add_metric(labels, list(buckets), total)
        return [family]
