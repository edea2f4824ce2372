"""Accounts."""

from sydentish.actions.accounts import Accounts
from sydentish.web import models
from sydentish.web.reply import Reply, json_reply
from sydentish.web.route import Call


class AccountHandlers:
    """`/account`."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def register(self, call: Call[models.OpenIdToken]) -> Reply:
        """`POST /account/register`; `access_token` is what older clients read."""
        token = await self._accounts.register(
            call.caller, call.params.matrix_server_name, call.params.access_token
        )
        return json_reply({"token": token, "access_token": token})

    async def account(self, call: Call[models.Nothing]) -> Reply:
        """`GET /account`."""
        return json_reply({"user_id": await self._accounts.user_id(call.caller)})

    async def log_out(self, call: Call[models.Nothing]) -> Reply:
        """`POST /account/logout`."""
        await self._accounts.log_out(call.caller)
        return json_reply({})
