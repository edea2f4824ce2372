"""Gateways: what the `[sms NAME]` sections say, and what is wrong with them."""

import re

import pytest
import trustme

from sydentish.config import (
    ConfigError,
    HttpSection,
    LogSection,
    OpenMarketSection,
    Secret,
    TwilioSection,
    load,
)

CANARY = "c4n4ry-passw0rd"
SID = "AC0123456789abcdef0123456789abcdef"
TWILIO = f"kind = twilio\naccount_sid = {SID}\nauth_token = {CANARY}\n"
OPENMARKET = f"kind = openmarket\nusername = me\npassword = {CANARY}\n"
HTTP = "kind = http\nurl = https://sms.example.org/send\n"


def sms(*gateways, **sections):
    """The text of `[sms]` and of the sections of its gateways."""
    parts = [f"[sms]\ngateways = {', '.join(gateways)}\n"]
    parts += [f"[sms {name}]\n{text}" for name, text in sections.items()]
    return "".join([*parts, "[http]\ntrusted_proxies = 127.0.0.1\n"])


def test_no_gateways(loaded):
    config = loaded("")
    assert config.sms.gateways == ()
    assert config.sms_gateways == ()


def test_gateways_in_the_order_of_the_gateways(loaded):
    config = loaded(sms("c", "a", "b", a=HTTP, b=OPENMARKET, c=f"{TWILIO}originator = Example\n"))
    assert [(type(gateway), gateway.name) for gateway in config.sms_gateways] == [
        (TwilioSection, "c"),
        (HttpSection, "a"),
        (OpenMarketSection, "b"),
    ]
    assert config.warnings == ()


def test_a_http_gateway_at_its_defaults(loaded):
    (gateway,) = loaded(sms("a", a=HTTP)).sms_gateways
    assert gateway == HttpSection(
        name="a",
        url="https://sms.example.org/send",
        method="POST",
        headers=(),
        body="",
        content_type="application/json",
        success_statuses=(),
        success_pattern=None,
        username=None,
        password=None,
        ca_file=None,
        originator=None,
    )
    assert gateway == HttpSection(name="a", url="https://sms.example.org/send")


def test_a_http_gateway_with_everything(loaded, tmp_path):
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    (gateway,) = loaded(
        sms(
            "a",
            a="kind = http\n"
            "url = https://sms.example.org/{destination}/send?from={originator}&x={{}\n".replace("{{}", "%7B")
            + "method = PUT\n"
            "headers =\n  X-Api-Key: k, e = y\n  Accept:text/plain\n"
            'body = {\n  "to": "{destination_e164}",\n  "text": "{text}"\n  }\n'
            "content_type = application/json; charset=utf-8\n"
            "success_statuses = 200, 202\n"
            'success_pattern = "status": *"(ok|queued)"\n'
            f"username = me\npassword = {CANARY}\nca_file = {ca_file}\noriginator = 12345\n",
        )
    ).sms_gateways
    assert gateway.url == "https://sms.example.org/{destination}/send?from={originator}&x=%7B"
    assert gateway.method == "PUT"
    assert gateway.headers == (("X-Api-Key", "k, e = y"), ("Accept", "text/plain"))
    assert gateway.body == '{\n"to": "{destination_e164}",\n"text": "{text}"\n}'
    assert gateway.content_type == "application/json; charset=utf-8"
    assert gateway.success_statuses == (200, 202)
    assert gateway.success_pattern == re.compile('"status": *"(ok|queued)"')
    assert (gateway.username, gateway.password) == ("me", Secret(CANARY))
    assert gateway.ca_file == ca_file
    assert gateway.originator == "12345"


def test_an_openmarket_gateway(loaded):
    (gateway,) = loaded(sms("a", a=OPENMARKET)).sms_gateways
    assert gateway == OpenMarketSection(name="a", username="me", password=Secret(CANARY))
    assert gateway.base_url == "https://smsc.openmarket.com"


