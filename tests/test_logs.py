"""The log: one line for each event, and for each request."""

import fcntl
import io
import json
import os
import resource
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_tools import logged, logged_failure
from prometheus_client import generate_latest
from twisted.logger import FilteringLogObserver, Logger, LogLevel

from sydentish.logs import (
    BackgroundStream,
    LogFile,
    RedactingObserver,
    RequestRecorder,
    open_log,
    shows_requests,
)
from sydentish.metrics import Metrics

formats = pytest.mark.parametrize("as_json", [False, True], ids=["text", "JSON"])


def lines(stream):
    return stream.getvalue().splitlines()


# --- lines ---------------------------------------------------------------------------------------------

BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line_break", BREAKS)
def test_no_value_can_forge_a_line_of_text(line_break):
    forged = "2026-01-01T00:00:00.000+00:00 INFO request method=GET"
    written = logged("bad value: {value}", value=f"x{line_break}{forged}")

    assert sum(not line.startswith(" ") for line in written.splitlines()) == 1
    assert "\r" not in written


@pytest.mark.parametrize("line_break", BREAKS)
def test_an_event_is_one_line_of_json(line_break):
    written = logged("bad value: {value}", value=f"x{line_break}y", as_json=True)

    assert written.endswith("\n")
    assert written.count("\n") == 1
    assert json.loads(written)["level"] == "error"
    assert json.loads(written)["message"].startswith("bad value: x")


def test_a_traceback_is_indented():
    written = logged_failure(ValueError("one\n2026-01-01 ERROR forged"))

    assert sum(not line.startswith(" ") for line in written.splitlines()) == 1
    assert "ValueError" in written


@given(as_json=st.booleans(), message=st.text(st.characters(codec=None)))
def test_any_message_can_be_written(as_json, message):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    LogFile(stream, json=as_json).write("info", message, number=1)
    stream.detach()
    written = raw.getvalue().decode()

    assert not set(written) & {"\x1b", "\0", "\x07", "\x08", "\x7f", "\x9b"}
    assert sum(not line.startswith(" ") for line in written.splitlines()) == 1 or as_json
    assert written.count("\n") == 1 or not as_json


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@formats
def test_a_full_disk_keeps_nobody_from_being_answered(as_json):
    recorder = RequestRecorder(LogFile(FullDisk(), json=as_json), Metrics(), lines=True)

    recorder.answered(method="GET", route="v2", status=200, seconds=0.1, request_id="1")


# --- requests ------------------------------------------------------------------------------------------

REQUEST = {"method": "GET", "route": "v2/account", "status": 401, "seconds": 0.01234, "request_id": "ab12"}


def test_a_request_is_one_line_of_text():
    stream = io.StringIO()
    RequestRecorder(LogFile(stream, json=False), Metrics(), lines=True).answered(**REQUEST)
    (line,) = lines(stream)
    _, rest = line.split(" ", 1)

    assert rest == "INFO request method=GET route=v2/account status=401 ms=12.3 request_id=ab12"


def test_a_request_is_one_line_of_json():
    stream = io.StringIO()
    RequestRecorder(LogFile(stream, json=True), Metrics(), lines=True).answered(**REQUEST)
    (line,) = lines(stream)
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")

    assert entry == {
        "level": "info",
        "message": "request",
        "method": "GET",
        "route": "v2/account",
        "status": 401,
        "ms": 12.3,
        "request_id": "ab12",
    }


def test_without_lines_requests_are_still_counted():
    stream, metrics = io.StringIO(), Metrics()
    RequestRecorder(LogFile(stream, json=False), metrics, lines=False).answered(**REQUEST)

    assert stream.getvalue() == ""
    assert b'route="v2/account",status="401"} 1.0' in generate_latest(metrics.registry)


# --- events and files ----------------------------------------------------------------------------------


def test_an_event_has_its_level_and_its_logger():
    stream = io.StringIO()
    log = Logger("sydentish.some.part", observer=RedactingObserver(LogFile(stream, json=True)))
    for level in LogLevel.iterconstants():
        log.emit(level, "hello {name}", name="world")
    entries = [json.loads(line) for line in lines(stream)]

    assert [entry["level"] for entry in entries] == [level.name for level in LogLevel.iterconstants()]
    assert {entry["message"] for entry in entries} == {"hello world"}
    assert {entry["logger"] for entry in entries} == {"sydentish.some.part"}


