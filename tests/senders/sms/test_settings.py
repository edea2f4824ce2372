"""What cannot be used is found when a provider is made, and named."""

import json
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import Clock

from sydentish.domain.threepids import parse_phone_number
from sydentish.senders.sms.fields import body_template, url_template, values_of
from sydentish.senders.sms.gateway import Sms, check_originator
from sydentish.senders.sms.http import HttpGateway, HttpRules
from sydentish.senders.sms.openmarket import OpenMarket
from sydentish.senders.sms.twilio import Twilio

URL = "https://sms.example.org/send"
BODY = '{"to": "{destination}", "text": "{text}"}'
FORM = "application/x-www-form-urlencoded"
PARTS = {"name": "first", "reactor": reactor, "clock": Clock()}


def http(username=None, ca_file=None, **rules):
    settings = HttpRules(**{"url": URL, "body": BODY} | rules)
    return HttpGateway(**PARTS, rules=settings, username=username, ca_file=ca_file)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"url": "ftp://sms.example.org/"}, "^the URL must begin with https"),
        ({"url": "sms.example.org/send"}, "^the URL must begin with https"),
        ({"url": "https:///send"}, "^the URL must begin with https"),
        ({"url": "https://sms.example.org:0x1/"}, "^the URL must begin with https"),
        ({"url": "https://sms.example.org:70000/"}, "^the URL must begin with https"),
        ({"url": "https://me:pw@sms.example.org/"}, "^the URL must have no user name"),
        ({"url": "https://sms.example.org/#a"}, "^the URL must have no user name"),
        ({"url": "https://sms.example.org/a b"}, "^the URL must have everything encoded"),
        ({"url": "https://sms.example.org/\u00e9"}, "^the URL must have everything encoded"),
        ({"url": "https://sms.example.org/\r\nX: y"}, "^the URL must have everything encoded"),
        ({"url": "https://{text}.example.org/"}, "^url: placeholders can stand in its path and query only"),
        ({"url": "https://a/#{text}"}, "^url: placeholders can stand"),
        ({"url": "https://a/{code}"}, r"^url: there is no placeholder \{code\}: there are \{destination\}, "),
        ({"url": "https://[::1/"}, "^url: "),
        ({"method": "DELETE"}, "^method: must be one of POST, PUT, PATCH, GET"),
        ({"method": "GET"}, "^body: must not be set for GET"),
        ({"body": None}, "must stand in one of them"),
        ({"body": '{"to": "{destination}"}'}, "must stand in one of them"),
        ({"body": '{"text": "{text}"}'}, "must stand in one of them"),
        ({"body": '{"to": "{destination}", "text": {text}}'}, "^body: is not JSON"),
        ({"body": '{"to": {destination_e164}, "text": "{text}"}'}, "^body: is not JSON"),
        ({"body": '{"to": "{destination}", "text": "{text}"'}, "^body: is not JSON"),
        ({"body": '{"to": "{destination}", "text": "{txt}"}'}, r"^body: there is no placeholder \{txt\}"),
        ({"content_type": "text/xml"}, "^body: placeholders can stand in a body of application/json"),
        ({"content_type": "multipart/form-data; boundary=x"}, "^body: placeholders can stand"),
        ({"content_type": ""}, "^body: content_type must be such as"),
        ({"content_type": "json"}, "^body: content_type must be such as"),
        ({"content_type": "application/json charset=utf-8"}, "^body: content_type must be such as"),
        ({"content_type": "text/plain, application/json"}, "^body: content_type must be such as"),
        ({"content_type": "text/plain\r\nX: y"}, "^content_type: a header can have ASCII"),
        ({"content_type": "application/json; charset=latin-1"}, "^body: it is sent in UTF-8"),
        ({"content_type": 'text/plain;Charset="UTF-16"'}, "^body: it is sent in UTF-8"),
        ({"headers": [("X Y", "z")]}, "^headers: the name of a header"),
        ({"headers": [("X\r\nY", "z")]}, "^headers: the name of a header"),
        ({"headers": [("", "z")]}, "^headers: the name of a header"),
        ({"headers": [("X", "a\r\nb")]}, "^headers: a header can have ASCII characters only"),
        ({"headers": [("X", "\u00e9")]}, "^headers: a header can have ASCII characters only"),
        ({"headers": [("X", "to {destination}")]}, "^headers: a header cannot have placeholders"),
        ({"headers": [("host", "a")]}, "^headers: host cannot be set there"),
        ({"headers": [("Content-Type", "a")]}, "^headers: Content-Type cannot be set there"),
        (
            {"headers": [("Authorization", "a")], "username": "me"},
            "^headers: Authorization must not be set with",
        ),
        ({"username": "a:b"}, "^username: must have no colon"),
        ({"username": "a\n"}, "^username: must have no colon"),
        ({"success_pattern": "("}, "^success_pattern: is not a regular expression"),
        ({"originator": "far too long a name"}, "^originator: must be a telephone number"),
    ],
)
def test_a_description_that_cannot_be_used(rules, message):
    with pytest.raises(ValueError, match=message):
        http(**rules)


