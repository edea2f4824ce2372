"""Who may come in, invitations and budgets: their defaults, what they mean together, and what is told of them."""

import ipaddress

import pytest

from sydentish.config import V1_ENDPOINTS, Secret
from sydentish.config.declare import declarations
from sydentish.config.sections import Budgets
from sydentish.domain.ratelimit import Rate

HOUR, DAY = 3_600_000, 86_400_000


def warnings(config):
    return [(warning.line, warning.section, warning.key) for warning in config.warnings]


def test_defaults(loaded):
    config = loaded("")
    http, sms, invites = config.http, config.sms, config.invites
    assert (http.internal_listeners, http.internal_token, http.internal_body_limit) == (
        (),
        None,
        64 * 1024**2,
    )
    assert http.trusted_proxies == ()
    assert http.v1_endpoints == {
        "status",
        "pubkey",
        "sign-ed25519",
        "submit-links",
        "validate/msisdn",
        "getValidated3pid",
    }
    assert http.v1_trusted_networks == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))
    assert (sms.allowed_countries, sms.rejected_countries, sms.originator) == ((), (), None)
    assert (dict(sms.originators), sms.strict_numbers, sms.timeout) == ({}, False, 20_000)
    assert (invites.enabled, invites.lifetime, invites.retry_for) == (True, 90 * DAY, 14 * DAY)
    assert (invites.web_client, invites.web_clients_allowed) == ("https://app.element.io", ())
    assert (invites.shown_characters, invites.policy_dry_run) == (3, False)
    assert (invites.blocked_rooms, invites.blocked_homeservers, invites.blocked_words) == ((), (), ())


USERS = ("mails_per_account", "sms_per_account", "invitations_per_sender")
TARGETS = ("mails_per_address", "sms_per_number", "invitations_per_address")
SOURCES = ("mails_per_source", "sms_per_source", "v1_requests_per_source")
HOMESERVERS = ("mails_per_homeserver", "sms_per_homeserver", "invitations_per_homeserver")


def test_every_budget_is_on_by_default(loaded):
    budgets = loaded("").budgets
    assert all(getattr(budgets, name) is not None for name, _ in declarations(Budgets))


def test_nobody_alone_gets_sixty_at_once_by_default(loaded):
    budgets = loaded("").budgets
    assert all(0 < getattr(budgets, name).count < 60 for name in (*USERS, *TARGETS, *SOURCES))


def test_a_homeserver_gets_ten_times_what_a_user_gets_by_default(loaded):
    def per_day(rate):
        return rate.count * DAY / rate.period_ms

    budgets = loaded("").budgets
    for user, homeserver in zip(USERS, HOMESERVERS, strict=True):
        assert per_day(getattr(budgets, homeserver)) >= 10 * per_day(getattr(budgets, user))
        assert getattr(budgets, homeserver).count >= 10 * getattr(budgets, user).count
    assert min(budgets.registrations_per_homeserver.count, budgets.registrations_per_source.count) >= 600


def test_at_least_fifty_guesses_a_day_are_judged_by_default(loaded):
    rate = loaded("").budgets.guesses_per_address
    assert rate.count >= 50
    assert rate.count * DAY / rate.period_ms >= 50


