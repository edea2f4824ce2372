"""Replication: `[replication]`, the `[peer NAME]` sections, and what they say together."""

from base64 import b64encode, urlsafe_b64encode

import hypothesis.strategies as st
import pytest
from hypothesis import given
from standins.certificates import Authority

from sydentish.config import ConfigError, Replication, load
from sydentish.config.replication import names_of, peer_keys
from sydentish.domain.peers import Peer

KEY = "KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8"
OTHER = b64encode(bytes(range(32))).decode().rstrip("=")
URL = "https://id.example.net:4434"
PEER = f"url = {URL}\nkeys = ed25519:0 {KEY}\n"
BOTH = "it is done by TLS with certificates on both sides"


def written(path, content):
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def pair(tmp_path, authority):
    """A private key with its certificate, which says whose it is."""
    return written(tmp_path / "pair.pem", authority.issue("id.example.org", common_name="example.org").pem)


@pytest.fixture
def ca_file(tmp_path, authority):
    return authority.write_ca(tmp_path / "ca.pem")


@pytest.fixture
def section(pair, ca_file):
    """[replication] with what it must have and listeners; it begins in line 4 and has 4 lines."""
    return f"[replication]\nlisteners = tcp:0\ncertificate_file = {pair}\nca_file = {ca_file}\n"


# --- [replication] -----------------------------------------------------------------------------------------


def test_the_defaults(loaded):
    config = loaded("")
    assert config.peers == ()
    assert config.warnings == ()
    assert config.replication == Replication(
        listeners=(),
        certificate_file=None,
        key_file=None,
        ca_file=None,
        timeout=10_000,
        batch_size=500,
        body_limit=4 * 1024**2,
        max_statements=1000,
        max_future=300_000,
    )


def test_every_option(loaded, tmp_path, pair, ca_file):
    key = written(tmp_path / "key.pem", pair.read_bytes())
    config = loaded(
        "[replication]\nlisteners =\n  tcp:4434\n  tcp6:4434\n  unix:/run/a,b.sock\n"
        f"certificate_file = {pair}\nkey_file = {key}\nca_file = {ca_file}\ntimeout = 60s\nbatch_size = 10000\n"
        "body_limit = off\nmax_statements = 500\nmax_future = 1d\n"
    )
    assert config.replication == Replication(
        listeners=("tcp:4434", "tcp6:4434", "unix:/run/a,b.sock:mode=660"),
        certificate_file=pair,
        key_file=key,
        ca_file=ca_file,
        timeout=60_000,
        batch_size=10_000,
        body_limit=None,
        max_statements=500,
        max_future=86_400_000,
    )
    assert config.warnings == ()


def test_the_environment_reaches_it(pair, ca_file):
    environ = {
        "SYDENTISH_GENERAL__SERVER_NAME": "example.org",
        "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
        "SYDENTISH_REPLICATION__LISTENERS": "tcp:0",
    }
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert str(caught.value) == (
        "environment: [replication] listeners: needs certificate_file and ca_file beside it: peers are received "
        f"here, and {BOTH}"
    )
    environ |= {
        "SYDENTISH_REPLICATION__CERTIFICATE_FILE": str(pair),
        "SYDENTISH_REPLICATION__CA_FILE": str(ca_file),
    }
    assert load(None, environ).replication.ca_file == ca_file


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("timeout = 61s", "must be a duration such as 500ms, 30s, 5m, 24h or 14d, at most 60s"),
        ("timeout = off", "must be a duration such as 500ms, 30s, 5m, 24h or 14d, at most 60s"),
        ("batch_size = 10001", "must be a whole number from 10 to 10000"),
        ("batch_size = 9", "must be a whole number from 10 to 10000"),
        ("body_limit = much", "must be a size such as 65536 or 64K, or off"),
        ("max_statements = 0", "must be a whole number from 500 to 1000000"),
        ("max_future = 0s", "must be a duration such as 500ms, 30s, 5m, 24h or 14d"),
        ("ca_file = /no/such", "must be a readable file: No such file or directory"),
        ("certificate_file = /no/such", "must be a readable file: No such file or directory"),
        ("key_file = /no/such", "must be a readable file: No such file or directory"),
        ("certificate_file = /dev/null", "must be a file with at least one certificate in PEM form"),
        ("key_file = /dev/null", "must be a file with a private key in PEM form, without a password"),
        ("cafile = /a", "is no option of this section; did you mean ca_file?"),
        ("keys = x", "is no option of this section; it belongs into [peer NAME]"),
    ],
)
def test_what_is_wrong_with_an_option(problems, option, wrong):
    key = option.partition(" ")[0]
    assert problems(f"[replication]\n{option}\n") == [f"5: [replication] {key}: {wrong}"]


