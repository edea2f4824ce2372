"""Each kind of gateway takes what its provider sends: the stand-in refuses what is not exactly right."""

import json
from urllib.parse import parse_qsl, urlsplit

import pytest
import pytest_twisted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from standins.behaviours import answer
from standins.gateways import Message

from sydentish.domain.threepids import PhoneNumber
from sydentish.senders.sms.gateway import GatewayError, Sms

KINDS = ["http", "openmarket", "twilio"]
DIGITS = "447700900001"
HOSTILE = [
    'quote " backslash \\ brace } {text} {destination} %s',
    "&to=4711&x=;#?/../%00%2e%2B+ =",
    "</text> <!-- 'x' --> $(id) `id` {{ 7 * 7 }}",
    "é ü ß € Ω \u0645\u0631\u062d\u0628\u0627 \U0001f468\u200d\U0001f469",
    "\\u0022, \\",
    "..",
]
FORM = "application/x-www-form-urlencoded"
FORM_BODY = "from={originator}&to={destination}&text={text}"
HOW = {
    "a JSON body": {},
    "a form": {"body": FORM_BODY, "content_type": FORM},
    "a form by PUT": {"body": FORM_BODY, "content_type": f"{FORM}; charset=UTF-8", "method": "PUT"},
    "the query": {"body": None, "method": "GET", "url": f"/send?{FORM_BODY}"},
}


def described(gateway, how):
    options = dict(HOW[how])
    if "url" in options:
        options["url"] = gateway.url + options["url"]
    return options


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_gateway_takes_an_sms(kind, start, provider, sms, ca_file):
    gateway = start(kind, names=["127.0.0.1"])
    await provider(kind, gateway, ca_file=ca_file).send(sms("Hello"), 10)
    from_whom = {"http": "Acme", "openmarket": "", "twilio": "+15005550006"}[kind]
    assert gateway.messages == [Message(from_whom, DIGITS, "Hello")]
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_text_stays_what_it_is(kind, text, start, provider, sms):
    gateway = start(kind)
    await provider(kind, gateway).send(sms(text), 10)
    assert [message.text for message in gateway.messages] == [text]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("how", HOW)
@pytest_twisted.ensureDeferred
async def test_each_way_to_describe_a_request_keeps_values_what_they_are(how, value, start, provider, sms):
    gateway = start()
    await provider("http", gateway, **described(gateway, how)).send(sms(value, originator=value), 10)
    assert gateway.messages == [Message(value, DIGITS, value)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(min_size=1, max_size=200),
    originator=st.text(min_size=1, max_size=20),
    msisdn=st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True),
    how=st.sampled_from(sorted(HOW)),
)
@example(text="%41%zz", originator="a=b", msisdn=DIGITS, how="the query")
@example(text="\0\r\nX: y", originator="\u0130", msisdn=DIGITS, how="the query")
@example(text="e\u0301 \u212b", originator="\u00c5", msisdn=DIGITS, how="the query")
@pytest_twisted.ensureDeferred
async def test_any_value_arrives_as_it_is(start_once, provider, *, text, originator, msisdn, how):
    gateway = start_once
    destination = PhoneNumber(msisdn=msisdn, intl_fmt="", region="GB")
    await provider("http", gateway, **described(gateway, how)).send(Sms(originator, destination, text), 10)
    assert gateway.messages.pop() == Message(originator, msisdn, text)


@pytest.fixture
def start_once(start):
    return start()


@pytest_twisted.ensureDeferred
async def test_a_path_can_hold_values(start, provider, sms):
    gateway = start()
    gateway.always = answer(200, b"")
    url = f"{gateway.url}/{{destination_e164}}/{{text}}/?key=a+b&n={{destination}}"
    await provider("http", gateway, url=url, body=None, method="POST").send(sms("a/../b c?"), 10)
    target = urlsplit(gateway.requests[0].target)
    assert gateway.requests[0].target.endswith("/?key=a+b&n=447700900001")
    assert target.path == "/%2B447700900001/a%2F..%2Fb%20c%3F/"
    assert parse_qsl(target.query) == [("key", "a b"), ("n", DIGITS)]


