"""What `import-sydent` makes of a Sydent's configuration: every option, and that what is made can be used."""

import re
import subprocess

import pytest
from daemons import COMMAND, SECONDS
from standins.certificates import Authority
from sydent_files import NAME, PEER, SydentFile, configuration
from unpaddedbase64 import encode_base64

from sydentish.cli.sydent import templates
from sydentish.cli.sydent.old import OldConfig, OldConfigProblem
from sydentish.cli.sydent.signing import read_key
from sydentish.cli.sydent.writing import Translation
from sydentish.config import load
from sydentish.domain.takeover import OldPeer

REFUSED = 78
SENDER_LIMIT = """
[general]
server.name = a.org
[email]
email.ratelimit_sender.rate_hz = 1
email.ratelimit_sender.burst = """
TERMS = """
master_version: "1"
docs:
  good:
    version: "1"
    langs:
      en: {name: Good, url: "https://example.org/good"}
  bad:
    version: "1"
    langs:
      en: {name: Bad, url: "nowhere"}
      de: {name: Schlecht, url: "nirgends"}
"""


class Old:
    """A Sydent's configuration, and what becomes of it."""

    def __init__(self, folder):
        self.folder = folder
        self.file = SydentFile(folder / "sydent.db")
        self.path = folder / "sydent.conf"
        self.new = folder / "sydentish.conf"
        self.environ = {}
        self.says()

    def says(self, text="", **sections):
        self.path.write_text(configuration(self.file, **sections) + text)
        return self

    def read(self):
        return OldConfig(self.path, self.environ)

    def translated(self, peers=(), url=None):
        """The translation, and the configuration that was read from what it writes."""
        found = Translation(self.read(), list(peers), self.folder / "data", url)
        found.settle(self.folder)
        found.write(self.new)
        return found.draft, load(self.new, {})

    def notes(self, kind, peers=()):
        draft, _ = self.translated(peers)
        return {each.source: each.told for each in draft.of_kind(kind)}


@pytest.fixture
def old(tmp_path):
    return Old(tmp_path)


def test_what_a_sydent_does_without_being_told_is_done_here_too(old):
    _, config = old.translated()

    assert config.general.server_name == NAME
    assert config.general.public_base_url == "https://matrix.example.org"
    assert config.http.listeners == ("tcp6:8090",)
    assert (config.email.smtp_host, config.email.smtp_port, config.email.smtp_security) == (
        "localhost",
        25,
        "plain",
    )
    assert config.lookup.max_addresses == 10_000
    assert (
        config.http.internal_listeners == config.http.metrics_listeners == config.replication.listeners == ()
    )
    assert config.sms.gateways == ()


