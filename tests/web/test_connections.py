"""Time limits of connections, with a clock that the test turns."""

import json

import pytest
import pytest_twisted
from web.listening import IDLE, QUICK, RECEIVE, UPLOAD, Listening, gone, statuses
from web.wire import PREFIX, request


@pytest.fixture
def listening():
    return Listening()


# --- idle ----------------------------------------------------------------------------------------------


def test_a_connection_that_says_nothing_is_closed_in_the_time_of_a_request(listening):
    wire = listening.connect()
    listening.clock.advance(RECEIVE - 1)
    assert not gone(wire)
    listening.clock.advance(1)

    assert gone(wire)
    assert wire.transport.value() == b""
    assert listening.clock.getDelayedCalls() == []


def test_a_connection_that_rests_is_closed(listening):
    wire = listening.connect()
    wire.send(QUICK)
    listening.clock.advance(IDLE - 1)
    assert not gone(wire)
    listening.clock.advance(1)

    assert gone(wire)
    assert listening.clock.getDelayedCalls() == []


def test_each_request_begins_the_idle_time_anew(listening):
    wire = listening.connect()
    for _ in range(5):
        listening.clock.advance(IDLE - 1)
        wire.send(QUICK)
    assert statuses(wire) == [200] * 5
    listening.clock.advance(IDLE)

    assert gone(wire)


def test_who_waits_for_an_answer_is_not_idle(listening):
    wire = listening.connect()
    wire.send(request("GET", "/slow"))
    listening.clock.advance(10 * IDLE)
    assert not gone(wire)
    listening.finish()

    assert statuses(wire) == [200]
    assert not gone(wire)
    listening.clock.advance(IDLE)
    assert gone(wire)


# --- a request takes too long to arrive ----------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"G", QUICK[:-2], UPLOAD, UPLOAD + b"{"])
def test_a_request_that_does_not_arrive_in_time_is_cut(listening, sent):
    wire = listening.connect()
    wire.send(sent)
    listening.clock.advance(RECEIVE)

    assert gone(wire)
    assert listening.clock.getDelayedCalls() == []


@pytest.mark.parametrize("sent", [QUICK[:-2], UPLOAD + b" " * 900])
def test_a_slow_drip_does_not_win_time(listening, sent):
    wire = listening.connect()
    for position in range(RECEIVE):
        assert not gone(wire)
        wire.send(sent[position : position + 1])
        listening.clock.advance(1)

    assert gone(wire)


def test_the_time_counts_from_the_first_byte_of_each_request(listening):
    wire = listening.connect()
    wire.send(QUICK)
    for _ in range(3):
        listening.clock.advance(RECEIVE)
        wire.send(QUICK[:10])
        listening.clock.advance(RECEIVE - 1)
        wire.send(QUICK[10:])
    listening.clock.advance(RECEIVE)

    assert statuses(wire) == [200] * 4
    assert not gone(wire)


def test_the_time_of_a_request_that_came_behind_another_counts_from_its_turn(listening):
    wire = listening.connect()
    wire.send(request("GET", "/slow") + QUICK[:10])
    listening.clock.advance(10 * RECEIVE)
    listening.finish()
    listening.clock.advance(RECEIVE - 1)
    assert not gone(wire)
    listening.clock.advance(1)

    assert gone(wire)


def test_a_refused_body_may_not_take_for_ever_either(listening):
    wire = listening.connect()
    wire.send(request("POST", "/refused", length=100_000))
    assert statuses(wire) == [401]
    listening.clock.advance(RECEIVE)

    assert gone(wire)


def test_limits_of_time_can_be_switched_off():
    listening = Listening(receive_seconds=None, idle_seconds=None)
    wire = listening.connect()
    wire.send(QUICK[:10])
    assert listening.clock.getDelayedCalls() == []
    listening.clock.advance(1_000_000)
    wire.send(QUICK[10:])

    assert statuses(wire) == [200]


@pytest.mark.parametrize("sent", [b"", QUICK, QUICK[:10], UPLOAD, request("GET", "/slow"), b"garbage\r\n"])
def test_nothing_ticks_on_when_the_client_has_gone(listening, sent):
    wire = listening.connect()
    wire.send(sent)
    wire.transport.loseConnection()
    for waiting in listening.waiting:
        waiting.callback(None)

    assert listening.clock.getDelayedCalls() == []


def test_who_is_cut_is_not_named_in_the_log(listening, failures):
    wire = listening.connect()
    wire.send(b"G")
    listening.clock.advance(IDLE)

    assert failures == []
    assert listening.noted.lines == []


@pytest.mark.parametrize("sent", [b"", QUICK, QUICK + b"G", request("POST", "/refused", length=100_000)])
def test_who_does_not_take_the_answer_is_cut_in_the_end(listening, sent):
    wire = listening.connect(reads=False)
    wire.send(sent)
    listening.clock.pump([1] * (IDLE + wire.channel.abortTimeout))

    assert wire.transport.aborted
    assert listening.clock.getDelayedCalls() == []


def test_garbage_from_one_who_does_not_take_the_answer_is_cut_in_the_end(listening):
    wire = listening.connect(reads=False)
    wire.send(b"garbage\r\n")
    listening.clock.pump([1] * (IDLE + wire.channel.abortTimeout))

    assert wire.transport.aborted
    assert listening.clock.getDelayedCalls() == []


# --- the answer ----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_date_is_that_of_the_clock(server):
    wire = await server.connect()
    first = await server.ask("GET", "v2", wire=wire)
    server.house.clock.advance(1)
    second = await server.ask("GET", "v2", wire=wire)

    assert first.headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert second.headers["date"] == "Tue, 14 Nov 2023 22:13:21 GMT"


def test_an_answer_is_a_single_message_with_its_length(listening):
    wire = listening.connect()
    wire.send(request("GET", "/nothing"))
    head, _, body = wire.transport.value().partition(b"\r\n\r\n")

    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body)["errcode"] == "M_UNRECOGNIZED"
    assert PREFIX.encode() not in body
