"""The loader: choosing, defaults, everything wrong at once."""

import ipaddress
from pathlib import Path

import hypothesis.strategies as st
import pytest
import trustme
from hypothesis import HealthCheck, given, settings

from sydentish.config import Config, ConfigError, load, options
from sydentish.config.gateways import KINDS

MINIMUM = "[general]\nserver_name = example.org\npublic_base_url = https://id.example.org\n"
NO_BASE_URL = "must be an absolute URL such as https://id.example.org, without user, query and fragment"
MANDATORY = {
    "SYDENTISH_GENERAL__SERVER_NAME": "example.org",
    "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
}


def test_the_defaults(loaded):
    config = loaded("")
    assert config.warnings == ()
    assert config.general.server_name == "example.org"
    assert config.general.public_base_url == "https://id.example.org"
    assert config.general.key_dir == Path("/var/lib/sydentish/keys")
    assert config.database.path == Path("/var/lib/sydentish/sydentish.db")
    assert config.email.sender == "Sydentish <noreply@example.org>"
    assert config.email.smtp_password is None
    assert config.http.listeners == ("tcp:8090:interface=127.0.0.1",)
    assert config.http.body_limit == 65536
    assert config.http.receive_timeout == 30_000
    assert config.lookup.pepper_rotation is None
    assert config.onbind.retry_for == 14 * 24 * 3600 * 1000
    assert config.policies.policies == ()


def test_every_kind_of_value(loaded, tmp_path):
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    config = loaded(
        "server_name_aliases = Old.example, older.example\n"
        "templates_path = .\n"
        "[http]\nlisteners = tcp:0\n  unix:/run/a,b.sock\nbody_limit = off\nmax_connections = 0\n"
        "[homeservers]\nblocked_addresses =\nallowed_addresses = 127.0.0.0/8, ::1\n"
        f"dns_servers = 127.0.0.1:5353\nca_file = {ca_file}\nallow = *.example.org\n"
        "[validation]\nnext_link_allowed =\nconfirm_links = on\n"
        "[log]\nformat = json\n"
    )
    assert config.general.server_name_aliases == ("old.example", "older.example")
    assert config.general.templates_path == Path()
    assert config.http.listeners == ("tcp:0", "unix:/run/a,b.sock:mode=660")
    assert config.http.body_limit is None
    assert config.http.max_connections is None
    assert config.homeservers.blocked_addresses == ()
    assert config.homeservers.allowed_addresses == (
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1"),
    )
    assert config.homeservers.dns_servers == (("127.0.0.1", 5353),)
    assert config.homeservers.ca_file == ca_file
    assert config.homeservers.allow == ("*.example.org",)
    assert config.validation.next_link_allowed == ()
    assert config.validation.confirm_links is True
    assert config.log.format == "json"


@pytest.mark.parametrize(
    ("name", "mailbox"),
    [
        ("localhost:8448", "Sydentish <noreply@localhost>"),
        ("127.0.0.1:8448", "Sydentish <noreply@localhost>"),
        ("[::1]", "Sydentish <noreply@localhost>"),
        ("example.org.", "Sydentish <noreply@example.org>"),
    ],
)
def test_mails_are_from_the_host_of_the_server_name(name, mailbox):
    assert load(None, MANDATORY | {"SYDENTISH_GENERAL__SERVER_NAME": name}).email.sender == mailbox


def test_defaults_follow_data_dir_whatever_its_name(loaded):
    config = loaded("data_dir = /srv/$host/${x}\n")
    assert config.general.key_dir == Path("/srv/$host/${x}/keys")
    assert config.database.path == Path("/srv/$host/${x}/sydentish.db")


def test_sections_merge(loaded):
    config = loaded(
        "[http]\nbody_limit = 1K\n[log]\nlevel = debug\n[http]\nheader_limit = 2K\n[log]\nformat = json\n"
    )
    assert (config.http.body_limit, config.http.header_limit) == (1024, 2048)
    assert (config.log.level, config.log.format) == ("debug", "json")


