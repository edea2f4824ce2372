"""Commands that wait for something: the reactor, and the database beside a server that may be using it."""

import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sydentish.cli.common import cannot_run, told
from sydentish.cli.stopping import INTERRUPTED
from sydentish.config import Config
from sydentish.domain.errors import Busy
from sydentish.owners import as_owner_of
from sydentish.parts.store import database
from sydentish.parts.world import World, make_world
from sydentish.store.copies import snapshot
from sydentish.store.database import Database
from sydentish.store.migrate import SchemaError, shipped_steps
from sydentish.store.peek import sqlite_schema

T = TypeVar("T")


class CannotDo(Exception):
    """What was asked for cannot be done; the message says why, and what to do."""


_START = "start the server first: sydentish serve"


def run(work: Callable[[World], Coroutine[Any, Any, T]]) -> T:
    """Runs the reactor for as long as something takes, and gives what comes of it; only once in a process.

    The program ends when it cannot be done, as `CannotDo`, `SchemaError` and `Busy` say.

    Args:
        work: gets time, threads and sockets.
    """
    # Imported here: importing it chooses and installs it, which no other command needs.
    from twisted.internet import reactor  # noqa: PLC0415

    results: list[Any] = []
    ended = False

    def begin() -> None:
        _hear_hangup(reactor)
        Deferred.fromCoroutine(work(make_world(reactor))).addBoth(note).addBoth(end)

    def note(result: object) -> None:
        # What ends because the reactor does has nothing to tell.
        if not ended:
            results.append(result)

    def stopping() -> None:
        nonlocal ended
        ended = True

    def end(_: object) -> None:
        # The reactor may not have begun to run yet.
        reactor.callLater(0, reactor.stop)

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", stopping)
    reactor.run()
    if not results:
        click.echo("stopped", err=True)
        sys.exit(INTERRUPTED)
    result: T | Failure = results[0]
    if isinstance(result, Failure):
        if result.check(CannotDo, Busy, SchemaError):
            cannot_run(str(result.value))
        result.raiseException()
    return result


def _hear_hangup(reactor: Any) -> None:  # noqa: ANN401 - several interfaces
    """Has SIGHUP end the reactor as SIGTERM does, where `stoppable` wants that: raised in its midst, it could get lost."""
    if signal.getsignal(signal.SIGHUP) == signal.default_int_handler:
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reactor.stop))


def run_with_database(config: Config, work: Callable[[World, Database], Awaitable[T]]) -> T:
    """As `run`, for what needs the database, which a server may use meanwhile; nothing is made or migrated.

    Args:
        config: what the operator has chosen.
        work: gets time and threads, and the database.
    """
    must_have_database(config)
    return run(lambda world: with_database(config, world, work))


async def with_database(config: Config, world: World, work: Callable[[World, Database], Awaitable[T]]) -> T:
    """Opens the database, gives it to `work`, and closes it; see `must_have_database`.

    Raises:
        SchemaError: it cannot be opened.
        Busy: it does not answer.
    """
    db = database(config, world)
    with as_owner_of(config.database.path.parent):
        try:
            db.startService()
        except sqlite3.Error as error:
            raise SchemaError(f"{config.database.path}: cannot be opened as a database: {error}") from error
        try:
            return await work(world, db)
        finally:
            await db.stopService()


def must_have_database(config: Config) -> None:
    """Ends the program if there is no database that this version can use."""
    if not has_database(config):
        cannot_run(f"{config.database.path}: there is no database yet: {_START}")


def has_database(config: Config) -> bool:
    """Whether there is a database; ends the program if there is one that this version cannot use."""
    try:
        return is_current(config.database.path)
    except SchemaError as problem:
        cannot_run(str(problem))


def is_current(path: Path) -> bool:
    """Whether there is a database.

    Raises:
        SchemaError: there is one that this version cannot use.
    """
    newest = shipped_steps()[-1].number
    if not _exists(path):
        return False
    try:
        with as_owner_of(path.parent):
            version = sqlite_schema(path, newest)
    except OSError as error:
        raise SchemaError(
            f"{path}: cannot be used as its owner: {told(error)}; run this as that user"
        ) from None
    if version < newest:
        raise SchemaError(
            f"{path}: has schema {version}, this version needs {newest}: "
            "start the server with this version first: sydentish serve"
        )
    return True


@contextmanager
def live(config: Config) -> Iterator[sqlite3.Connection]:
    """A connection to a database that a server may be using, opened and closed as its owner; see `snapshot`.

    Args:
        config: where it is.

    Raises:
        SchemaError: it is no database of this version, or of an older one.
        sqlite3.Error, OSError: it cannot be read.
    """
    path = config.database.path
    with ExitStack() as opening:
        with as_owner_of(path.parent):
            sqlite_schema(path, shipped_steps()[-1].number)
            connection = opening.enter_context(snapshot(path, config.database.busy_timeout))
        try:
            yield connection
        finally:
            with as_owner_of(path.parent):
                opening.close()


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SchemaError(told(error)) from None
    return True