def test_tls_is_never_asked_for(problems, section):
    assert problems(section.replace("tcp:0", "tcp:1\n  ssl:4434")) == [
        (
            "5: [replication] listeners: `ssl:4434` must begin with one of tcp, tcp6, unix, systemd and a colon: "
            "TLS is always added, with certificate_file"
        )
    ]


def test_listeners_in_the_place_of_others(problems, loaded, section):
    text = section.replace("tcp:0", "tcp:8090")
    (problem,) = problems(text)
    assert problem == (
        "5: [replication] listeners: `tcp:8090` is taken by [http] listeners at its default: "
        "give each an address of its own"
    )
    (problem,) = problems(f"{text}[http]\nmetrics_listeners = tcp:8090\nlisteners = tcp:1\n")
    assert "is taken by [http] metrics_listeners in line 9: " in problem
    (problem,) = problems(section.replace("tcp:0", "\n  tcp:1\n  tcp:1"))
    assert "is taken by listeners in line 5: " in problem
    assert loaded(text.replace("8090", "8091"))


# --- certificates and keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("certificate_file",), ("ca_file",), ("certificate_file", "ca_file")])
def test_listeners_need_a_certificate_and_authorities(problems, section, keys):
    lines = [line for line in section.splitlines() if not line.startswith(keys)]
    missing = " and ".join(keys)
    assert problems("\n".join(lines)) == [
        f"5: [replication] listeners: needs {missing} beside it: peers are received here, and {BOTH}"
    ]


@pytest.mark.parametrize("keys", [("certificate_file",), ("ca_file",), ("certificate_file", "ca_file")])
def test_peers_need_a_certificate_and_authorities_which_is_told_of_the_first(problems, section, keys):
    lines = [line for line in section.splitlines() if not line.startswith(("listeners", *keys))]
    text = f"[peer a.example]\n{PEER}[peer b.example]\n{PEER}"
    missing = " and ".join(keys)
    assert problems(text + "\n".join(lines)) == [
        f"4: [peer a.example]: needs [replication] {missing}: a peer is pushed to, and {BOTH}"
    ]


def test_a_file_that_is_wrong_is_not_told_to_be_missing(problems, section, tmp_path):
    wrong = section.replace("pair.pem", "no.pem").replace("ca.pem", "no.pem")
    assert problems(wrong) == [
        f"{line}: [replication] {key}: must be a readable file: No such file or directory"
        for line, key in ((6, "certificate_file"), (7, "ca_file"))
    ]


def test_listeners_that_are_wrong_still_need_the_files(problems):
    needs, wrong = problems("[replication]\nlisteners = tcp\n")
    assert needs.startswith("5: [replication] listeners: needs certificate_file and ca_file beside it: ")
    assert wrong.startswith("5: [replication] listeners: `tcp` must have arguments out of ")


def test_files_alone_are_no_mistake(loaded, section, ca_file):
    # Peers may be added by command.
    assert loaded(section.replace("listeners = tcp:0\n", "")).warnings == ()
    assert loaded(f"[replication]\nca_file = {ca_file}\n").warnings == ()


def test_a_key_needs_its_certificate(problems, pair):
    assert problems(f"[replication]\nkey_file = {pair}\n") == [
        "5: [replication] key_file: needs certificate_file beside it"
    ]


def test_without_a_key_file_the_key_is_with_the_certificate(problems, loaded, pair, section):
    everything = pair.read_bytes()
    start = everything.index(b"-----BEGIN CERTIFICATE-----")
    written(pair, everything[start:])
    assert problems(section) == [
        "6: [replication] certificate_file: must hold the private key, too, or else key_file must be set"
    ]
    key = written(pair.parent / "key.pem", everything[:start])
    assert loaded(f"{section}key_file = {key}\n").replication.key_file == key


