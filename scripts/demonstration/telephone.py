"""A telephone number, proved by the code of an SMS."""

import json
import re
from typing import Any

from standins.gateway import Gateway

from demonstration.client import Client
from demonstration.showing import Failed, check, pretty, show, step
from demonstration.surroundings import Surroundings, arrival

# A number that is nobody's, as people write it, and as it is stored.
COUNTRY, NUMBER, STORED = "GB", "07700 900123", "447700900123"
SESSION = {"client_secret": "elephants_never_forget"}


async def telephone(client: Client, around: Surroundings) -> None:
    """The steps, in order."""
    step(f"Request a code for the telephone number {NUMBER}; the SMS arrives at the gateway")
    sid, code = await request_code(client, around.gateway)
    step("Submit the code: the number is proved")
    session = {"sid": sid, **SESSION}
    answer = await client.ask("POST", "/v2/validate/msisdn/submitToken", {**session, "token": code})
    check("the code is right", holds=answer == {"success": True})
    query = "&".join(f"{name}={value}" for name, value in session.items())
    validated = await client.ask("GET", f"/v2/3pid/getValidated3pid?{query}")
    said = (validated["medium"], validated["address"])
    check("the number is proved, and can be bound", holds=said == ("msisdn", STORED))


async def request_code(client: Client, gateway: Gateway) -> tuple[str, str]:
    """Asks for an SMS, and reads it; returns the session's ID, and the code."""
    request: dict[str, Any] = {**SESSION, "country": COUNTRY, "phone_number": NUMBER, "send_attempt": 1}
    answer = await client.ask("POST", "/v2/validate/msisdn/requestToken", request)
    check(
        f"the number is understood: {STORED}", holds=(answer["success"], answer["msisdn"]) == (True, STORED)
    )
    message = await arrival("The SMS", gateway.next_message())
    came = gateway.requests[-1]
    show("⇒", f"{came.method} {gateway.url}{came.target}\n{pretty(json.loads(came.body))}")
    check("the gateway took one SMS for that number", holds=[m.number for m in gateway.messages] == [STORED])
    code = re.search(r"\b[0-9]{6}\b", message.text)
    if code is None:
        raise Failed("There is no code of six digits in the SMS")
    return answer["sid"], code[0]
