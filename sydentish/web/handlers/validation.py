"""Validation: for clients, and pages for people."""

from sydentish.actions.validation import Validation
from sydentish.domain.threepids import EMAIL, MSISDN
from sydentish.web import models
from sydentish.web.pages import Pages, redirect
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class ValidationHandlers:
    """`/validate` and `/3pid/getValidated3pid`, for clients."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def request_email_token(self, call: Call[models.EmailTokenRequest]) -> Reply:
        """`POST /validate/email/requestToken`."""
        request = call.params.request(call.languages)
        return json_reply({"sid": await self._validation.request_token(call.caller, request)})

    async def request_msisdn_token(self, call: Call[models.MsisdnTokenRequest]) -> Reply:
        """`POST /validate/msisdn/requestToken`; all but the sid is what homeservers and clients are used to."""
        request = call.params.request(call.languages)
        number = request.number or call.params.number()
        sid = await self._validation.request_token(call.caller, request)
        return json_reply({"sid": sid, "success": True, "msisdn": number.msisdn, "intl_fmt": number.intl_fmt})

    async def submit_token(self, call: Call[models.SubmittedToken]) -> Reply:
        """`POST /validate/{medium}/submitToken`."""
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
    """What people see who open a link that proves an address.

    Args:
        validation: the deed.
        pages: what they see.
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
        return await self._submit(call, EMAIL)

    async def follow_msisdn(self, call: Call[models.SubmittedToken]) -> Reply:
        """`GET /validate/msisdn/submitToken`; no scanner can know the code."""
        return await self._submit(call, MSISDN)

    async def look(self, _call: Call[models.Nothing]) -> Reply:
        """`HEAD /validate/{medium}/submitToken`: never validates, since it is not a person who asks."""
        return self._pages.empty()

    async def _submit(self, call: Call[models.SubmittedToken], medium: str) -> Reply:
        asked = call.params
        # Else the page of one medium would go round the button of the other.
        next_link = await self._validation.submit_token(call.caller, asked.credentials(), asked.token, medium)
        return self._pages.validated(medium) if next_link is None else redirect(next_link)
