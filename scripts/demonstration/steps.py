"""The main job in steps, each checked: from an OpenID token to a homeserver that hears of a bind."""

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from standins.homeserver import Homeserver
from standins.mailbox import Mail, Mailbox

from demonstration.client import Client
from demonstration.daemon import Daemon
from demonstration.showing import check, pretty, show, show_mail, step, text_of
from demonstration.surroundings import Surroundings, arrival

CLIENT_SECRET = "monkeys_are_GREAT"


async def register(client: Client, homeserver: Homeserver) -> None:
    """Exchanges an OpenID token for one of ours."""
    client.mxid = homeserver.log_in(client.openid_token, client.name)
    answer = await client.ask("POST", "/v2/account/register", openid(client, homeserver))
    asked = [request for request in homeserver.requests if request.path.endswith(client.openid_token)]
    check(f"the homeserver was asked over HTTPS whose token that is: {client.mxid}", holds=len(asked) == 1)
    client.token = answer["token"]


def openid(client: Client, homeserver: Homeserver) -> dict[str, object]:
    """What a homeserver gives its user to register elsewhere with."""
    return {
        "access_token": client.openid_token,
        "token_type": "Bearer",
        "matrix_server_name": homeserver.server_name,
        "expires_in": 3600,
    }


async def be_refused(client: Client) -> None:
    """Asks before the terms are accepted."""
    status, refusal = await client.try_to("GET", "/v2/account")
    check(
        "before the terms are accepted, nothing else works",
        holds=(status, refusal.get("errcode")) == (403, "M_TERMS_NOT_SIGNED"),
    )


async def accept_terms(client: Client) -> None:
    """Accepts them, and is let in."""
    policies = (await client.ask("GET", "/v2/terms"))["policies"]
    urls = [policy["de"]["url"] for policy in policies.values()]
    await client.ask("POST", "/v2/terms", {"user_accepts": urls})
    account = await client.ask("GET", "/v2/account")
    check("accepting one language accepts the policy", holds=account == {"user_id": client.mxid})


async def request_token(client: Client, mailbox: Mailbox) -> tuple[str, Mail]:
    """Asks for a mail, and gets it; returns the session's ID, and the mail."""
    answer = await client.ask(
        "POST",
        "/v2/validate/email/requestToken",
        {"client_secret": CLIENT_SECRET, "email": client.address, "send_attempt": 1},
    )
    mail = await arrival("The mail", mailbox.next_mail())
    check(
        f"the mail goes to the normalised address, {client.normalised}",
        holds=mail.recipients == (client.normalised,),
    )
    return answer["sid"], mail


async def follow_link(client: Client, mail: Mail) -> None:
    """As a browser does."""
    link = next(word for word in text_of(mail).split() if "/submitToken?" in word)
    status, page = await client.browse(link)
    check("the browser shows a page for people", holds=status == 200 and "<html" in page)  # noqa: PLR2004


async def bind(client: Client, sid: str) -> None:
    """Publishes the association."""
    validated = await client.ask("GET", f"/v2/3pid/getValidated3pid?sid={sid}&client_secret={CLIENT_SECRET}")
    check("the address is proved", holds=validated["address"] == client.normalised)
    association = await client.ask(
        "POST", "/v2/3pid/bind", {"sid": sid, "client_secret": CLIENT_SECRET, "mxid": client.mxid}
    )
    await client.check_signature("the association", association)


async def look_up(client: Client, address: str, mxid: str | None) -> None:
    """Asks for an address by its hash, which must lead to `mxid`, or to nobody."""
    details = await client.ask("GET", "/v2/hash_details")
    digest = sha256(f"{address} email {details['lookup_pepper']}".encode()).digest()
    hashed = urlsafe_b64encode(digest).decode().rstrip("=")
    answer = await client.ask(
        "POST",
        "/v2/lookup",
        {"algorithm": "sha256", "pepper": details["lookup_pepper"], "addresses": [hashed]},
    )
    check(
        f"the hash of {address} leads to {mxid or 'nobody'}",
        holds=answer["mappings"] == ({hashed: mxid} if mxid else {}),
    )


async def hear_of_bind(homeserver: Homeserver) -> Any:  # noqa: ANN401 - JSON
    """What the homeserver gets."""
    call = await arrival("The call to the homeserver", homeserver.next_onbind())
    body = json.loads(call.body)
    show("⇒", f"{call.method} https://{homeserver.server_name}{call.path}\n{pretty(body)}")
    return body


async def main_job(daemon: Daemon, client: Client, around: Surroundings) -> None:
    """The steps, in order."""
    step("Start a server: a fresh key, an empty database, a checked configuration")
    daemon.run("keys", "generate")
    daemon.run("check-config")
    await daemon.start()
    step("Register with an OpenID token of the homeserver")
    await register(client, around.homeserver)
    step("Accept the terms")
    await be_refused(client)
    await accept_terms(client)
    step(f"Request a token for {client.address}; the mail arrives")
    sid, mail = await request_token(client, around.mailbox)
    show_mail(mail)
    step("Follow the link in the mail")
    await follow_link(client, mail)
    step("Bind the address to the Matrix user")
    await bind(client, sid)
    step("Look the address up by its hash")
    await look_up(client, client.normalised, client.mxid)
    step("The homeserver is told, in a signed call")
    body = await hear_of_bind(around.homeserver)
    said = (body["medium"], body["address"], body["mxid"], body["invites"])
    check("the homeserver heard of the bind", holds=said == ("email", client.normalised, client.mxid, []))
    await client.check_signature("the call", body)