def test_what_it_is_told_is_done_here_too(old):
    old.says(
        general={
            "address_lookup_limit": "500",
            "ip.blacklist": "10.0.0.0/8, 192.168.0.0/16",
            "ip.whitelist": "10.1.0.0/16",
            "homeserver_allow_list": "hs.example.org, other.example.org",
            "enable_v1_access": "false",
            "log.level": "WARNING",
            "prometheus_port": "9100",
            "prometheus_addr": "127.0.0.1",
        },
        http={
            "clientapi.http.bind_address": "127.0.0.1",
            "clientapi.http.port": "8091",
            "internalapi.http.port": "8092",
            "obey_x_forwarded_for": "true",
            "federation.verifycerts": "false",
        },
        email={
            "email.from": "Us <noreply@example.org>",
            "email.smtphost": "mail.example.org",
            "email.smtpport": "465",
            "email.tlsmode": "TLS",
            "email.smtpusername": "me",
            "email.smtppassword": "s%%cret",
            "email.default_web_client_location": "https://chat.example.org",
            "email.third_party_invite_username_obfuscate_characters": "5",
            "email.third_party_invite_domain_obfuscate_characters": "2",
            "email.third_party_invite_homeserver_blocklist": "\n  evil.example.org\n  bad.example.org",
            "email.third_party_invite_room_blocklist": "\n  !room:example.org",
            "email.third_party_invite_keyword_blocklist": "\n  casino\n  a, b",
            "email.ratelimit_sender.burst": "5",
            "email.ratelimit_sender.rate_hz": "0.01",
        },
        sms={
            "username": "sms-me",
            "password": "sms-secret",
            "originators.44": "long:447700900001, alpha:Chat",
            "originators.default": "alpha:Us",
            "smsrule.49": "reject",
            "smsrule.44": "allow",
        },
    )
    draft, config = old.translated()

    assert config.lookup.max_addresses == 500
    assert [str(each) for each in config.homeservers.blocked_addresses] == ["10.0.0.0/8", "192.168.0.0/16"]
    assert [str(each) for each in config.homeservers.allowed_addresses] == ["10.1.0.0/16"]
    assert set(config.homeservers.allow) == {"hs.example.org", "other.example.org"}
    assert config.homeservers.verify_tls is False
    assert config.http.v1_endpoints == {"status", "pubkey", "sign-ed25519", "submit-links"}
    assert config.http.listeners == ("tcp:8091:interface=127.0.0.1",)
    assert config.http.internal_listeners == ("tcp6:8092:interface=\\:\\:1",)
    assert config.http.metrics_listeners == ("tcp:9100:interface=127.0.0.1",)
    assert [str(each) for each in config.http.trusted_proxies] == ["127.0.0.1/32", "::1/128"]
    assert config.log.level == "warning"
    email = config.email
    assert (email.sender, email.smtp_host, email.smtp_port) == (
        "Us <noreply@example.org>",
        "mail.example.org",
        465,
    )
    assert (email.smtp_security, email.smtp_username, email.smtp_password.reveal()) == ("tls", "me", "s%cret")
    invites = config.invites
    assert (invites.web_client, invites.shown_characters) == ("https://chat.example.org", 2)
    assert invites.blocked_homeservers == ("evil.example.org", "bad.example.org")
    assert (invites.blocked_rooms, invites.blocked_words) == (("!room:example.org",), ("casino",))
    assert (config.budgets.invitations_per_sender.count, config.budgets.invitations_per_sender.period_ms) == (
        5,
        500_000,
    )
    assert config.sms.gateways == ("openmarket",)
    (gateway,) = config.sms_gateways
    assert (gateway.username, gateway.password.reveal()) == ("sms-me", "sms-secret")
    assert config.sms.originator == "Us"
    assert config.sms.originators["GB"] == "447700900001"
    assert config.sms.rejected_countries == ("DE",)
    assert "cret" not in str([each.to_json() for each in draft.settings])