def test_key_and_certificate_belong_together(problems, section, pair, tmp_path, authority):
    message = "must have the private key of the first certificate in certificate_file"
    other = written(tmp_path / "other.pem", authority.issue("other.example").pem)
    assert problems(f"{section}key_file = {other}\n") == [f"8: [replication] key_file: {message}"]
    end = b"-----END CERTIFICATE-----\n"
    key, *_ = other.read_bytes().split(b"-----BEGIN CERTIFICATE-----")
    (certificate, *_) = pair.read_bytes()[pair.read_bytes().index(b"-----BEGIN CERTIFICATE-----") :].split(
        end
    )
    written(pair, key + certificate + end)
    assert problems(section) == [f"6: [replication] certificate_file: {message}"]


# --- [peer NAME] -------------------------------------------------------------------------------------------


def test_peers_in_the_order_of_the_file(loaded, section):
    config = loaded(
        f"{section}[peer Z.example:4434]\nurl = https://Z.example:4434/\nkeys = ed25519:a_1 {KEY}=\n"
        f"certificate_names = Z.example, 2001:DB8::0:1\n"
        f"[peer a.example.]\nurl = https://10.0.0.1\nkeys =\n  ed25519:0\t{KEY},\n  ed25519:1  {OTHER}\n"
        f"[peer [0::1]:8448]\n{PEER}certificate_names =\n"
    )
    assert config.peers == (
        Peer("z.example:4434", "https://z.example:4434", {"ed25519:a_1": KEY}, ("z.example", "2001:db8::1")),
        Peer("a.example.", "https://10.0.0.1", {"ed25519:0": KEY, "ed25519:1": OTHER}, ("a.example",)),
        Peer("[::1]:8448", URL, {"ed25519:0": KEY}, ("::1",)),
    )
    assert config.warnings == ()


def test_sections_of_one_name_merge(loaded, section):
    config = loaded(
        f"{section}[peer  id.example.net]\nurl = {URL}\n[peer id.example.net]\nkeys = ed25519:0 {KEY}\n"
    )
    assert config.peers == (Peer("id.example.net", URL, {"ed25519:0": KEY}, ("id.example.net",)),)


KEYS = "must be public keys such as ed25519:0 BASE64, each with an ID of its own, the key 32 bytes in base64"
NO_URL = (
    "must be an https URL such as https://id.example.net:4434, without user, path, query and fragment: "
    "whoever uses it adds the path"
)


# The section begins in line 8.
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            "",
            [
                f"8: [peer a.example] url: must be set, for example to {URL}",
                f"8: [peer a.example] keys: must be set, for example to ed25519:0 {KEY}",
            ],
        ),
        (
            "url =\nkeys =\n",
            [
                f"9: [peer a.example] url: must be set, for example to {URL}",
                f"10: [peer a.example] keys: must be set, for example to ed25519:0 {KEY}",
            ],
        ),
        (PEER.replace("https", "http"), [f"9: [peer a.example] url: {NO_URL}"]),
        (PEER.replace(URL, f"{URL}/_matrix"), [f"9: [peer a.example] url: {NO_URL}"]),
        (f"{PEER}  , ed25519:1 {KEY}, oops\n", [f"10: [peer a.example] keys: {KEYS}; number 3 is none"]),
        (
            f'url = {URL}\nkeys = "ed25519:0 {KEY}"\n',
            [
                f"10: [peer a.example] keys: {KEYS}; number 1 is none; quotes belong to the value: take them away"
            ],
        ),
        (
            f"{PEER}certificate_names = a.example, *.b.example, [::1]\n",
            [
                "11: [peer a.example] certificate_names: `*.b.example`, `[::1]` must be a host name or an IP address"
            ],
        ),
        (
            f"{PEER}certificate_names = a.example, A.example.\n",
            ["11: [peer a.example] certificate_names: must have each item once"],
        ),
        (f"{PEER}key = x\n", ["11: [peer a.example] key: is no option of a peer; did you mean keys?"]),
        (f"{PEER}zzz = x\n", ["11: [peer a.example] zzz: is no option of a peer"]),
        (
            f"{PEER}ca_file = /a.pem\n",
            ["11: [peer a.example] ca_file: is no option of a peer; it belongs into [replication]"],
        ),
        (
            f"{PEER}url = {URL}\n",
            ["11: [peer a.example] url: is set twice, in line 9 and in line 11: keep one of them"],
        ),
    ],
)
def test_what_is_wrong_with_a_peer(problems, section, text, wrong):
    assert problems(f"{section}[peer a.example]\n{text}") == wrong


