"""What is logged: the events of Twisted's loggers, and requests."""

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    globalLogBeginner,
)
from zope.interface import implementer

from sydentish.logs.files import LogFile
from sydentish.logs.redaction import redact
from sydentish.metrics import Metrics


def start_logging(log: LogFile, level: str) -> None:
    """Sends all that Twisted's loggers are told to the log, from the given level on."""
    log.threshold.set(level)
    observer = FilteringLogObserver(RedactingObserver(log), [log.threshold])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)


@implementer(ILogObserver)
class RedactingObserver:
    """Writes events to the log, redacted."""

    def __init__(self, log: LogFile) -> None:
        self._log = log

    def __call__(self, event: LogEvent) -> None:
        """Writes one event."""
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        level = event.get("log_level", LogLevel.info)
        self._log.write(level.name, redact(text), logger=str(event.get("log_namespace", "-")))


class RequestRecorder:
    """A `RequestLog`: one line and the metrics of every request.

    The line is written without Twisted's logger, whose events would cost more than the rest of a small request.
    It has nothing of what the caller sent but the method.

    Args:
        log: where lines go.
        metrics: where figures go.
        lines: whether there are lines at all.

    Attributes:
        lines: as above; may be changed at any time.
    """

    def __init__(self, log: LogFile, metrics: Metrics, *, lines: bool) -> None:
        self._log = log
        self._metrics = metrics
        self.lines = lines

    def limited(self, budget: str) -> None:
        """See `RequestLog.limited`."""
        self._metrics.budget_refusals.labels(budget).inc()

    def answered(self, *, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """See `RequestLog.answered`."""
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if self.lines:
            self._log.write(
                "info",
                "request",
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
                request_id=request_id,
            )
