"""The log: one line for each event, as text or JSON, with everything personal and secret taken out.

Nothing should reach the log that must not stand there; what does all the same, in a traceback or in what a
library says, is taken out here.
"""

from sydentish.logs.files import LogFile, open_log
from sydentish.logs.levels import shows_requests
from sydentish.logs.observing import RedactingObserver, RequestRecorder, start_logging
from sydentish.logs.redaction import redact
from sydentish.logs.streams import BackgroundStream, Stream

__all__ = [
    "BackgroundStream",
    "LogFile",
    "RedactingObserver",
    "RequestRecorder",
    "Stream",
    "open_log",
    "redact",
    "shows_requests",
    "start_logging",
]
