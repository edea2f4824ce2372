"""Invitations."""

from sydentish.actions.invites import Invites
from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class InviteHandlers:
    """`/store-invite` and `/sign-ed25519`."""

    def __init__(self, invites: Invites) -> None:
        self._invites = invites

    async def store(self, call: Call[models.StoredInvite]) -> Reply:
        """`POST /store-invite`."""
        return json_reply(await self._invites.store(call.caller, call.params.request()))

    async def sign(self, call: Call[models.InviteToSign]) -> Reply:
        """`POST /sign-ed25519`."""
        asked = call.params
        return json_reply(await self._invites.sign(call.caller, asked.token, asked.mxid, asked.private_key))