def test_a_file_of_authorities_that_cannot_be_used(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        http(ca_file=tmp_path / "nowhere.pem")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ValueError, match="ca_file: must hold certificates"):
        http(ca_file=tmp_path / "empty.pem")


ACCOUNTS = {
    OpenMarket: {"username": "me", "password": "pw"},
    Twilio: {"account_sid": "AC1", "auth_token": "pw", "originator": "Acme"},
}


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        (OpenMarket, {"base_url": "smsc.openmarket.com"}, "^the URL must begin with https"),
        (OpenMarket, {"base_url": "https://a/?b"}, "^base_url: must have no query"),
        (OpenMarket, {"base_url": "https://a/#b"}, "no #$"),
        (OpenMarket, {"username": "a:b"}, "^username: "),
        (OpenMarket, {"originator": "\u00e9"}, "^originator: "),
        (Twilio, {"base_url": "https://a/?b"}, "^base_url: must have no query"),
        (Twilio, {"account_sid": "../x"}, "^account_sid: must be letters and digits"),
        (Twilio, {"account_sid": ""}, "^account_sid: must be letters and digits"),
        (Twilio, {"messaging_service_sid": "a b"}, "^messaging_service_sid: must be letters and digits"),
        (Twilio, {"originator": ""}, "^originator: must be set, or messaging_service_sid"),
        (Twilio, {"originator": "+1 500"}, "^originator: must be a telephone number"),
    ],
)
def test_an_account_that_cannot_be_used(provider, options, message):
    with pytest.raises(ValueError, match=message):
        provider(**PARTS | ACCOUNTS[provider] | options)


@pytest.mark.parametrize("provider", ACCOUNTS)
def test_what_the_operator_set_is_no_part_of_a_repr(provider):
    assert "pw" not in repr(provider(**PARTS | ACCOUNTS[provider]))
    rules = HttpRules(url="https://a/?key=k3y", headers=[("X", "k3y")], body='{"key": "k3y"}')
    assert "k3y" not in repr(rules)


@pytest.mark.parametrize(
    "originator", ["123", "123456", "1234567", "+447700900001", "Acme", "A & B. - _+", "12 Monkeys"]
)
def test_an_originator(originator):
    check_originator(originator)


@pytest.mark.parametrize(
    "originator", ["", "12", "+123", "1" * 16, "A" * 12, "caf\u00e9", "a\n", "a,b", "   ", "-_-"]
)
def test_no_originator(originator):
    with pytest.raises(ValueError, match=r"^originator: "):
        check_originator(originator)


def values(text, originator=""):
    return values_of(Sms(originator, parse_phone_number("GB", "07700 900001"), text))


@given(text=st.text(), originator=st.text())
def test_json_has_what_was_put_into_it(text, originator):
    template = body_template('{"a{text}": ["{originator}{text}", {destination}]}', "application/json")
    filled = json.loads(template.fill(values(text, originator)))
    assert filled == {f"a{text}": [originator + text, 447700900001]}


@given(text=st.text(), originator=st.text())
def test_a_form_has_what_was_put_into_it(text, originator):
    template = body_template("a={text}&b=x{originator}{destination_e164}&c", FORM)
    filled = parse_qsl(template.fill(values(text, originator)), keep_blank_values=True)
    assert filled == [("a", text), ("b", f"x{originator}+447700900001"), ("c", "")]


@given(text=st.text(), originator=st.text())
def test_a_url_has_what_was_put_into_it(text, originator):
    filled = url_template("https://a/{text}/b?c={originator}").fill(values(text, originator))
    path, query = filled.removeprefix("https://a/").split("?")
    assert path.count("/") == 1
    assert unquote(path) == f"{text}/b"
    assert parse_qsl(query, keep_blank_values=True) == [("c", originator)]
    assert filled.isascii()
    assert filled.isprintable()


@given(st.text(alphabet='{}"destinaox\\ ,:[]', max_size=40))
def test_whatever_the_operator_writes_as_json_is_refused_or_stays_json(body):
    try:
        template = body_template(body, "application/json")
    except ValueError:
        return
    json.loads(template.fill(values('"}\\')))


def test_braces_that_are_no_placeholder_stand_for_themselves():
    template = body_template("{ {text} {} {a b} {1} }}", "text/plain")
    assert template.fill(values("{destination}")) == "{ {destination} {} {a b} {1} }}"


def test_lone_surrogates_break_nothing():
    assert url_template("https://a/{text}").fill(values("\ud800")) == "https://a/%3F"


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/JSON",
        "application/json;charset=UTF-8",
        'application/json; v=1 ; charset="utf-8"',
        "a/b+json",
    ],
)
def test_json_by_its_other_names(content_type):
    assert body_template('["{text}"]', content_type).fill(values('"')) == '["\\""]'