def test_a_twilio_gateway(loaded):
    text = f"{TWILIO}messaging_service_sid = MG0\nbase_url = https://Twilio.example/eu/\n"
    (gateway,) = loaded(sms("a", a=text)).sms_gateways
    assert gateway == TwilioSection(
        name="a",
        base_url="https://twilio.example/eu",
        account_sid=SID,
        auth_token=Secret(CANARY),
        messaging_service_sid="MG0",
    )
    assert (
        loaded(sms("a", a=TWILIO + "originator=1234567\n")).sms_gateways[0].base_url
        == "https://api.twilio.com"
    )


def test_a_log_gateway(loaded):
    (gateway,) = loaded(sms("a", a="kind = log\n")).sms_gateways
    assert gateway == LogSection(name="a")


def test_a_secret_from_a_file_of_its_own(loaded, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(f"{CANARY}\n")
    secret.chmod(0o600)
    text = f"kind = openmarket\nusername = me\npassword =\npassword_file = {secret}\n"
    config = loaded(sms("a", a=text))
    assert config.sms_gateways[0].password == Secret(CANARY)
    assert config.warnings == ()


def test_sections_of_one_name_merge(loaded):
    config = loaded(sms("a", a="kind = http\n") + "[sms   a]\nurl = https://b/\n")
    assert config.sms_gateways == (HttpSection(name="a", url="https://b/"),)


def test_the_environment_chooses_the_gateways(loaded):
    config = loaded(sms("a", a=HTTP, b="kind = log\n"), {"SYDENTISH_SMS__GATEWAYS": "b, a"})
    assert [gateway.name for gateway in config.sms_gateways] == ["b", "a"]


def test_no_repr_shows_what_could_be_secret(loaded):
    config = loaded(
        sms(
            "a",
            "b",
            "c",
            a=f"kind = http\nurl = https://a/?key={CANARY}\nheaders = X-Key: {CANARY}\nbody = {CANARY}\n"
            f"username = me\npassword = {CANARY}\n",
            b=OPENMARKET,
            c=f"{TWILIO}originator = Example\n",
        )
    )
    assert len(config.sms_gateways) == 3
    assert CANARY not in f"{config} {config!r}"


KINDS = "http, openmarket, twilio, log"
URL = (
    "must be an absolute URL such as https://sms.example.org/send, without user and fragment, in ASCII; "
    "{destination}, {destination_e164}, {originator} and {text} may stand in its path and query"
)


# The section begins in line 6.
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", [f"6: [sms a] kind: must be set, to one of {KINDS}"]),
        ("url = https://a/\n", [f"6: [sms a] kind: must be set, to one of {KINDS}"]),
        ("kind = nexmo\n", [f"7: [sms a] kind: must be one of {KINDS}"]),
        ("kind =\n", [f"7: [sms a] kind: must be one of {KINDS}"]),
        ("kind = http\n", ["6: [sms a] url: must be set, for example to https://sms.example.org/send"]),
        (
            "kind = http\nurl =\n",
            ["8: [sms a] url: must be set, for example to https://sms.example.org/send"],
        ),
        (
            "kind = openmarket\n",
            [
                "6: [sms a] username: must be set, for example to me",
                "6: [sms a] password: must be set, or else password_file",
            ],
        ),
        (
            "kind = twilio\nauth_token =\nmessaging_service_sid = MG0\n",
            [
                f"6: [sms a] account_sid: must be set, for example to {SID}",
                "8: [sms a] auth_token: must be set, or else auth_token_file",
            ],
        ),
        (
            f"{HTTP}usrname = me\n",
            ["9: [sms a] usrname: is no option of the kind http; did you mean username?"],
        ),
        (f"{HTTP}zzz = 1\n", ["9: [sms a] zzz: is no option of the kind http"]),
        (
            f"{HTTP}auth_token = x\n",
            ["9: [sms a] auth_token: is no option of the kind http; it belongs to the kind twilio"],
        ),
        (
            "kind = log\noriginator = Example\n",
            [
                "8: [sms a] originator: is no option of the kind log; it belongs to the kind http or openmarket or twilio"
            ],
        ),
        (f"{HTTP}username = me\n", ["9: [sms a] username: needs password or password_file beside it"]),
        (f"{HTTP}password = x\n", ["9: [sms a] password: needs username beside it"]),
        (
            (
                f"{HTTP}method = DELETE\nsuccess_statuses = 99\nsuccess_pattern = (\nheaders =\n X-A: b\n oops\n"
                "originator = 1\n"
            ),
            [
                "9: [sms a] method: must be one of POST, PUT, PATCH, GET",
                "10: [sms a] success_statuses: `99` must be a whole number from 200 to 599",
                "11: [sms a] success_pattern: must be a regular expression of Python",
                "12: [sms a] headers: must have a header such as X-Name: value on each line; number 2 is none",
                (
                    "15: [sms a] originator: must be a telephone number with its country code, a short code of 3 to 6 "
                    "digits, or a name of up to 11 letters, digits, blanks and &+._- with a letter in it"
                ),
            ],
        ),
        (
            f"{HTTP}content_type =\n",
            ["9: [sms a] content_type: must be one line of printable text"],
        ),
        (
            f"{OPENMARKET}base_url = smsc.openmarket.com\n",
            [
                (
                    "10: [sms a] base_url: must be an absolute URL such as https://smsc.openmarket.com, "
                    "without user, query and fragment"
                )
            ],
        ),
        (
            "kind = twilio\naccount_sid = ../x\nauth_token = x\noriginator = Example\n",
            [f"8: [sms a] account_sid: must be letters and digits, such as {SID}"],
        ),
        (TWILIO, ["6: [sms a] messaging_service_sid: must be set, or else originator, here or in [sms]"]),
        ("kind = http\nkind = log\n", None),
        (
            f'{HTTP}ca_file = "/no/such"\n',
            [
                (
                    "9: [sms a] ca_file: must be a readable file: No such file or directory; "
                    "quotes belong to the value: take them away"
                )
            ],
        ),
    ],
)
def test_what_is_wrong(problems, text, wrong):
    told = problems(sms("a", a=text))
    if wrong is None:
        assert "8: [sms a] kind: is set twice, in line 7 and in line 8: keep one of them" in told
    else:
        assert told == wrong