@pytest.mark.parametrize(
    "event", [{}, {"log_format": "{nothing}"}, {"log_format": None}, {"log_namespace": None}]
)
def test_an_event_that_cannot_be_formatted_is_written_all_the_same(event):
    stream = io.StringIO()
    RedactingObserver(LogFile(stream, json=True))(event)

    assert len(lines(stream)) == 1


def test_a_new_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "sydentish.log"
    for message in ("first", "second"):
        log = open_log(path, json=False)
        log.write("info", message)
        log.close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line.split(" ")[-1] for line in path.read_text().splitlines()] == ["first", "second"]


def test_a_file_that_cannot_be_written_is_told_of(tmp_path):
    with pytest.raises(OSError, match="directory"):
        open_log(tmp_path / "no" / "such" / "place", json=False)
    with pytest.raises(OSError, match="directory"):
        open_log(Path(tmp_path), json=False)


def test_without_a_file_lines_go_to_standard_error(capfd):
    log = open_log(None, json=False)
    log.write("warn", "hello")
    log.close()

    assert capfd.readouterr().err.endswith(" WARN hello\n")


# --- changes while it is written to -----------------------------------------------------------------------


def test_a_log_can_move_to_another_file_and_form_and_loses_nothing(tmp_path):
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    log = open_log(first, json=False)
    written = [f"before {number}" for number in range(1000)]
    for message in written:
        log.write("info", message)
    log.take_over(open_log(second, json=True))
    log.write("info", "after")
    log.close()
    for thread in threading.enumerate():
        if thread.name == "former-log":
            thread.join(30)

    assert [line.split(" INFO ")[1] for line in first.read_text().splitlines()] == written
    assert json.loads(second.read_text())["message"] == "after"


def test_what_was_lost_is_counted_on_after_a_move(tmp_path):
    class Losing(io.StringIO):
        lost = 3

    log = LogFile(Losing(), json=False)
    log.take_over(open_log(tmp_path / "a.log", json=False))
    log.write("info", "written")
    assert log.lost == 3
    log.take_over(LogFile(Losing(), json=False))
    assert log.lost == 6
    log.close()


def test_a_file_that_was_moved_away_is_made_again(tmp_path):
    path, moved = tmp_path / "a.log", tmp_path / "a.log.1"
    log = open_log(path, json=False)
    path.rename(moved)
    log.write("info", "before")
    log.take_over(open_log(path, json=False))
    log.write("info", "after")
    log.close()

    assert path.read_text().endswith(" INFO after\n")


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_move(tmp_path):
    pipe = Pipe()
    log = LogFile(pipe.stream, json=False)
    log.write("info", "before")
    log.take_over(open_log(tmp_path / "a.log", json=False))
    log.write("info", "after")
    log.close()

    assert "after" in (tmp_path / "a.log").read_text()
    assert pipe.read_all().endswith(" INFO before\n")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_can_change_at_any_time(level):
    stream = io.StringIO()
    log = LogFile(stream, json=False)
    logger = Logger(
        "sydentish.some.part", observer=FilteringLogObserver(RedactingObserver(log), [log.threshold])
    )
    log.threshold.set(level)
    for kind in ("debug", "info", "warn", "error"):
        logger.emit(LogLevel.levelWithName(kind), kind)
    shown = [line.split()[1].lower() for line in stream.getvalue().splitlines()]

    all_levels = ["debug", "info", "warn", "error"]
    assert shown == all_levels[["debug", "info", "warning", "error"].index(level) :]
    assert shows_requests(level) == (level in ("debug", "info"))


# --- a log that nobody reads ---------------------------------------------------------------------------


class Pipe:
    """A pipe with a log at one end."""

    def __init__(self, **options):
        self.end, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
        self.into = os.dup(into)
        self.stream = BackgroundStream(into, "{} lines lost\n".format, **options)
        self.filled = os.write(self.into, b"x" * 4096)

    def read_all(self):
        """Reads until nobody can write any more."""
        os.close(self.into)
        with os.fdopen(self.end, "rb") as end:
            return end.read()[self.filled :].decode()


def closing(stream):
    """Closes it in a thread: it can only end once somebody reads."""
    thread = threading.Thread(target=stream.close, args=(30,))
    thread.start()
    return thread