def test_everything_wrong_is_told_at_once_in_the_order_of_the_file(problems):
    wrong = problems(
        "noise\n"  # 1
        "[general]\n"  # 2
        "server_nam = example.org\n"  # 3
        "public_base_url = id.example.org\n"  # 4
        "[http]\n"  # 5
        "body_limit = much\n"  # 6
        "smtp_host = localhost\n"  # 7
        "[htp]\n"  # 8
        "body_limit = 64K\n"  # 9
        "[polcy terms]\n"  # 10
        "[log]\n"  # 11
        "level = loud\n"  # 12
        "level = info\n"  # 13
        "[policy terms]\n"  # 14
        "version = 1\n",  # 15
        {"SYDENTISH_DATABASE__READERS": "many", "SYDENTISH_DATABASE__READER": "4"},
        minimum="",
    )
    assert wrong == [
        "1: must be [section], key = value, or a comment that begins with #",
        "2: [general] server_name: must be set, for example to example.org",
        "3: [general] server_nam: is no option of this section; did you mean server_name?",
        f"4: [general] public_base_url: {NO_BASE_URL}",
        "6: [http] body_limit: must be a size such as 65536 or 64K, or off",
        "7: [http] smtp_host: is no option of this section; it belongs into [email]",
        "8: [htp]: is no section; did you mean http?",
        "10: [polcy terms]: is no section; did you mean policy?",
        "12: [log] level: must be one of debug, info, warning, error",
        "13: [log] level: is set twice, in line 12 and in line 13: keep one of them",
        "14: [policy terms]: must have name and url of at least one language, such as en.name and en.url",
        "environment: SYDENTISH_DATABASE__READER: is no option; did you mean SYDENTISH_DATABASE__READERS?",
        "environment: [database] readers: must be a whole number from 1 to 64",
    ]


def test_an_empty_file_lacks_what_is_mandatory(problems):
    assert problems("", minimum="") == [
        " [general] server_name: must be set, for example to example.org",
        " [general] public_base_url: must be set, for example to https://id.example.org",
    ]


def test_set_but_empty_is_not_set(problems):
    assert problems("[general]\nserver_name =\npublic_base_url = https://a\n", minimum="") == [
        "2: [general] server_name: must be set, for example to example.org"
    ]


def test_a_wrong_data_dir_is_one_problem(problems, conf):
    assert problems(f"data_dir = {conf}\n") == [
        "4: [general] data_dir: must be a directory, but is something else"
    ]


@pytest.mark.parametrize(
    "option", ["ca_file = {}\n", "[email]\nsmtp_ca_file = {}\n", "[email]\nsmtp_password_file = {}\n"]
)
def test_files_must_be_readable(problems, tmp_path, option):
    (wrong,) = [
        line
        for line in problems("[homeservers]\n" + option.format(tmp_path / "missing"))
        if "needs" not in line
    ]
    assert wrong.endswith("must be a readable file: No such file or directory")


def test_files_that_cannot_be_read(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for bad in (
        tmp_path,
        tmp_path / "missing",
        loop,
        tmp_path / "a\x00b",
        Path("/dev/zero"),
        tmp_path / "missing" / "x",
    ):
        with pytest.raises(ConfigError) as caught:
            load(bad, MANDATORY)
        (problem,) = caught.value.problems
        assert problem.line is None
        assert str(problem).startswith(f"{bad}: cannot be read: ")


def test_a_file_that_is_not_utf_8(conf):
    conf.write_bytes(MINIMUM.encode() + b"# \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(conf, MANDATORY)
    assert str(caught.value) == f"{conf}: must be UTF-8 text: byte {len(MINIMUM) + 2} is not"


def test_the_file_is_never_written(conf, loaded):
    loaded("")
    before = conf.stat()
    conf.chmod(0o400)
    load(conf, {})
    after = conf.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    assert [file.name for file in conf.parent.iterdir()] == [conf.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(
        st.sampled_from(
            [f"[{section}]" for section, _, _ in options()]
            + [
                "[policy x]",
                "[policy",
                "[sms a]",
                "[sms a b]",
                "[sms",
                "[peer a]",
                "[peer [::1]:1]",
                "[peer",
                "[peer]",
            ]
        )
        | st.builds(
            "{}{}={}".format,
            st.sampled_from(["", " "]),
            st.sampled_from(
                [key for _, key, _ in options()]
                + ["en.name", "en.url", "version"]
                + ["kind", "url", "headers", "success_pattern", "password", "auth_token", "password_file"]
                + ["keys", "certificate_names"]
            ),
            st.text(max_size=8) | st.sampled_from(["off", "1", "https://a/", "/", "a@b", "*", "a", *KINDS]),
        )
    ).map(lambda lines: (MINIMUM + "\n".join(lines)).encode("utf-8", "surrogatepass"))
)
def test_whatever_the_file_nothing_but_config_error_is_raised(conf, content):
    conf.write_bytes(content)
    try:
        config = load(conf, {})
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
        lines = [problem.line or 0 for problem in error.problems]
        assert lines == sorted(lines)
    else:
        assert isinstance(config, Config)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.permutations(
        ["[http]\nbody_limit = 1K", "[http]\nheader_limit = 2K", "[log]\nlevel = debug", MINIMUM.strip()]
    )
)
def test_the_order_of_sections_means_nothing(loaded, parts):
    config = loaded("\n".join(parts), minimum="")
    assert (config.http.body_limit, config.http.header_limit, config.log.level) == (1024, 2048, "debug")


HINT = "cannot be read: No such file or directory; name the file with -c, or begin with a copy of sydentish.conf.sample"


@pytest.mark.parametrize("environ", [{}, {"SYDENTISH_EMAIL__SMTP_PASSWORD": "hunter2"}, MANDATORY])
def test_of_a_file_that_is_not_there_nothing_else_is_told(tmp_path, environ):
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError) as caught:
        load(missing, environ)
    assert str(caught.value) == f"{missing}: {HINT}"


