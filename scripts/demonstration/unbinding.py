"""An unbind that the user's homeserver asks for, and signs: it needs no access token."""

from urllib.parse import urlsplit

from standins.homeserver import KEYS

from demonstration.client import Client
from demonstration.daemon import BASE, SERVER_NAME
from demonstration.showing import check, step
from demonstration.steps import look_up
from demonstration.surroundings import Surroundings

PATH = "/v2/3pid/unbind"


async def unbinding(alice: Client, around: Surroundings) -> None:
    """The step: what happens when Alice takes the address off her account, or closes it."""
    step("The homeserver unbinds the address of its user: its signature is the proof")
    homeserver = around.homeserver
    body = {"mxid": alice.mxid, "threepid": {"medium": "email", "address": alice.normalised}}
    wrong = homeserver.authorization("POST", f"{BASE}{PATH}", {**body, "mxid": "@other"}, SERVER_NAME)
    nobody = Client(alice.base_url, "", "")
    status, refusal = await nobody.try_to("POST", PATH, body, authorization=wrong)
    check(
        "a signature under anything else is refused",
        holds=(status, refusal.get("errcode")) == (403, "M_FORBIDDEN"),
    )
    asked = [request for request in homeserver.requests if urlsplit(request.path).path.rstrip("/") == KEYS]
    check("the homeserver was asked over HTTPS for its keys", holds=len(asked) > 0)
    right = homeserver.authorization("POST", f"{BASE}{PATH}", body, SERVER_NAME)
    status, answer = await nobody.try_to("POST", PATH, body, authorization=right)
    check("the right signature is accepted", holds=(status, answer) == (200, {}))
    await look_up(alice, alice.normalised, None)
