"""Telephone numbers: this server validates them for a real homeserver, as its delegate."""

import re

import pytest
import pytest_twisted
from daemons import SECONDS
from twisted.internet import reactor

pytestmark = pytest.mark.synapse

WANTED = "/account/3pid/msisdn/requestToken"
SECRET = "s3cret"


async def code_of(real_town):
    """The code of the next text message, and the number that it went to."""
    message = await real_town.gateway.next_message().addTimeout(SECONDS, reactor)
    return re.search(r"\b\d{6}\b", message.text)[0], message.number


async def asked_for(user, number, country="GB"):
    """A validation that a user has begun on the homeserver."""
    body = {"client_secret": SECRET, "country": country, "phone_number": number, "send_attempt": 1}
    return await user.does("POST", WANTED, body)


async def submit(real_town, validation, code):
    """What a client does with the code: it posts it where the homeserver said."""
    body = {"sid": validation["sid"], "client_secret": SECRET, "token": code}
    response = await real_town.synapse.client.post(validation["submit_url"], json=body, timeout=SECONDS)
    return response.code, await response.json()


@pytest_twisted.ensureDeferred
async def test_a_number_is_validated_by_text_message_and_added_to_the_account(real_town):
    ada = await real_town.synapse.sign_up("ada")
    validation = await asked_for(ada, "07700 900001")
    code, number = await code_of(real_town)
    assert number.removeprefix("+") == "447700900001"
    assert await submit(real_town, validation, code) == (200, {"success": True})
    session = {"sid": validation["sid"], "client_secret": SECRET}
    await ada.does_with_password("/account/3pid/add", session)
    threepids = (await ada.does("GET", "/account/3pid"))["threepids"]
    assert [(has["medium"], has["address"]) for has in threepids] == [("msisdn", "447700900001")]


@pytest_twisted.ensureDeferred
async def test_a_number_whose_code_nobody_has_entered_is_not_added(real_town):
    bea = await real_town.synapse.sign_up("bea")
    validation = await asked_for(bea, "07700 900002")
    code, _ = await code_of(real_town)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    status, error = await submit(real_town, validation, wrong)
    assert status == 400, error
    session = {"sid": validation["sid"], "client_secret": SECRET}
    status, error = await bea.ask_with_password("/account/3pid/add", session)
    assert (status, error["errcode"]) == (400, "M_THREEPID_AUTH_FAILED")
    assert (await bea.does("GET", "/account/3pid"))["threepids"] == []


@pytest_twisted.ensureDeferred
async def test_a_number_that_was_validated_here_is_bound_through_the_homeserver(real_town):
    cora = await real_town.settle("cora")
    validation = await asked_for(cora.user, "07700 900003")
    code, _ = await code_of(real_town)
    await submit(real_town, validation, code)
    session = {"sid": validation["sid"], "client_secret": SECRET}
    await cora.user.does("POST", "/account/3pid/bind", {**session, **cora.identity})
    assert await real_town.found_by(cora, "447700900003", "msisdn") == cora.mxid


@pytest_twisted.ensureDeferred
async def test_a_country_that_is_sent_no_messages_is_refused_through_the_homeserver(real_town):
    dina = await real_town.synapse.sign_up("dina")
    body = {"client_secret": SECRET, "country": "FR", "phone_number": "0639980001", "send_attempt": 1}
    status, error = await dina.ask("POST", WANTED, body)
    assert (status, error["errcode"]) == (400, "M_DESTINATION_REJECTED")
