"""Status and versions."""

from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call

# Since v1.1 the specification's versions are those of all its APIs together.
VERSIONS = tuple(f"v1.{minor}" for minor in range(1, 20))


class StatusHandlers:
    """What anybody may ask."""

    async def status(self, _call: Call[models.Nothing]) -> Reply:
        """`GET /v2`: the server is there."""
        return json_reply({})

    async def versions(self, _call: Call[models.Nothing]) -> Reply:
        """`GET /versions`."""
        return json_reply({"versions": VERSIONS})