@pytest.mark.parametrize(
    ("section_name", "why"),
    [
        ("peer a b", "a server name is a DNS name or an IP literal, with an optional port"),
        ("peer ::1", "the port of a server name is a number from 1 to 65535"),
        ("peer a.example:0", "the port of a server name is a number from 1 to 65535"),
    ],
)
def test_names_that_no_peer_can_have(problems, section, section_name, why):
    assert problems(f"{section}[{section_name}]\n{PEER}") == [
        f"8: [{section_name}]: must be [peer NAME]; the NAME must be a server name such as example.org: {why}"
    ]


def test_a_url_is_no_name_of_a_peer(problems, section):
    assert problems(f"{section}[peer https://a.example]\n{PEER}") == [
        (
            "8: [peer https://a.example]: must be [peer NAME]; the NAME must be a server name such as example.org: "
            "write it without https://"
        )
    ]


@pytest.mark.parametrize(
    ("section_name", "meant"),
    [
        ("peer", "[peer NAME]"),
        ("peers", "peer"),
        ("peer.id.example.net", "[peer id.example.net]"),
        ("peers id.example.net:4434", "[peer id.example.net:4434]"),
        ("PEER a.example", "[peer a.example]"),
        ("peeer a.example", "peer"),
        ("replicate", "replication"),
    ],
)
def test_what_a_section_was_perhaps_meant_to_be(problems, section_name, meant):
    assert problems(f"[{section_name}]\n{PEER}") == [
        f"4: [{section_name}]: is no section; did you mean {meant}?"
    ]


def test_options_of_peers_elsewhere_are_sent_home(problems):
    assert problems("[general]\nkeys = x\ncertificate_names = y\n") == [
        f"{line}: [general] {key}: is no option of this section; it belongs into [peer NAME]"
        for line, key in ((5, "keys"), (6, "certificate_names"))
    ]


def test_one_peer_in_two_spellings(problems, section):
    assert problems(f"{section}[peer a.example]\n{PEER}[peer A.example]\n{PEER}") == [
        "11: [peer A.example]: is the peer of [peer a.example], in line 8, too"
    ]


def test_this_server_is_no_peer(problems, section):
    assert problems(f"{section}[peer EXAMPLE.org]\n{PEER}") == [
        "8: [peer EXAMPLE.org]: is this server itself, by [general] server_name: a peer is another one"
    ]


def test_a_certificate_tells_whose_it_is(problems, loaded, section):
    text = f"{section}[peer a.example:1]\n{PEER}[peer a.example:2]\n{PEER}"
    message = "`{}` is a certificate name of [peer a.example:1], in line 8, too: a certificate must tell whose it is"
    assert problems(text) == [f"11: [peer a.example:2] certificate_names: {message.format('a.example')}"]
    assert problems(f"{text}certificate_names = b.example, A.EXAMPLE\n") == [
        f"14: [peer a.example:2] certificate_names: {message.format('a.example')}"
    ]
    assert len(loaded(f"{text}certificate_names = b.example\n").peers) == 2


def test_one_mistake_of_a_peer_hides_no_other(problems, section):
    text = f"[peer example.org]\nkeys = oops\n[peer b.example]\ncertificate_names = example.org\nur = {URL}\n"
    assert problems(section + text) == [
        "8: [peer example.org]: is this server itself, by [general] server_name: a peer is another one",
        f"8: [peer example.org] url: must be set, for example to {URL}",
        f"9: [peer example.org] keys: {KEYS}; number 1 is none",
        f"10: [peer b.example] url: must be set, for example to {URL}",
        f"10: [peer b.example] keys: must be set, for example to ed25519:0 {KEY}",
        (
            "11: [peer b.example] certificate_names: `example.org` is a certificate name of [peer example.org], "
            "in line 8, too: a certificate must tell whose it is"
        ),
        "12: [peer b.example] ur: is no option of a peer; did you mean url?",
    ]


# --- keys --------------------------------------------------------------------------------------------------

IDS = st.from_regex(r"[a-zA-Z0-9_]{1,64}", fullmatch=True)
SPELLINGS = st.sampled_from([b64encode, urlsafe_b64encode])


