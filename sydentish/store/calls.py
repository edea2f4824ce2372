"""Calls on their way: through queues to the threads of a database, and their results back to the reactor."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from sydentish.store.database import Tx

_MAX_GROUP = 256


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run in a transaction, who waits for the result, and since when (in seconds of `monotonic`)."""

    call: Callable[[Tx], Any]
    reply: "Deferred[Any]"
    queued: float = field(default_factory=monotonic)


class Replies:
    """Carries results back to the reactor, as many at a time as are there."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._lock = threading.Lock()
        self._done: list[tuple[Deferred[Any], object]] = []

    def add(self, done: list[tuple["Deferred[Any]", object]]) -> None:
        """Called in the threads of the database."""
        with self._lock:
            scheduled = bool(self._done)
            self._done.extend(done)
        if not scheduled:
            self._reactor.callFromThread(self._flush)

    def _flush(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for reply, result in done:
            if isinstance(result, Exception):
                reply.errback(result)
            else:
                reply.callback(result)


def take_group(queue: "SimpleQueue[Job | None]", seconds: float) -> list[Job] | None:
    """Waits for a job, at most so many seconds, and takes all that are queued behind it.

    Returns:
        the jobs, none if there were none in that time; None when there will be no more.
    """
    group: list[Job] = []
    try:
        job = queue.get(timeout=max(0.0, seconds))
        while job is not None:
            group.append(job)
            if len(group) == _MAX_GROUP:
                break
            job = queue.get_nowait()
    except Empty:
        return group
    if job is None and not group:
        return None
    if job is None:
        queue.put(None)  # the end was queued behind this group: it is met again after it
    return group
