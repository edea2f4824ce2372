"""Twilio's API of 2010-04-01: `POST /2010-04-01/Accounts/{AccountSid}/Messages.json`."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
from twisted.internet.interfaces import IReactorTime

from sydentish.senders.sms.client import GatewayAnswer, GatewayClient, GatewayRequest, base
from sydentish.senders.sms.gateway import GatewayError, Sms, check_originator, is_telephone_number

BASE_URL = "https://api.twilio.com"

_CREATED = 201
_SID = re.compile(r"[A-Za-z0-9]{1,64}")


class Twilio:
    """An `SmsGateway` for Twilio."""

    def __init__(
        self,
        *,
        name: str,
        reactor: Any,  # noqa: ANN401 - several interfaces at once
        clock: IReactorTime,
        account_sid: str,
        auth_token: str,
        messaging_service_sid: str | None = None,
        base_url: str = BASE_URL,
        ca_file: Path | None = None,
        originator: str = "",
    ) -> None:
        """Connects to nothing yet.

        Args:
            name: how the operator calls it.
            reactor: opens connections and resolves names.
            clock: measures the limits.
            account_sid: of the account.
            auth_token: of the account.
            messaging_service_sid: the service that chooses who an SMS is from where nothing is set for its
                country; or None.
            base_url: what comes before `/2010-04-01`.
            ca_file: certificates (PEM) of the authorities to trust instead of those of the system.
            originator: who an SMS is from where nothing is set for its country, and there is no service.

        Raises:
            OSError: `ca_file` cannot be read.
            ValueError: something cannot be used; the message names it.
        """
        _check_sid("account_sid", account_sid)
        _check_sender(messaging_service_sid, originator)
        self.name = name
        self._service = messaging_service_sid
        self._originator = originator
        self._url = f"{base(base_url)}/2010-04-01/Accounts/{account_sid}/Messages.json"
        self._client = GatewayClient(
            reactor=reactor,
            clock=clock,
            url=self._url,
            username=account_sid,
            password=auth_token,
            ca_file=ca_file,
        )

    async def send(self, sms: Sms, time_limit: float) -> None:
        """See `SmsGateway.send`."""
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        body = urlencode(self._fields(sms), errors="replace").encode()
        request = GatewayRequest("POST", self._url, headers, body)
        answer = await self._client.ask(request, time_limit, lambda status: status != _CREATED)
        if answer.status != _CREATED:
            reason = f"it answered {answer.status}{_error_code(answer)}"
            raise GatewayError(reason, temporary=answer.temporary, refused=True)

    def _fields(self, sms: Sms) -> dict[str, str]:
        fields = {"To": f"+{sms.destination.msisdn}", "Body": sms.text}
        if self._service is not None and not sms.originator:
            return fields | {"MessagingServiceSid": self._service}
        return fields | {"From": _from(sms.originator or self._originator)}


def _check_sid(option: str, sid: str) -> None:
    if not _SID.fullmatch(sid):
        raise ValueError(f"{option}: must be letters and digits: two letters and 32 digits at Twilio itself")


def _check_sender(messaging_service_sid: str | None, originator: str) -> None:
    if messaging_service_sid is not None:
        _check_sid("messaging_service_sid", messaging_service_sid)
    elif not originator:
        raise ValueError("originator: must be set, or messaging_service_sid")
    if originator:
        check_originator(originator)


def _from(originator: str) -> str:
    return f"+{originator.removeprefix('+')}" if is_telephone_number(originator) else originator


def _error_code(answer: GatewayAnswer) -> str:
    # The message of an error quotes the number; its code is a number that can be looked up.
    try:
        content = orjson.loads(answer.body)
    except ValueError:
        return ""
    code = content.get("code") if isinstance(content, dict) else None
    return f", error {code}" if isinstance(code, int) else ""
