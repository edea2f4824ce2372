"""OpenMarket's Global SMS API, version 4: `POST /sms/v4/mt`."""

from pathlib import Path
from typing import Any

import orjson
from twisted.internet.interfaces import IReactorTime

from sydentish.senders.sms.client import GatewayClient, GatewayRequest, base
from sydentish.senders.sms.gateway import (
    GatewayError,
    Sms,
    check_originator,
    is_short_code,
    is_telephone_number,
)

BASE_URL = "https://smsc.openmarket.com"

_ACCEPTED = 202
# Types of number, as the API counts them.
_LONG_CODE, _SHORT_CODE, _ALPHANUMERIC = 1, 3, 5


class OpenMarket:
    """An `SmsGateway` for OpenMarket."""

    def __init__(
        self,
        *,
        name: str,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        clock: IReactorTime,
        username: str,
        password: str,
        base_url: str = BASE_URL,
        ca_file: Path | None = None,
        originator: str = "",
    ) -> None:
        """Connects to nothing yet.

        Args:
            name: how the operator calls it.
            reactor: opens connections and resolves names.
            clock: measures the limits.
            username: the account ID.
            password: of the account.
            base_url: what comes before `/sms/v4/mt`.
            ca_file: certificates (PEM) of the authorities to trust instead of those of the system.
            originator: who an SMS is from where nothing is set for its country: a telephone number, a short code
                or a name. If empty, OpenMarket chooses ("automated originator selection").

        Raises:
            OSError: `ca_file` cannot be read.
            ValueError: something cannot be used; the message names it.
        """
        if originator:
            check_originator(originator)
        self.name = name
        self._originator = originator
        self._url = f"{base(base_url)}/sms/v4/mt"
        self._client = GatewayClient(
            reactor=reactor, clock=clock, url=self._url, username=username, password=password, ca_file=ca_file
        )

    async def send(self, sms: Sms, time_limit: float) -> None:
        """See `SmsGateway.send`."""
        headers = [("Content-Type", "application/json; charset=UTF-8"), ("Accept", "application/json")]
        body = orjson.dumps({"mobileTerminate": self._mobile_terminate(sms)})
        request = GatewayRequest("POST", self._url, headers, body)
        answer = await self._client.ask(request, time_limit, lambda _status: False)
        if answer.status != _ACCEPTED:
            raise GatewayError(f"it answered {answer.status}", temporary=answer.temporary, refused=True)

    def _mobile_terminate(self, sms: Sms) -> dict[str, object]:
        content: dict[str, object] = {
            "interaction": "one-way",
            "destination": {"address": sms.destination.msisdn},
            "message": {"content": sms.text, "type": "text"},
        }
        originator = sms.originator or self._originator
        if originator:
            content["source"] = {"ton": _type_of_number(originator), "address": _address(originator)}
        return content


def _type_of_number(originator: str) -> int:
    if is_short_code(originator):
        return _SHORT_CODE
    return _LONG_CODE if is_telephone_number(originator) else _ALPHANUMERIC


def _address(originator: str) -> str:
    return originator.removeprefix("+") if is_telephone_number(originator) else originator
