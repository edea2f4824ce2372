"""[keeping]: how long what nobody needs any more stays."""

from dataclasses import dataclass

from sydentish.config import values
from sydentish.config.declare import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """[keeping]: how long what nobody needs any more is kept."""

    sessions: int = option(
        values.duration(),
        "7d",
        "How long a validation session is kept after it has expired, so that its client is told so.",
    )
    dead_letters: int | None = option(
        values.limit(values.duration()),
        "30d",
        "How long what could not be delivered stays listed for the operator, or off for until it is dropped.",
    )
    access_tokens: int | None = option(
        values.limit(values.duration()),
        "365d",
        "How long an access token that nobody uses stays valid, or off for ever.",
    )
    accounts: int | None = option(
        values.limit(values.duration()),
        "365d",
        "How long an account without access tokens is kept after its user was last seen, with what they have accepted, "
        "or off for ever.",
    )
