"""Associations."""

from sydentish.actions.associations import Associations
from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class AssociationHandlers:
    """`/3pid/bind` and `/3pid/unbind`."""

    def __init__(self, associations: Associations) -> None:
        self._associations = associations

    async def bind(self, call: Call[models.BindRequest]) -> Reply:
        """`POST /3pid/bind`."""
        signed = await self._associations.bind(call.caller, call.params.credentials(), call.params.mxid)
        return json_reply(signed)

    async def unbind(self, call: Call[models.UnbindRequest]) -> Reply:
        """`POST /3pid/unbind`, proved by a session, or signed by the homeserver."""
        request = call.params.request()
        if call.origin is None:
            await self._associations.unbind(call.caller, request)
        else:
            await self._associations.unbind_for_homeserver(call.origin, request)
        return json_reply({})
