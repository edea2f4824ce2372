"""What people see when they follow the link of a mail."""

from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_twisted
from fixtures import BASE_URL
from hypothesis import given
from hypothesis import strategies as st
from web.cases import CODE, SUBMIT, VALIDATED
from web.wire import PREFIX
from web.world import make_world

from sydentish.actions.ports import Style
from sydentish.domain.errors import SessionExpired
from sydentish.domain.threepids import EMAIL, MSISDN
from sydentish.senders.render import Templates, shipped_templates
from sydentish.web.pages import Pages

CONFIRM = "pages/validate/email/submitToken"
HOSTILE = [
    '"><script>alert(1)</script>',
    "' onload='alert(1)",
    "</form><form action=//evil>",
    "{{ 7 * 7 }}",
    "&quot;",
]


class Page(HTMLParser):
    """The elements of a page: tags with their attributes, and the text of people."""

    def __init__(self, body):
        super().__init__()
        self.tags = []
        self.text = ""
        self._silent = 0
        self.feed(body if isinstance(body, str) else body.decode())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("style", "title")

    def handle_endtag(self, tag):
        self._silent -= tag in ("style", "title")

    def handle_data(self, data):
        if not self._silent:
            self.text += data

    def all(self, wanted):
        return [attrs for tag, attrs in self.tags if tag == wanted]

    def shape(self):
        return [tag for tag, _ in self.tags]