@pytest.mark.parametrize(
    "url",
    [
        "sms.example.org",
        "ftp://sms.example.org/",
        "https://me@sms.example.org/",
        "https://sms.example.org/#x",
        "https://sms.example.org/a b",
        "https://sms.example.org/?t={txt}",
        "https://sms.example.org/{",
        "https://sms.example.org/?t=\u00e9",
        "https://{originator}.example.org/",
        "https://{originator}",
        "{text}://sms.example.org/",
    ],
)
def test_what_is_no_url_of_a_gateway(problems, url):
    assert problems(sms("a", a=f"kind = http\nurl = {url}\n")) == [f"8: [sms a] url: {URL}"]


def test_a_secret_and_its_file(problems, tmp_path):
    (tmp_path / "secret").write_text("x")
    assert problems(sms("a", a=f"{OPENMARKET}password_file = {tmp_path / 'secret'}\n")) == [
        "10: [sms a] password_file: give either password or password_file, not both"
    ]
    assert problems(sms("a", a=f"{HTTP}password_file = {tmp_path / 'secret'}\n")) == [
        "9: [sms a] password_file: needs username beside it"
    ]
    assert problems(sms("a", a=f"kind = openmarket\nusername = me\npassword_file = {tmp_path}\n")) == [
        "9: [sms a] password_file: must be a readable file: Is a directory"
    ]


@pytest.mark.parametrize("section", ["[sms a b]", "[sms a/b]", "[sms \u00e4]"])
def test_names_that_no_provider_can_have(problems, section):
    assert problems(f"{section}\nkind = log\n") == [
        f"4: {section}: must be [sms NAME]; the NAME must be a name of letters, digits, _, - and ."
    ]


def test_gateways_without_a_section(problems):
    assert problems(sms("a", "b", "c", b="kind = log\n")) == [
        "5: [sms] gateways: `a` has no section: describe that gateway in [sms a]",
        "5: [sms] gateways: `c` has no section: describe that gateway in [sms c]",
    ]


