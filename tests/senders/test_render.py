import re
import shutil
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from senders.relays import templates_directory
from unprivileged import unprivileged_folder

from sydentish.senders.render import TemplateProblem, Templates, one_line
from sydentish.senders.samples import MAILS

LINK = "https://identity.example.org/_matrix/identity/v2/validate/email/submitToken?sid=a&client_secret=b&token=c"
VALUES = {"address": "alice@example.org", "link": LINK, "server_name": "identity.example.org"}
PAGE = VALUES | {"medium": "email"}
PAGES = {
    "validated": {},
    "failed": {"message": "The link is too old."},
    "confirm": {"action": LINK, "sid": "s1", "client_secret": "c1", "token": "t1"},
}
HOSTILE = [
    "a\r\nBcc: everybody@example.org",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "\0\x07\x1b[31m\x7f\x85",
    "\u202egro.elpmaxe\u2066\u2028\u2029\ufeff",
    "\ud800",
    "x" * 10_000,
    "=?utf-8?q?room=0d=0aBcc=3aeve=40evil.example?=",
    "=\0?utf-8?b?DQpCY2M6?=",
    "\u0645\u0631\u062d\u0628\u0627 \U0001f468\u200d\U0001f469\u200d\U0001f467",
]


@pytest.fixture
def operator(tmp_path):
    """Writes the operator's templates: file name below `templates_path` -> text."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def over(directory, default_brand="default"):
    return Templates(templates_directory(), directory, default_brand)


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for found, attributes in self.found if found == tag]


def test_the_shipped_templates_are_in_order(templates):
    templates.check()
    assert templates.brands == ("default",)


def test_the_shipped_mail(templates):
    mail = templates.mail("verification", None, VALUES)
    assert mail.subject == "Confirm your e-mail address"
    for part in (mail.text, mail.html):
        assert "alice@example.org" in part
        assert "identity.example.org" in part
        assert "limited time" in part
        assert "You did not ask for this?" in part
    assert LINK in mail.text.splitlines()
    elements = Elements(mail.html)
    assert [link["href"] for link in elements.of("a")] == [LINK, LINK]
    assert LINK in elements.text
    assert elements.of("title")
    assert "Confirm your e-mail address" in elements.text


@pytest.mark.parametrize("medium", ["email", "msisdn"])
@pytest.mark.parametrize("outcome", PAGES)
def test_the_shipped_page(outcome, medium, templates):
    values = PAGE | {"outcome": outcome, "medium": medium} | PAGES[outcome]
    text = templates.page("verify_response.html", None, values)
    elements = Elements(text)
    assert elements.of("html") == [{"lang": "en", "dir": "ltr"}]
    assert any(meta.get("name") == "viewport" for meta in elements.of("meta"))
    assert not re.search(r"<script|https?://(?!identity\.example\.org)|url\(|@import|src=", text)
    assert len(elements.of("h1")) == 1
    assert len(elements.of("form")) == (1 if outcome == "confirm" else 0)


def test_the_page_that_asks(templates):
    text = templates.page("verify_response.html", None, PAGE | {"outcome": "confirm"} | PAGES["confirm"])
    elements = Elements(text)
    assert elements.of("form") == [{"method": "post", "action": LINK}]
    fields = {field["name"]: field["value"] for field in elements.of("input")}
    assert fields == {"sid": "s1", "client_secret": "c1", "token": "t1"}
    assert {field["type"] for field in elements.of("input")} == {"hidden"}
    assert elements.of("button") == [{"type": "submit"}]


def test_the_page_that_refuses_says_why(templates):
    text = templates.page("verify_response.html", None, PAGE | {"outcome": "failed", "message": "Too <old>."})
    assert "Too &lt;old&gt;." in text


def assert_harmless(mail):
    assert len(mail.subject.splitlines()) == 1
    assert len(mail.subject) <= 200
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", mail.subject)
    assert "=?" not in mail.subject
    for part in (mail.text, mail.html):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", part)
        part.encode()


SHOWS_ALL = "{% block subject %}{{ server_name }}: {{ address }}{% endblock %}{% block body %}{{ link }}{% endblock %}"


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_values(name, hostile, templates, operator):
    shipped = templates.mail("verification", None, VALUES | {name: hostile})
    assert_harmless(shipped)
    calm = [tag for tag, _ in Elements(templates.mail("verification", None, VALUES).html).found]
    assert [tag for tag, _ in Elements(shipped.html).found] == calm
    assert all(
        set(link) == {"class", "href", "style"} - ({"class"} - set(link))
        for link in Elements(shipped.html).of("a")
    )
    assert_harmless(
        over(operator(**{"x/verification.eml.txt": SHOWS_ALL})).mail(
            "verification", "x", VALUES | {name: hostile}
        )
    )


@given(values=st.fixed_dictionaries({name: st.text() for name in VALUES}))
@settings(deadline=None)
def test_any_values(values, templates):
    mail = templates.mail("verification", None, values)
    assert_harmless(mail)
    calm = [tag for tag, _ in Elements(templates.mail("verification", None, VALUES).html).found]
    assert [tag for tag, _ in Elements(mail.html).found] == calm


@given(message=st.text())
@settings(deadline=None)
def test_any_message_on_a_page(message, templates):
    values = PAGE | {"outcome": "failed"}
    calm = Elements(templates.page("verify_response.html", None, values | {"message": ""}))
    page = Elements(templates.page("verify_response.html", None, values | {"message": message}))
    assert page.found == calm.found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Invite to =?utf-8?q?room=0d=0a?=", "Invite to = ?utf-8?q?room=0d=0a?="),
        ("==?=?=", "== ?= ?="),
        ("=\0?x", "= ?x"),
        ("=\u202e\ufeff?x", "= ?x"),
        ("=\n?x", "= ?x"),
        ("x" * 198 + "=?x", "x" * 198 + "=…"),
        ("x" * 499 + "=?", "x" * 199 + "…"),
        ("1 + 1 = 2? Yes?=", "1 + 1 = 2? Yes?="),
    ],
)
def test_an_encoded_word_does_not_fit_a_header(text, line):
    assert one_line(text) == line


@given(st.text(alphabet="=? \0\r\n\u202e\u200dqx…", max_size=600))
def test_no_encoded_word_ever_fits_a_header(text):
    line = one_line(text)
    assert "=?" not in line
    assert len(line) <= 200
    assert one_line(line) == line


def test_links_are_never_shortened(templates):
    link = LINK + "x" * 5000
    mail = templates.mail("verification", None, VALUES | {"link": link})
    assert link in mail.text
    assert mail.html.count(link.replace("&", "&amp;")) == 3


def test_other_values_are(templates):
    mail = templates.mail("verification", None, VALUES | {"server_name": "x" * 10_000})
    assert "x" * 500 + "…" in mail.text
    assert "x" * 501 not in mail.text


def test_joined_characters_stay_joined(templates):
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert family in templates.mail("verification", None, VALUES | {"server_name": family}).text


MINE = (
    "{% block subject %}Mine {{ server_name }}{% endblock %}\n{% block body %}Go: {{ link }}{% endblock %}\n"
)


def test_a_brand_and_what_it_falls_back_to(operator):
    templates = over(operator(**{"acme/verification.eml.txt": MINE}))
    templates.check()
    assert templates.brands == ("acme", "default")
    mine = templates.mail("verification", "acme", VALUES)
    shipped = templates.mail("verification", "default", VALUES)
    assert (mine.subject, mine.text) == ("Mine identity.example.org", f"Go: {LINK}\n")
    assert mine.html == shipped.html
    assert shipped.subject != mine.subject


def test_a_brand_of_nothing_but_a_frame_changes_the_looks_of_every_mail(operator):
    frame = (
        "{% block subject %}{% endblock %}"
        "{% block body %}<main class=acme>{% block content %}{% endblock %}</main>{% endblock %}"
    )
    templates = over(operator(**{"acme/frame.eml.html": frame}))
    templates.check()
    for name, values in MAILS.items():
        mine = templates.mail(name, "acme", values)
        shipped = templates.mail(name, None, values)
        assert mine.html.strip().startswith("<main class=acme>")
        assert values["link"].replace("&", "&amp;") in mine.html
        assert "<style>" in shipped.html
        assert "<style>" not in mine.html
        assert (mine.subject, mine.text) == (shipped.subject, shipped.text)


def test_a_brand_may_replace_the_default_one(operator):
    templates = over(operator(**{"default/verification.eml.txt": MINE}))
    assert templates.mail("verification", None, VALUES).subject.startswith("Mine")
    assert templates.mail("verification", None, VALUES).html


def test_the_default_brand_is_a_setting(operator):
    directory = operator(**{"acme/verification.eml.txt": MINE})
    assert over(directory, "acme").mail("verification", None, VALUES).subject.startswith("Mine")
    with pytest.raises(TemplateProblem, match="acmee"):
        over(directory, "acmee")


@pytest.mark.parametrize(
    "brand", ["unknown", "../default", "/etc", "", ".", "acme/../acme", "acme\0", "x" * 5000]
)
def test_names_of_brands_are_not_trusted(brand, operator):
    (operator() / "secret").mkdir()
    directory = operator(
        **{"brands/acme/verification.eml.txt": MINE, "secret/verification.eml.txt": "secret"}
    )
    templates = over(directory / "brands")
    assert templates.mail("verification", brand, VALUES) == templates.mail("verification", None, VALUES)


def test_templates_share_what_they_have_in_common(operator):
    base = "{% block subject %}{% endblock %}{% block body %}Hello, {% block words %}{% endblock %}. Bye.{% endblock %}"
    child = '{% extends "base.txt" %}{% block subject %}Hi{% endblock %}{% block words %}{{ address }}{% endblock %}'
    directory = operator(**{"acme/base.txt": base, "acme/verification.eml.txt": child})
    mail = over(directory).mail("verification", "acme", VALUES)
    assert (mail.subject, mail.text) == ("Hi", "Hello, alice@example.org. Bye.\n")


def test_what_stands_after_the_subject_is_the_body_where_there_is_no_such_block(operator):
    directory = operator(
        **{"acme/verification.eml.txt": "{% block title %}Hi{% endblock %}\nHi, go to\n{{ link }}\n"}
    )
    mail = over(directory).mail("verification", "acme", VALUES)
    assert (mail.subject, mail.text) == ("Hi", f"Hi, go to\n{LINK}\n")


def test_values_as_parts_of_urls(operator):
    text = "{% block subject %}s{% endblock %}{% block body %}https://a.example/?m={{ address|url }}{% endblock %}"
    directory = operator(**{"acme/verification.eml.txt": text})
    mail = over(directory).mail("verification", "acme", VALUES | {"address": "a&b=/?#ü@x"})
    assert mail.text == "https://a.example/?m=a%26b%3D%2F%3F%23%C3%BC%40x\n"


BODY = "{% block body %}x{% endblock %}"
SUBJECT = "{% block subject %}x{% endblock %}"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "verification.eml.txt",
            SUBJECT + "\n\n{% block body %}{{ nothing }}{% endblock %}",
            r"txt:3: .*'nothing'",
        ),
        ("verification.eml.txt", "{% block subject %}\n{% if %}{% endblock %}", r"txt:2: "),
        ("verification.eml.txt", SUBJECT + "{% block body %}\n{{ 1 / 0 }}{% endblock %}", r"txt:2: division"),
        (
            "verification.eml.txt",
            SUBJECT + '{% block body %}\n{% include "no.txt" %}{% endblock %}',
            r"txt:2: no.txt",
        ),
        ("verification.eml.txt", '{% extends "no.txt" %}', r"txt:1: no.txt"),
        (
            "verification.eml.txt",
            SUBJECT + "{% block body %}{{ x|nofilter }}{% endblock %}",
            r"txt:1: .*nofilter",
        ),
        ("verification.eml.txt", BODY, r"txt: no block 'subject'"),
        ("verification.eml.txt", "Hello {{ link }}", r"txt: no block 'subject'"),
        ("verification.eml.txt", SUBJECT, r"txt: no block 'body'"),
        ("verification.eml.txt", "", r"txt: no block 'subject'"),
        ("verification.eml.txt", "{% block subject %} {% endblock %}" + BODY, r"txt: no block 'subject'"),
        (
            "verification.eml.html",
            SUBJECT + "{% block body %}\n\n{{ adress }}{% endblock %}",
            r"html:3: .*'adress'",
        ),
        (
            "invite.eml.html",
            SUBJECT + "{% block body %}{{ sender }}\n{{ inviter }}{% endblock %}",
            r"html:2: .*'inviter'",
        ),
        (
            "verify_response.html",
            "{% if outcome == 'confirm' %}\n{{ secret }}{% endif %}",
            r"html:2: .*'secret'",
        ),
        ("verify_response.html", "{{ ''.__class__.__mro__ }}", r"html:1: .*unsafe"),
    ],
)
def test_mistakes_are_found_at_start(name, text, says, operator):
    directory = operator(**{f"acme/{name}": text})
    with pytest.raises(TemplateProblem, match=says) as problem:
        over(directory).check()
    assert str(directory / "acme" / name) in str(problem.value)


def test_a_template_that_is_no_utf8(operator):
    directory = operator(**{"acme/verification.eml.txt": ""})
    (directory / "acme" / "verification.eml.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateProblem, match=r"brand 'acme': verification\.eml\.txt"):
        over(directory).check()


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(TemplateProblem, match="cannot be read"):
        over(tmp_path / "no")


def test_a_folder_that_can_be_no_brand(operator):
    with pytest.raises(TemplateProblem, match="Acme Corp"):
        over(operator(**{"Acme Corp/verification.eml.txt": MINE}))


def test_hidden_folders_and_files_are_left_alone(operator):
    templates = over(operator(**{".git/config": "", "README": ""}))
    assert templates.brands == ("default",)


def test_shipped_templates_that_are_not_there(tmp_path):
    with pytest.raises(TemplateProblem, match=r"verification\.eml\.txt"):
        Templates(tmp_path).check()


def test_templates_are_read_once(operator):
    directory = operator(**{"acme/verification.eml.txt": MINE})
    templates = over(directory)
    templates.check()
    operator(**{"acme/verification.eml.txt": "{% broken"})
    assert templates.mail("verification", "acme", VALUES).subject.startswith("Mine")


def test_an_error_at_run_time_holds_no_value(templates):
    with pytest.raises(TemplateProblem) as problem:
        templates.mail("verification", None, {"address": "alice@example.org", "server_name": "x"})
    assert "'link' is undefined" in str(problem.value)
    assert "alice" not in str(problem.value)


def told(directory, default_brand="default", shipped=None):
    with pytest.raises(TemplateProblem) as caught:
        Templates(shipped or templates_directory(), directory, default_brand).check()
    assert str(caught.value).splitlines() == list(caught.value.problems)
    return caught.value.problems


def test_all_mistakes_in_all_brands_are_told_at_once(operator):
    directory = operator(
        **{
            "acme/verification.eml.txt": "{{ nothing }}",
            "acme/verification.eml.html": "",
            "acme/verify_response.html": "{{ nothing }}",
            "beta/verify_response.html": "{% if %}",
        }
    )
    problems = told(directory)
    acme, beta = (f"brand {brand!r}: {directory / brand}/" for brand in ("acme", "beta"))
    assert [problem.partition(": ")[2].split(": ", 1)[1] for problem in problems[:4]] == [
        "'nothing' is undefined",
        "no block 'subject', or nothing in it",
        "no block 'body', or nothing in it",
        "'nothing' is undefined",
    ]
    assert all(problem.startswith(acme) for problem in problems[:4])
    assert len(problems) == 5
    assert problems[4].startswith(f"{beta}verify_response.html:1: ")


def test_an_unknown_default_brand_is_told_with_its_option_the_nearest_and_the_mistakes(operator):
    directory = operator(**{"acme/verification.eml.txt": "{{ nothing }}", "Acme Corp/x": ""})
    wrong_name, unknown, mistake = told(directory, "acmee")
    assert "Acme Corp" in wrong_name
    assert unknown == (
        f"[general] default_brand: there is no brand 'acmee': there is no such folder in {directory}; "
        "did you mean acme?"
    )
    assert mistake.startswith("brand 'acme': ")
    assert told(directory, "zzz")[1].endswith(f"no such folder in {directory}; there is acme, default")


def test_an_unknown_default_brand_without_brands_of_ones_own():
    (problem,) = told(None, "acme")
    assert problem == (
        "[general] default_brand: there is no brand 'acme': templates_path is not set; there is default"
    )


def readable_by_all(directory):
    """The shipped templates where an unprivileged user can read them; what they need is imported by then."""
    shipped = directory / "shipped"
    shutil.copytree(templates_directory(), shipped)
    Templates(shipped).check()
    told(directory, "no-such-brand", shipped)
    return shipped


@pytest.mark.parametrize("mode", [0o000, 0o700, 0o744, 0o711])
def test_a_brand_that_cannot_be_read_is_told(mode):
    with unprivileged_folder() as (directory, unprivileged):
        shipped, acme = readable_by_all(directory), directory / "custom" / "acme"
        acme.mkdir(parents=True)
        (acme / "verification.eml.txt").write_text(MINE)
        acme.chmod(mode)
        with unprivileged(acme):
            problems = told(acme.parent, "acme", shipped)
    assert problems == ("brand 'acme': cannot be read: Permission denied",)


def test_a_template_that_cannot_be_read_is_told():
    with unprivileged_folder() as (directory, unprivileged):
        shipped, custom = readable_by_all(directory), directory / "custom"
        file = custom / "acme" / "verification.eml.txt"
        file.parent.mkdir(parents=True)
        file.write_text(MINE)
        file.chmod(0o600)
        with unprivileged(file):
            problems = told(custom, shipped=shipped)
    assert problems == (f"brand 'acme': {file}: cannot be read: Permission denied",)


def test_a_brand_that_leads_nowhere_is_told(tmp_path):
    (tmp_path / "acme").symlink_to(tmp_path / "no")
    assert told(tmp_path, "acme") == ("brand 'acme': cannot be read: No such file or directory",)
