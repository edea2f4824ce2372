"""Environment variables: they replace the file's options and are checked the same way."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from sydentish.config import ConfigError, Secret, load, options

MANDATORY = {
    "SYDENTISH_GENERAL__SERVER_NAME": "example.org",
    "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
}


def problems(environ, path=None):
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return [str(problem) for problem in caught.value.problems]


def test_no_file_is_needed():
    config = load(
        None, MANDATORY | {"SYDENTISH_HTTP__LISTENERS": "tcp:0\ntcp:1", "SYDENTISH_EMAIL__FROM": "a@b"}
    )
    assert config.http.listeners == ("tcp:0", "tcp:1")
    assert config.email.sender == "a@b"


def test_without_anything_what_is_mandatory_is_missing():
    assert problems({}) == [
        "environment: [general] server_name: must be set, for example to example.org",
        "environment: [general] public_base_url: must be set, for example to https://id.example.org",
    ]


def test_the_environment_wins_even_over_what_is_wrong(tmp_path):
    conf = tmp_path / "sydentish.conf"
    conf.write_text("[general]\nserver_name =\n[http]\nbody_limit = much\n")
    config = load(conf, MANDATORY | {"SYDENTISH_HTTP__BODY_LIMIT": "1K"})
    assert config.general.server_name == "example.org"
    assert config.http.body_limit == 1024


def test_every_option_has_its_variable():
    for section, key, declaration in options():
        if not key.endswith(("_file", "_path")) and declaration.default and not declaration.derived:
            load(None, MANDATORY | {f"SYDENTISH_{section}__{key}".upper(): declaration.default})


def test_values_are_checked_the_same_way():
    assert problems(MANDATORY | {"SYDENTISH_HTTP__BODY_LIMIT": "much"}) == [
        "environment: [http] body_limit: must be a size such as 65536 or 64K, or off"
    ]


@pytest.mark.parametrize("value", ["a\x00b", "a\x1bb", "\udcff", "a\rb"])
def test_values_are_text(value):
    assert problems(MANDATORY | {"SYDENTISH_EMAIL__SMTP_HOST": value}) == [
        "environment: [email] smtp_host: must be UTF-8 text without control characters"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "SYDENTISH_HTP__BODY_LIMIT",
            "SYDENTISH_HTP__BODY_LIMIT: is no option; did you mean SYDENTISH_HTTP__BODY_LIMIT?",
        ),
        ("SYDENTISH_X__Y", "SYDENTISH_X__Y: is no option"),
        ("SYDENTISH_POLICY_TERMS__VERSION", "SYDENTISH_POLICY_TERMS__VERSION: is no option"),
        ("SYDENTISH___", "SYDENTISH___: is no option"),
        ("SYDENTISH_\udcff__X", "SYDENTISH_\\udcff__X: is no option"),
    ],
)
def test_unknown_names_are_problems(name, message):
    (problem,) = problems(MANDATORY | {name: "1"})
    assert problem.startswith(f"environment: {message}")


def test_policies_are_out_of_reach(tmp_path):
    conf = tmp_path / "sydentish.conf"
    conf.write_text("[policy a]\nversion=1\nen.name=a\nen.url=https://example.org/\n")
    (problem,) = problems(MANDATORY | {"SYDENTISH_POLICY A__VERSION": "2"}, conf)
    assert problem.startswith("environment: SYDENTISH_POLICY A__VERSION: is no option")


def test_peers_are_out_of_reach(tmp_path):
    for name in ("SYDENTISH_PEER ID.EXAMPLE.NET__URL", "SYDENTISH_PEER_ID_EXAMPLE_NET__URL"):
        (problem,) = problems(MANDATORY | {name: "https://id.example.net"})
        assert problem.startswith(f"environment: {name}: is no option")


def test_other_names_are_left_alone():
    load(
        None, MANDATORY | {"SYDENTISH_HOME": "x", "SYDENTISH": "x", "OTHER__X": "x", "sydentish_http__x": "x"}
    )


def test_a_secret_in_either_way_replaces_the_files_in_either_way(tmp_path):
    conf, secret = tmp_path / "sydentish.conf", tmp_path / "secret"
    secret.write_text("from-file\n")
    general = "[general]\nserver_name=example.org\npublic_base_url=https://a\n[email]\nsmtp_username=me\n"
    for in_file in ("smtp_password=old", f"smtp_password_file={secret}"):
        conf.write_text(f"{general}{in_file}\n")
        config = load(conf, {"SYDENTISH_EMAIL__SMTP_PASSWORD": "new"})
        assert config.email.smtp_password == Secret("new")
        config = load(conf, {"SYDENTISH_EMAIL__SMTP_PASSWORD_FILE": str(secret)})
        assert config.email.smtp_password == Secret("from-file")
        config = load(conf, {"SYDENTISH_EMAIL__SMTP_PASSWORD": "", "SYDENTISH_EMAIL__SMTP_USERNAME": ""})
        assert config.email.smtp_password is None


def test_either_the_secret_or_its_file(tmp_path):
    names = {"SMTP_USERNAME": "me", "SMTP_PASSWORD": "x", "SMTP_PASSWORD_FILE": str(tmp_path / "secret")}
    (tmp_path / "secret").write_text("y")
    environ = MANDATORY | {f"SYDENTISH_EMAIL__{name}": value for name, value in names.items()}
    assert problems(environ) == [
        "environment: [email] smtp_password_file: give either smtp_password or smtp_password_file, not both"
    ]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([f"SYDENTISH_{section}__{key}".upper() for section, key, _ in options()])
        | st.text().map("SYDENTISH_{}".format),
        st.text(st.characters()),
    )
)
def test_whatever_the_environment_nothing_but_config_error_is_raised(environ):
    try:
        load(None, environ)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
