"""Validation: for clients, and pages for people."""

from sydentish.actions.validation import Validation
from sydentish.web import models
from sydentish.web.pages import Pages, redirect
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class ValidationHandlers:
    """`/validate/email` and `/3pid/getValidated3pid`, for clients."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def request_email_token(self, call: Call[models.EmailTokenRequest]) -> Reply:
        """`POST /validate/email/requestToken`."""
        return json_reply({"sid": await self._validation.request_token(call.caller, call.params.request())})

    async def submit_token(self, call: Call[models.SubmittedToken]) -> Reply:
        """`POST /validate/email/submitToken`."""
        await self._validation.submit_token(call.caller, call.params.credentials(), call.params.token)
        return json_reply({"success": True})

    async def validated(self, call: Call[models.SessionReference]) -> Reply:
        """`GET /3pid/getValidated3pid`."""
        found = await self._validation.validated(call.caller, call.params.credentials())
        return json_reply(
            {
                "medium": found.threepid.medium,
                "address": found.threepid.address,
                "validated_at": found.validated_ts,
            }
        )


class ValidationPages:
    """Where the link of a validation mail leads.

    Args:
        validation: the deed.
        pages: what people see.
        confirm: show a button first, since mail scanners follow links, too.
        confirm_action: where the button leads.
    """

    def __init__(self, validation: Validation, pages: Pages, *, confirm: bool, confirm_action: str) -> None:
        self._validation = validation
        self._pages = pages
        self._confirm = confirm
        self._confirm_action = confirm_action

    async def follow(self, call: Call[models.SubmittedToken]) -> Reply:
        """`GET /validate/email/submitToken`; validates, or asks first."""
        if self._confirm:
            asked = call.params
            return self._pages.confirm(self._confirm_action, asked.sid, asked.client_secret, asked.token)
        return await self.submit(call)

    async def submit(self, call: Call[models.SubmittedToken]) -> Reply:
        """The button of the page that asks."""
        next_link = await self._validation.submit_token(None, call.params.credentials(), call.params.token)
        return self._pages.validated() if next_link is None else redirect(next_link)

    async def look(self, _call: Call[models.Nothing]) -> Reply:
        """`HEAD /validate/email/submitToken`: never validates, since it is not a person who asks."""
        return self._pages.empty()
