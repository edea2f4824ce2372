"""What is said to a service manager, and what it hands over: with real sockets, and a database that really hangs."""

import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from sydentish.domain.errors import Busy
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase
from sydentish.supervision.endpoint import InheritedEndpoint
from sydentish.supervision.manager import take_manager
from sydentish.supervision.notify import Notifier
from sydentish.supervision.sockets import Inherited, InheritedSocket, SocketProblem, take_sockets
from sydentish.supervision.watchdog import Watchdog

SECONDS = 30


# --- notifications ----------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def heard(request, tmp_path):
    """A notification socket: its address, and what has come, each a list of lines."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@sydentish-tests-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0"))
        listening.settimeout(SECONDS)
        yield address, lambda: listening.recv(4096).decode().split("\n")


def test_the_manager_is_told_how_the_server_is(heard):
    address, told = heard
    notifier = Notifier(address)
    notifier.ready("serving")
    assert told() == ["READY=1", "STATUS=serving"]
    notifier.status("two\nlines")
    assert told() == ["STATUS=two lines"]
    notifier.alive()
    assert told() == ["WATCHDOG=1"]
    notifier.stopping("ending", 8.5)
    assert told() == ["STOPPING=1", "STATUS=ending", "EXTEND_TIMEOUT_USEC=8500000"]


def test_a_reload_is_told_with_the_time_of_the_monotonic_clock(heard):
    address, told = heard
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier(address).reloading("reading")
    reloading, when, status = told()

    assert (reloading, status) == ("RELOADING=1", "STATUS=reading")
    assert (
        before
        <= int(when.removeprefix("MONOTONIC_USEC="))
        <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    )


def test_what_takes_long_at_the_start_asks_for_more_time(heard):
    address, told = heard
    with Notifier(address).extending("migrating"):
        assert told() == ["STATUS=migrating"]
        assert told() == ["EXTEND_TIMEOUT_USEC=30000000"]
    assert "supervision" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    "address", [None, "", "@", "/", "relative", "vsock:2:1", "/no/such/socket", "@nobody-is-there"]
)
def test_without_somebody_who_listens_nothing_happens(address):
    notifier = Notifier(address)
    notifier.ready("serving")
    with notifier.extending("migrating"):
        notifier.alive()


def test_a_manager_that_does_not_listen_holds_nobody_up(tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(0)
        filling = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filling.connect(address)
        filling.settimeout(0)
        with closing(filling), suppress(BlockingIOError):
            while True:
                filling.send(b"X")
        Notifier(address).alive()
        assert listening.recv(10) == b"X"


# --- what is handed over ----------------------------------------------------------------------------------


def test_what_the_manager_says_is_taken_out_of_the_environment(tmp_path):
    environ = {
        "PATH": "/bin",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "NOTIFY_SOCKET": str(tmp_path),
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": "7",
        "LISTEN_FDS": "2",
        "LISTEN_PID": "8",
        "LISTEN_FDNAMES": "a:b",
    }
    manager = take_manager(environ, 7)

    assert environ == {"PATH": "/bin", "CREDENTIALS_DIRECTORY": "/run/credentials"}
    assert manager.watchdog_seconds == 30
    # They are another process's.
    assert manager.sockets.unused == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "", "WATCHDOG_PID": "7"},
        {"WATCHDOG_PID": "7"},
    ],
)
def test_there_is_no_watchdog_that_is_not_meant_for_this_process(environ):
    assert take_manager(dict(environ), 7).watchdog_seconds is None


def test_variables_that_somebody_has_taken_out_are_found_all_the_same():
    """Twisted does."""
    before = {"LISTEN_FDS": "x", "LISTEN_PID": "7", "LISTEN_FDNAMES": "public"}
    environ = {"LISTEN_FDNAMES": "public"}
    with pytest.raises(SocketProblem, match="LISTEN_FDS"):
        take_manager(environ, 7, before)
    assert environ == {}
    script = "import os; os.environ.pop('A'); from sydentish.supervision.manager import begun_with; print(begun_with())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"A": "1=2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    assert "'A': '1=2'" in done.stdout


@given(
    st.dictionaries(
        st.sampled_from(["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID"]), st.text()
    )
)
def test_nonsense_in_the_environment_ends_nothing(environ):
    take_manager(environ, 7)
    assert environ == {}


# Reports what a process finds that was started with descriptors from 3 on.
LOOK = """
import json, os
from sydentish.supervision.sockets import SocketProblem, take_sockets
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
try:
    found = take_sockets(os.environ, os.getpid()).unused
    said = [(each.name, each.index, each.descriptor, each.family.name, each.address, each.is_local) for each in found]
    said.append([os.get_inheritable(each.descriptor) for each in found])
except SocketProblem as problem:
    said = str(problem)
