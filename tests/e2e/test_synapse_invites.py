"""Invitations of addresses that have no user yet, with a real homeserver."""

from urllib.parse import quote

import pytest
import pytest_twisted
from e2e.real_town import ONBIND
from e2e.synapse import WEB_CLIENT

pytestmark = pytest.mark.synapse


async def room_of(person, name="Tea at five"):
    """A room that nobody enters without an invitation."""
    room = await person.user.does("POST", "/createRoom", {"preset": "private_chat", "name": name})
    return room["room_id"]


async def members_of(person, room_id):
    joined = await person.user.does("GET", f"/rooms/{quote(room_id)}/joined_members")
    return set(joined["joined"])


async def pending_in(person, room_id):
    """What the room knows of those who were invited by an address."""
    state = await person.user.does("GET", f"/rooms/{quote(room_id)}/state")
    return [event["content"] for event in state if event["type"] == "m.room.third_party_invite"]


@pytest_twisted.ensureDeferred
async def test_an_invited_address_gets_a_mail_and_the_room_hears_nothing_of_it(real_town):
    anna = await real_town.settle("anna")
    room_id = await room_of(anna)
    await real_town.invite(anna, room_id, "Bob@Example.ORG")
    invitation = await real_town.invitation_to("bob@example.org")
    assert (invitation.web_client, invitation.room_id) == (WEB_CLIENT, room_id)
    assert "Tea at five" in invitation.text
    (content,) = await pending_in(anna, room_id)
    assert "bob@example.org" not in str(content).lower()
    base = f"https://{real_town.id_server}/_matrix/identity/v2/pubkey"
    urls = {key["key_validity_url"] for key in content["public_keys"]}
    assert urls == {f"{base}/isvalid", f"{base}/ephemeral/isvalid"}
    for key in content["public_keys"]:
        response = await real_town.synapse.client.get(
            key["key_validity_url"], params={"public_key": key["public_key"]}
        )
        assert await response.json() == {"valid": True}


@pytest_twisted.ensureDeferred
async def test_who_binds_an_invited_address_finds_the_invitation_and_can_join(real_town):
    cleo = await real_town.settle("cleo")
    room_id = await room_of(cleo)
    await real_town.invite(cleo, room_id, "Dan@Example.ORG")
    await real_town.invitation_to("dan@example.org")
    dan = await real_town.settle("dan")
    await real_town.bind(dan, "dan@example.org")
    await dan.user.invited_to(room_id)
    await dan.user.does("POST", f"/rooms/{quote(room_id)}/join", {})
    assert await members_of(cleo, room_id) == {cleo.mxid, dan.mxid}


@pytest_twisted.ensureDeferred
async def test_every_invitation_of_an_address_arrives(real_town):
    emma, erik = await real_town.settle("emma"), await real_town.settle("erik")
    rooms = [await room_of(emma, "One"), await room_of(erik, "Two"), await room_of(emma, "Three")]
    for person, room_id in zip((emma, erik, emma), rooms, strict=True):
        await real_town.invite(person, room_id, "fred@example.org")
        await real_town.invitation_to("fred@example.org")
    fred = await real_town.settle("fred")
    await real_town.bind(fred, "fred@example.org")
    for room_id in rooms:
        await fred.user.invited_to(room_id)
        await fred.user.does("POST", f"/rooms/{quote(room_id)}/join", {})
    assert [fred.mxid in await members_of(emma, room_id) for room_id in rooms[::2]] == [True, True]


@pytest_twisted.ensureDeferred
async def test_an_invitation_that_the_homeserver_refuses_holds_up_no_other(real_town):
    """Revoked in the room, it is answered 403, and the next one must arrive all the same."""
    gina = await real_town.settle("gina")
    revoked, good = await room_of(gina, "Revoked"), await room_of(gina, "Good")
    for room_id in (revoked, good):
        await real_town.invite(gina, room_id, "hugo@example.org")
        await real_town.invitation_to("hugo@example.org")
    state = await gina.user.does("GET", f"/rooms/{quote(revoked)}/state")
    (key,) = [event["state_key"] for event in state if event["type"] == "m.room.third_party_invite"]
    await gina.user.does("PUT", f"/rooms/{quote(revoked)}/state/m.room.third_party_invite/{key}", {})
    hugo = await real_town.settle("hugo")
    session = await real_town.prove_as(hugo, "hugo@example.org")
    onbinds = [real_town.synapse.next_answer("POST", ONBIND) for _ in range(2)]
    await hugo.user.does("POST", "/account/3pid/bind", {**session, **hugo.identity})
    await hugo.user.invited_to(good)
    assert sorted([await onbind for onbind in onbinds]) == [200, 403]
    await hugo.user.does("POST", f"/rooms/{quote(good)}/join", {})


@pytest_twisted.ensureDeferred
async def test_the_link_of_the_mail_lets_somebody_in_whose_address_stays_private(real_town):
    iris = await real_town.settle("iris")
    room_id = await room_of(iris)
    await real_town.invite(iris, room_id, "jo@example.org")
    invitation = await real_town.invitation_to("jo@example.org")
    assert invitation.query["email"] == "jo@example.org"
    jo = await real_town.synapse.sign_up("jo")
    signed = await real_town.sign(invitation.query["signurl"], jo.mxid)
    assert (signed["mxid"], signed["sender"]) == (jo.mxid, iris.mxid)
    await jo.does("POST", f"/rooms/{quote(room_id)}/join", {"third_party_signed": signed})
    assert await members_of(iris, room_id) == {iris.mxid, jo.mxid}
    assert await real_town.found_by(iris, "jo@example.org") is None


@pytest_twisted.ensureDeferred
async def test_what_is_signed_for_one_user_lets_no_other_in(real_town):
    kim = await real_town.settle("kim")
    room_id = await room_of(kim)
    await real_town.invite(kim, room_id, "leo@example.org")
    invitation = await real_town.invitation_to("leo@example.org")
    mara = await real_town.synapse.sign_up("mara")
    signed = await real_town.sign(invitation.query["signurl"], f"@leo:{real_town.synapse.server_name}")
    status, error = await mara.ask(
        "POST", f"/rooms/{quote(room_id)}/join", {"third_party_signed": {**signed, "mxid": mara.mxid}}
    )
    assert (status, error["errcode"]) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_an_address_is_invited_while_a_room_is_made(real_town):
    nina = await real_town.settle("nina")
    wanted = {"medium": "email", "address": "olaf@example.org", **nina.identity}
    room = await nina.user.does("POST", "/createRoom", {"preset": "private_chat", "invite_3pid": [wanted]})
    assert (await real_town.invitation_to("olaf@example.org")).room_id == room["room_id"]
    olaf = await real_town.settle("olaf")
    await real_town.bind(olaf, "olaf@example.org")
    await olaf.user.invited_to(room["room_id"])


@pytest_twisted.ensureDeferred
async def test_an_invitation_waits_for_a_homeserver_that_is_away(real_town):
    pia, quin = await real_town.settle("pia"), await real_town.settle("quin")
    room_id = await room_of(pia)
    await real_town.invite(pia, room_id, "quin@example.org")
    await real_town.invitation_to("quin@example.org")
    session = await real_town.prove_as(quin, "quin@example.org")
    await real_town.synapse.stop()
    bound = await real_town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": quin.mxid})
    await real_town.synapse.start()
    assert bound[0] == 200
    await quin.user.invited_to(room_id)
