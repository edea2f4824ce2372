"""What is looked up when somebody wants to know it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from platform import python_version
from typing import Protocol

from sydentish.metrics.declare import Declarer, Figure, Spread
from sydentish.metrics.events import KINDS

LISTENERS = ("public", "internal", "metrics", "replication")
QUEUES = ("read", "write")
CHECKS = ("server", "database", "schema", "key", "outbox", "disk")
_STATES = ("pending", "dead")


class DatabaseFigures(Protocol):
    """What a database measures of itself; each figure comes with the name of its queue, `read` or `write`."""

    def queued(self) -> Iterable[Figure]:
        """How many calls wait."""

    def refused(self) -> Iterable[Figure]:
        """How many were refused: by queue, and by the reason."""

    def waits(self) -> Iterable[Spread]:
        """How long they waited, in seconds."""

    def transactions(self) -> Iterable[Spread]:
        """How long a transaction took, in seconds."""

    def groups(self) -> Iterable[Spread]:
        """How many calls went into one transaction; without a queue, since only writing ones are grouped."""


class ConnectionFigures(Protocol):
    """What the listeners know of their connections, by the kind of the listener."""

    def open(self) -> Iterable[Figure]:
        """How many there are."""

    def most(self) -> Iterable[Figure]:
        """How many there may be."""

    def refused(self) -> Iterable[Figure]:
        """How many came when there were too many already."""


class Figures:
    """What is set before metrics are rendered, or read while they are."""

    def __init__(self, declare: Declarer) -> None:
        self._build = declare.gauge(
            "sydentish_build_info",
            "The versions that run, as labels.",
            version=None,
            python=None,
            twisted=None,
        )
        self._declare_outbox(declare)
        self._declare_replication_lag(declare)
        self._declare_expiry(declare)
        self._declare_database(declare)
        self._declare_process(declare)

    def _declare_outbox(self, declare: Declarer) -> None:
        self._rows = declare.gauge("sydentish_outbox_rows", "Rows of the outbox.", kind=KINDS, state=_STATES)
        self._oldest = declare.gauge(
            "sydentish_outbox_oldest_seconds",
            "Age of the oldest row of the outbox; 0 without rows.",
            kind=KINDS,
            state=_STATES,
        )
        self._overdue = declare.gauge(
            "sydentish_outbox_overdue_seconds",
            "How long the oldest row is due that nobody tries to deliver although its destination is well; 0 without any.",
            kind=KINDS,
        )

    def _declare_replication_lag(self, declare: Declarer) -> None:
        gauge = partial(declare.gauge, peer=None)
        self._lag = (
            gauge("sydentish_replication_lag_entries", "Statements that a peer has not acknowledged."),
            gauge("sydentish_replication_lag_seconds", "How long the oldest of them has waited."),
            gauge("sydentish_replication_parked_entries", "Statements that a peer has refused by name."),
            gauge(
                "sydentish_replication_last_success_timestamp_seconds",
                "When a peer has last acknowledged a push; 0 if it never has.",
            ),
        )

    def _declare_expiry(self, declare: Declarer) -> None:
        self._keys = declare.gauge(
            "sydentish_signing_key_info",
            "The signing keys, with what each may still do.",
            key_id=None,
            state=("next", "active", "retired", "revoked"),
        )
        self._key_time = declare.gauge(
            "sydentish_signing_key_timestamp_seconds", "When the file of the active signing key was written."
        )
        self._pepper_time = declare.gauge(
            "sydentish_lookup_pepper_timestamp_seconds", "Since when the look-up pepper is given out."
        )
        self._certificates = declare.gauge(
            "sydentish_certificate_expiry_timestamp_seconds",
            "When the first of the certificates expires that listeners of this kind show.",
            listener=LISTENERS,
        )

    def _declare_database(self, declare: Declarer) -> None:
        self._queued = declare.gauge(
            "sydentish_database_queued_calls", "Calls that wait for a thread of the database.", queue=QUEUES
        )
        self._refused_calls = declare.read_counter(
            "sydentish_database_refused_calls",
            "Calls that were refused: too many waited (full), or the database could not do it then (busy).",
            queue=QUEUES,
            reason=("full", "busy"),
        )
        self._waits = declare.read_histogram(
            "sydentish_database_wait_seconds",
            "How long a call waits for its transaction to begin.",
            queue=QUEUES,
        )
        self._transactions = declare.read_histogram(
            "sydentish_database_transaction_duration_seconds", "How long a transaction takes.", queue=QUEUES
        )
        self._groups = declare.read_histogram(
            "sydentish_database_group_calls", "Writing calls that are committed together."
        )
        self._file_bytes = declare.gauge(
            "sydentish_database_size_bytes",
            "Size of the database's files: the database itself, and its write-ahead log.",
            file=("main", "wal"),
        )
        self._free_bytes = declare.gauge(
            "sydentish_database_free_bytes", "Free space in the file system of the database."
        )

    def _declare_process(self, declare: Declarer) -> None:
        self._connections = declare.gauge(
            "sydentish_http_connections", "Open connections, by the kind of the listener.", listener=LISTENERS
        )
        self._most_connections = declare.gauge(
            "sydentish_http_connections_limit",
            "How many connections such listeners hold; infinite without a limit.",
            listener=LISTENERS,
        )
        self._refused_connections = declare.read_counter(
            "sydentish_http_refused_connections", "Connections that were one too many.", listener=LISTENERS
        )
        self._lost_lines = declare.read_counter(
            "sydentish_log_lost_lines", "Lines of the log that could not be written."
        )
        self._health = declare.gauge(
            "sydentish_health_check", "1 if this check of /health/ready holds, else 0.", check=CHECKS
        )
        self.scrape_errors = declare.counter(
            "sydentish_scrape_errors",
            "How often the figures of the database were left out, since it did not answer.",
        )

    def set_build(self, version: str, twisted: str) -> None:
        """Which versions run; that of Python is known."""
        self._build.set([((version, python_version(), twisted), 1)])

    def watch_database(self, figures: DatabaseFigures) -> None:
        """Reads the figures of the database here from now on."""
        self._queued.source = figures.queued
        self._refused_calls.source = figures.refused
        self._waits.source = figures.waits
        self._transactions.source = figures.transactions
        self._groups.source = figures.groups

    def watch_log(self, lost: Callable[[], int]) -> None:
        """Reads how many lines were lost here from now on."""
        self._lost_lines.source = lambda: [((), lost())]

    def watch_connections(self, figures: ConnectionFigures) -> None:
        """Reads the figures of connections here from now on."""
        self._connections.source = figures.open
        self._most_connections.source = figures.most
        self._refused_connections.source = figures.refused

    def set_outbox(
        self, kinds: Iterable[str], counts: Iterable[tuple[str, str, int, int]], now_ms: int
    ) -> None:
        """Brings the figures of the outbox up to date.

        Args:
            kinds: every kind of row, so that one without rows is told of, too.
            counts: kind, state, number of rows, and the time of the oldest in ms.
            now_ms: the time, in ms.
        """
        found = {(kind, state): (number, oldest_ts) for kind, state, number, oldest_ts in counts}
        each = [((kind, state), found.get((kind, state), (0, now_ms))) for kind in kinds for state in _STATES]
        self._rows.set((labels, number) for labels, (number, _) in each)
        self._oldest.set((labels, max(0, now_ms - oldest_ts) / 1000) for labels, (_, oldest_ts) in each)

    def set_overdue(self, kinds: Iterable[str], due_since: Mapping[str, int], now_ms: int) -> None:
        """How long rows are due that nobody tries to deliver.

        Args:
            kinds: as for `set_outbox`.
            due_since: since when the oldest of a kind is due, in ms.
            now_ms: the time, in ms.
        """
        self._overdue.set(((kind,), max(0, now_ms - due_since.get(kind, now_ms)) / 1000) for kind in kinds)

    def set_replication(self, figures: Iterable[tuple[str, int, float, int, float]]) -> None:
        """Brings the figures of replication up to date.

        Args:
            figures: of each peer: its name, how many statements it has not acknowledged, how long the oldest of them
                has waited in s, how many are parked, and when it last acknowledged anything in s since 1970.
        """
        peers = [(each[0], each[1:]) for each in figures]
        for position, gauge in enumerate(self._lag):
            gauge.set(((peer,), values[position]) for peer, values in peers)

    def set_keys(self, keys: Iterable[tuple[str, str]], certificates: Mapping[str, float]) -> None:
        """What the server shows of itself.

        Args:
            keys: the ID and the state of each signing key.
            certificates: when those of a kind of listeners expire, in s since 1970.
        """
        self._keys.set((each, 1) for each in keys)
        self._certificates.set(((listener,), when) for listener, when in certificates.items())

    def set_times(self, key: float | None, pepper: float | None) -> None:
        """Since when there is what should be replaced from time to time, in s since 1970; None where nobody knows."""
        for gauge, when in ((self._key_time, key), (self._pepper_time, pepper)):
            gauge.set([] if when is None else [((), when)])

    def set_space(self, sizes: Mapping[str, int], free: int) -> None:
        """The sizes of the database's files (`main`, `wal`), and how much may still be written, in bytes."""
        self._file_bytes.set(((file,), size) for file, size in sizes.items())
        self._free_bytes.set([((), free)])

    def set_health(self, checks: Mapping[str, bool]) -> None:
        """Which checks of /health/ready hold."""
        self._health.set(((check,), float(holds)) for check, holds in checks.items())

    def forget_database(self) -> None:
        """Leaves out what the database has not told this time: old figures would look like new ones."""
        for gauge in (self._rows, self._oldest, self._overdue, *self._lag, self._key_time, self._pepper_time):
            gauge.set(())
        for gauge in (self._file_bytes, self._free_bytes):
            gauge.set(())
