"""`sydentish serve`."""

import os
import sys
import tempfile
import time
from pathlib import Path

import click
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.logger import Logger

from sydentish.app import App, build
from sydentish.cli.common import cannot_run, config_option, read_config, refuse, told, told_of_keys
from sydentish.cli.descriptors import bounded_connections, raise_limit
from sydentish.cli.keys import FIRST_VERSION
from sydentish.config import Config
from sydentish.domain.keys import SEED_BYTES, KeyRing
from sydentish.keyfiles import KeyProblem, generate_key, key_files, key_warnings, load_keys, make_private
from sydentish.lifecycle import ListenerProblem, why_not_starting
from sydentish.logs import LogFile, open_log, start_logging
from sydentish.parts.gateways import GatewayProblem
from sydentish.parts.replication import certificate_warnings
from sydentish.replication.credentials import TlsProblem
from sydentish.senders.render import TemplateProblem
from sydentish.store.migrate import SchemaError, migrate_sqlite, shipped_steps

_log = Logger()


@click.command()
@config_option
@click.option("--init", is_flag=True, help="Make the data directory and a signing key if there are none.")
def serve(config_path: Path, init: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Run the server in the foreground until it is told to stop (SIGTERM or SIGINT).

    Example: sydentish serve -c /etc/sydentish/sydentish.conf
    """
    config = read_config(config_path)
    try:
        log = open_log(config.log.file, json=config.log.format == "json")
    except OSError as error:
        cannot_run(f"[log] file: {told(error)}")
    try:
        sys.exit(_serve(config, config_path, log, init=init))
    finally:
        log.close()


def _serve(config: Config, config_path: Path, log: LogFile, *, init: bool) -> int:
    """All but the log, which is open; the exit status."""
    try:
        if init:
            _initialise(config)
        keys = load_keys(config.general.key_dir, config.general.server_name)
        _check_place(config.database.path)
    except KeyProblem as problem:
        refuse(told_of_keys(problem, config_path))
    except OSError as error:
        cannot_run(told(error))
    start_logging(log, config.log.level)
    connections, too_many = bounded_connections(config, raise_limit())
    warnings = [*map(str, config.warnings), *key_warnings(config.general.key_dir)]
    warnings += certificate_warnings(config, int(time.time() * 1000))
    for warning in (*warnings, too_many):
        if warning is not None:
            _log.warn("{warning}", warning=warning)
    return _run(config, keys, log, connections)


def _initialise(config: Config) -> None:
    make_private(config.general.data_dir)
    make_private(config.database.path.parent)
    if not key_files(config.general.key_dir):
        generate_key(config.general.key_dir, FIRST_VERSION, os.urandom(SEED_BYTES))


def _check_place(database: Path) -> None:
    """Whether the database can be where it should; SQLite itself would tell less.

    Raises:
        OSError: the directory, or a file that is there already, cannot be read and written.
    """
    folder = database.parent
    if not folder.is_dir():
        refuse(f"{folder}: there is no such directory for the database; make it, or start once with --init")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(folder)) from error
    for suffix in ("", "-wal", "-shm"):
        file = database.with_name(database.name + suffix)
        if file.exists():
            os.close(os.open(file, os.O_RDWR))


def _run(config: Config, keys: KeyRing, log: LogFile, connections: int | None) -> int:
    """Runs the reactor; the exit status."""
    # Imported here: importing it chooses and installs it, which no other command needs.
    from twisted.internet import reactor  # noqa: PLC0415

    try:
        steps = shipped_steps()
        applied = migrate_sqlite(
            config.database.path,
            config.database.busy_timeout,
            int(reactor.seconds() * 1000),
            steps,
        )
        app = build(config, keys, reactor, log, connections)
    except (SchemaError, ListenerProblem) as problem:
        cannot_run(str(problem))
    except OSError as error:
        cannot_run(told(error))
    except (TemplateProblem, GatewayProblem, TlsProblem) as problem:
        refuse(str(problem))
    for step in applied:
        _log.info("the database was brought to schema {step}", step=step.name)
    outcome = _Outcome()
    stop_timeout = config.http.stop_timeout / 1000
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(_start(app, keys, reactor, outcome)))
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(_stop(app, reactor, stop_timeout))
    )
    reactor.run()
    return outcome.status


class _Outcome:
    status = 0


async def _start(app: App, keys: KeyRing, reactor: IReactorCore, outcome: _Outcome) -> None:
    try:
        MultiService.startService(app)
        await app.listening()
    except Exception as error:  # noqa: BLE001 - whatever it is, the server cannot start
        reason = getattr(error, "subFailure", None)
        _log.critical("cannot start: {reason}", reason=why_not_starting(reason.value if reason else error))
        outcome.status = 1
        reactor.stop()
        return
    for listener in app.listeners:
        _log.info("listening on {where}", where=listener.description)
    _log.info(
        "{server_name} is ready, signing with {key}", server_name=keys.server_name, key=keys.active.key_id
    )


async def _stop(app: App, clock: IReactorTime, stop_timeout: float) -> None:
    _log.info("stopping")
    try:
        await Deferred.fromCoroutine(app.stopService()).addTimeout(stop_timeout, clock)
    except DeferredTimeoutError:
        _log.warn(
            "not everything could be finished in {seconds} s; what was accepted is on disk",
            seconds=stop_timeout,
        )
    _log.info("stopped")
