"""Health, on the listener of the metrics."""

from collections.abc import Awaitable, Callable, Mapping

from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class HealthHandlers:
    """What a load balancer or a supervisor asks for.

    Args:
        checks: by the name of each check, why it does not hold, or None if it does.
    """

    def __init__(self, checks: Callable[[], Awaitable[Mapping[str, str | None]]]) -> None:
        self._checks = checks

    async def live(self, _call: Call[models.Nothing]) -> Reply:
        """`GET /health/live`: whoever can answer lives."""
        return json_reply({"live": True})

    async def ready(self, _call: Call[models.Nothing]) -> Reply:
        """`GET /health/ready`: 200 when requests should come here, 503 and the reasons when they should not."""
        checks = await self._checks()
        ready = not any(checks.values())
        told = {
            name: {"ok": True} if reason is None else {"ok": False, "reason": reason}
            for name, reason in checks.items()
        }
        return json_reply({"ready": ready, "checks": told}, status=200 if ready else 503)
