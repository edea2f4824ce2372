"""Terms of service."""

from sydentish.actions.terms import TermsOfService
from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class TermsHandlers:
    """`/terms`."""

    def __init__(self, terms: TermsOfService) -> None:
        self._terms = terms

    async def offered(self, _call: Call[models.Nothing]) -> Reply:
        """`GET /terms`."""
        return json_reply(self._terms.offered())

    async def accept(self, call: Call[models.AcceptedTerms]) -> Reply:
        """`POST /terms`."""
        await self._terms.accept(call.caller, call.params.user_accepts)
        return json_reply({})
