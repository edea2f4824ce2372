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
        """`POST /3pid/unbind`."""
        await self._associations.unbind(call.caller, call.params.request())
        return json_reply({})
