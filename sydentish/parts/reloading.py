"""Taking up what was changed while the server runs: keys, certificates, log files, and some of the configuration.

All is read and tried out before anything is taken up, and then everything is in one turn of the reactor: nothing is half
applied.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from sydentish.actions.accounts import Gate
from sydentish.actions.terms import TermsOfService
from sydentish.config import Config, ConfigError
from sydentish.config.compare import Place, differing, with_options
from sydentish.domain.keys import KeyRing
from sydentish.keyfiles import load_keys
from sydentish.logs import LogFile, RequestRecorder, open_log, shows_requests
from sydentish.parts.endpoints import Endpoints
from sydentish.parts.people import checked_templates
from sydentish.parts.replication import Replication, peer_tls
from sydentish.senders.render import Templates

_CERTIFICATE_FILES = ("certificate_file", "key_file", "ca_file")
# What is taken up, beside policies and peers; everything else needs a restart.
_OPTIONS: tuple[tuple[str, str], ...] = (
    ("general", "templates_path"),
    *(("log", key) for key in ("level", "format", "file")),
)

_log = Logger()


@dataclass(frozen=True, slots=True)
class Changeable:
    """What takes up changes: all the parts that share one of these see them."""

    endpoints: Endpoints
    gate: Gate
    keys: KeyRing
    log: LogFile
    recorder: RequestRecorder
    replication: Replication
    templates: Templates
    terms: TermsOfService


@dataclass(frozen=True, slots=True)
class _Change:
    """Something that was read and is good.

    Attributes:
        apply: takes it up, and cannot fail.
        told: what the operator is told of it; None where nothing is different, or where it is told as an option.
    """

    apply: Callable[[], None]
    told: str | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All that was read, and is good.

    Attributes:
        config: what the server runs with when it is taken up.
        changes: what there is to take up.
        options: those that are taken up.
        waiting: those that need a restart.
        warnings: what is suspicious.
    """

    config: Config
    changes: Sequence[_Change]
    options: Sequence[Place]
    waiting: Sequence[Place]
    warnings: Sequence[str]


class Reloading:
    """Reads again what can change while the server runs.

    Args:
        config: what it runs with.
        parts: what takes up changes.
        reactor: has threads, in which files are read.
    """

    def __init__(self, config: Config, parts: Changeable, reactor: Any) -> None:  # noqa: ANN401 - several interfaces
        self._running = config
        self._parts = parts
        self._reactor = reactor

    async def reload(self, read: Callable[[], tuple[Config, Sequence[str]]]) -> bool:
        """Reads everything again, takes up what was changed, and says so in the log; whether all of it was good.

        It must have ended before it is called again.

        Args:
            read: reads the configuration, and looks for what is suspicious; called in a thread.
        """
        try:
            prepared = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), self._prepare, read
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on as it was
            for problem in _problems(error):
                _log.error("nothing was taken up: {problem}", problem=problem)
            return False
        for change in prepared.changes:
            change.apply()
        self._running = prepared.config
        _tell(prepared)
        return True

    def _prepare(self, read: Callable[[], tuple[Config, Sequence[str]]]) -> _Prepared:
        """In a thread: reads everything, and changes nothing."""
        wanted, warnings = read()
        config = self._as_far_as_possible(wanted)
        changes = [
            *self._keys(config),
            *self._certificates(config),
            *self._texts(config),
            *self._policies_and_peers(config),
            # The last one, as it opens a file that is closed by whoever takes it over.
            *self._log(config),
        ]
        return _Prepared(
            config, changes, differing(self._running, config), differing(config, wanted), warnings
        )

    def _as_far_as_possible(self, wanted: Config) -> Config:
        """What the server runs with, and of a new configuration what can be taken up."""
        running = self._running
        places = [*_OPTIONS]
        if running.replication.certificate_file and wanted.replication.certificate_file:
            places += [("replication", key) for key in _CERTIFICATE_FILES]
        # Without a certificate of our own there is no exchange with peers.
        peers = running.peers if self._parts.replication.exchange is None else wanted.peers
        return with_options(replace(running, policies=wanted.policies, peers=peers), wanted, places)

    def _keys(self, config: Config) -> Iterator[_Change]:
        keys = self._parts.keys
        found = load_keys(config.general.key_dir, keys.server_name)
        told = None if _states(found) == _states(keys) else f"signing keys: {_described(found)}"
        yield _Change(lambda: keys.adopt(found), told)

    def _certificates(self, config: Config) -> Iterator[_Change]:
        exchange, tls = self._parts.replication.exchange, peer_tls(config)
        if exchange is not None and tls is not None:
            shown = exchange.tls.fingerprint == tls.fingerprint
            told = None if shown else "[replication] certificates: those of the files now"
            yield _Change(partial(exchange.tls.adopt, tls), told)
        for endpoint in self._parts.endpoints.with_certificates:
            options = endpoint.read()
            told = (
                None
                if endpoint.is_shown(options)
                else f"{endpoint.description}: the certificate of its file now"
            )
            yield _Change(partial(endpoint.adopt, options), told)

    def _texts(self, config: Config) -> Iterator[_Change]:
        yield _Change(
            partial(self._parts.templates.adopt, checked_templates(config)), "templates: read again"
        )

    def _policies_and_peers(self, config: Config) -> Iterator[_Change]:
        def take_up() -> None:
            self._parts.gate.terms = self._parts.terms.terms = config.policies
            if config.peers != self._running.peers:
                self._parts.replication.peers.reconfigure(config.peers)

        yield _Change(take_up)

    def _log(self, config: Config) -> Iterator[_Change]:
        log, before, options = self._parts.log, self._running.log, config.log
        if options.file is not None or (before.file, before.format) != (None, options.format):
            opened = open_log(options.file, json=options.format == "json")
            told = None if options.file is None else "the log file: opened again"
            yield _Change(partial(log.take_over, opened), told)

        def set_level() -> None:
            log.threshold.set(options.level)
            self._parts.recorder.lines = shows_requests(options.level)

        yield _Change(set_level)


def _tell(prepared: _Prepared) -> None:
    for change in prepared.changes:
        if change.told is not None:
            _log.info("{what}", what=change.told)
    for place in prepared.options:
        _log.info("{place}: taken up", place=_shown(place))
    for place in prepared.waiting:
        _log.warn("{place}: needs a restart", place=_shown(place))
    for warning in prepared.warnings:
        _log.warn("{warning}", warning=warning)


def _problems(error: Exception) -> list[str]:
    if isinstance(error, ConfigError):
        return list(map(str, error.problems))
    if isinstance(error, OSError) and error.filename is not None:
        return [f"{error.filename}: {error.strerror}"]
    return str(error).splitlines() or [type(error).__name__]


def _shown(place: Place) -> str:
    section, key = place
    return f"[{section}]" if key is None else f"[{section}] {key}"


def _states(keys: KeyRing) -> set[tuple[str, str, str]]:
    return {(key.key_id, key.public_key, key.state.value) for key in keys.all}


def _described(keys: KeyRing) -> str:
    return ", ".join(f"{key.key_id} is {key.state.value}" for key in keys.all)
