"""Asking DNS servers: look-ups that can be given up at once, and of which any number may wait.

A homeserver chooses how long its own name takes, and anybody can name one. So a look-up that waits is an entry in a
dictionary, and no thread, and not even a socket of its own.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.protocol import DatagramProtocol, connectionDone
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from sydentish.waiting import SharedWork, cancellable

# Seconds after which a query is sent again, for callers that have no wishes.
_TIMEOUTS = (1, 2, 4)
_TCP_SECONDS = 4.0
# Of an answer over TCP; it holds some 500 addresses, and more takes long to read.
_MAX_ANSWER = 8192
# The port of a socket is half of what somebody must guess who wants to forge an answer (RFC 5452), so none stays long.
_QUERIES_PER_SOCKET = 64
# RFC 1035 section 2.3.4; the first in its written form.
_MAX_NAME = 253
_MAX_LABEL = 63

_Server = tuple[str, int]
_Result = tuple[list[Any], list[Any], list[Any]]


class NameServers(Resolver):
    """Twisted's resolver with another way to ask.

    A look-up that is cancelled leaves nothing behind; who asks the same question meanwhile shares the answer, and is not
    disturbed by another who gives up; many look-ups share few sockets. A server that refuses or fails is followed by
    the next one, and one that is silent, too.

    The one private name of `Resolver` that this depends on is `_lookup`, through which all its look-ups go.
    """

    def __init__(
        self,
        *,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        servers: Sequence[_Server],
    ) -> None:
        """Sends nothing yet.

        Args:
            reactor: keeps the time, sends and receives.
            servers: IP addresses and ports, asked in this order; those of `/etc/resolv.conf` if there are none.
        """
        resolv = None if servers else "/etc/resolv.conf"
        super().__init__(resolv=resolv, servers=list(servers) or None, reactor=reactor)  # type: ignore[no-untyped-call]
        self._shared: SharedWork[tuple[bytes, int], _Result] = SharedWork()
        self._sockets: dict[_Server, _Socket] = {}

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Sequence[float] | None) -> Deferred[_Result]:  # noqa: A002 - as its base class
        name = name.removesuffix(b".").lower()
        query = dns.Query(name, type, cls)
        sharing = self._shared.result((name, type), lambda: self._look_up(query, timeout or _TIMEOUTS))
        return Deferred.fromCoroutine(sharing)

    async def _look_up(self, query: dns.Query, timeouts: Sequence[float]) -> _Result:
        if not _is_askable(query.name.name):
            raise DNSNameError
        trouble: Exception = DeferredTimeoutError()
        for seconds in timeouts:
            silent = False
            for server in [*self.servers, *self.dynServers]:
                try:
                    return await self._exchange(server, query, seconds)
                except (CancelledError, DNSNameError):
                    raise
                except Exception as error:  # noqa: BLE001 - whatever is wrong with it, another server may do better
                    trouble = error
                    silent = silent or isinstance(error, DeferredTimeoutError)
            if not silent:
                break
        raise trouble

    async def _exchange(self, server: _Server, query: dns.Query, seconds: float) -> _Result:
        answer = await self._socket_to(server).ask(query).addTimeout(seconds, self._reactor)
        if answer.trunc:
            answer = await self._by_tcp(server, query)
        if answer.rCode != dns.OK:
            raise self.exceptionForCode(answer.rCode)(answer)  # type: ignore[no-untyped-call]
        return answer.answers, answer.authority, answer.additional

    def _socket_to(self, server: _Server) -> "_Socket":
        socket = self._sockets.get(server)
        if socket is None or socket.spent:
            socket = _Socket(server)
            self._reactor.listenUDP(0, socket, interface="::" if ":" in server[0] else "")
            self._sockets[server] = socket
        return socket

    async def _by_tcp(self, server: _Server, query: dns.Query) -> dns.Message:
        stream = _Stream(query)
        kind = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        connecting: Deferred[Any] = connectProtocol(kind(self._reactor, *server), stream)
        try:
            await cancellable(connecting).addTimeout(_TCP_SECONDS, self._reactor)
            return await stream.answer.addTimeout(_TCP_SECONDS, self._reactor)
        finally:
            stream.abort()


def _is_askable(name: bytes) -> bool:
    return len(name) <= _MAX_NAME and all(0 < len(label) <= _MAX_LABEL for label in name.split(b"."))


def _written(number: int, query: dns.Query) -> bytes:
    message = dns.Message(number, recDes=1)
    message.queries = [query]
    written: bytes = message.toStr()
    return written


def _read(data: bytes) -> dns.Message | None:
    # Of what breaks off it holds what came; `_Socket` and `_Stream` look whether the question is there.
    message = dns.Message()
    try:
        message.fromStr(data)
    except Exception:  # noqa: BLE001 - what a stranger sends can be wrong in any way
        return None
    return message if message.answer else None


class _Socket(DatagramProtocol):
    """Carries queries to one server, and is closed when none waits.

    Attributes:
        spent: whether it takes no more queries.
    """

    # Nothing in the log for each socket.
    noisy = False
    # Its interface does not know connected sockets.
    transport: Any

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._waiting: dict[int, tuple[dns.Query, Deferred[dns.Message]]] = {}
        self._left = _QUERIES_PER_SOCKET
        self.spent = False

    def ask(self, query: dns.Query) -> Deferred[dns.Message]:
        """The answer to `query`, whatever it is; waits until it is cancelled."""
        number = secrets.randbelow(2**16)
        while number in self._waiting:
            number = secrets.randbelow(2**16)
        answer: Deferred[dns.Message] = Deferred(lambda _: self._take(number))
        self._waiting[number] = (query, answer)
        self._left -= 1
        self.spent = self._left <= 0
        try:
            self._send(_written(number, query))
        except Exception:  # noqa: BLE001 - there may be no way to that network
            self._take(number)
            answer.errback(Failure())
        return answer

    def _send(self, datagram: bytes) -> None:
        if self._left == _QUERIES_PER_SOCKET - 1:
            # Then the system passes on only what comes from there, and tells when nobody listens.
            self.transport.connect(*self._server)
        self.transport.write(datagram)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: ANN401, ARG002 - as its base class
        message = _read(datagram)
        if message is None or message.id not in self._waiting:
            return
        query, answer = self._waiting[message.id]
        if message.queries == [query]:
            self._take(message.id)
            answer.callback(message)

    def connectionRefused(self) -> None:
        self._fail_all()

    def stopProtocol(self) -> None:
        # Some reactors close a socket when they hear that nobody listens, and do not say why.
        self.spent = True
        self._fail_all()

    def _fail_all(self) -> None:
        for number, (_, answer) in list(self._waiting.items()):
            if number in self._waiting:
                self._take(number)
                answer.errback(RefusedError())

    def _take(self, number: int) -> None:
        del self._waiting[number]
        if not self._waiting:
            self.spent = True
            if self.transport is not None:
                self.transport.stopListening()


class _Stream(Int16StringReceiver):
    """One query over TCP (RFC 7766), for an answer that does not fit into a datagram.

    Attributes:
        answer: the answer; fails when the connection ends before.
    """

    MAX_LENGTH = _MAX_ANSWER
    # Only connections of TCP can be aborted.
    transport: Any

    def __init__(self, query: dns.Query) -> None:
        self._query = query
        self._number = secrets.randbelow(2**16)
        self.answer: Deferred[dns.Message] = Deferred()

    def connectionMade(self) -> None:
        self.sendString(_written(self._number, self._query))  # type: ignore[no-untyped-call]

    def stringReceived(self, string: bytes) -> None:
        message = _read(string)
        if message is None or message.id != self._number or message.queries != [self._query]:
            self.abort()
        elif not self.answer.called:
            self.answer.callback(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(reason)

    def abort(self) -> None:
        """Closes the connection, if there is one."""
        if self.transport is not None:
            self.transport.abortConnection()
