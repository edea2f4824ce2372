"""What a database measures of itself: how long calls wait and take, and how many go into one transaction.

Each thread notes into tallies of its own, so that none waits for another, and a note costs less than a microsecond.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

READ, WRITE = "read", "write"
"""The two queues."""

FULL, BUSY = "full", "busy"
"""Why a call is refused: too many wait, or the database cannot do it now."""

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CALLS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Figure = tuple[tuple[str, ...], float]
"""Whose figure it is (a queue, and perhaps a reason), and the figure."""

Spread = tuple[tuple[str, ...], Sequence[float], Sequence[int], float]
"""Whose figures they are, upper bounds, how many were found up to each (and one more for those above), and their sum."""


class Tally:
    """How values are spread; one thread notes them, any may read.

    Attributes:
        counts: how many were up to each of the bounds, and above the one before; the last is for those above all.
        total: their sum.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        """Notes one more."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class ThreadMeasures:
    """What one thread notes.

    Attributes:
        waits: how long calls waited for their transaction to begin, in seconds.
        transactions: how long transactions took, in seconds.
        groups: how many calls went into one.
        refused: how many calls the database could not do.
    """

    __slots__ = ("groups", "refused", "transactions", "waits")

    def __init__(self) -> None:
        self.waits = Tally(_SECONDS)
        self.transactions = Tally(_SECONDS)
        self.groups = Tally(_CALLS)
        self.refused = 0

    def note(self, queued: Sequence[float], begun: float, ended: float) -> None:
        """Notes a transaction.

        Args:
            queued: when each of its calls was made, in seconds of a clock that never goes back.
            begun: when it began.
            ended: when it was on disk, or given up.
        """
        for when in queued:
            self.waits.note(begun - when)
        self.transactions.note(ended - begun)
        self.groups.note(len(queued))


class Measures:
    """What all threads of a database have noted.

    Args:
        lengths: how many calls wait in each queue.
    """

    def __init__(self, lengths: dict[str, Callable[[], int]]) -> None:
        self._lengths = lengths
        self._threads: list[tuple[str, ThreadMeasures]] = []
        self._full = dict.fromkeys(lengths, 0)

    def thread(self, queue: str) -> ThreadMeasures:
        """What a thread notes that serves this queue."""
        measures = ThreadMeasures()
        self._threads.append((queue, measures))
        return measures

    def note_full(self, queue: str) -> None:
        """A call was refused, since too many wait; for the thread of the reactor."""
        self._full[queue] += 1

    def queued(self) -> Iterator[Figure]:
        """How many calls wait, by queue."""
        for queue, length in self._lengths.items():
            yield (queue,), length()

    def refused(self) -> Iterator[Figure]:
        """How many calls were refused, by queue and reason."""
        for queue, full in self._full.items():
            yield (queue, FULL), full
            yield (queue, BUSY), sum(each.refused for each in self._of(queue))

    def waits(self) -> Iterator[Spread]:
        """How long calls waited, in seconds, by queue."""
        for queue in self._lengths:
            yield _spread((queue,), _SECONDS, [each.waits for each in self._of(queue)])

    def transactions(self) -> Iterator[Spread]:
        """How long transactions took, in seconds, by queue."""
        for queue in self._lengths:
            yield _spread((queue,), _SECONDS, [each.transactions for each in self._of(queue)])

    def groups(self) -> Iterator[Spread]:
        """How many writing calls went into one transaction."""
        yield _spread((), _CALLS, [each.groups for each in self._of(WRITE)])

    def _of(self, queue: str) -> list[ThreadMeasures]:
        return [measures for served, measures in self._threads if served == queue]


def _spread(labels: tuple[str, ...], bounds: Sequence[float], tallies: Sequence[Tally]) -> Spread:
    counts = [sum(each) for each in zip(*(tally.counts for tally in tallies), strict=True)]
    return labels, bounds, counts or [0] * (len(bounds) + 1), sum(tally.total for tally in tallies)
