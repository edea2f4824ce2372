"""An invitation by e-mail: kept for an address without a user, and handed to the homeserver once it has one."""

from typing import Any
from urllib.parse import parse_qsl, quote

from standins.mailbox import Mail

from demonstration.client import Client
from demonstration.daemon import BASE, Daemon
from demonstration.showing import Failed, check, show, show_headers, step, text_of
from demonstration.steps import (
    accept_terms,
    bind,
    follow_link,
    hear_of_bind,
    look_up,
    register,
    request_token,
)
from demonstration.surroundings import Surroundings, arrival

INVITED = "bob@example.org"
SHOWN = "bo...@exa..."
ROOM_NAME = "Summer plans"


async def invitation(daemon: Daemon, alice: Client, around: Surroundings) -> None:
    """The steps, in order."""
    step(f"Invite {INVITED}, who has no Matrix user yet; the mail arrives")
    room_id = f"!summer:{around.homeserver.server_name}"
    stored = await invite(alice, room_id)
    await ask_about_key(daemon, alice, stored["public_keys"][1])
    show_invitation(await arrival("The mail", around.mailbox.next_mail()), room_id)
    step("The invited person registers, proves the address, and binds it: the same as above, in short")
    bob = Client(daemon.base_url, "bob", INVITED, brief=True)
    await become_user(bob, around)
    step("The homeserver is told, with the invitation in the call")
    body = await hear_of_bind(around.homeserver)
    await check_call(alice, bob, body, room_id, stored)
    step("Whoever looks the address up finds the user, who need not be invited by mail any more")
    await look_up(alice, INVITED, bob.mxid)
    await be_told(alice, room_id, bob.mxid)


async def invite(alice: Client, room_id: str) -> Any:  # noqa: ANN401 - JSON
    """Leaves an invitation, as the inviting user's homeserver does; returns what it puts into the room."""
    request = {"medium": "email", "address": INVITED, "room_id": room_id, "sender": alice.mxid}
    stored = await alice.ask(
        "POST", "/v2/store-invite", {**request, "room_name": ROOM_NAME, "sender_display_name": "Alice"}
    )
    check(
        f"the room sees no more of the address than {SHOWN}",
        holds=stored["display_name"] == SHOWN and INVITED not in str(stored),
    )
    return stored


async def ask_about_key(daemon: Daemon, alice: Client, key: dict[str, str]) -> None:
    """As homeservers do, which are told where to ask."""
    base, found, path = key["key_validity_url"].partition(BASE)
    if not found or base != daemon.base_url:
        raise Failed(f"The key would be asked for at another server: {key['key_validity_url']}")
    answer = await alice.ask("GET", f"{path}?public_key={quote(key['public_key'], safe='')}")
    check("the ephemeral key of the invitation is valid", holds=answer == {"valid": True})


def show_invitation(mail: Mail, room_id: str) -> None:
    """Who invites to what, and where the link leads."""
    text = text_of(mail)
    show_headers(mail, "From", "To", "Subject")
    show("✉", "\n".join(line for line in text.splitlines() if line.startswith("    ")))
    link = next(word for word in text.split() if "/#/room/" in word)
    page, _, query = link.partition("?")
    parts = dict(parse_qsl(query))
    show("✉", f"Its link opens {page}, and says:")
    show("✉", "\n".join(f"    {name}={value}" for name, value in parts.items()))
    check(
        "the mail goes to whom it is for, and names who invites, and to what",
        holds=mail.recipients == (INVITED,) and ROOM_NAME in text and quote(room_id, safe="") in page,
    )
    check(
        "its link leads to where the invitation can be signed",
        holds=parts["email"] == INVITED and f"{BASE}/api/v1/sign-ed25519?" in parts["signurl"],
    )


async def become_user(bob: Client, around: Surroundings) -> None:
    """From nobody to a Matrix user with a published address."""
    await register(bob, around.homeserver)
    await accept_terms(bob)
    sid, mail = await request_token(bob, around.mailbox)
    await follow_link(bob, mail)
    await bind(bob, sid)


async def check_call(alice: Client, bob: Client, body: Any, room_id: str, stored: Any) -> None:  # noqa: ANN401 - JSON
    """All that a homeserver checks before it lets the invited user see the room."""
    said = (body["medium"], body["address"], body["mxid"], len(body["invites"]))
    check(
        "the homeserver heard of the bind, and of one invitation",
        holds=said == ("email", INVITED, bob.mxid, 1),
    )
    (invite,) = body["invites"]
    check(
        f"it is the one that {alice.mxid} left, to the same room, with the same token",
        holds=(invite["sender"], invite["room_id"], invite["signed"]["token"])
        == (alice.mxid, room_id, stored["token"]),
    )
    await alice.check_signature("the call", body)
    await alice.check_signature("“signed”, the proof for the room,", invite["signed"])
    (key_id,) = next(iter(invite["signed"]["signatures"].values()))
    check(
        "that is the first of the keys that the room was told of",
        holds=invite["signed"]["mxid"] == bob.mxid
        and await alice.key(key_id) == stored["public_keys"][0]["public_key"],
    )


async def be_told(alice: Client, room_id: str, mxid: str) -> None:
    """Invites once more by mail, and is told whom to invite instead."""
    request = {"medium": "email", "address": INVITED, "room_id": room_id, "sender": alice.mxid}
    status, refusal = await alice.try_to("POST", "/v2/store-invite", request)
    check(
        "who invites the address all the same is told whose it is",
        holds=(status, refusal.get("errcode"), refusal.get("mxid")) == (400, "M_THREEPID_IN_USE", mxid),
    )
