"""Metrics, on a listener of their own."""

from collections.abc import Awaitable, Callable

from sydentish.web import models
from sydentish.web.reply import Reply
from sydentish.web.route import Call


class MetricsHandlers:
    """What a Prometheus server asks for.

    Args:
        render: brings the figures up to date and writes them in Prometheus' text format.
        content_type: the name of that format.
    """

    def __init__(self, render: Callable[[], Awaitable[bytes]], content_type: str) -> None:
        self._render = render
        self._content_type = content_type.encode()

    async def metrics(self, _call: Call[models.Nothing]) -> Reply:
        """`GET /metrics`."""
        return Reply(200, self._content_type, await self._render())