print(json.dumps(said))
"""


def look(*sockets, **environ):
    """What a process finds that inherits sockets."""
    shuffle = "".join(f"exec {30 + index}<&{each.fileno()}; " for index, each in enumerate(sockets))
    shuffle += "".join(f"exec {3 + index}<&{30 + index}; " for index in range(len(sockets)))
    done = subprocess.run(
        ["/bin/bash", "-c", f'{shuffle}exec "$@"', "bash", sys.executable, "-c", LOOK],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        pass_fds=[each.fileno() for each in sockets],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return json.loads(done.stdout)


def test_inherited_sockets_are_found_with_their_names_and_families(tmp_path):
    path = str(tmp_path / "a.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as inet,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as inet6,
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(path)
        unix.listen()
        found = look(inet, inet6, everywhere, unix, LISTEN_FDS="4", LISTEN_FDNAMES="public:public::private")

        assert found == [
            ["public", 0, 3, "AF_INET", f"127.0.0.1:{inet.getsockname()[1]}", True],
            ["public", 1, 4, "AF_INET6", f"[::1]:{inet6.getsockname()[1]}", True],
            ["", 2, 5, "AF_INET", f"0.0.0.0:{everywhere.getsockname()[1]}", False],
            ["private", 3, 6, "AF_UNIX", path, True],
            [False] * 4,
        ]
        assert look(inet, LISTEN_FDS="1")[0][0] == "unknown"
        assert look(inet, LISTEN_FDS="1", LISTEN_PID="1") == [[]]


def test_what_is_no_listening_stream_socket_is_refused(tmp_path):
    with (
        socket.socket() as unbound,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        (tmp_path / "f").open("w") as file,
    ):
        for wrong in (unbound, datagrams):
            assert "must listen for streams" in look(wrong, LISTEN_FDS="1", LISTEN_FDNAMES="public")
        assert "the inherited socket public (0) cannot be used" in look(
            file, LISTEN_FDS="1", LISTEN_FDNAMES="public"
        )
        assert "LISTEN_FDNAMES must have a name for each" in look(
            unbound, LISTEN_FDS="2", LISTEN_FDNAMES="public"
        )


@pytest.mark.parametrize("number", ["x", "-1", "", "99999999999"])
def test_a_number_of_sockets_that_is_none_is_refused(number):
    with pytest.raises(SocketProblem, match="LISTEN_FDS"):
        take_sockets({"LISTEN_FDS": number, "LISTEN_PID": "7"}, 7)


def inherited(name, index, listening=None):
    family = socket.AF_INET if listening is None else listening.family
    descriptor = -1 if listening is None else listening.fileno()
    return InheritedSocket(name, index, descriptor, family, f"address {index}", is_local=True)


def test_each_inherited_socket_is_for_one_listener():
    one, two, other = inherited("public", 0), inherited("public", 1), inherited("other", 2)
    sockets = Inherited([one, two, other])
    assert sockets.take(name="public") == [one, two]
    assert sockets.unused == [other]
    for taken in ({"name": "public"}, {"index": 1}):
        with pytest.raises(SocketProblem, match="another listener's already"):
            sockets.take(**taken)
    assert sockets.take(index=2) == [other]
    with pytest.raises(SocketProblem, match=r"no such socket, but public \(0\), public \(1\), other \(2\)"):
        sockets.take(name="none")
    with pytest.raises(SocketProblem, match="none at all: start the service by its socket unit"):
        Inherited().take(index=0)


# --- listening on them ------------------------------------------------------------------------------------


class Greeting(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")
        self.transport.loseConnection()


class Reading(Protocol):
    def __init__(self):
        self.data = b""
        self.ended = Deferred()

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, _reason):
        self.ended.callback(self.data)


async def ask(endpoint):
    reading = await connectProtocol(endpoint, Reading())
    return await reading.ended


@pytest_twisted.ensureDeferred
async def test_an_inherited_socket_is_listened_on_and_left_for_who_comes_after():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        sockets = [inherited("public", 0, one), inherited("public", 1, two)]
        clients = [TCP4ClientEndpoint(reactor, "127.0.0.1", each.getsockname()[1]) for each in (one, two)]
        for _ in range(2):
            port = await InheritedEndpoint(sockets, reactor).listen(Factory.forProtocol(Greeting))
            assert port.getHost().port == one.getsockname()[1]
            assert [await ask(each) for each in clients] == [b"hello", b"hello"]
            await port.stopListening()
            # Nobody listens now, and nobody is refused.
            waiting = [Deferred.fromCoroutine(ask(each)) for each in clients]
            port = await InheritedEndpoint(sockets, reactor).listen(Factory.forProtocol(Greeting))
            assert [await each for each in waiting] == [b"hello", b"hello"]
            await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_an_inherited_unix_socket_keeps_its_mode_and_its_place(tmp_path):
    path = tmp_path / "public.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        for _ in range(2):
            endpoint = InheritedEndpoint([inherited("public", 0, listening)], reactor)
            port = await endpoint.listen(Factory.forProtocol(Greeting))
            assert await ask(UNIXClientEndpoint(reactor, str(path))) == b"hello"
            await port.stopListening()

            assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- the watchdog -----------------------------------------------------------------------------------------

INTERVAL = 5


class Signs:
    """A watchdog whose database is what the test says it is."""

    def __init__(self):
        self.clock = Clock()
        self.given = 0
        self.turns = 0
        self.pings = []
        self.ping = self.wait
        self.watchdog = Watchdog(
            alive=self.give,
            interval=INTERVAL,
            turns=lambda: self.turns,
            ping=lambda: self.ping(),  # noqa: PLW0108 - what it is changes
            clock=self.clock,
        )
        self.watchdog.startService()

    def give(self):
        self.given += 1

    def wait(self):
        self.pings.append(Deferred())
        return self.pings[-1]

    def in_an_interval(self):
        before = self.given
        self.clock.advance(INTERVAL)
        return self.given - before


@pytest.fixture
def signs():
    found = Signs()
    yield found
    if found.watchdog.running:
        found.watchdog.stopService()
    assert found.clock.getDelayedCalls() == []


def test_an_idle_database_that_answers_is_a_sign_of_life(signs):
    signs.pings[0].callback(None)
    signs.ping = lambda: succeed(None)
    assert all(signs.in_an_interval() for _ in range(5))


def test_a_busy_database_is_a_sign_of_life_as_long_as_it_turns(signs):
    """The ping waits behind all that is to be done, or is refused."""
    for turn in range(1, 5):
        signs.turns = turn
        assert signs.in_an_interval()
    signs.pings[0].errback(Busy("There is too much to do"))
    signs.ping = lambda: fail(Busy("There is too much to do"))
    for turn in range(5, 9):
        signs.turns = turn
        assert signs.in_an_interval()


def test_a_database_that_hangs_is_none(signs):
    signs.turns = 1
    assert signs.in_an_interval()
    assert [signs.in_an_interval() for _ in range(5)] == [0] * 5
    # One question is enough.
    assert len(signs.pings) == 1
    signs.pings[0].callback(None)
    assert signs.given == 3


def test_a_database_that_refuses_at_once_and_does_not_turn_is_none(signs):
    def refuse():
        raise Busy("There is too much to do")

    signs.in_an_interval()
    signs.ping = refuse
    signs.pings[0].errback(Busy("There is too much to do"))
    assert [signs.in_an_interval() for _ in range(5)] == [0] * 5


def test_after_its_end_it_says_nothing_more(signs):
    before = signs.given
    signs.watchdog.stopService()
    signs.pings[0].callback(None)
    assert signs.given == before


@pytest_twisted.async_yield_fixture
async def database(tmp_path):
    path = tmp_path / "sydentish.db"
    migrate_sqlite(path, 1000, 0, shipped_steps())
    db = SqliteDatabase(path, reactor, readers=1, max_queue=10, busy_timeout_ms=50)
    db.path = path
    db.startService()
    yield db
    await db.stopService()


def watched(db, clock):
    signs = []
    watchdog = Watchdog(
        alive=lambda: signs.append(1),
        interval=INTERVAL,
        turns=lambda: db.turns,
        ping=lambda: db.write(lambda _tx: None),
        clock=clock,
    )
    return signs, watchdog


@pytest_twisted.ensureDeferred
async def test_a_writer_that_really_hangs_gives_no_sign_until_it_goes_on(database):
    clock, hangs, goes_on = Clock(), threading.Event(), threading.Event()
    signs, watchdog = watched(database, clock)

    def hang(_tx):
        hangs.set()
        goes_on.wait(SECONDS)

    hanging = database.write(hang)
    hangs.wait(SECONDS)
    watchdog.startService()
    clock.advance(INTERVAL)
    given = len(signs)
    clock.pump([INTERVAL] * 5)
    assert len(signs) == given
    goes_on.set()
    await hanging
    await database.write(lambda _tx: None)
    clock.advance(INTERVAL)
    assert len(signs) > given
    watchdog.stopService()


@pytest_twisted.ensureDeferred
async def test_a_writer_that_another_process_keeps_waiting_gives_signs(database):
    clock = Clock()
    signs, watchdog = watched(database, clock)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        watchdog.startService()
        for _ in range(3):
            given = len(signs)
            with pytest.raises(Busy):
                await database.write(lambda _tx: None)
            clock.advance(INTERVAL)
            assert len(signs) > given
        other.execute("ROLLBACK")
    watchdog.stopService()
