"""Doing several things side by side."""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from sydentish.cli.doctor.findings import Finding

T = TypeVar("T")


async def side_by_side(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in their order; none of them raises."""
    return list(await gatherResults([Deferred.fromCoroutine(work) for work in works], consumeErrors=True))


async def all_findings(works: Sequence[Coroutine[Any, Any, list[Finding]]]) -> list[Finding]:
    """What several checks find side by side, in one list."""
    return [finding for findings in await side_by_side(works) for finding in findings]
