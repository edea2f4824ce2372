"""How many connections the listeners have, for the operator."""

from collections import defaultdict
from collections.abc import Iterator
from math import inf

from sydentish.web.http import HttpFactory

Figure = tuple[tuple[str, ...], float]
"""The kind of the listeners, and the figure of all of them together."""


class Connections:
    """Knows the factories of all listeners by the kind of the listener."""

    def __init__(self) -> None:
        self._factories: defaultdict[str, list[HttpFactory]] = defaultdict(list)

    def watch(self, kind: str, factory: HttpFactory) -> None:
        """Counts the connections of this one, too."""
        self._factories[kind].append(factory)

    def open(self) -> Iterator[Figure]:
        """How many connections there are."""
        for kind, factories in self._factories.items():
            yield (kind,), sum(each.connections for each in factories)

    def most(self) -> Iterator[Figure]:
        """How many there may be."""
        for kind, factories in self._factories.items():
            limits = [each.limits.connections for each in factories]
            yield (kind,), sum(inf if limit is None else limit for limit in limits)

    def refused(self) -> Iterator[Figure]:
        """How many came when there were too many already."""
        for kind, factories in self._factories.items():
            yield (kind,), sum(each.refused for each in factories)
