"""`sydentish serve`."""

import os
import signal
import sys
from pathlib import Path

import click
from twisted.logger import Logger

from sydentish.app import App, Outside, build
from sydentish.cli.common import (
    cannot_run,
    config_option,
    is_new,
    read_config,
    read_keys,
    refuse,
    told,
    told_of_keys,
)
from sydentish.cli.descriptors import bounded_connections, raise_limit
from sydentish.cli.running_server import HangUps, Server
from sydentish.cli.setup import suspicions
from sydentish.cli.surroundings import look_around
from sydentish.config import Config, load
from sydentish.domain.keys import SEED_BYTES, KeyRing
from sydentish.keyfiles import KeyProblem, generate_key, key_files
from sydentish.lifecycle import ListenerProblem
from sydentish.logs import LogFile, open_log, start_logging
from sydentish.owners import is_others, make_private
from sydentish.parts.gateways import GatewayProblem
from sydentish.replication.credentials import TlsProblem
from sydentish.senders.render import TemplateProblem
from sydentish.store import integrity
from sydentish.store.migrate import SchemaError, migrate_sqlite, shipped_steps
from sydentish.store.peek import looking
from sydentish.supervision.manager import Manager, begun_with, take_manager
from sydentish.supervision.sockets import SocketProblem

_log = Logger()


@click.command(short_help="Run the server.")
@config_option
@click.option(
    "--init",
    is_flag=True,
    help="Make the data directory and, for a new server, a signing key if there are none.",
)
def serve(config_path: Path, init: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Run the server in the foreground until it is told to stop (SIGTERM or SIGINT).

    Example: sydentish serve -c /etc/sydentish/sydentish.conf
    """
    hangups = HangUps()
    # Before anything else: without somebody who hears it, this signal would end the program.
    signal.signal(signal.SIGHUP, hangups)
    try:
        manager = take_manager(os.environ, os.getpid(), begun_with())
    except SocketProblem as problem:
        cannot_run(str(problem))
    config = read_config(config_path)
    if is_others(config.general.data_dir):
        # What root made there, its owner could not use later, and could put links in the way of.
        refuse(
            f"{config.general.data_dir}: belongs to another user: run the server as that one, not as root: "
            "runuser -u USER -- sydentish serve"
        )
    keys = _prepared(config, config_path, init=init)
    try:
        log = open_log(config.log.file, json=config.log.format == "json")
    except OSError as error:
        cannot_run(f"[log] file: {told(error)}")
    try:
        outside = _outside(config, log, manager)
        app = _made(config, keys, outside)
        server = Server(app, keys, outside, config.http.stop_timeout / 1000)
        sys.exit(server.run(hangups, lambda: _read_again(config_path)))
    finally:
        log.close()


def _outside(config: Config, log: LogFile, manager: Manager) -> Outside:
    """What is around the server, with the log begun."""
    # Imported here: importing it chooses and installs it, which no other command needs.
    from twisted.internet import reactor  # noqa: PLC0415

    start_logging(log, config.log.level)
    connections, too_many = bounded_connections(config, raise_limit())
    for warning in (*suspicions(config), too_many):
        if warning is not None:
            _log.warn("{warning}", warning=warning)
    return Outside(reactor=reactor, log=log, connections=connections, manager=manager)


def _read_again(config_path: Path) -> tuple[Config, list[str]]:
    """The configuration as it is now, and what is suspicious about it.

    Raises:
        ConfigError: it cannot be used.
    """
    config = load(config_path, os.environ)
    return config, suspicions(config)


def _prepared(config: Config, config_path: Path, *, init: bool) -> KeyRing:
    """The signing keys; ends the program with all that is wrong with directories, files and keys."""
    if init:
        try:
            _initialise(config)
        except KeyProblem as problem:
            refuse(told_of_keys(problem, config, config_path))
        except OSError as error:
            refuse(told(error))
    problems = look_around(config, starting=True).problems
    if problems:
        refuse(*problems)
    return read_keys(config, config_path)


def _initialise(config: Config) -> None:
    make_private(config.general.data_dir)
    make_private(config.database.path.parent)
    if is_new(config) and not key_files(config.general.key_dir):
        generate_key(config.general.key_dir, None, os.urandom(SEED_BYTES))


def _made(config: Config, keys: KeyRing, outside: Outside) -> App:
    """The server, on a database that is up to date; ends the program if that cannot be."""
    try:
        with outside.manager.notifier.extending("bringing the database up to date"):
            applied = migrate_sqlite(
                config.database.path,
                config.database.busy_timeout,
                int(outside.reactor.seconds() * 1000),
                shipped_steps(),
            )
        app = build(config, keys, outside)
    except (SchemaError, ListenerProblem) as problem:
        cannot_run(str(problem))
    except OSError as error:
        cannot_run(told(error))
    except (TemplateProblem, GatewayProblem, TlsProblem) as problem:
        refuse(str(problem))
    for step in applied:
        _log.info("the database was brought to schema {step}", step=step.name)
    with looking(config.database.path) as tx:
        for flaw in integrity.names(tx, config.general.server_name):
            _log.warn("the database: {problem}: {remedy}", problem=flaw.problem, remedy=flaw.remedy)
    return app
