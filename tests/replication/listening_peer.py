"""A peer as the other side of a command: our own receiver over a real database, behind real mutual TLS."""

from fixtures import RecordingSigns
from replication.mesh import ring
from replication.mutual import HERE, THERE
from store_tools import START_MS, Watch
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint

from sydentish.actions.statements import Statements
from sydentish.domain.peers import Peer
from sydentish.replication.peers import Peers
from sydentish.replication.receiver import Receiver
from sydentish.replication.tls import TlsEndpoint
from sydentish.store import peers as peer_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase
from sydentish.web.admission import PeerAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.handlers.replication import ReplicationHandlers
from sydentish.web.http import ConnectionLimits, HttpFactory
from sydentish.web.routes import IDENTITY_PREFIX, replication_routes

MAX_FUTURE_MS = 300_000


def public(keys):
    return {keys.active.key_id: keys.active.public_key}


def make_receiver(db, keys, taker, *, on_received=lambda _peer, _counts: None, **options):
    """What takes pushes and answers peers."""
    return Receiver(
        db=db,
        keys=keys,
        taker=taker,
        pusher=RecordingSigns(),
        on_taken=lambda _taken: None,
        on_received=on_received,
        **options,
    )


class Clockwork:
    """A time that a test sets."""

    def __init__(self, ms=START_MS):
        self.ms = ms

    def __call__(self):
        return self.ms


class Node:
    """A server without its other parts.

    Attributes:
        received: is told of each push.
        receiver: what answers peers; once it listens.
    """

    def __init__(self, folder, name, number, *, now_ms=None):
        self.path = folder / f"{name}.db"
        self.name, self.keys = name, ring(name, number)
        self.now_ms = now_ms or Clockwork()
        migrate_sqlite(self.path, 5000, START_MS, shipped_steps())
        self.db = SqliteDatabase(self.path, reactor, readers=2, max_queue=1000, busy_timeout_ms=5000)
        self.statements = Statements(keys=self.keys, validity_ms=10**9, random_bytes=lambda size: b"k" * size)
        self.port = None
        self.received = Watch()

    async def start(self):
        self.db.startService()

    async def knows(self, peer):
        await self.db.write(peer_rows.add, peer, self.now_ms())

    def as_peer(self, names=None, keys=None):
        return Peer(
            self.name,
            f"https://127.0.0.1:{self.port_number}",
            keys or public(self.keys),
            names or (self.name,),
        )

    @property
    def port_number(self):
        return self.port.getHost().port if self.port else 1

    async def bind(self, threepid, mxid="@ann:hs.example.org"):
        return await self.db.write(self.statements.bind, threepid, mxid, self.now_ms())

    async def unbind(self, threepid, mxid="@ann:hs.example.org"):
        return await self.db.write(self.statements.unbind, threepid, mxid, self.now_ms())

    async def take(self, statement):
        return await self.db.write(self.statements.take, statement, "{}", self.now_ms())

    async def listen(self, tls):
        self.receiver = receiver = make_receiver(
            self.db,
            self.keys,
            self.statements,
            on_received=lambda _peer, counts: self.received(counts),
            max_statements=10_000,
            max_future_ms=MAX_FUTURE_MS,
            now_ms=self.now_ms,
        )
        peers = Peers(db=self.db, configured=(), clock=reactor, on_known=lambda: None, now_ms=self.now_ms)
        dispatcher = Dispatcher(
            routes=replication_routes(ReplicationHandlers(receiver)),
            prefix=IDENTITY_PREFIX,
            admission=PeerAdmission(peers),
            pages=None,
            limits=RequestLimits(65_536, 16_000_000, 30.0),
            clock=reactor,
            new_request_id=lambda: "1",
            log=Unheard(),
        )
        self.factory = HttpFactory(dispatcher, ConnectionLimits(16_384, 30.0, 30.0, None), reactor)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.port = await TlsEndpoint(endpoint, tls, reactor).listen(self.factory)

    async def stop(self):
        if self.port is not None:
            await self.port.stopListening()
            drained = self.factory.drain()
            self.factory.abort()
            await drained
        if self.db.running:
            await self.db.stopService()


async def start_here(folder):
    """We ourselves."""
    node = Node(folder, HERE, 1)
    await node.start()
    return node


async def start_there(folder, here, tls):
    """A peer of ours that knows us, and that we know."""
    node = Node(folder, THERE, 2)
    await node.start()
    await node.knows(Peer(HERE, "https://here.example.org", public(here.keys), (HERE,)))
    await node.listen(tls)
    await here.knows(node.as_peer())
    return node


class Unheard:
    """A request log that keeps nothing."""

    def answered(self, **line):
        pass
