"""The stand-in gateway refuses what a real one would: else the tests that use it would show little."""

import json
from urllib.parse import urlencode

import pytest
import pytest_twisted
import treq
from standins.gateways import Message
from twisted.internet import reactor
from twisted.web.client import Agent

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
MESSAGES = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
SERVICE = {"MessagingServiceSid": "MG" + "0" * 32}
GOOD = {
    "http": {"from": "Acme", "to": "447700900001", "text": "Hi"},
    "twilio": {"From": "+15005550006", "To": "+447700900001", "Body": "Hi"},
    "openmarket": {
        "interaction": "one-way",
        "destination": {"address": "447700900001"},
        "source": {"ton": 5, "address": "Acme"},
        "message": {"content": "Hi", "type": "text"},
    },
}


async def ask(gateway, *, path, body, content_type, method="POST", auth=(ACCOUNT, "correct-horse")):
    client = treq.client.HTTPClient(Agent(reactor))
    headers = {"Content-Type": content_type} if body else {}
    response = await client.request(
        method, gateway.url + path, headers=headers, data=body, auth=auth, reactor=reactor
    )
    return response.code, await response.content()


async def say(gateway, kind, fields, **other):
    """What a client of that kind says, with some things in another way."""
    if kind == "twilio":
        usual = {"path": MESSAGES, "body": urlencode(fields).encode(), "content_type": FORM}
    elif kind == "openmarket":
        body = json.dumps({"mobileTerminate": fields}).encode()
        usual = {"path": "/sms/v4/mt", "body": body, "content_type": JSON}
    else:
        usual = {"path": "/send", "body": json.dumps(fields).encode(), "content_type": JSON}
    return await ask(gateway, **usual | other)


@pytest.mark.parametrize(("kind", "status"), [("http", 200), ("openmarket", 202), ("twilio", 201)])
@pytest_twisted.ensureDeferred
async def test_what_is_right_is_taken(kind, status, start):
    gateway = start(kind)
    answered, _ = await say(gateway, kind, GOOD[kind])
    assert (answered, gateway.refusals) == (status, [])
    from_whom = "+15005550006" if kind == "twilio" else "Acme"
    assert await gateway.next_message() == Message(from_whom, "447700900001", "Hi")


@pytest.mark.parametrize(
    ("kind", "changes", "other", "problem"),
    [
        ("http", {"to": "+447700900001"}, {}, "to"),
        ("http", {"to": 447700900001}, {}, "not a text"),
        ("http", {"text": ""}, {}, "not a text"),
        ("http", {"more": "x"}, {}, "fields"),
        ("http", {}, {"path": "/send?x=y"}, "query"),
        ("http", {}, {"path": "/other"}, "path"),
        ("http", {}, {"method": "DELETE"}, "method"),
        ("http", {}, {"body": b'{"to": "1", "to": "2"}'}, "a key twice"),
        ("http", {}, {"body": b"to=1&to=2&from=a&text=b", "content_type": FORM}, "a field twice"),
        ("http", {}, {"body": b"to=\xc3\xa9", "content_type": FORM}, "a form is ASCII"),
        ("http", {}, {"body": b"to", "content_type": FORM}, "not a form"),
        ("http", {}, {"content_type": "text/plain"}, "Content-Type"),
        ("http", {}, {"body": b"{"}, "not JSON"),
        ("http", {}, {"auth": (ACCOUNT, "wrong")}, "Authorization"),
        ("http", {}, {"auth": None}, "Authorization"),
        ("openmarket", {"interaction": "two-way"}, {}, "interaction"),
        ("openmarket", {"destination": {"address": "+447700900001"}}, {}, "destination.address"),
        ("openmarket", {"destination": {"address": "447700900001", "ton": 1}}, {}, "not an object with"),
        ("openmarket", {"source": {"ton": 1, "address": "Acme"}}, {}, "source"),
        ("openmarket", {"source": {"ton": "5", "address": "Acme"}}, {}, "source"),
        ("openmarket", {"source": {"ton": 3, "address": "1234567"}}, {}, "source"),
        ("openmarket", {"message": {"content": "Hi", "type": "binary"}}, {}, "message.type"),
        ("openmarket", {"options": {}}, {}, "mobileTerminate"),
        ("openmarket", {}, {"path": "/sms/v4/mt/"}, "path"),
        ("openmarket", {}, {"content_type": FORM}, "Content-Type"),
        ("openmarket", {}, {"method": "PUT"}, "method"),
        ("twilio", {"To": "447700900001"}, {}, "To"),
        ("twilio", {"From": "15005550006"}, {}, "From"),
        ("twilio", {"From": "far too long a name"}, {}, "From"),
        ("twilio", SERVICE, {}, "fields"),
        ("twilio", {"Body": ""}, {}, "not a text"),
        ("twilio", {"Body": "x" * 1601}, {}, "not a text"),
        ("twilio", {}, {"path": "/2010-04-01/Accounts/AC0/Messages.json"}, "path"),
        ("twilio", {}, {"content_type": JSON}, "Content-Type"),
        ("twilio", {}, {"method": "PUT"}, "method"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_right_is_refused(kind, changes, other, problem, start):
    gateway = start(kind)
    status, _ = await say(gateway, kind, GOOD[kind] | changes, **other)
    assert 400 <= status < 500
    assert gateway.messages == []
    ((refusal),) = gateway.refusals
    assert problem in refusal


@pytest_twisted.ensureDeferred
async def test_twilio_tells_what_is_wrong_by_a_number(start):
    _, body = await say(start("twilio"), "twilio", GOOD["twilio"] | {"To": "1"})
    error = json.loads(body)
    assert (error["code"], error["status"]) == (21211, 400)
    assert set(error) == {"code", "message", "more_info", "status"}


@pytest_twisted.ensureDeferred
async def test_it_can_be_slow(start):
    gateway = start("http")
    gateway.delay = 0.01
    assert (await say(gateway, "http", GOOD["http"]))[0] == 200