def test_of_a_file_that_cannot_be_read_nothing_untrue_is_told(tmp_path, conf):
    conf.write_bytes(b"[general]\nserver_name = \xff\n")
    for bad, says in (
        (tmp_path, "cannot be read: Is a directory"),
        (conf, "must be UTF-8 text: byte 24 is not"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(bad, {})
        assert str(caught.value) == f"{bad}: {says}"


def test_problems_of_the_environment_stay_beside_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"SYDENTISH_HTTP__BODY_LIMIT": "much", "SYDENTISH_HTTP__BODY_LIMITT": "1"})
    assert [str(problem) for problem in caught.value.problems] == [
        f"{tmp_path}: cannot be read: Is a directory",
        "environment: SYDENTISH_HTTP__BODY_LIMITT: is no option; did you mean SYDENTISH_HTTP__BODY_LIMIT?",
        "environment: [http] body_limit: must be a size such as 65536 or 64K, or off",
    ]


QUOTES = "; quotes belong to the value: take them away"
COMMENT = "; what looks like a comment belongs to the value: comments stand on lines of their own"


@pytest.mark.parametrize(
    ("line", "hints"),
    [
        ('[lookup]\nmax_addresses = "5"', QUOTES),
        ("[lookup]\nmax_addresses = '5'", QUOTES),
        ("[lookup]\nmax_addresses = 5 # few", COMMENT),
        ("[lookup]\nmax_addresses = 5\t; few", COMMENT),
        ('[lookup]\nmax_addresses = "5"  # few', QUOTES + COMMENT),
        ("[lookup]\nmax_addresses = 5#", ""),
        ("[lookup]\nmax_addresses = much", ""),
        ('[homeservers]\nca_file = "/no/such.pem"', QUOTES),
        ('[homeservers]\nallow = "a.example", "b.example"', QUOTES),
        ('[email]\nsmtp_username = me\nsmtp_password_file = "/no/such"', QUOTES),
        ('[policy terms]\nversion = 1\nen.name = Terms\nen.url = "https://a.example/"', QUOTES),
    ],
)
def test_what_other_kinds_of_files_would_leave_out_is_hinted_at(problems, line, hints):
    (problem,) = problems(line + "\n")
    assert problem.removesuffix(hints) != problem or not hints
    assert ("quotes" in problem, "comments" in problem) == ("quotes" in hints, "comments" in hints)


@pytest.mark.parametrize(("name", "hint"), [('"example.org"', QUOTES), ("example.org  # mine", COMMENT)])
def test_a_server_name_in_quotes_or_with_a_comment(problems, name, hint):
    (problem,) = problems(f"[general]\nserver_name = {name}\npublic_base_url = https://a\n", minimum="")
    assert problem.startswith("2: [general] server_name: must be a server name such as example.org: ")
    assert problem.endswith(hint)


def test_quotes_and_what_looks_like_a_comment_are_right_where_they_can_be(loaded):
    config = loaded(
        '[email]\nfrom = "Id, please" <id@example.org>\nsmtp_username = a #b\nsmtp_password = "c"\n'
    )
    assert config.email.sender == '"Id, please" <id@example.org>'
    assert config.email.smtp_username == "a #b"
    assert config.email.smtp_password.reveal() == '"c"'
