"""What an event becomes in the log."""

import io

from twisted.logger import Logger

from sydentish.logs import LogFile, RedactingObserver


def logged(format_string, *, as_json=False, **values):
    """What one event becomes."""
    stream = io.StringIO()
    Logger("tests", observer=RedactingObserver(LogFile(stream, json=as_json))).error(format_string, **values)
    return stream.getvalue()


def logged_failure(error):
    """What an exception becomes, with its traceback."""
    stream = io.StringIO()
    log = Logger("tests", observer=RedactingObserver(LogFile(stream, json=False)))
    try:
        raise error
    except type(error):
        log.failure("request {request_id} broke", request_id="17")
    return stream.getvalue()