@pytest_twisted.ensureDeferred
async def test_a_body_of_plain_text_and_numbers_without_quotes(start, provider, sms):
    gateway = start()
    gateway.always = answer(200, b"")
    plain = {"body": "{destination_e164}\n{text}", "content_type": "text/plain; charset=utf-8"}
    await provider("http", gateway, **plain).send(sms("é {text}"), 10)
    numeric = {
        "body": '{"to": [{destination}], "is": {"text": "{text}"}}',
        "content_type": "application/vnd.x+json",
    }
    await provider("http", gateway, **numeric).send(sms("x"), 10)
    first, second = gateway.requests
    assert first.body.decode() == "+447700900001\né {text}"
    assert first.all("content-type") == ["text/plain; charset=utf-8"]
    assert json.loads(second.body) == {"to": [int(DIGITS)], "is": {"text": "x"}}


@pytest_twisted.ensureDeferred
async def test_a_body_without_placeholders_can_be_of_any_type(start, provider, sms):
    gateway = start()
    gateway.always = answer(200, b"")
    url = f"{gateway.url}/?to={{destination}}&text={{text}}"
    await provider("http", gateway, url=url, body="<a/>", content_type="text/xml").send(sms(), 10)
    assert gateway.requests[0].body == b"<a/>"


@pytest_twisted.ensureDeferred
async def test_headers_are_sent(start, provider, sms):
    gateway = start(headers={"x-api-key": "k e y", "accept": "text/plain"})
    headers = [("X-Api-Key", "k e y"), ("Accept", "text/plain"), ("X-Two", "1"), ("X-Two", "2")]
    await provider("http", gateway, headers=headers).send(sms(), 10)
    assert gateway.requests[0].all("x-two") == ["1", "2"]
    assert gateway.messages


@pytest_twisted.ensureDeferred
async def test_a_login_is_sent_only_where_there_is_one(start, provider, sms):
    gateway = start(username=None)
    await provider("http", gateway, username=None).send(sms(), 10)
    tokened = start(username=None, headers={"authorization": "Bearer x"})
    tokened.always = answer(200, b"")
    headers = [("Authorization", "Bearer x")]
    await provider("http", tokened, username=None, headers=headers).send(sms(), 10)
    assert tokened.requests[0].all("authorization") == ["Bearer x"]


@pytest_twisted.ensureDeferred
async def test_a_login_in_any_letters(start, provider, sms):
    gateway = start(username="jürgen", password='p:ä"ss\\')
    await provider("http", gateway, username="jürgen", password='p:ä"ss\\').send(sms(), 10)
    assert gateway.messages


@pytest.mark.parametrize(
    ("originator", "openmarket", "twilio"),
    [
        ("12345", {"ton": 3, "address": "12345"}, "12345"),
        ("+447700900009", {"ton": 1, "address": "447700900009"}, "+447700900009"),
        ("447700900009", {"ton": 1, "address": "447700900009"}, "+447700900009"),
        ("Acme & Co", {"ton": 5, "address": "Acme & Co"}, "Acme & Co"),
    ],
)
@pytest.mark.parametrize("where", ["the country", "the provider"])
@pytest_twisted.ensureDeferred
async def test_who_an_sms_is_from(start, provider, sms, *, where, originator, openmarket, twilio):
    own = {"originator": originator} if where == "the provider" else {"originator": "Other"}
    message = sms(originator=originator if where == "the country" else "")
    first, second = start("openmarket"), start("twilio")
    await provider("openmarket", first, **own).send(message, 10)
    await provider("twilio", second, **own).send(message, 10)
    assert json.loads(first.requests[0].body)["mobileTerminate"]["source"] == openmarket
    assert dict(parse_qsl(second.requests[0].body.decode()))["From"] == twilio
    assert (len(first.messages), len(second.messages)) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_a_messaging_service_chooses_where_the_country_has_no_originator(start, provider, sms):
    gateway = start("twilio")
    service = "MG" + "0" * 32
    twilio = provider("twilio", gateway, messaging_service_sid=service, originator="Other")
    await twilio.send(sms(), 10)
    await twilio.send(sms(originator="12345"), 10)
    first, second = (dict(parse_qsl(request.body.decode())) for request in gateway.requests)
    assert first == {"To": "+447700900001", "Body": "Your code: 271828", "MessagingServiceSid": service}
    assert second == {"To": "+447700900001", "Body": "Your code: 271828", "From": "12345"}
    assert len(gateway.messages) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_base_url_can_have_a_path_and_a_slash_at_its_end(kind, start, provider, sms):
    gateway = start(kind)
    gateway.always = answer({"http": 200, "openmarket": 202, "twilio": 201}[kind], b"")
    await provider(kind, f"{gateway.url}/behind/").send(sms(), 10)
    assert gateway.requests[0].target.startswith("/behind/")