@given(
    st.dictionaries(IDS, st.binary(min_size=32, max_size=32), min_size=1),
    SPELLINGS,
    st.sampled_from([",", "\n", " ,\n "]),
    st.booleans(),
)
def test_keys_are_kept_in_one_spelling(keys, spelling, separator, padded):
    spelt = {
        version: spelling(key).decode() if padded else spelling(key).decode().rstrip("=")
        for version, key in keys.items()
    }
    parsed = peer_keys(separator.join(f"ed25519:{version} {key}" for version, key in spelt.items()))
    assert parsed == {
        f"ed25519:{version}": b64encode(key).decode().rstrip("=") for version, key in keys.items()
    }
    with pytest.raises(TypeError):
        parsed["ed25519:0"] = KEY


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (",", ""),
        (KEY, "; number 1 is none"),
        (f"ed25519:0{KEY}", "; number 1 is none"),
        (f"ed25519 0 {KEY}", "; number 1 is none"),
        (f"ed25519: {KEY}", "; number 1 is none"),
        (f"ed25519:a-b {KEY}", "; number 1 is none"),
        (f"ed448:0 {KEY}", "; number 1 is none"),
        (f"ed25519:0 {KEY} x", "; number 1 is none"),
        (f"ed25519:0 {KEY}AA", "; number 1 is none"),
        (f"ed25519:0 {KEY[:-1]}", "; number 1 is none"),
        (f"ed25519:0 {KEY[:-1]}!", "; number 1 is none"),
        (
            f"ed25519:0 {KEY}, ed25519:0 {OTHER}, x, y",
            "; number 3 is none, number 4 is none, number 2 has the ID of an earlier one",
        ),
        (f"ed25519:0 {KEY}, ed25519:0 {KEY}", "; number 2 has the ID of an earlier one"),
    ],
)
def test_no_keys(text, wrong):
    with pytest.raises(ValueError, match="must be public keys") as caught:
        peer_keys(text)
    assert str(caught.value) == KEYS + wrong
    assert KEY[:8] not in str(caught.value)


@given(st.text() | st.from_regex(r"ed25519:[a-z0-9]{0,2} [a-zA-Z0-9+/_=-]{40,44}"))
def test_any_text_is_parsed_or_refused(text):
    try:
        assert all(len(key) == 43 for key in peer_keys(text).values())
    except ValueError as error:
        assert str(error).startswith(KEYS)  # noqa: PT017 - either outcome is right


def test_a_peer_is_known_by_the_host_of_its_name():
    assert names_of("id.example.net.:4434", ()) == ("id.example.net",)
    assert names_of("[::1]:4434", ()) == ("::1",)
    assert names_of("id.example.net", ("a.example",)) == ("a.example",)


# --- what is told ------------------------------------------------------------------------------------------


def warnings(config):
    return [(warning.line, warning.section, warning.key) for warning in config.warnings]


def test_peers_that_nothing_can_be_received_from_are_told(loaded, section):
    without = section.replace("listeners = tcp:0\n", "")
    config = loaded(f"{without}[peer a.example]\n{PEER}")
    assert warnings(config) == [(None, "replication", "listeners")]
    assert config.warnings[0].message.startswith(
        "is not set, so that nothing can be received from the peers "
    )
    # Peers can be added by command.
    assert loaded(section).warnings == ()


@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        (Authority().issue("example.org"), False),
        (Authority().issue("other.example", common_name="Example.org"), False),
        (Authority().issue("other.example", "id.example.org", common_name="Sydentish"), True),
        (Authority().issue("*.example.org"), True),
    ],
)
def test_a_certificate_of_another_name_is_told(loaded, section, pair, certificate, told):
    written(pair, certificate.pem)
    assert warnings(loaded(section)) == ([(6, "replication", "certificate_file")] if told else [])
    if told:
        (warning,) = loaded(section).warnings
        assert warning.message.startswith(
            "is not made out to example.org: peers know this server by that name"
        )


def test_a_key_that_everybody_can_read_is_told(loaded, section, pair, tmp_path):
    pair.chmod(0o644)
    assert warnings(loaded(section)) == [(6, "replication", "certificate_file")]
    key = written(tmp_path / "key.pem", pair.read_bytes())
    assert warnings(loaded(f"{section}key_file = {key}\n")) == []
    key.chmod(0o604)
    assert warnings(loaded(f"{section}key_file = {key}\n")) == [(8, "replication", "key_file")]


def test_authorities_that_everybody_can_change_are_told(loaded, section, ca_file):
    ca_file.chmod(0o666)
    assert warnings(loaded(section)) == [(7, "replication", "ca_file")]