def test_the_written_file_passes_check_config_and_says_where_each_setting_comes_from(old):
    authority = Authority()
    authority.issue("localhost", common_name=NAME).write(old.folder / "tls.pem")
    (old.folder / "tls.pem").chmod(0o600)
    authority.write_ca(old.folder / "ca.pem")
    old.says(
        f"[peer.{PEER}]\nbase_replication_url = https://{PEER}:4434/\n",
        http={"replication.https.certfile": "tls.pem", "replication.https.cacert": "ca.pem"},
    )
    old.file.add_peer(sent=3)
    arguments = ["--config", old.path, "--out", old.new, "--data-dir", old.folder / "data"]
    taken, checked = (
        subprocess.run([COMMAND, *each], capture_output=True, text=True, timeout=SECONDS, check=False)
        for each in (["import-sydent", *arguments], ["check-config", "-c", old.new])
    )
    text = old.new.read_text()
    config = load(old.new, {})

    assert (taken.returncode, checked.returncode) == (0, 0), taken.stderr + checked.stderr
    assert checked.stdout == f"{old.new}: ok\n"
    assert config.peers[0].name == PEER
    assert config.replication.listeners == ("tcp6:4434",)
    settings = re.findall(r"^(?P<before>.*)\n#?(?P<key>[a-z_.0-9]+) = ", text, re.MULTILINE)
    assert len(settings) > 15
    assert all(before.startswith("# ") for before, _ in settings)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"email": {"email.from": "nobody at all"}}, "[email] email.from"),
        ({"email": {"email.smtpport": "x"}}, "[email] email.smtpport"),
        (
            {"email": {"email.default_web_client_location": "chat"}},
            "[email] email.default_web_client_location",
        ),
        ({"email": {"email.smtpusername": "me"}}, "[email] email.smtpusername"),
        ({"general": {"ip.blacklist": "10.0.0.1/8"}}, "[general] ip.blacklist"),
        ({"general": {"address_lookup_limit": "many"}}, "[general] address_lookup_limit"),
        (
            {"http": {"internalapi.http.port": "8092", "internalapi.http.bind_address": "0.0.0.0"}},
            "[http] internalapi.http.bind_address, internalapi.http.port",
        ),
        ({"sms": {"username": "me"}}, "[sms] password"),
        ({"sms": {"originators.default": "alpha:much too long for one"}}, "[sms] originators.default"),
        (
            {"http": {"replication.https.certfile": "none.pem", "replication.https.cacert": "none.pem"}},
            "[http] replication.https.certfile",
        ),
        (
            {"email": {"email.third_party_invite_room_blocklist": "\n  room"}},
            "[email] email.third_party_invite_room_blocklist",
        ),
    ],
)
def test_what_is_not_accepted_here_stands_there_as_a_comment_with_the_reason(old, sections, key):
    decisions = old.says(**sections).notes("decision")

    assert "not taken: " in decisions[key]


def test_two_mistakes_in_one_policy_leave_the_others(old):
    (old.folder / "terms.yaml").write_text(TERMS)
    draft, config = old.says(general={"terms.path": "terms.yaml"}).translated()
    decisions = {each.source: each.told for each in draft.of_kind("decision")}

    assert [policy.policy_id for policy in config.policies.policies] == ["good"]
    assert "not taken: must be" in decisions["bad, en"]
    assert "not taken: " in decisions["bad, de"]
    assert "#[policy bad]\n" in old.new.read_text()


def test_two_mistakes_in_the_account_of_a_gateway_leave_it_out(old):
    old.says(sms={"username": "a\n  b", "password": "c\n  d", "originators.default": "alpha:Us"})
    _, config = old.translated()

    assert (config.sms.gateways, config.sms_gateways) == ((), ())
    assert config.sms.originator == "Us"


@pytest.mark.parametrize(("burst", "rate"), [("0.5", "1"), ("5", "0"), ("5", "-1"), ("5", "1e-310")])
def test_a_budget_that_makes_no_sense_is_to_be_looked_at(old, burst, rate):
    limit = {"email.ratelimit_sender.burst": burst, "email.ratelimit_sender.rate_hz": rate}
    decisions = old.says(email=limit).notes("decision")

    told = decisions["[email] email.ratelimit_sender.burst, email.ratelimit_sender.rate_hz"]
    assert told.startswith("lets nothing through, or everything")


def test_a_peer_whose_certificate_cannot_be_used_stands_there_as_a_comment(old):
    old.says(http={"replication.https.certfile": "none.pem", "replication.https.cacert": "none.pem"})
    peer = OldPeer(PEER, None, 5, is_active=True, key="ab" * 32)
    _, config = old.translated([peer])

    assert config.peers == ()
    assert f"#url = https://{PEER}:1001\n" in old.new.read_text()


@pytest.mark.parametrize(
    "peer",
    [
        OldPeer("bad name", None, 0, is_active=True, key="ab" * 32),
        OldPeer(PEER, None, 0, is_active=True, key="short"),
        OldPeer("with.path.example.net", None, 0, is_active=True, key="ab" * 32),
    ],
)
def test_a_peer_that_cannot_be_one_here_is_named(old, peer):
    old.says(
        "[peer.with.path.example.net]\nbase_replication_url = https://with.path.example.net/x/\n",
        http={"replication.https.certfile": "tls.pem", "replication.https.cacert": "ca.pem"},
    )

    assert f"peer {peer.name} in the database" in old.notes("decision", [peer])


