"""What the parts need of the real world: time, threads, sockets and chance."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sydentish.supervision.sockets import Inherited


@dataclass(frozen=True, slots=True)
class World:
    """What comes from outside: time, threads, sockets (some that are there already) and chance."""

    reactor: Any
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    jitter: Callable[[], float]
    sockets: Inherited = field(default_factory=Inherited)


def make_world(reactor: Any, sockets: Inherited | None = None) -> World:  # noqa: ANN401 - several interfaces
    """What the parts need of the real world.

    Args:
        reactor: time, threads and sockets.
        sockets: those that the service manager has handed over, if any.
    """
    return World(
        reactor=reactor,
        now_ms=lambda: int(reactor.seconds() * 1000),
        random_bytes=os.urandom,
        jitter=lambda: random.uniform(-1, 1),  # noqa: S311 - it spreads retries and protects nothing
        sockets=sockets or Inherited(),
    )
