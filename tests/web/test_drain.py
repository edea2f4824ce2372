"""The end of a listener: idle connections at once, the others after their request."""

import pytest
from web.listening import QUICK, UPLOAD, Listening, gone, statuses
from web.wire import request


@pytest.fixture
def listening():
    return Listening()


def ended(drained):
    return drained.called


def test_idle_connections_end_at_once(listening):
    wires = [listening.connect() for _ in range(3)]
    for wire in wires:
        wire.send(QUICK)
    drained = listening.factory.drain()

    assert all(gone(wire) for wire in wires)
    assert ended(drained)
    assert listening.clock.getDelayedCalls() == []


@pytest.mark.parametrize("begun", [b"", b"GE"])
def test_who_has_just_connected_is_still_answered(listening, begun):
    wire = listening.connect()
    wire.send(begun)
    drained = listening.factory.drain()
    assert not gone(wire)
    wire.send(QUICK.removeprefix(begun))

    assert statuses(wire) == [200]
    assert b"Connection: close\r\n" in wire.transport.value()
    assert gone(wire)
    assert ended(drained)
    assert listening.clock.getDelayedCalls() == []


@pytest.mark.parametrize("begun", [b"", b"GE"])
def test_who_has_just_connected_is_not_waited_for_longer_than_a_moment(listening, begun):
    wire = listening.connect()
    wire.send(begun)
    drained = listening.factory.drain()
    listening.clock.advance(1)

    assert gone(wire)
    assert ended(drained)
    assert listening.clock.getDelayedCalls() == []


def test_without_connections_the_drain_is_over(listening):
    assert ended(listening.factory.drain())


def test_a_request_at_hand_is_finished_first_and_told_that_it_is_the_last(listening):
    wire = listening.connect()
    wire.send(request("GET", "/slow") + QUICK)
    drained = listening.factory.drain()
    assert not ended(drained)
    assert not gone(wire)
    listening.finish()

    assert statuses(wire) == [200]
    assert b"Connection: close\r\n" in wire.transport.value()
    assert gone(wire)
    assert ended(drained)


def test_a_request_that_still_arrives_is_finished_first(listening):
    wire = listening.connect()
    wire.send(UPLOAD + b" " * 500)
    drained = listening.factory.drain()
    assert not ended(drained)
    wire.send(b" " * 500)

    assert statuses(wire) == [200]
    assert b"Connection: close\r\n" in wire.transport.value()
    assert ended(drained)


def test_headers_that_still_arrive_are_finished_first(listening):
    wire = listening.connect()
    wire.send(QUICK[:-2])
    drained = listening.factory.drain()
    wire.send(QUICK[-2:])

    assert statuses(wire) == [200]
    assert b"Connection: close\r\n" in wire.transport.value()
    assert ended(drained)


def test_who_has_an_answer_and_still_sends_is_not_waited_for(listening):
    wire = listening.connect()
    wire.send(request("POST", "/refused", length=100_000) + b" " * 100)
    drained = listening.factory.drain()

    assert gone(wire)
    assert ended(drained)


def test_nobody_new_is_let_in(listening):
    listening.factory.drain()

    assert listening.factory.buildProtocol(None) is None


@pytest.mark.parametrize("sent", [request("GET", "/slow"), UPLOAD])
def test_what_takes_too_long_is_cut(listening, sent):
    wire = listening.connect()
    wire.send(sent)
    drained = listening.factory.drain()
    listening.factory.abort()

    assert gone(wire)
    assert ended(drained)
    assert listening.clock.getDelayedCalls() == []
    for waiting in listening.waiting:
        waiting.callback(None)


def test_two_may_wait_for_the_drain(listening):
    listening.connect().send(request("GET", "/slow"))
    drains = [listening.factory.drain(), listening.factory.drain()]
    listening.finish()

    assert all(ended(drained) for drained in drains)
