"""A server with a real database, and peers that are stood in for."""

import io
import os
from dataclasses import dataclass, field

import orjson
from fixtures import DAY_MS
from store_tools import START_MS, Watch, WatchedClock, WatchedDatabase, address, rows
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail

from sydentish.actions.statements import Statements
from sydentish.domain.errors import Busy
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.peers import Accepted, Failed, Peer, Refused
from sydentish.logs import LogFile, RedactingObserver
from sydentish.replication.pusher import Pusher
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase

OURS = "id.example.org"
A, B, C = "a.example.net", "b.example.net", "c.example.net"
LEASE_MS = 15_000
POLL_SECONDS = 5
HOUR = 3600
DOWN = Failed("timeout", "no answer in time")
CAROL, DAVE = "@carol:hs.example.org", "@dave:hs.example.org"


def ring(server_name, seed=1, version="0"):
    """The keys of a server; those of two seeds differ."""
    return KeyRing(server_name, parse_key(make_key(version, bytes([seed]) * 32)))


def peer(name=A, keys=None, certificate_names=None):
    """A peer with the keys of a ring, and its own host as the name of its certificate."""
    active = (keys or ring(name)).active
    return Peer(
        name, f"https://{name}:4434", {active.key_id: active.public_key}, certificate_names or (name,)
    )


@dataclass(frozen=True)
class Pushed:
    """A push that has reached a peer."""

    peer: str
    body: bytes = field(repr=False)

    @property
    def statements(self):
        return orjson.loads(self.body)["sgAssocs"]

    @property
    def ids(self):
        return [int(number) for number in self.statements]


class HeldLink:
    """Keeps each push until the test says what became of it."""

    def __init__(self):
        self.arrived = Watch()
        self.held = []
        self.cancelled = 0

    async def push(self, peer, body):
        answer = Deferred(self._cancel)
        pushed = Pushed(peer.name, body)
        self.held.append((pushed, answer))
        self.arrived(pushed)
        return await answer

    def _cancel(self, answer):
        self.cancelled += 1
        self.held = [each for each in self.held if each[1] is not answer]

    @property
    def waiting(self):
        """To whom pushes are held just now."""
        return sorted(pushed.peer for pushed, _ in self.held)

    def end(self, outcome, peer=None):
        """Ends the oldest push, or the oldest to that peer, with an outcome or an exception."""
        index = next(number for number, (pushed, _) in enumerate(self.held) if peer in (None, pushed.peer))
        _, answer = self.held.pop(index)
        answer.callback(outcome) if not isinstance(outcome, Exception) else answer.errback(outcome)


class AnsweringLink:
    """Peers that answer at once: what `answers` has for them, an exception too, else what they make of the ids.

    Attributes:
        answers: outcomes by peer, each for one push.
        dislikes: the ids that peers refuse by name, by peer.
    """

    def __init__(self, answers=(), dislikes=()):
        self.answers = dict(answers)
        self.dislikes = dict(dislikes)
        self.arrived = Watch()

    async def push(self, peer, body):
        pushed = Pushed(peer.name, body)
        self.arrived(pushed)
        if self.answers.get(peer.name):
            outcome = self.answers[peer.name].pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        refused = frozenset(pushed.ids) & frozenset(self.dislikes.get(peer.name, ()))
        return Refused(refused, "I do not like them") if refused else Accepted()

    @property
    def seen(self):
        return self.arrived.seen

    def ids(self, peer=A):
        """What a peer was sent, push by push."""
        return [pushed.ids for pushed in self.seen if pushed.peer == peer]


class RefusingDatabase(WatchedDatabase):
    """A `Database` that is busy at some of its calls, counted from 1, and says so in either of two ways."""

    def __init__(self, db, busy_at=lambda _number: False):
        super().__init__(db)
        self.busy_at = busy_at

    @property
    def calls(self):
        return self.reads + self.writes

    def write(self, fn, *args, **kwargs):
        return super().write(fn, *args, **kwargs) if not self._busy() else self._refuse(write=True)

    def read(self, fn, *args, **kwargs):
        return super().read(fn, *args, **kwargs) if not self._busy() else self._refuse(write=False)

    def _busy(self):
        return self.busy_at(self.calls + 1)

    def _refuse(self, *, write):
        self.writes += write
        self.reads += not write
        if self.calls % 2:
            raise Busy("refused")
        return fail(Busy("refused"))