def test_gateways_of_the_environment_without_a_section(tmp_path):
    environ = {
        "SYDENTISH_GENERAL__SERVER_NAME": "example.org",
        "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
        "SYDENTISH_SMS__GATEWAYS": "a",
    }
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    message = "[sms] gateways: `a` has no section: describe that gateway in [sms a]"
    assert str(caught.value) == f"environment: {message}"
    # Whether a file that cannot be read has the section is not known.
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environ)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_wrong_gateway_is_told_whether_it_is_used_or_not(problems):
    assert problems("[sms a]\nkind = http\n") == [
        "4: [sms a] url: must be set, for example to https://sms.example.org/send"
    ]


def test_a_provider_twice(problems):
    assert problems(sms("a", "a", a="kind = log\n")) == ["5: [sms] gateways: must have each item once"]


@pytest.mark.parametrize(
    ("option", "home"),
    [
        ("url = https://a/", "[sms NAME] or [peer NAME]"),
        ("kind = http", "[sms NAME]"),
        ("ca_file = /a.pem", "[homeservers] or [replication] or [sms NAME]"),
    ],
)
def test_options_of_gateways_elsewhere_are_sent_home(problems, option, home):
    key = option.partition(" ")[0]
    assert problems(f"[sms]\n{option}\n") == [
        f"5: [sms] {key}: is no option of this section; it belongs into {home}"
    ]


def test_no_environment_variable_reaches_a_gateway(problems):
    (problem,) = problems(sms("a", a=HTTP), {"SYDENTISH_SMS_A__PASSWORD": "x"})
    assert problem.startswith("environment: SYDENTISH_SMS_A__PASSWORD: is no option")


def test_twilio_takes_its_originator_from_sms(loaded):
    assert len(loaded(f"[sms]\noriginator = Example\n{sms('a', a=TWILIO)}").sms_gateways) == 1


def test_originators_of_some_countries_are_not_enough_for_twilio(problems):
    (problem,) = problems(f"[sms]\noriginators = GB:Example\n{sms('a', a=TWILIO)}")
    assert problem.endswith("messaging_service_sid: must be set, or else originator, here or in [sms]")


def test_where_sms_is_wrong_twilio_is_not_told_to_lack_what_it_says(problems):
    (problem,) = problems(f"[sms]\noriginator = 1\n{sms('a', a=TWILIO)}")
    assert problem.startswith("5: [sms] originator: must be a telephone number")


@pytest.mark.parametrize(
    "text",
    [
        f"kind = http\nurl = https://u:{CANARY}@a/\n",
        f"kind = http\nurl = https://a/?key={CANARY}#x\n",
        f"{HTTP}headers = X-Api-Key {CANARY}\n",
        f"{HTTP}headers = X-Api-Key: {CANARY}\u00e9\n",
        f"{HTTP}password = {CANARY}\n",
        f"{HTTP}success_pattern = ({CANARY}\n",
        f"kind = twilio\naccount_sid = {SID}\nauth_token = {CANARY}\u200b\noriginator = Example\n",
        f"kind = {CANARY}\n",
    ],
)
def test_no_problem_repeats_a_secret(problems, text):
    assert CANARY not in "\n".join(problems(sms("a", a=text)))


def warnings(config):
    return [(warning.line, warning.section, warning.key) for warning in config.warnings]


def test_gateways_that_are_not_used_are_told(loaded):
    config = loaded(sms("a", a=HTTP, b="kind = log\n", c=TWILIO))
    assert [str(warning).partition(":")[2] for warning in config.warnings] == [
        "9: [sms b]: is not used: [sms] gateways does not name b",
        "11: [sms c]: is not used: [sms] gateways does not name c",
    ]


def test_a_gateway_without_any_provider_is_told_to_be_named(loaded):
    (warning,) = loaded("[sms main]\nkind = log\n").warnings
    assert str(warning).partition(":")[2] == (
        "4: [sms main]: is not used, and no telephone number can be validated: set [sms] gateways = main"
    )


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        ("[sms-main]", "[sms main]"),
        ("[SMS main]", "[sms main]"),
        ("[sms_a.b]", "[sms a.b]"),
        ("[policy:terms]", "[policy terms]"),
        ("[emial]", "email"),
    ],
)
def test_what_a_section_was_perhaps_meant_to_be(problems, section, meant):
    assert problems(f"{section}\nkind = log\n") == [f"4: {section}: is no section; did you mean {meant}?"]


