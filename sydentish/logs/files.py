"""The file of the log, and how a line looks in it."""

import os
import re
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson

from sydentish.logs.levels import Threshold
from sydentish.logs.streams import BackgroundStream, Stream

_STDERR = 2
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


class LogFile:
    """Where lines go: standard error, or a file that they are added to.

    A line that cannot be written is lost: a full disk must not keep requests from being answered.

    Attributes:
        threshold: which events of Twisted's loggers are important enough.
    """

    def __init__(self, stream: Stream, *, json: bool) -> None:
        self._stream = stream
        self._json = json
        self._lost_before = 0
        self.threshold = Threshold("info")

    def write(self, level: str, message: str, **fields: object) -> None:
        """Writes one line; what a message brings along cannot look like another one."""
        line = _line(level, message, fields, json=self._json)
        with suppress(OSError):
            self._stream.write(line)
            self._stream.flush()

    @property
    def lost(self) -> int:
        """How many lines could not be written since the beginning."""
        return self._lost_before + getattr(self._stream, "lost", 0)

    def take_over(self, other: "LogFile") -> None:
        """Writes where another one would, as it would; what waits is still written to the former file.

        Args:
            other: opened for this, and not to be used any more.
        """
        former, self._lost_before = self._stream, self.lost
        self._stream, self._json = other._stream, other._json  # noqa: SLF001 - one of our own kind
        # It is closed when everything is written, which may take its time.
        threading.Thread(target=former.close, name="former-log", daemon=True).start()

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