class Mesh:
    """Our database, on a file that a second process can open, and the pushers of processes, which share a clock."""

    def __init__(self, path):
        migrate_sqlite(path, 5000, START_MS, shipped_steps())
        self.path = path
        self.keys = ring(OURS)
        self.clock = WatchedClock(START_MS / 1000)
        self.pushes = Watch()
        self.statements = Statements(keys=self.keys, validity_ms=DAY_MS, random_bytes=os.urandom)
        self.pushers = []
        self.engines = []
        self.count = 0
        self.engine = self.open()
        self.db = WatchedDatabase(self.engine)

    def open(self):
        engine = SqliteDatabase(self.path, reactor, readers=1, max_queue=1000, busy_timeout_ms=5000)
        engine.startService()
        self.engines.append(engine)
        return engine

    async def add_peers(self, *names):
        for name in names:
            await self.engine.write(peer_rows.add, peer(name), self.clock.now_ms())

    async def bind(self, count=1):
        """Binds that many more addresses."""
        numbers = range(self.count, self.count + count)
        self.count += count

        def bind_all(tx):
            for number in numbers:
                self.statements.bind(tx, address(number), CAROL, self.clock.now_ms())

        await self.engine.write(bind_all)

    async def rebind(self, number):
        """Binds an address to another user, which supersedes the statement before."""
        await self.engine.write(self.statements.bind, address(number), DAVE, self.clock.now_ms())

    async def outdate(self, number):
        """Another server has stated something newer about an address."""

        def outdate(tx):
            tx.run("DELETE FROM associations WHERE address = ?", (address(number).address,))

        await self.engine.write(outdate)

    def start(self, link, *, batch_size=100, db=None, jitter=0.0, on_push=None):
        pusher = Pusher(
            db=db or self.db,
            keys=self.keys,
            link=link,
            clock=self.clock,
            batch_size=batch_size,
            lease_ms=LEASE_MS,
            now_ms=self.clock.now_ms,
            jitter=lambda: jitter,
            on_push=on_push or (lambda name, outcome, _seconds: self.pushes((name, outcome))),
        )
        pusher.startService()
        self.pushers.append(pusher)
        return pusher

    async def settled(self):
        """Returns when all that can be done without time going on is done."""
        # The longest way through the database between two moments of waiting is shorter than this.
        for _ in range(15):
            for engine in self.engines:
                if engine.running:
                    await engine.write(lambda _tx: None)
                    await engine.read(lambda _tx: None)
        if any(pusher.running for pusher in self.pushers):
            await self.clock.armed()

    async def wait(self, seconds):
        """Lets time pass in the steps in which pushers look, and all be done that is due then."""
        await self.settled()
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 1e-6:
            self.clock.advance(min(left, await self.clock.armed()) or 0.001)
            await self.settled()

    async def jump(self, seconds):
        """Lets time pass at once."""
        await self.settled()
        self.clock.advance(seconds)
        await self.settled()

    async def state(self, name=A):
        return await self.engine.read(peer_rows.state, name)

    async def acknowledged(self, name=A):
        await self.settled()
        return (await self.state(name)).acknowledged_id

    async def parked(self, name=A):
        await self.settled()
        return [number for number, _ in await self.engine.read(push_rows.parked, name)]

    def leases(self):
        return [until for (until,) in rows(self.path, "SELECT lease_until_ts FROM peers ORDER BY name")]

    async def close(self):
        for pusher in self.pushers:
            if pusher.running:
                await pusher.stopService()
        for engine in self.engines:
            if engine.running:
                await engine.stopService()


class WrittenLog:
    """What a log file would have of events, and the events."""

    def __init__(self):
        self._redacted = io.StringIO()
        self._observer = RedactingObserver(LogFile(self._redacted, json=False))
        self.events = []

    def __call__(self, event):
        self.events.append(event)
        self._observer(event)

    @property
    def text(self):
        return self._redacted.getvalue()
