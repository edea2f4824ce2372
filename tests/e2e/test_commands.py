"""Commands beside a server that runs: what they change, it takes up."""

import json
from urllib.parse import quote

import pytest_twisted
from daemons import SECONDS, Process
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from standins.mailbox import Mailbox
from twisted.internet import reactor
from unpaddedbase64 import decode_base64


async def run(town, *arguments):
    """What a command prints."""
    process = Process(*arguments, "-c", str(town.daemon.config))
    assert await process.ended.addTimeout(SECONDS, reactor) == 0, process.output
    return process.output


@pytest_twisted.ensureDeferred
async def test_the_homeserver_hears_of_what_a_command_binds(town):
    mxid = await town.register()
    file = town.daemon.folder / "in.ndjson"
    file.write_text(json.dumps({"medium": "msisdn", "address": "447700900001", "mxid": mxid}))
    await run(town, "bindings", "bind", "--address", "alice@example.org", "--mxid", mxid)
    await run(town, "bindings", "import", str(file))
    _, answer = await town.daemon.ask("GET", "/v2/pubkey/ed25519:0")
    key = decode_verify_key_bytes("ed25519:0", decode_base64(answer["public_key"]))
    told = []
    for _ in range(2):
        call = await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
        verify_signed_json(json.loads(call.body), "id.example.org", key)
        told.append(json.loads(call.body)["address"])
    assert sorted(told) == ["447700900001", "alice@example.org"]
    await run(town, "bindings", "unbind", "--address", "alice@example.org")
    _, details = await town.daemon.ask("GET", "/v2/hash_details")
    asked = {"algorithm": "none", "pepper": details["lookup_pepper"]}
    asked["addresses"] = ["447700900001 msisdn", "alice@example.org email"]
    status, found = await town.daemon.ask("POST", "/v2/lookup", asked)
    assert status == 200, found
    assert found == {"mappings": {"447700900001 msisdn": mxid}}


@pytest_twisted.ensureDeferred
async def test_nobody_can_accept_what_a_command_revokes(town):
    mxid = await town.register()
    # The relay is away, so the mail is not sent yet; the one in its place is for the end of the test alone.
    town.mailbox.stop()
    town.mailbox = Mailbox(reactor=reactor)
    town.mailbox.start()
    invited = {"medium": "email", "address": "carol@example.org", "room_id": "!r:localhost", "sender": mxid}
    status, kept = await town.daemon.ask("POST", "/v2/store-invite", invited)
    assert status == 200, kept
    (ephemeral,) = [each for each in kept["public_keys"] if "ephemeral" in each["key_validity_url"]]
    asked = f"/v2/pubkey/ephemeral/isvalid?public_key={quote(ephemeral['public_key'])}"
    assert await town.daemon.ask("GET", asked) == (200, {"valid": True})
    (listed,) = json.loads(await run(town, "invites", "list", "--json"))["invitations"]
    assert (listed["address"], listed["state"]) == ("carol@example.org", "waiting")
    before = json.loads(await run(town, "stats", "--json"))
    assert [(row["kind"], row["state"], row["rows"]) for row in before["outbox"]] == [
        ("invite", "pending", 1)
    ]
    assert before["invitations"] == {"waiting": 1, "handed_over": 0, "expired": 0}
    gone = json.loads(await run(town, "invites", "revoke", listed["id"], "--json"))
    assert gone == {"invitations": 1, "mails": 1, "handed_over": 0}
    assert await town.daemon.ask("GET", asked) == (200, {"valid": False})
    after = json.loads(await run(town, "stats", "--json"))
    assert (after["outbox"], after["invitations"]["waiting"], after["accounts"]) == ([], 0, 1)
