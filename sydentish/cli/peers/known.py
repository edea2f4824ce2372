"""The peers as the commands see them: those of the configuration, and those of the database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from sydentish.cli.common import parsed
from sydentish.config import Config, network
from sydentish.domain.peers import Peer
from sydentish.store.progress import PeerReport

F = TypeVar("F", bound=Callable[..., Any])

_RESTART = "restart the server"


@dataclass(frozen=True, slots=True)
class Known:
    """A peer.

    Attributes:
        configured: what the configuration says of it now; None where it does not.
        report: how it fares; None where the server has not taken it up yet.
    """

    configured: Peer | None
    report: PeerReport | None

    @property
    def peer(self) -> Peer:
        """Who it is: what the server goes by, where it knows the peer."""
        if self.report is not None:
            return self.report.state.peer
        if self.configured is not None:
            return self.configured
        raise LookupError("a peer that nobody knows")

    @property
    def source(self) -> str:
        """Who has told of it: `configuration`, `command`, or nobody any more: `gone`."""
        return "configuration" if self.report is None else self.report.state.source

    @property
    def state(self) -> str:
        """How it fares, in a word or two."""
        if self.report is None:
            return "not in use yet"
        found = self.report.state
        if not found.in_use:
            return "gone" if self.configured is None else "not in use yet"
        if found.paused:
            return "paused"
        if found.failures:
            return "failing"
        if found.last_success_ts is None:
            return "new"
        return "behind" if self.report.behind else "ok"

    @property
    def note(self) -> str | None:
        """What the operator is to do about it, if anything."""
        if self.report is None or (self.configured and not self.report.state.in_use):
            return f"not in use yet: {_RESTART}"
        if not self.report.state.in_use:
            return f"no longer in the configuration: sydentish peers remove {self.peer.name}, or put it back"
        if self.configured is None and self.source == "configuration":
            return f"no longer in the configuration, but still in use: {_RESTART}"
        if self.configured is not None and self.configured != self.peer:
            return f"the configuration says something else by now: {_RESTART}"
        return None


def known_peers(config: Config, reports: Sequence[PeerReport]) -> list[Known]:
    """All peers, by name.

    Args:
        config: what the operator has chosen.
        reports: those of the database.
    """
    configured = {peer.name: peer for peer in config.peers}
    by_name = {report.state.peer.name: report for report in reports}
    return [Known(configured.get(name), by_name.get(name)) for name in sorted({*configured, *by_name})]


def name_argument(command: F) -> F:
    """`NAME`, the server name of a peer, in its canonical form."""
    return click.argument("name", metavar="NAME", callback=_server_name)(command)


def _server_name(_context: click.Context, _argument: click.Parameter, value: str) -> str:
    return parsed(network.server_name, value)
