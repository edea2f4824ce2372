"""Budgets of requests as such, whatever they ask for."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sydentish.domain.errors import Busy
from sydentish.domain.ratelimit import Budgets
from sydentish.store import budgets as budget_rows
from sydentish.store.database import Database


class SourceBudget:
    """Counts the requests of those who need no access token, by where they come from."""

    def __init__(self, *, db: Database, budgets: Budgets, now_ms: Callable[[], int]) -> None:
        self._db = db
        self._budgets = budgets
        self._now_ms = now_ms

    async def charge(self, source: str) -> None:
        """Counts one request, also one that comes to nothing: whoever guesses is to be counted.

        Args:
            source: where it comes from; empty where that is not counted.

        Raises:
            LimitExceeded: there were too many.
        """
        charges = self._budgets.v1_request(source)
        if charges and charges[0].rate is not None:
            await self._db.write(budget_rows.charge, charges, self._now_ms())


class Slots:
    """How much may be under way at the same time, altogether and for one source.

    Args:
        altogether: how much; None for any.
        for_one: how much for one source.
    """

    def __init__(self, altogether: int | None, for_one: int) -> None:
        self._altogether = altogether
        self._for_one = for_one
        self._taken: Counter[str] = Counter()

    @contextmanager
    def slot(self, source: str) -> Iterator[None]:
        """Takes one for as long as the context lasts.

        Args:
            source: where the request comes from; empty where that is not counted.

        Raises:
            Busy: there is none left.
        """
        full = self._altogether is not None and self._taken.total() >= self._altogether
        if full or (source and self._taken[source] >= self._for_one):
            raise Busy("Too many requests of this kind are under way: try again soon")
        self._taken[source] += 1
        try:
            yield
        finally:
            self._taken[source] -= 1
            if not self._taken[source]:
                del self._taken[source]
