"""What the parts need of the real world: time, threads, sockets and chance."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class World:
    """What comes from outside: time, threads, sockets and chance."""

    reactor: Any
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    jitter: Callable[[], float]


def make_world(reactor: Any) -> World:  # noqa: ANN401 - several interfaces
    """What the parts need of the real world."""
    return World(
        reactor=reactor,
        now_ms=lambda: int(reactor.seconds() * 1000),
        random_bytes=os.urandom,
        jitter=lambda: random.uniform(-1, 1),  # noqa: S311 - it spreads retries and protects nothing
    )
