"""A listener whose connections are in memory, and whose clock the test turns."""

from types import SimpleNamespace

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.python.failure import Failure
from web.wire import request

from sydentish.web import models
from sydentish.web.admission import PublicAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.http import ConnectionLimits, HttpFactory
from sydentish.web.reply import json_reply
from sydentish.web.route import Auth, Params, Route
from sydentish.web.sources import Sources

IDLE, RECEIVE = 60, 30
QUICK = request("GET", "/quick")
UPLOAD = request("POST", "/upload", length=1000)


class Noted:
    def __init__(self):
        self.lines = []

    def answered(self, **line):
        self.lines.append(line)


class DeafTransport(StringTransport):
    """Ends only when it is cut, as one does whose client does not take what is still to be written."""

    aborted = False

    def abortConnection(self):
        self.aborted = True
        self.connected = False
        self.protocol.connectionLost(Failure(ConnectionAborted()))


class Listening:
    """A factory whose transports are in memory."""

    def __init__(self, **limits):
        self.clock = Clock()
        self.noted = Noted()
        self.waiting = []
        limits = {
            "header_bytes": 16384,
            "receive_seconds": RECEIVE,
            "idle_seconds": IDLE,
            "connections": None,
            **limits,
        }
        dispatcher = Dispatcher(
            routes=[
                Route("GET", "quick", self._quick, models.Nothing, Auth.NONE),
                Route("GET", "slow", self._slow, models.Nothing, Auth.NONE),
                Route("POST", "upload", self._quick, models.Nothing, Auth.NONE, params=Params.BODY),
                Route("POST", "refused", self._quick, models.Nothing, Auth.TOKEN),
            ],
            prefix="/",
            admission=PublicAdmission(
                gate=None, sources=Sources([], []), budget=None, proofs=None, token_in_query=False
            ),
            pages=None,
            limits=RequestLimits(2000, 2000, None),
            clock=self.clock,
            new_request_id=lambda: "1",
            log=self.noted,
        )
        self.factory = HttpFactory(dispatcher, ConnectionLimits(**limits), self.clock)

    async def _quick(self, _call):
        return json_reply({})

    async def _slow(self, _call):
        waiting = Deferred()
        self.waiting.append(waiting)
        await waiting
        return json_reply({})

    def connect(self, *, reads=True):
        """A connection; of a client that does not read what it is sent, it does not end by itself."""
        channel = self.factory.buildProtocol(None)
        transport = StringTransportWithDisconnection() if reads else DeafTransport()
        transport.protocol = channel
        channel.makeConnection(transport)
        return SimpleNamespace(send=channel.dataReceived, transport=transport, channel=channel)

    def finish(self):
        self.waiting.pop(0).callback(None)


def statuses(wire):
    """The statuses of the answers so far."""
    return [int(part[:3]) for part in wire.transport.value().decode().split("HTTP/1.1 ")[1:]]


def gone(wire):
    return not wire.transport.connected
