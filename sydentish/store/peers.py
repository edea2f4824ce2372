"""Peers: who they are, and how they fare."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sydentish.domain.peers import Peer
from sydentish.store.database import Row, Tx
from sydentish.store.statements import erase_acknowledged

_COLUMNS = """name, url, keys, certificate_names, source, paused, since_ts, acknowledged_id, failures, failing_since_ts,
    retry_ts, last_success_ts, last_failure_ts, last_failure, last_received_ts"""


@dataclass(frozen=True, slots=True)
class PeerState:
    """A peer, and how it fares; times in ms.

    Attributes:
        peer: who it is.
        source: `configuration` or `command`, whoever has told of it; `gone` when it is no longer in the configuration.
        paused: whether nothing is pushed to it.
        since_ts: from when on statements wait for it.
        acknowledged_id: the highest of our statements that it has acknowledged.
        failures: how many times in a row a push failed.
        failing_since_ts: when the first of these did.
        retry_ts: when the next is tried.
        last_success_ts: when it has last acknowledged something.
        last_failure_ts: when a push last failed.
        last_failure: why.
        last_received_ts: when it has last pushed something here.
    """

    peer: Peer
    source: str
    paused: bool
    since_ts: int
    acknowledged_id: int
    failures: int
    failing_since_ts: int | None
    retry_ts: int
    last_success_ts: int | None
    last_failure_ts: int | None
    last_failure: str | None
    last_received_ts: int | None

    @property
    def in_use(self) -> bool:
        """Whether statements are exchanged with it at all."""
        return self.source != "gone"


def configure(tx: Tx, peers: Iterable[Peer], now_ms: int) -> None:
    """Makes the peers of the configuration known; one that is no longer among them is left alone, but kept.

    This is done when a server starts: every peer is tried at once then, also those that have failed before.
    """
    tx.run("UPDATE peers SET source = 'gone' WHERE source = 'configuration'")
    tx.run("UPDATE peers SET retry_ts = 0")
    for peer in peers:
        _put(tx, peer, "configuration", now_ms)


def add(tx: Tx, peer: Peer, now_ms: int) -> None:
    """Adds a peer by the word of an operator, or replaces what is known of it."""
    _put(tx, peer, "command", now_ms)


def _put(tx: Tx, peer: Peer, source: str, now_ms: int) -> None:
    names = list(peer.certificate_names)
    tx.run(
        """
        INSERT INTO peers (name, url, keys, certificate_names, source, since_ts) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (name) DO UPDATE SET url = excluded.url, keys = excluded.keys,
            certificate_names = excluded.certificate_names, source = excluded.source
        """,
        (peer.name, peer.url, json.dumps(dict(peer.keys)), json.dumps(names), source, now_ms),
    )


def remove(tx: Tx, name: str) -> bool:
    """Forgets a peer, which then holds the erasure of no address up any more; whether it was known."""
    removed = tx.run("DELETE FROM peers WHERE name = ?", (name,)) > 0
    erase_acknowledged(tx)
    return removed


def pause(tx: Tx, name: str, *, paused: bool) -> bool:
    """Stops pushing to a peer, or goes on at once; whether it is known."""
    return tx.run("UPDATE peers SET paused = ?, retry_ts = 0 WHERE name = ?", (int(paused), name)) > 0


def start_over(tx: Tx, name: str, now_ms: int) -> bool:
    """Has everything pushed to a peer again, what was parked for it included; whether it is known.

    What is on its way just now acknowledges nothing any more.
    """
    tx.run("DELETE FROM parked_statements WHERE peer = ?", (name,))
    return (
        tx.run(
            """
            UPDATE peers SET acknowledged_id = 0, since_ts = ?, retry_ts = 0, lease_until_ts = 0 WHERE name = ?
            """,
            (now_ms, name),
        )
        > 0
    )


def rewind(tx: Tx, own_id: int) -> None:
    """Has all statements of ours behind a number pushed to every peer again; see `start_over`."""
    tx.run(
        """
        UPDATE peers SET acknowledged_id = ?, retry_ts = 0, lease_until_ts = 0 WHERE acknowledged_id > ?
        """,
        (own_id, own_id),
    )


def is_any(tx: Tx) -> bool:
    """Whether there is any peer, also one that is left alone."""
    return tx.row("SELECT 1 FROM peers LIMIT 1") is not None


def states(tx: Tx) -> list[PeerState]:
    """All peers and how they fare, by name."""
    return [_state(row) for row in tx.rows(f"SELECT {_COLUMNS} FROM peers ORDER BY name")]  # noqa: S608 - a constant


def state(tx: Tx, name: str) -> PeerState | None:
    """One peer and how it fares."""
    row = tx.row(f"SELECT {_COLUMNS} FROM peers WHERE name = ?", (name,))  # noqa: S608 - a constant
    return _state(row) if row else None


def in_use(tx: Tx) -> list[Peer]:
    """The peers that statements are exchanged with, paused ones included."""
    return [each.peer for each in states(tx) if each.in_use]


def _state(row: Row) -> PeerState:
    name, url, keys, certificate_names, source, paused, *rest = row
    peer = Peer(name, url, json.loads(keys), tuple(json.loads(certificate_names)))
    return PeerState(peer, source, bool(paused), *rest)


def received(tx: Tx, name: str, now_ms: int) -> None:
    """The peer has pushed something here."""
    tx.run("UPDATE peers SET last_received_ts = ? WHERE name = ?", (now_ms, name))