def is_page(answer):
    """Checks what holds for every page, and takes it apart."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    page = Page(answer.body)
    assert page.all("script") == page.all("img") == page.all("iframe") == page.all("link") == []
    assert page.all("html")[0]["lang"] == "en"
    return page


async def is_validated(world, state="pending"):
    answer = await world.server.ask("GET", VALIDATED, query=world.session(state), token=world.token)
    return answer.status == 200


def link(world, **changes):
    return {"query": world.session("pending") | {"token": world.mail_token} | changes}


@pytest_twisted.ensureDeferred
async def test_the_link_of_the_mail_leads_to_a_page_and_validates(serve):
    world = await make_world(serve)
    url = urlsplit(world.server.house.sender.mails[-1][1])
    assert f"{url.scheme}://{url.netloc}" == BASE_URL
    answer = await world.server.ask("GET", url.path, query=url.query)

    assert answer.status == 200
    assert "confirmed" in is_page(answer).text
    assert await is_validated(world)


@pytest_twisted.ensureDeferred
async def test_following_the_link_twice_is_no_mistake(serve):
    world = await make_world(serve)
    statuses = [(await world.server.ask("GET", SUBMIT, **link(world))).status for _ in range(2)]

    assert statuses == [200, 200]


@pytest.mark.parametrize(
    "next_link", ["https://app.example.org/a?b=%20c&d#e", "http://a.b", "HTTPS://A.b/'\"<>"]
)
@pytest_twisted.ensureDeferred
async def test_the_redirect_goes_to_exactly_the_next_link(serve, next_link):
    world = await make_world(serve)
    asked = {"client_secret": "n3xt", "email": "n@example.org", "send_attempt": 1, "next_link": next_link}
    sid = (await world.server.ask("POST", "v2/validate/email/requestToken", asked, token=world.token)).json[
        "sid"
    ]
    query = {
        "sid": sid,
        "client_secret": "n3xt",
        "token": world.server.house.sender.last_token(),
        "nextLink": "https://evil.example.org/",
        "next_link": "https://evil.example.org/",
        "redirect": "https://evil.example.org/",
    }
    answer = await world.server.ask("GET", SUBMIT, query=query)

    assert answer.status == 302
    assert answer.headers["location"] == next_link
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.body == b""


@pytest.mark.parametrize("name", ["nextLink", "next_link"])
@pytest_twisted.ensureDeferred
async def test_the_query_cannot_choose_where_to_go(serve, name):
    world = await make_world(serve)
    answer = await world.server.ask("GET", SUBMIT, **link(world, **{name: "https://evil.example.org/"}))

    assert answer.status == 200
    assert "location" not in answer.headers
    assert b"evil" not in answer.body


@pytest.mark.parametrize(
    ("state", "changes", "status"),
    [
        ("pending", {"token": "wrong"}, 400),
        ("pending", {"token": ""}, 400),
        ("pending", {"token": "a" * 256}, 400),
        ("pending", {"sid": "a/b"}, 400),
        ("expired", {}, 400),
        ("unknown", {}, 404),
        ("other secret", {}, 404),
    ],
)
@pytest.mark.parametrize("path", [SUBMIT, CONFIRM])
@pytest_twisted.ensureDeferred
async def test_errors_are_pages_that_say_what_to_do(serve, path, state, changes, status):
    world = await make_world(serve)
    params = world.session(state) | {"token": world.mail_token} | changes
    if path == SUBMIT:
        answer = await world.server.ask("GET", path, query=params)
    else:
        answer = await world.server.ask("POST", path, params)

    assert answer.status == status
    page = is_page(answer)
    assert "could not be confirmed" in page.text
    assert "Ask for a new mail" in page.text
    assert page.all("form") == []
    assert not await is_validated(world)


@pytest_twisted.ensureDeferred
async def test_an_unknown_sid_and_a_wrong_secret_get_the_same_page(serve):
    world = await make_world(serve)
    answers = [
        await world.server.ask("GET", SUBMIT, query=world.session(state) | {"token": "any"})
        for state in ("unknown", "other secret")
    ]

    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "query", ["", "sid=a", "%ff", "&".join("a" * 200), "sid=a&client_secret=b&token=%00"]
)
@pytest_twisted.ensureDeferred
async def test_a_link_that_was_cut_is_a_page(serve, query):
    world = await make_world(serve)
    answer = await world.server.ask("GET", SUBMIT, query=query)

    assert answer.status in (400, 404)
    is_page(answer)


@pytest.mark.parametrize("confirm", [False, True])
@pytest_twisted.ensureDeferred
async def test_head_never_validates(serve, confirm):
    world = await make_world(serve, confirm=confirm)
    answer = await world.server.ask("HEAD", SUBMIT, **link(world))

    assert answer.status == 200
    assert answer.body == b""
    assert not await is_validated(world)


@pytest_twisted.ensureDeferred
async def test_with_confirmation_only_the_button_validates(serve):
    world = await make_world(serve, confirm=True)
    answer = await world.server.ask("GET", SUBMIT, **link(world))
    page = is_page(answer)
    (form,) = page.all("form")
    inputs = {field["name"]: field["value"] for field in page.all("input")}

    assert answer.status == 200
    assert not await is_validated(world)
    assert form["method"] == "post"
    assert form["action"] == BASE_URL + PREFIX + CONFIRM
    assert inputs == link(world)["query"]

    pressed = await world.server.ask(
        "POST",
        urlsplit(form["action"]).path,
        raw=urlencode(inputs).encode(),
        headers=["Content-Type: application/x-www-form-urlencoded"],
    )
    assert pressed.status == 200
    assert "confirmed" in is_page(pressed).text
    assert await is_validated(world)


@pytest.mark.parametrize("value", HOSTILE)
@pytest_twisted.ensureDeferred
async def test_hostile_values_stay_values(serve, value):
    world = await make_world(serve, confirm=True)
    harmless = is_page(await world.server.ask("GET", SUBMIT, **link(world)))
    page = is_page(await world.server.ask("GET", SUBMIT, **link(world, token=value)))

    assert page.shape() == harmless.shape()
    assert {"type": "hidden", "name": "token", "value": value} in page.all("input")


PAGES = Pages(Templates(shipped_templates()), brand="default", server_name="id.example.org")
SHAPE = Page(PAGES.confirm("https://a/", "sid", "secret", "token").body).shape()


@given(st.text(max_size=255), st.text(max_size=255))
def test_no_value_changes_the_shape_of_a_page(sid, token):
    page = Page(PAGES.confirm("https://a/", sid, "secret", token).body)

    assert page.shape() == SHAPE
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)


@given(st.text(), st.sampled_from([EMAIL, MSISDN]))
def test_an_error_does_not_say_more_than_it_should(message, medium):
    reply = PAGES.failed(SessionExpired(message + "canary"), medium)

    assert reply.status == 400
    assert b"canary" not in reply.body


both_media = pytest.mark.parametrize("path", [SUBMIT, CODE])


@both_media
@pytest_twisted.ensureDeferred
async def test_the_post_of_the_specification_needs_a_token_and_is_no_page(serve, path):
    world = await make_world(serve)
    answer = await world.server.ask("POST", path, link(world)["query"])

    assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")


@pytest_twisted.ensureDeferred
async def test_the_link_holds_what_the_specification_names(serve):
    world = await make_world(serve)
    query = parse_qs(urlsplit(world.server.house.sender.mails[-1][1]).query)

    assert set(query) == {"sid", "client_secret", "token"}


# --- telephone numbers ---------------------------------------------------------------------------------

V1_SUBMIT, V1_CODE = "api/v1/validate/email/submitToken", "api/v1/validate/msisdn/submitToken"


def with_code(world, **changes):
    return {"query": world.session("sms pending") | {"token": world.code} | changes}


@pytest.mark.parametrize("path", [CODE, V1_CODE])
@pytest.mark.parametrize("confirm", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_code_in_a_link_validates_since_no_scanner_knows_it(serve, path, confirm):
    world = await make_world(serve, confirm=confirm)
    answer = await world.server.ask("GET", path, **with_code(world))

    assert answer.status == 200
    page = is_page(answer)
    assert "telephone number is confirmed" in page.text
    assert page.all("form") == []
    assert await is_validated(world, "sms pending")


@pytest.mark.parametrize("path", [CODE, V1_CODE])
@pytest_twisted.ensureDeferred
async def test_head_never_validates_a_telephone_number(serve, path):
    world = await make_world(serve)
    answer = await world.server.ask("HEAD", path, **with_code(world))

    assert (answer.status, answer.body) == (200, b"")
    assert not await is_validated(world, "sms pending")


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        ("sms pending", 400, "could not be confirmed"),
        ("sms expired", 400, "expired"),
        ("sms guessed", 429, "too many tries"),
        ("unknown", 404, "not known here"),
        ("sms other secret", 404, "not known here"),
    ],
)
@pytest.mark.parametrize("path", [CODE, V1_CODE])
@pytest_twisted.ensureDeferred
async def test_errors_of_codes_are_pages_that_say_what_to_do(serve, path, state, status, said):
    world = await make_world(serve)
    answer = await world.server.ask("GET", path, query=world.session(state) | {"token": "wrong"})

    assert answer.status == status
    page = is_page(answer)
    assert said in page.text
    assert "Ask for a new code" in page.text
    assert "mail" not in page.text
    if status == 429:
        assert answer.headers["retry-after"]


@pytest.mark.parametrize("path", [CODE, V1_CODE])
@pytest_twisted.ensureDeferred
async def test_after_a_code_the_browser_goes_to_the_next_link(serve, path):
    world = await make_world(serve)
    asked = {
        "client_secret": "n3xt",
        "country": "GB",
        "phone_number": "07700900007",
        "send_attempt": 1,
        "next_link": "https://app.example.org/done?a=b#c",
    }
    sid = (await world.server.ask("POST", "v2/validate/msisdn/requestToken", asked, token=world.token)).json[
        "sid"
    ]
    code = world.server.house.codes.last_code()
    answer = await world.server.ask("GET", path, query={"sid": sid, "client_secret": "n3xt", "token": code})

    assert (answer.status, answer.headers["location"]) == (302, "https://app.example.org/done?a=b#c")


@pytest.mark.parametrize("path", [V1_SUBMIT, V1_CODE])
@pytest_twisted.ensureDeferred
async def test_links_of_version_1_still_lead_to_a_page(serve, path):
    """Mails of the server that was here before may be on their way."""
    world = await make_world(serve)
    good = link(world) if path == V1_SUBMIT else with_code(world)
    state = "pending" if path == V1_SUBMIT else "sms pending"
    answer = await world.server.ask("GET", path, **good)

    assert answer.status == 200
    is_page(answer)
    assert await is_validated(world, state)


@pytest_twisted.ensureDeferred
async def test_with_confirmation_links_of_version_1_ask_too(serve):
    world = await make_world(serve, confirm=True)
    answer = await world.server.ask("GET", V1_SUBMIT, **link(world))

    assert len(is_page(answer).all("form")) == 1
    assert not await is_validated(world)


@both_media
@pytest_twisted.ensureDeferred
async def test_what_is_answered_to_a_person_is_never_kept(serve, path):
    world = await make_world(serve)
    for query in ({}, link(world)["query"]):
        answer = await world.server.ask("GET", path, query=query)
        assert answer.headers["cache-control"] == "no-store"


# --- who reads it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "languages"), [("de-CH, fr;q=0.8", ("de-CH", "fr")), ("*", ()), ("\xff", ()), (None, ())]
)
@pytest_twisted.ensureDeferred
async def test_a_message_is_in_the_language_of_who_asks_for_it(serve, header, languages):
    world = await make_world(serve)
    headers = [] if header is None else [f"Accept-Language: {header}"]
    mail = {"client_secret": "l4ng", "email": "l@example.org", "send_attempt": 1, "brand": "acme"}
    sms = {"client_secret": "l4ng", "country": "GB", "phone_number": "07700900008", "send_attempt": 1}
    for path, asked in (("v2/validate/email/requestToken", mail), ("v2/validate/msisdn/requestToken", sms)):
        answer = await world.server.ask("POST", path, asked, token=world.token, headers=headers)
        assert answer.status == 200
    house = world.server.house

    assert house.sender.styles[-1] == Style("acme", languages)
    assert house.codes.sent[-1][2] == Style(None, languages)