def test_what_has_no_place_here_is_named_with_the_reason(old):
    old.says(
        "[DEFAULT]\nspare = 1\n[odd]\nthing = 2\n",
        general={
            "pidfile.path": "x.pid",
            "sentry_dsn": "https://a@b",
            "delete_tokens_on_bind": "false",
            "old": "1",
        },
        email={"email.hostname": "mail.example.org", "email.subject": "Hello"},
    )
    dropped = old.notes("dropped")

    assert {
        f"[general] {key}" for key in ("pidfile.path", "sentry_dsn", "delete_tokens_on_bind", "old")
    } <= set(dropped)
    assert {"[email] email.hostname", "[email] email.subject", "[odd] thing", "[DEFAULT] spare"} <= set(
        dropped
    )


@pytest.mark.parametrize(
    ("section", "key", "told"),
    [
        ("http", "obey_x_forwarded_for", "no proxy is believed; see [http] trusted_proxies"),
        ("general", "enable_v1_access", "v1 is off; see [http] v1_endpoints"),
        ("http", "federation.verifycerts", "certificates are checked; see [homeservers] verify_tls"),
    ],
)
def test_a_switch_that_is_neither_true_nor_false_is_to_be_looked_at(old, section, key, told):
    source = f"[{section}] {key}"
    for value in ("maybe", ""):
        old.says(**{section: {key: value}})
        assert old.notes("decision")[source] == f"is neither true nor false: {told}"
    for value in ("On", "0"):
        old.says(**{section: {key: value}})
        assert "neither true nor false" not in old.notes("decision").get(source, "")


def test_without_a_url_there_is_a_guess_to_be_looked_at(old):
    old.says(http={"client_http_base": ""})
    _, config = old.translated()
    guess = old.notes("decision")["[http] client_http_base"]
    _, given = old.translated(url="https://is.example.org")

    assert config.general.public_base_url == f"https://{NAME}"
    assert "guess" in guess
    assert given.general.public_base_url == "https://is.example.org"


def test_defaults_come_from_the_environment_that_the_sydent_has(old):
    old.says(general={"server.name": ""})
    with pytest.raises(OldConfigProblem, match=r"server\.name: is not set"):
        old.translated()
    old.path.write_text(old.path.read_text().replace("server.name = \n", ""))
    old.environ = {"SYDENT_SERVER_NAME": "env.example.org", "SYDENT_DB_PATH": "100%.db"}

    assert old.translated()[1].general.server_name == "env.example.org"
    assert old.read().get("db", "db.file") == str(old.file.path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello\n", "MissingSectionHeaderError"),
        ("[general]\nno equals sign secret\n", "conf:2: is no configuration of a Sydent: ParsingError"),
        ("[other]\na = b\n", "it has no section of one"),
        ("[general]\nserver.name = a\nserver.name = b\n", "DuplicateOptionError"),
        ("[general]\nserver.name = %(secret)s\n", "a percent sign in it must be written twice"),
        ("[general]\nserver.name = not a name\n", "server.name: must be a server name"),
        ("[general]\nserver.name = a.org\nterms.path = none.yaml\n", "none.yaml: cannot be read"),
        *(
            (f"{SENDER_LIMIT}{number}\n", "burst: must be a number")
            for number in ("x", "inf", "nan", "1e999")
        ),
    ],
)
def test_what_is_no_configuration_is_refused_without_showing_what_stands_there(old, text, told):
    old.path.write_text(text)
    with pytest.raises(OldConfigProblem) as caught:
        old.translated()

    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(old):
    old.path.unlink()
    missing = subprocess.run(
        [COMMAND, "import-sydent", "--config", old.path, "--out", old.new],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    old.path.write_bytes(b"[general]\n\xff = 1\n")

    assert (missing.returncode, "cannot be read: No such file" in missing.stderr) == (REFUSED, True)
    with pytest.raises(OldConfigProblem, match="must be UTF-8"):
        old.read()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x: [", "is no YAML"),
        ("docs: {}", "must have master_version"),
        ("master_version: 1\ndocs: {a: {version: 1}}", "must have master_version"),
        ("- 1", "must have master_version"),
    ],
)
def test_terms_that_cannot_be_understood_are_refused(old, text, told):
    (old.folder / "terms.yaml").write_text(text)
    old.says(general={"terms.path": "terms.yaml"})
    with pytest.raises(OldConfigProblem, match=told):
        old.translated()


