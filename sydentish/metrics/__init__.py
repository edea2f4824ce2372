"""Every metric, declared here and nowhere else. Labels come from fixed lists: nothing a caller sends is one."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from sydentish.metrics.declare import Declarer, Values
from sydentish.metrics.events import Events
from sydentish.metrics.figures import Figures

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics(Events, Figures):
    """The metrics of one process, in a registry of their own.

    Attributes:
        labels: the labels of each of ours by its name, with the values that they can have; None for any number.
    """

    def __init__(self) -> None:
        # When each counter was made is what the process's own start tells, at half the size.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        declare = Declarer(self.registry)
        Events.__init__(self, declare)
        Figures.__init__(self, declare)
        self.labels: dict[str, dict[str, Values]] = declare.labels
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