def test_a_pipe_that_nobody_reads_makes_nobody_wait_and_loses_nothing_that_can_wait():
    pipe = Pipe()
    written = [f"line {number}\n" for number in range(5000)]
    for line in written:
        pipe.stream.write(line)
    thread = closing(pipe.stream)

    assert pipe.read_all() == "".join(written)
    thread.join()


def test_lines_that_are_too_many_to_wait_are_counted_and_told_of_where_they_are_missing():
    pipe = Pipe(max_waiting=3)
    pipe.stream.write("first\n")
    # The thread has taken the first line once the second waits alone, or it will take both.
    for number in range(10):
        pipe.stream.write(f"line {number}\n")
    thread = closing(pipe.stream)
    written = pipe.read_all().splitlines()
    thread.join()
    told = written.pop()

    assert written[0] == "first"
    assert written[1:] == [f"line {number}" for number in range(len(written) - 1)]
    assert told == f"{11 - len(written)} lines lost"
    assert LogFile(pipe.stream, json=False).lost == 11 - len(written)


def test_lines_of_many_threads_are_whole_and_all_there():
    end, into = os.pipe()
    stream = BackgroundStream(into, "{} lines lost\n".format, max_waiting=100_000)

    def write(letter):
        for number in range(500):
            stream.write(f"{letter * 20} {number}\n")

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    threads.append(closing_after(stream, threads[:]))
    for thread in threads:
        thread.start()
    with os.fdopen(end) as reading:
        written = reading.read().splitlines()
    for thread in threads:
        thread.join()

    for letter in "abcdefgh":
        assert [line for line in written if line.startswith(letter)] == [
            f"{letter * 20} {number}" for number in range(500)
        ]
    assert len(written) == 8 * 500


def closing_after(stream, threads):
    def close():
        for thread in threads:
            thread.join()
        stream.close(30)

    return threading.Thread(target=close)


def test_closing_waits_for_a_reader_no_longer_than_it_is_told_to():
    pipe = Pipe()
    pipe.stream.write("never read in time\n")
    pipe.stream.close(0.01)
    pipe.stream.write("too late\n")

    assert pipe.read_all().splitlines() == ["never read in time", "1 lines lost"]
    pipe.stream.close(30)


def test_a_pipe_that_does_not_wait_is_waited_for():
    end, into = os.pipe()
    os.set_blocking(into, False)
    stream = BackgroundStream(into, "{} lines lost\n".format)
    for number in range(9000):
        stream.write(f"{number:0100}\n")
    thread = closing(stream)
    with os.fdopen(end) as reading:
        written = reading.read().splitlines()
    thread.join()

    assert [int(line) for line in written] == list(range(9000))


def test_a_reader_that_went_away_keeps_nobody_from_closing():
    end, into = os.pipe()
    os.close(end)
    stream = BackgroundStream(into, "{} lines lost\n".format)
    stream.write("for nobody\n")
    stream.close(30)

    assert not stream._thread.is_alive()


@pytest.fixture
def disk(tmp_path):
    """A file that may grow to 100 bytes for the time being."""
    path = tmp_path / "log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    yield path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_line_that_was_torn_by_a_full_disk_is_ended_and_counted_once_there_is_room(disk):
    path, make_room = disk
    heard = threading.Semaphore(0)

    def lost_line(count):
        heard.release()
        return f"{count} lines lost\n"

    stream = BackgroundStream(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), lost_line)
    stream.write("a" * 69 + "\n" + "b" * 69 + "\n")
    assert heard.acquire(timeout=30)
    make_room()
    stream.write("c\n")
    stream.close(30)
    first, *_, told, last = path.read_text().splitlines()

    assert first == "a" * 69
    assert (told, last) == ("1 lines lost", "c")


@formats
def test_a_disk_that_stays_full_loses_lines_and_nothing_else(as_json):
    log = open_log(Path("/dev/full"), json=as_json)
    for _ in range(10):
        log.write("info", "hello")
    log.close()

    assert not log._stream._thread.is_alive()


@formats
def test_the_line_about_lost_lines_is_one_of_the_log(tmp_path, as_json):
    path = tmp_path / "log"
    log = open_log(path, json=as_json)
    log._stream._dropped = 7
    log.close()
    (line,) = path.read_text().splitlines()

    assert "7 lines of this log were lost" in line
    assert not as_json or json.loads(line)["level"] == "warn"


def test_closing_standard_error_leaves_it_open_to_others(capfd):
    open_log(None, json=False).close()
    os.write(2, b"still here")

    assert capfd.readouterr().err == "still here"
