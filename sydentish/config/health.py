"""[health]: until when the server calls itself ready."""

from dataclasses import dataclass

from sydentish.config import values
from sydentish.config.declare import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """[health]: until when /health/ready of the metrics listener says that requests should come here."""

    max_outbox_wait: int | None = option(
        values.limit(values.duration()),
        "10m",
        "How long something may be due in the outbox that nobody tries to deliver, or off for any time; what waits "
        "for a homeserver or a relay that cannot be reached does not count.",
    )
    min_free_space: int | None = option(
        values.limit(values.size),
        "64M",
        "How much space must be free in the file system of the database, or off for none.",
    )
