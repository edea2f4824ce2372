"""Look-ups."""

from sydentish.actions.lookup import Lookup
from sydentish.web import models
from sydentish.web.reply import Reply, json_reply, raw_json_reply
from sydentish.web.route import Call


class LookupHandlers:
    """`/hash_details` and `/lookup`; at v1 also `/bulk_lookup`."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def hash_details(self, call: Call[models.Nothing]) -> Reply:
        """`GET /hash_details`."""
        return json_reply(await self._lookup.hash_details(call.caller))

    async def lookup(self, call: Call[models.LookupRequest]) -> Reply:
        """`POST /lookup`."""
        asked = call.params
        mappings = await self._lookup.lookup(call.caller, asked.algorithm, asked.pepper, asked.addresses)
        return raw_json_reply(b'{"mappings":%b}' % mappings.encode())

    async def lookup_one(self, call: Call[models.LookupOne]) -> Reply:
        """v1, `GET /lookup`."""
        return json_reply(await self._lookup.association(call.caller, call.params.threepid()))

    async def lookup_many(self, call: Call[models.LookupMany]) -> Reply:
        """v1, `POST /bulk_lookup`."""
        found = await self._lookup.associations(call.caller, call.params.threepids)
        return json_reply({"threepids": found})
