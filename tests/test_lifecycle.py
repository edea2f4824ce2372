"""Starting and stopping, with real sockets."""

import os

import pytest
import pytest_twisted
from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from web.wire import Client, request

from sydentish.lifecycle import Listener, Ordered, why_not_starting
from sydentish.web import models
from sydentish.web.admission import OpenAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.http import ConnectionLimits, HttpFactory
from sydentish.web.reply import json_reply
from sydentish.web.route import Auth, Route

DRAIN = 6.0


class Quiet:
    def answered(self, **line):
        pass


class Handlers:
    """One that answers at once, and one that waits to be told."""

    def __init__(self):
        self.waiting = []
        self.arrived = Deferred()

    async def quick(self, _call):
        return json_reply({})

    async def slow(self, _call):
        waiting = Deferred()
        self.waiting.append(waiting)
        self.arrived.callback(None)
        await waiting
        return json_reply({})


@pytest.fixture
def handlers():
    return Handlers()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def warnings():
    """What was logged as a warning or worse."""
    found = []

    def note(event):
        if event["log_level"].name in ("warn", "error", "critical"):
            found.append(event)

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)


@pytest_twisted.async_yield_fixture
async def make_listener(handlers, clock):
    listeners, clients = [], []

    async def make(endpoint=None):
        dispatcher = Dispatcher(
            routes=[
                Route("GET", "quick", handlers.quick, models.Nothing, Auth.NONE),
                Route("GET", "slow", handlers.slow, models.Nothing, Auth.NONE),
            ],
            prefix="/",
            admission=OpenAdmission(),
            pages=None,
            limits=RequestLimits(1000, 1000, None),
            clock=clock,
            new_request_id=lambda: "1",
            log=Quiet(),
        )
        factory = HttpFactory(dispatcher, ConnectionLimits(16384, None, None, None), clock)
        listener = Listener(
            "tcp:0",
            endpoint or TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            factory,
            clock=clock,
            drain_seconds=DRAIN,
        )
        listener.startService()
        await listener.listening
        listeners.append(listener)
        if endpoint is not None:
            return listener, None
        client = Client(listener._port.getHost().port)
        clients.append(client)
        return listener, client

    yield make
    for listener in listeners:
        if listener.running:
            await listener.stopService()
    for client in clients:
        await client.close()


# --- listeners -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_listener_answers_until_it_stops(make_listener):
    listener, client = await make_listener()
    assert (await client.ask("GET", "/quick")).status == 200
    await listener.stopService()

    with pytest.raises(ConnectError):
        await client.connect()


@pytest_twisted.ensureDeferred
async def test_idle_connections_hold_up_nothing(make_listener, clock):
    listener, client = await make_listener()
    wire = await client.connect()
    await client.ask("GET", "/quick", wire=wire)
    await listener.stopService()

    assert await wire.ended() == b""
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_request_at_hand_is_finished_while_nobody_new_is_let_in(make_listener, handlers, clock):
    listener, client = await make_listener()
    wire = await client.connect()
    wire.send(request("GET", "/slow"))
    await handlers.arrived
    stopped = Deferred.fromCoroutine(listener.stopService())
    with pytest.raises(ConnectError):
        await client.connect()
    assert not stopped.called
    handlers.waiting[0].callback(None)
    answer = await wire.answer()
    await stopped

    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert await wire.ended() == b""
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_request_that_takes_too_long_is_cut(make_listener, handlers, clock, warnings):
    listener, client = await make_listener()
    wire = await client.connect()
    wire.send(request("GET", "/slow"))
    await handlers.arrived
    stopped = Deferred.fromCoroutine(listener.stopService())
    with pytest.raises(ConnectError):
        await client.connect()
    clock.advance(DRAIN)
    await stopped

    assert await wire.ended() == b""
    assert [event["log_format"] for event in warnings] == [
        "some requests took too long to finish and were cut"
    ]
    handlers.waiting[0].callback(None)
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_socket_that_is_taken_is_told_of(make_listener, handlers, clock):
    first, _ = await make_listener()
    port = first._port.getHost().port
    second = Listener(
        "tcp",
        TCP4ServerEndpoint(reactor, port, interface="127.0.0.1"),
        first._factory,
        clock=clock,
        drain_seconds=DRAIN,
    )
    second.startService()
    with pytest.raises(CannotListenError) as caught:
        await second.listening

    assert why_not_starting(caught.value).startswith("cannot listen on 127.0.0.1:")
    assert "in use" in why_not_starting(caught.value)
    await second.stopService()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_taken_away_in_the_end(make_listener, tmp_path):
    path = tmp_path / "http.sock"
    listener, _ = await make_listener(UNIXServerEndpoint(reactor, str(path)))
    assert path.is_socket()
    await listener.stopService()

    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_endpoint_strings_are_understood(make_listener):
    listener, _ = await make_listener(serverFromString(reactor, "tcp:0:interface=127.0.0.1"))

    assert listener._port.getHost().host == "127.0.0.1"


