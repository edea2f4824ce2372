"""Public keys."""

from sydentish.actions.keys import PublicKeys
from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class KeyHandlers:
    """`/pubkey`."""

    def __init__(self, keys: PublicKeys) -> None:
        self._keys = keys

    async def public_key(self, call: Call[models.KeyReference]) -> Reply:
        """`GET /pubkey/{key_id}`."""
        return json_reply({"public_key": self._keys.public_key(call.params.key_id)})

    async def is_valid(self, call: Call[models.PublicKey]) -> Reply:
        """`GET /pubkey/isvalid`."""
        return json_reply({"valid": self._keys.is_valid(call.params.public_key)})

    async def is_ephemeral_valid(self, call: Call[models.PublicKey]) -> Reply:
        """`GET /pubkey/ephemeral/isvalid`."""
        return json_reply({"valid": await self._keys.is_ephemeral_valid(call.params.public_key)})