def test_every_option_of_them(loaded):
    config = loaded(
        "[http]\ninternal_listeners = unix:/run/a.sock\n  tcp:0:interface=127.0.0.1\ninternal_token = s3cret\n"
        "internal_body_limit = off\ntrusted_proxies = 10.0.0.0/8, unix\nv1_endpoints = all\n"
        "v1_trusted_networks = unix, 192.0.2.1\n"
        "[sms]\nallowed_countries = gb, de\nrejected_countries = fr\noriginator = +447700900001\n"
        "originators = DE:Example\nstrict_numbers = yes\ntimeout = 5s\n"
        "[invites]\nenabled = no\nlifetime = 1d\nweb_client = https://chat.example.org/\n"
        "web_clients_allowed = https://a.example/x, *\nshown_characters = 0\nblocked_rooms = !a:b, !c\n"
        "blocked_homeservers = *.example.net, Example.net\nblocked_words = lottery, Free money\n"
        "policy_dry_run = yes\nretry_for = 1h\n"
        "[budgets]\nsms_per_number = 1/10m\nmails_per_account = off\n"
    )
    http, sms, invites, budgets = config.http, config.sms, config.invites, config.budgets
    assert http.internal_listeners == ("unix:/run/a.sock:mode=660", "tcp:0:interface=127.0.0.1")
    assert (http.internal_token, http.internal_body_limit) == (Secret("s3cret"), None)
    assert http.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), "unix")
    assert http.v1_endpoints == set(V1_ENDPOINTS)
    assert http.v1_trusted_networks == ("unix", ipaddress.ip_network("192.0.2.1"))
    assert (sms.allowed_countries, sms.rejected_countries) == (("GB", "DE"), ("FR",))
    assert (sms.originator, sms.originators) == ("+447700900001", {"DE": "Example"})
    assert (sms.strict_numbers, sms.timeout) == (True, 5000)
    assert (invites.enabled, invites.lifetime, invites.retry_for) == (False, DAY, HOUR)
    assert invites.web_client == "https://chat.example.org"
    assert invites.web_clients_allowed == ("https://a.example/x", "*")
    assert (invites.shown_characters, invites.policy_dry_run) == (0, True)
    assert invites.blocked_rooms == ("!a:b", "!c")
    assert invites.blocked_homeservers == ("*.example.net", "example.net")
    assert invites.blocked_words == ("lottery", "Free money")
    assert (budgets.sms_per_number, budgets.mails_per_account) == (Rate(1, 600_000), None)
    assert config.warnings == ()


def test_an_internal_token_from_a_file_or_the_environment(loaded, tmp_path):
    (tmp_path / "token").write_text("s3cret==\n")
    assert loaded(f"[http]\ninternal_token_file = {tmp_path / 'token'}\n").http.internal_token == Secret(
        "s3cret=="
    )
    config = loaded("", {"SYDENTISH_HTTP__INTERNAL_TOKEN": "s3cret"})
    assert config.http.internal_token == Secret("s3cret")


def test_a_token_that_no_header_can_carry(problems, tmp_path):
    (tmp_path / "token").write_text("pass word")
    for option in ("internal_token = pass word", f"internal_token_file = {tmp_path / 'token'}"):
        (problem,) = problems(f"[http]\n{option}\n")
        assert problem.endswith(": must have only letters, digits and -._~+/, and = at its end")
        assert "pass word" not in problem


def test_the_internal_api_is_for_this_machine(problems):
    (problem,) = problems("[http]\ninternal_listeners = tcp:8091\n")
    assert problem.startswith(
        "5: [http] internal_listeners: `tcp:8091` must be a unix socket or have a loopback "
    )


@pytest.mark.parametrize("value", ["off", "0", "49/1d", "10/1h"])
def test_the_budget_of_guesses_cannot_be_switched_off(problems, value):
    (problem,) = problems(f"[budgets]\nguesses_per_address = {value}\n")
    assert problem.startswith("5: [budgets] guesses_per_address: must be ")


@pytest.mark.parametrize("endpoints", ["none", "", "status, pubkey"])
def test_the_links_of_invitation_mails_must_lead_somewhere(problems, loaded, endpoints):
    text = f"[http]\nv1_endpoints = {endpoints}\n"
    assert problems(text) == [
        (
            "5: [http] v1_endpoints: must have sign-ed25519, which the links of invitation mails lead to; "
            "or set [invites] enabled to no"
        )
    ]
    config = loaded(f"{text}[invites]\nenabled = no\n")
    assert "sign-ed25519" not in config.http.v1_endpoints
    assert loaded("[http]\nv1_endpoints = sign-ed25519\n").http.v1_endpoints == {"sign-ed25519"}


def test_signing_is_not_asked_for_where_it_is_not_known_what_is_meant(problems):
    (problem,) = problems("[http]\nv1_endpoints = none\n[invites]\nenabled = perhaps\n")
    assert problem == "7: [invites] enabled: must be yes or no"
    (problem,) = problems("[http]\nv1_endpoints = signing\n")
    assert problem.startswith("5: [http] v1_endpoints: `signing` must be one of status, ")


