"""The log: one line for each event, as text or JSON, with everything personal and secret taken out.

Nothing should reach the log that must not stand there; what does all the same, in a traceback or in what a
library says, is taken out here.
"""

import os
import re
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import orjson
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogBeginner,
)
from zope.interface import implementer

from sydentish.metrics import Metrics

_LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warning": LogLevel.warn, "error": LogLevel.error}

_NUMBERS = "(?:msisdn|phone_number|address|destination)"
# Each is tried at few places of a long text, so that none costs its length squared.
_REDACTIONS = [
    # Tokens and secrets where they are named: in a URL, a header, JSON, or a repr of strings, bytes and lists.
    (
        re.compile(
            r"""(?ix) ( (?: (?<![a-z0-9]) | (?<=%[0-9a-f][0-9a-f]) )
                (?: token | secret | password | private_key | authorization | sid | code ) )
            (\\* ["']? \s* (?: [=:] | %3[ad]) [\s\[({\\]*)
            (?: (?:bearer | basic | x-matrix) \s+ )?
            (?: b? "(?: [^"\\] | \\. )* "? | b? '(?: [^'\\] | \\. )* '? | [^\s"'&,;)\]}<>]+ )"""
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\bbearer(?:\s|%20|\+)+[^\s\"'<>]+"), "Bearer [redacted]"),
    # E-mail addresses; a user ID has nothing in front of its @.
    (
        re.compile(
            r"""(?ix) (?: (?<![^\s"'<>()\[\]{}=:,;/@]) [^\s"'<>()\[\]{}=:,;/@]+ | "[^"\n]{0,320}" )
                (?: @ | %40) (?: \[ [^\s\]]+ \]? | [^\s"'<>()\[\]{},;@]+ )"""
        ),
        "[address]",
    ),
    # Telephone numbers in the international form, and where they are named.
    (re.compile(r"(?i)(?:\+|%2b)[0-9][0-9 .-]{5,}[0-9]"), "[number]"),
    (re.compile(rf"(?i)\b({_NUMBERS}\\*[\"']?\s*(?:[=:]|%3[ad])[\s\\]*[\"']?)[0-9]{{6,}}"), r"\1[number]"),
]
_MAX_WAITING = 10_000
_GATHER_SECONDS = 0.02
_CLOSE_SECONDS = 2.0
_STDERR = 2
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def redact(text: str) -> str:
    """The text without addresses, tokens and secrets."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


class Stream(Protocol):
    """What a `LogFile` writes to; any text file will do."""

    def write(self, text: str, /) -> object:
        """Takes text."""

    def flush(self) -> None:
        """Called after each line."""

    def close(self) -> None:
        """Called after the last line."""


class BackgroundStream:
    """A `Stream` that never makes its caller wait: a thread of its own writes what is queued.

    Who reads a pipe may stop reading it, and a disk may be full. Lines are lost then, once too many wait; they
    are counted, and one line says so when there is a way again. Any thread may write.

    Args:
        descriptor: where to write; closed in the end.
        lost_line: makes the line that says how many were lost.
        max_waiting: how many lines may wait.
    """

    def __init__(
        self, descriptor: int, lost_line: Callable[[int], str], *, max_waiting: int = _MAX_WAITING
    ) -> None:
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._dropped = 0
        self._closing = threading.Event()
        self._torn = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Queues a line, or drops it when too many wait."""
        with self._changed:
            if len(self._waiting) >= self._max_waiting or self._closing.is_set():
                self._dropped += 1
                return
            self._waiting.append(text)
            if len(self._waiting) == 1:
                self._changed.notify()

    def flush(self) -> None:
        """The thread does it."""

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Waits until all that was queued is written, but no longer than some seconds."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        lost = 0
        while taken := self._take():
            lines, dropped = taken
            lost = self._say(lost)
            lost = self._say(lost + self._put(lines) + dropped)
            # Lines gather meanwhile: to change threads for each of them would cost as much as to answer it.
            self._closing.wait(_GATHER_SECONDS)
        os.close(self._descriptor)

    def _take(self) -> tuple[list[str], int] | None:
        """Waits for lines; all that are queued, and how many were dropped behind them; None in the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._dropped or self._closing.is_set())
            if not self._waiting and not self._dropped:
                return None
            taken = (self._waiting, self._dropped)
            self._waiting, self._dropped = [], 0
            return taken

    def _say(self, lost: int) -> int:
        """Says how many lines were lost; how many are still to be told of."""
        return lost if lost and self._put([self._lost_line(lost)]) else 0

    def _put(self, lines: list[str]) -> int:
        """Writes lines; how many of them could not be written whole."""
        encoded = [line.encode(errors="backslashreplace") for line in lines]
        if self._torn and encoded:
            encoded[0] = b"\n" + encoded[0]
        data = b"".join(encoded)
        done = self._write_all(data)
        if done:
            self._torn = not data[:done].endswith(b"\n")
        return sum(end > done for end in accumulate(map(len, encoded)))

    def _write_all(self, data: bytes) -> int:
        """Writes until there is no way; how many bytes were written."""
        done = 0
        while done < len(data):
            try:
                done += os.write(self._descriptor, data[done:])
            except BlockingIOError:  # another process has made the pipe one that does not wait
                ready = select.poll()
                ready.register(self._descriptor, select.POLLOUT)
                ready.poll()
            except OSError:
                break
        return done


class LogFile:
    """Where lines go: standard error, or a file that they are added to.

    A line that cannot be written is lost: a full disk must not keep requests from being answered.
    """

    def __init__(self, stream: Stream, *, json: bool) -> None:
        self._stream = stream
        self._json = json

    def write(self, level: str, message: str, **fields: object) -> None:
        """Writes one line; what a message brings along cannot look like another one."""
        line = _line(level, message, fields, json=self._json)
        with suppress(OSError):
            self._stream.write(line)
            self._stream.flush()

    def close(self) -> None:
        """Writes what is not written yet, as far as that can be done soon; the last thing to call."""
        self._stream.close()


def _line(level: str, message: str, fields: dict[str, object], *, json: bool) -> str:
    message = _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], message)
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    if json:
        return orjson.dumps({"time": when, "level": level, "message": message, **fields}).decode() + "\n"
    message = "\n    ".join(message.splitlines())
    return " ".join([when, level.upper(), message, *(f"{key}={fields[key]}" for key in fields)]) + "\n"


def open_log(path: Path | None, *, json: bool) -> LogFile:
    """Opens the log, which keeps nobody waiting; `LogFile.close` is to be called in the end.

    Args:
        path: the file, which nobody but its owner may read if it is new; None for standard error.
        json: one JSON object a line instead of text.

    Raises:
        OSError: the file cannot be written.
    """

    def lost_line(count: int) -> str:
        return _line("warn", f"{count} lines of this log were lost: they could not be written", {}, json=json)

    return LogFile(BackgroundStream(_open(path), lost_line), json=json)


def _open(path: Path | None) -> int:
    if path is not None:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if sys.stderr is None:  # closed by who started the program: its number may be another file's by now
        return os.open(os.devnull, os.O_WRONLY)
    return os.dup(_STDERR)


def start_logging(log: LogFile, level: str) -> None:
    """Sends all that Twisted's loggers are told to the log, from the given level on."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=_LEVELS[level])
    if level == "info":
        # What Twisted's older parts say of every socket is for those who look for a fault in it.
        predicate.setLogLevelForNamespace("log_legacy", LogLevel.warn)
    observer = FilteringLogObserver(RedactingObserver(log), [predicate])
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
    """

    def __init__(self, log: LogFile, metrics: Metrics, *, lines: bool) -> None:
        self._log = log
        self._metrics = metrics
        self._lines = lines

    def limited(self, budget: str) -> None:
        """See `RequestLog.limited`."""
        self._metrics.budget_refusals.labels(budget).inc()

    def answered(self, *, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """See `RequestLog.answered`."""
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if self._lines:
            self._log.write(
                "info",
                "request",
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
                request_id=request_id,
            )
