"""The steps, each checked."""

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

import treq
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import SignatureVerifyException, verify_signed_json
from standins.homeserver import Homeserver
from standins.mailbox import Mail, Mailbox
from twisted.internet import reactor
from unpaddedbase64 import decode_base64

from demonstration.daemon import BASE, SECONDS, Daemon
from demonstration.showing import Failed, check, pretty, show, show_mail, step, text_of

ADDRESS = "Alice@Example.ORG"
NORMALISED = "alice@example.org"
CLIENT_SECRET = "monkeys_are_GREAT"
OPENID_TOKEN = "openid-token-of-alice"


class Client:
    """Asks the daemon as a Matrix client would, and shows it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.token: str | None = None

    async def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """A request with its answer, which must be a 200."""
        status, answer = await self.try_to(method, path, body)
        if status != 200:  # noqa: PLR2004
            raise Failed(f"{method} {path} was answered with {status}: {answer}")
        return answer

    async def try_to(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """A request with its answer, whatever the status."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        show("→", f"{method} {BASE}{path}" + (f"\n{pretty(body)}" if body is not None else ""))
        data = json.dumps(body).encode() if body is not None else None
        response = await treq.request(
            method, f"{self.base_url}{BASE}{path}", headers=headers, data=data, timeout=SECONDS
        )
        answer = await response.json()
        show("←", f"{response.code} {pretty(answer)}")
        return response.code, answer


async def register(client: Client, homeserver: Homeserver) -> str:
    """Exchanges an OpenID token for one of ours."""
    mxid = homeserver.log_in(OPENID_TOKEN, "alice")
    answer = await client.ask(
        "POST",
        "/v2/account/register",
        openid(homeserver),
    )
    asked = [request for request in homeserver.requests if "userinfo" in request.path]
    check(f"the homeserver was asked over HTTPS whose token that is: {mxid}", holds=len(asked) == 1)
    client.token = answer["token"]
    return mxid


def openid(homeserver: Homeserver) -> dict[str, object]:
    """What a homeserver gives its user to register elsewhere with."""
    return {
        "access_token": OPENID_TOKEN,
        "token_type": "Bearer",
        "matrix_server_name": homeserver.server_name,
        "expires_in": 3600,
    }


async def accept_terms(client: Client, mxid: str) -> None:
    """Refused before, let in after."""
    status, refusal = await client.try_to("GET", "/v2/account")
    check(
        "before the terms are accepted, nothing else works",
        holds=(status, refusal["errcode"]) == (403, "M_TERMS_NOT_SIGNED"),
    )
    policies = (await client.ask("GET", "/v2/terms"))["policies"]
    urls = [policy["de"]["url"] for policy in policies.values()]
    await client.ask("POST", "/v2/terms", {"user_accepts": urls})
    account = await client.ask("GET", "/v2/account")
    check("accepting one language accepts the policy", holds=account == {"user_id": mxid})


async def request_token(client: Client, mailbox: Mailbox) -> tuple[str, Mail]:
    """Asks for a mail, and reads it."""
    answer = await client.ask(
        "POST",
        "/v2/validate/email/requestToken",
        {"client_secret": CLIENT_SECRET, "email": ADDRESS, "send_attempt": 1},
    )
    mail = await mailbox.next_mail().addTimeout(SECONDS, reactor)
    check(f"the mail goes to the normalised address, {NORMALISED}", holds=mail.recipients == (NORMALISED,))
    show_mail(mail)
    return answer["sid"], mail


async def follow_link(link: str) -> None:
    """As a browser does."""
    show("→", f"GET {link}")
    response = await treq.get(link, timeout=SECONDS, allow_redirects=False)
    page = await response.text()
    show("←", f"{response.code} {response.headers.getRawHeaders('content-type')[0]}, {len(page)} characters")
    check("the browser shows a page for people", holds=response.code == 200 and "<html" in page)  # noqa: PLR2004


async def bind(client: Client, sid: str, mxid: str) -> None:
    """Publishes the association."""
    validated = await client.ask("GET", f"/v2/3pid/getValidated3pid?sid={sid}&client_secret={CLIENT_SECRET}")
    check("the address is proved", holds=validated["address"] == NORMALISED)
    association = await client.ask(
        "POST", "/v2/3pid/bind", {"sid": sid, "client_secret": CLIENT_SECRET, "mxid": mxid}
    )
    await check_signature(client, "the association", association)


async def look_up(client: Client, mxid: str) -> None:
    """Asks by hash."""
    details = await client.ask("GET", "/v2/hash_details")
    digest = sha256(f"{NORMALISED} email {details['lookup_pepper']}".encode()).digest()
    hashed = urlsafe_b64encode(digest).decode().rstrip("=")
    answer = await client.ask(
        "POST",
        "/v2/lookup",
        {"algorithm": "sha256", "pepper": details["lookup_pepper"], "addresses": [hashed]},
    )
    check(f"the hash of {NORMALISED} leads to {mxid}", holds=answer["mappings"] == {hashed: mxid})


async def hear_of_bind(client: Client, homeserver: Homeserver, mxid: str) -> None:
    """What the homeserver got."""
    call = await homeserver.next_onbind().addTimeout(SECONDS, reactor)
    body = json.loads(call.body)
    show("⇒", f"{call.method} https://{homeserver.server_name}{call.path}\n{pretty(body)}")
    said = (body["medium"], body["address"], body["mxid"], body["invites"])
    check("the homeserver heard of the bind", holds=said == ("email", NORMALISED, mxid, []))
    await check_signature(client, "the call", body)


async def check_signature(client: Client, what: str, signed: Any) -> None:  # noqa: ANN401 - JSON
    """Checks a signature with the key that the server publishes."""
    ((server_name, signatures),) = signed["signatures"].items()
    (key_id,) = signatures
    answer = await client.ask("GET", f"/v2/pubkey/{key_id}")
    key = decode_verify_key_bytes(key_id, decode_base64(answer["public_key"]))
    try:
        verify_signed_json(signed, server_name, key)
        holds = True
    except SignatureVerifyException:
        holds = False
    check(f"{what} is signed by {server_name} with the key from pubkey/{key_id}", holds=holds)


def link_in(mail: Mail) -> str:
    """The link that validates."""
    return next(word for word in text_of(mail).split() if "/submitToken?" in word)


async def main_job(daemon: Daemon, client: Client, homeserver: Homeserver, mailbox: Mailbox) -> None:
    """The steps, in order."""
    step(1, "Start a server: a fresh key, an empty database, a checked configuration")
    daemon.run("keys", "generate")
    daemon.run("check-config")
    await daemon.start()
    step(2, "Register with an OpenID token of the homeserver")
    mxid = await register(client, homeserver)
    step(3, "Accept the terms")
    await accept_terms(client, mxid)
    step(4, f"Request a token for {ADDRESS}; the mail arrives")
    sid, mail = await request_token(client, mailbox)
    step(5, "Follow the link in the mail")
    await follow_link(link_in(mail))
    step(6, "Bind the address to the Matrix user")
    await bind(client, sid, mxid)
    step(7, "Look the address up by its hash")
    await look_up(client, mxid)
    step(8, "The homeserver is told, in a signed call")
    await hear_of_bind(client, homeserver, mxid)