def test_a_plain_web_client_is_told(loaded):
    text = "[invites]\nweb_client = http://chat.example.org\n"
    assert warnings(loaded(text)) == [(5, "invites", "web_client")]
    assert warnings(loaded(f"{text}enabled = no\n")) == []


@pytest.mark.parametrize(
    ("listener", "told"),
    [
        ("tcp:8091:interface=127.0.0.1", True),
        (r"tcp6:8091:interface=\:\:1", True),
        ("unix:/run/a.sock:mode=666", True),
        ("unix:/run/a.sock", False),
        ("unix:/run/a.sock:mode=600", False),
        ("unix:/run/a.sock\n  tcp:8091:interface=127.0.0.1", True),
    ],
)
def test_an_internal_api_for_everybody_on_the_machine_is_told(loaded, listener, told):
    text = f"[http]\ninternal_listeners = {listener}\n"
    assert warnings(loaded(text)) == ([(5, "http", "internal_listeners")] if told else [])
    assert warnings(loaded(f"{text}internal_token = s3cret\n")) == []


@pytest.mark.parametrize("key", ["trusted_proxies", "v1_trusted_networks"])
def test_trusting_everybody_is_told(loaded, key):
    assert warnings(loaded(f"[http]\n{key} = unix, 10.0.0.0/8\n")) == []
    for everybody in ("0.0.0.0/0", "::/0"):
        assert warnings(loaded(f"[http]\n{key} = unix, {everybody}\n")) == [(5, "http", key)]


def test_a_country_that_is_both_allowed_and_rejected_is_told(loaded):
    config = loaded("[sms]\nallowed_countries = GB, DE\nrejected_countries = de, FR\n")
    assert warnings(config) == [(6, "sms", "rejected_countries")]
    assert config.warnings[0].message == "DE is allowed, too: what is rejected here wins"


@pytest.mark.parametrize(
    ("http", "told"),
    [
        ("", True),
        ("[http]\nlisteners = unix:/run/id.sock\n", True),
        ("[http]\ntrusted_proxies = ::1\n", False),
        ("[http]\nlisteners =\n  tcp:8090:interface=127.0.0.1\n  tcp:8091\n", False),
    ],
)
def test_a_proxy_that_may_make_everybody_look_local_is_told_where_sms_are_sent(loaded, http, told):
    config = loaded(f"{http}[sms]\ngateways = a\n[sms a]\nkind = http\nurl = https://sms.example.org/send\n")
    assert [("trusted_proxies" in warning) for warning in warnings(config)] == [True] * told
    assert warnings(loaded(http)) == []


def test_two_listeners_in_one_place_are_told_with_both_lines(problems):
    assert problems(
        "[http]\nlisteners =\n  unix:/run/a.sock\n  tcp:8090\n"
        "internal_listeners = tcp:8090:interface=127.0.0.1\n"
        "metrics_listeners = unix:/run/a.sock:mode=600\n"
    ) == [
        f"{where} is taken by listeners in line 5: give each an address of its own"
        for where in (
            "8: [http] internal_listeners: `tcp:8090:interface=127.0.0.1`",
            "9: [http] metrics_listeners: `unix:/run/a.sock:mode=600`",
        )
    ]


def test_a_listener_in_the_place_of_the_one_that_is_there_at_first(problems):
    (problem,) = problems("[http]\nmetrics_listeners = tcp:8090\n")
    assert "`tcp:8090` is taken by listeners at its default: " in problem


def test_one_listener_twice(problems):
    (problem,) = problems("[http]\nlisteners =\n  tcp:1\n  tcp:1\n")
    assert problem.startswith("5: [http] listeners: `tcp:1` is taken by listeners in line 5: ")


def test_listeners_that_are_wrong_collide_with_nothing(problems):
    (problem,) = problems("[http]\nlisteners = tcp\nmetrics_listeners = tcp:8090\n")
    assert problem.startswith("5: [http] listeners: `tcp` must have arguments")