@pytest.mark.parametrize(
    ("kind", "password", "reason"),
    [
        ("http", "wrong", "it answered 401"),
        ("openmarket", "wrong", "it answered 401"),
        ("twilio", "wrong", "it answered 401, error 20003"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_password_is_told(start, provider, sms, *, kind, password, reason):
    gateway = start(kind, password=password)
    with pytest.raises(GatewayError) as refused:
        await provider(kind, gateway).send(sms(), 10)
    assert (refused.value.reason, refused.value.temporary, refused.value.refused) == (reason, False, True)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"code": "21211 +447700900001"}', b"{", b"\xff", b"null"])
@pytest_twisted.ensureDeferred
async def test_of_an_error_of_twilio_only_a_number_is_repeated(body, start, provider, sms):
    gateway = start("twilio")
    gateway.always = answer(400, body)
    with pytest.raises(GatewayError, match=r"^it answered 400$"):
        await provider("twilio", gateway).send(sms(), 10)


@pytest.mark.parametrize(("kind", "status"), [("openmarket", 200), ("twilio", 200), ("twilio", 202)])
@pytest_twisted.ensureDeferred
async def test_another_success_than_the_documented_one_is_none(kind, status, start, provider, sms):
    gateway = start(kind)
    gateway.always = answer(status, b"<html>Welcome to this hotel</html>")
    with pytest.raises(GatewayError, match=f"it answered {status}"):
        await provider(kind, gateway).send(sms(), 10)


@pytest.mark.parametrize(
    ("rules", "status", "body", "taken"),
    [
        ({}, 200, b"anything", True),
        ({}, 204, b"", True),
        ({}, 299, b"", True),
        ({}, 300, b"", False),
        ({}, 404, b"", False),
        ({"success_statuses": ()}, 201, b"", True),
        ({"success_statuses": (302, 200)}, 302, b"", True),
        ({"success_statuses": (202,)}, 200, b"", False),
        ({"success_pattern": "^OK"}, 200, b"OK 4711", True),
        ({"success_pattern": "^OK"}, 200, b"ERROR: not OK", False),
        ({"success_pattern": "^OK"}, 500, b"OK", False),
        ({"success_pattern": "\u00e9"}, 200, "caf\u00e9".encode(), True),
        ({"success_pattern": "OK"}, 200, b"\xff\xfe OK", True),
        ({"success_pattern": "last"}, 200, b"x" * (64 * 1024 - 4) + b"last", True),
        ({"success_pattern": "last"}, 200, b"x" * (64 * 1024 - 3) + b"last", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_counts_as_success(start, provider, sms, *, rules, status, body, taken):
    gateway = start()
    gateway.always = answer(status, body)
    sending = provider("http", gateway, **rules).send(sms(), 10)
    if taken:
        await sending
    else:
        with pytest.raises(GatewayError) as refused:
            await sending
        assert refused.value.refused
        assert refused.value.temporary == (status == 500)


@pytest.mark.parametrize(
    "target", ["/a%2fb/%7e;x=1,2/", "/?flag&empty=&a=b=c&d=%2B+%20", "//two/./../", "/?a;b", "?x=/?:@!$'()*"]
)
@pytest_twisted.ensureDeferred
async def test_what_the_operator_wrote_around_values_is_sent_as_it_is(target, start, provider, sms):
    gateway = start()
    gateway.always = answer(200, b"")
    await provider("http", gateway, url=gateway.url + target).send(sms(), 10)
    assert gateway.requests[0].target == ("/" if target.startswith("?") else "") + target
