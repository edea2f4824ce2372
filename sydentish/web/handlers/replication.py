"""Replication: what peers tell and ask."""

from typing import Any

from sydentish.actions.ports import PushReceiver
from sydentish.domain.errors import UnknownPeer
from sydentish.web import models_peers
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class ReplicationHandlers:
    """`/replicate`."""

    def __init__(self, receiver: PushReceiver) -> None:
        self._receiver = receiver

    async def push(self, call: Call[models_peers.Push]) -> Reply:
        """`POST /replicate/v1/push`."""
        await self._receiver.receive(_peer(call), call.params.statements)
        return json_reply({"success": True})

    async def check(self, call: Call[models_peers.Greeting]) -> Reply:
        """`POST /replicate/v1/check`."""
        return json_reply(await self._receiver.check(_peer(call), call.params.content))

    async def digests(self, call: Call[models_peers.DigestsRequest]) -> Reply:
        """`POST /replicate/v1/digests`."""
        asked = call.params
        return json_reply(await self._receiver.digests(_peer(call), asked.after, asked.until, asked.size))

    async def statements(self, call: Call[models_peers.StatementsRequest]) -> Reply:
        """`POST /replicate/v1/statements`."""
        return json_reply(await self._receiver.statements(_peer(call), call.params.origin_ids))

    async def recall(self, call: Call[models_peers.RecallRequest]) -> Reply:
        """`POST /replicate/v1/recall`."""
        return json_reply(await self._receiver.recall(_peer(call), call.params.after))

    async def log(self, call: Call[models_peers.RecallRequest]) -> Reply:
        """`POST /replicate/v1/log`."""
        return json_reply(await self._receiver.log(_peer(call), call.params.after))

    async def unbound(self, call: Call[models_peers.UnboundRequest]) -> Reply:
        """`POST /replicate/v1/unbound`."""
        return json_reply(await self._receiver.unbound(_peer(call), call.params.asked))


def _peer(call: Call[Any]) -> str:
    if call.origin is None:
        raise UnknownPeer("Only peers of this server are answered here")
    return call.origin