BODY = 'body = {"from": "{originator}", "to": "{destination}", "text": "{text}"}\n'
LACKS = "has {originator}: set originator, here or in [sms]"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (f"{HTTP}{BODY}", [f"9: [sms a] body: {LACKS}"]),
        ("kind = http\nurl = https://a/?from={originator}\n", [f"8: [sms a] url: {LACKS}"]),
        (f"{HTTP}{BODY}originator =\n", [f"9: [sms a] body: {LACKS}"]),
        (
            f"{HTTP}{BODY}usrname = x\n",
            [
                f"9: [sms a] body: {LACKS}",
                "10: [sms a] usrname: is no option of the kind http; did you mean username?",
            ],
        ),
    ],
)
def test_a_gateway_that_is_told_an_originator_needs_one(problems, loaded, text, wrong):
    assert problems(sms("a", a=text)) == wrong
    if "usrname" not in text:
        assert loaded(f"[sms]\noriginator = Example\n{sms('a', a=text)}").sms_gateways
        # Which is not used needs none.
        assert loaded(sms("b", a=text, b="kind = log\n")).sms_gateways
    assert problems(f"[sms]\noriginators = GB:Example\n{sms('a', a=text)}")


def test_one_mistake_of_a_gateway_hides_no_other(problems):
    text = f"{HTTP}username = me\nmethod = DELETE\nheaders =\n oops\n X-A: b\n more\n"
    assert problems(sms("a", a=text)) == [
        "9: [sms a] username: needs password or password_file beside it",
        "10: [sms a] method: must be one of POST, PUT, PATCH, GET",
        "11: [sms a] headers: must have a header such as X-Name: value on each line; number 1 is none, number 3 is none",
    ]


def test_where_things_stand_is_known_for_later(loaded, conf):
    places = loaded(sms("a", a=HTTP), {"SYDENTISH_SMS__TIMEOUT": "5s"}).places
    assert [
        str(places.problem(section, key, "x")).removeprefix(f"{conf}:")
        for section, key in (
            *(("sms a", "url"), ("sms a", "url, body"), ("sms a", "body"), ("sms a", None)),
            *(("sms", "timeout"), ("log", "file")),
        )
    ] == [
        *("8: [sms a] url: x", "8: [sms a] url, body: x", "6: [sms a] body: x", "6: [sms a]: x"),
        *("environment: [sms] timeout: x", " [log] file: x"),
    ]
    assert CANARY not in repr(loaded(sms("a", a=OPENMARKET)).places)


def test_writing_codes_to_the_log_is_told(loaded):
    config = loaded(sms("a", a="kind = log\n"))
    assert warnings(config) == [(7, "sms a", "kind")]
    assert "development only" in config.warnings[0].message


def test_plain_http_is_told(loaded):
    config = loaded(
        sms(
            "a",
            "b",
            a="kind = http\nurl = HTTP://127.0.0.1:1/\n",
            b=f"{OPENMARKET}base_url = http://127.0.0.1:2\n",
        )
    )
    assert warnings(config) == [(8, "sms a", "url"), (13, "sms b", "base_url")]


def test_what_others_can_read_is_told(conf, loaded, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x\n")
    secret.chmod(0o644)
    text = sms(
        "a",
        "b",
        "c",
        a=f"{HTTP}headers = X-Api-Key: x\nbody = hello\n",
        b=OPENMARKET,
        c=f"kind = http\nurl = https://a/?token=x\nusername = me\npassword_file = {secret}\n",
    )
    assert warnings(loaded(text)) == [(19, "sms c", "password_file")]
    conf.chmod(0o644)
    assert warnings(load(conf, {})) == [
        (9, "sms a", "headers"),
        (14, "sms b", "password"),
        (17, "sms c", "url"),
        (19, "sms c", "password_file"),
    ]


def test_a_ca_file_that_everybody_can_change_is_told(loaded, tmp_path):
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    ca_file.chmod(0o666)
    assert warnings(loaded(sms("a", a=f"{HTTP}ca_file = {ca_file}\n"))) == [(9, "sms a", "ca_file")]
