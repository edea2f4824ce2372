"""How important an event must be to be logged."""

from twisted.logger import ILogFilterPredicate, LogEvent, LogLevel, LogLevelFilterPredicate
from zope.interface import implementer

_LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warning": LogLevel.warn, "error": LogLevel.error}


@implementer(ILogFilterPredicate)
class Threshold:
    """From which level on events are logged; may be changed at any time.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """

    def __init__(self, level: str) -> None:
        self._predicate = _predicate(level)

    def set(self, level: str) -> None:
        """Changes the level."""
        self._predicate = _predicate(level)

    def __call__(self, event: LogEvent) -> object:
        """See `ILogFilterPredicate`."""
        return self._predicate(event)


def shows_requests(level: str) -> bool:
    """Whether there is a line for each request at a level."""
    return level in ("debug", "info")


def _predicate(level: str) -> LogLevelFilterPredicate:
    predicate = LogLevelFilterPredicate(defaultLogLevel=_LEVELS[level])
    if level == "info":
        # What Twisted's older parts say of every socket is for those who look for a fault in it.
        predicate.setLogLevelForNamespace("log_legacy", LogLevel.warn)
    return predicate