def test_the_signing_key_is_read_in_both_forms_that_there_have_been(old):
    modern = read_key(old.read())
    old.says(crypto={"ed25519.signingkey": bytes(old.file.key).hex()})
    first = read_key(old.read())

    assert modern.public_key == first.public_key
    assert modern.key_id == first.key_id == "ed25519:0"


@pytest.mark.parametrize("text", ["", "rubbish", "ed25519 0 short", f"rsa 0 {encode_base64(b'k' * 32)}"])
def test_a_signing_key_that_is_none_is_refused_without_showing_it(old, text):
    old.says(crypto={"ed25519.signingkey": text})
    with pytest.raises(OldConfigProblem) as caught:
        read_key(old.read())

    assert "ed25519.signingkey" in str(caught.value)
    assert not text or text not in str(caught.value)


def test_templates_are_named_with_what_they_become(old):
    brand = old.folder / "res" / "acme"
    brand.mkdir(parents=True)
    for name in (
        "verification_template.eml",
        "invite_template.eml.j2",
        "verify_response_template.html",
        "other",
    ):
        (brand / name).write_text("")
    old.says(
        general={"templates.path": "res", "brand.default": "acme"},
        email={"email.template": "res/mine.eml", "email.invite.subject": "%(sender_display_name)s calls"},
        sms={"bodyTemplate": "Code: {token}"},
    )
    found = {each.old: (each.brand, each.new) for each in templates.find(old.read())}

    assert found == {
        str(brand / "verification_template.eml"): ("acme", "verification.eml.txt, verification.eml.html"),
        str(brand / "invite_template.eml.j2"): ("acme", "invite.eml.txt, invite.eml.html"),
        str(brand / "verify_response_template.html"): ("acme", "verify_response.html"),
        "[email] email.template: res/mine.eml": ("acme", "verification.eml.txt, verification.eml.html"),
        "[email] email.invite.subject": ("acme", "the block subject of invite.eml.txt"),
        "[sms] bodytemplate": ("acme", "sms.txt, with {{ code }} for {token}"),
    }
    assert "#default_brand = acme\n" in (old.translated(), old.new.read_text())[1]


def test_where_the_templates_are_is_told_once(old):
    old.says(general={"templates.path": "res", "brand.default": "acme"})
    command = [COMMAND, "import-sydent", "--config", old.path, "--out", old.new, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "brand.default" in line]
    assert told == [
        "  [general] templates.path, brand.default: once your templates are written anew, as docs/templates.md tells"
    ]
    (count,) = re.findall(r"(\d+) to be looked at:", done.stdout)
    assert int(count) == len(re.findall(r"^  ", done.stdout, re.MULTILINE))


def test_a_folder_of_templates_that_cannot_be_looked_into_has_none(old):
    old.says(general={"templates.path": "x" * 300})

    assert templates.find(old.read()) == []


def test_nothing_in_the_old_file_ends_a_comment_of_ours(old):
    old.says("[odd]\nkey [general] = 1\n", general={"templates.path": "a\n  b"})
    _, config = old.translated()

    assert config.general.server_name == NAME