# --- order ---------------------------------------------------------------------------------------------


class Noting(Service):
    """A service that notes what it is told, and may wait or fail at its end."""

    def __init__(self, name, told, end=None):
        self.setName(name)
        self._told = told
        self._end = end

    def startService(self):
        self._told.append(f"start {self.name}")

    def stopService(self):
        self._told.append(f"stop {self.name}")
        return self._end


def ordered(*services):
    parent = Ordered()
    for service in services:
        service.setServiceParent(parent)
    MultiService.startService(parent)
    return parent


@pytest_twisted.ensureDeferred
async def test_services_stop_in_reverse_order_one_after_the_other():
    told, end = [], Deferred()
    parent = ordered(Noting("store", told), Noting("outbox", told), Noting("web", told, end))
    stopped = Deferred.fromCoroutine(parent.stopService())

    assert told == ["start store", "start outbox", "start web", "stop web"]
    assert not stopped.called
    end.callback(None)
    await stopped
    assert told[4:] == ["stop outbox", "stop store"]


@pytest_twisted.ensureDeferred
async def test_a_service_that_does_not_stop_well_keeps_no_other_from_it(warnings):
    told = []
    parent = ordered(Noting("store", told), Noting("outbox", told, fail(RuntimeError("canary"))))
    await parent.stopService()

    assert told[2:] == ["stop outbox", "stop store"]
    assert len(warnings) == 1
    assert warnings[0]["log_failure"].check(RuntimeError)


def test_of_a_file_its_name_is_told_and_why_it_cannot_be_used(tmp_path):
    with pytest.raises(OSError, match="No such") as caught:
        (tmp_path / "none" / "file").symlink_to("1")
    assert why_not_starting(caught.value) == f"{tmp_path}/none/file: No such file or directory"
    with pytest.raises(OSError, match="No such") as caught:
        (tmp_path / "none").stat()
    assert why_not_starting(caught.value) == f"{tmp_path}/none: No such file or directory"


def why_no_socket(path):
    """What is told by way of its lock, which comes first, and without a lock."""
    with pytest.raises(OSError, match="directory") as caught:
        reactor.listenUNIX(str(path), Factory(), wantPID=True)
    without_lock = OSError(caught.value.errno, caught.value.strerror)
    return {
        why_not_starting(caught.value),
        why_not_starting(CannotListenError(None, str(path), without_lock)),
        why_not_starting(CannotListenError(None, os.fsencode(path), without_lock)),
    }


def test_of_a_unix_socket_the_directory_that_is_missing_is_told(tmp_path):
    path = tmp_path / "none" / "http.sock"
    assert why_no_socket(path) == {f"cannot listen on {path}: there is no directory {path.parent}"}


def test_of_a_unix_socket_another_reason_is_told_as_it_is(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "http.sock"
    assert why_no_socket(path) == {f"cannot listen on {path}: Not a directory"}


def test_other_reasons_are_told_as_they_are():
    assert why_not_starting(ValueError("no such address")) == "no such address"
