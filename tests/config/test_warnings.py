"""What is allowed, but told."""

import pytest
import trustme

from sydentish.config import load

MINIMUM = "[general]\nserver_name = example.org\npublic_base_url = https://id.example.org\n"
MANDATORY = {
    "SYDENTISH_GENERAL__SERVER_NAME": "example.org",
    "SYDENTISH_GENERAL__PUBLIC_BASE_URL": "https://id.example.org",
}


def warnings(config):
    return [(warning.line, warning.section, warning.key) for warning in config.warnings]


def test_plain_http_and_local_names_are_told(loaded):
    config = loaded(
        "[general]\nserver_name = localhost:8448\npublic_base_url = http://localhost:8090\n"
        "server_name_aliases = a.example, 10.0.0.1\n",
        minimum="",
    )
    assert warnings(config) == [
        (2, "general", "server_name"),
        (3, "general", "public_base_url"),
        (4, "general", "server_name_aliases"),
    ]
    assert "a.example" not in config.warnings[2].message


def test_missing_protection_is_told(loaded):
    config = loaded(
        "[homeservers]\nverify_tls = no\n[email]\nsmtp_verify = no\n",
    )
    assert warnings(config) == [(5, "homeservers", "verify_tls"), (7, "email", "smtp_verify")]


def test_a_password_in_the_clear_is_told(loaded):
    config = loaded("[email]\nsmtp_security = plain\nsmtp_username = me\nsmtp_password = hunter2\n")
    assert warnings(config) == [(5, "email", "smtp_security")]


def test_secrets_that_everybody_can_read_are_told(conf, loaded, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o644)
    assert warnings(loaded(f"[email]\nsmtp_username = me\nsmtp_password_file = {secret}\n")) == [
        (6, "email", "smtp_password_file")
    ]
    loaded("[email]\nsmtp_username = me\nsmtp_password = hunter2\n")
    conf.chmod(0o644)
    assert warnings(load(conf, {})) == [(6, "email", "smtp_password")]
    # In the environment it is not in the file that everybody can read.
    conf.write_text(MINIMUM)
    env = {"SYDENTISH_EMAIL__SMTP_USERNAME": "me", "SYDENTISH_EMAIL__SMTP_PASSWORD": "hunter2"}
    assert load(conf, env).warnings == ()


def test_a_ca_file_that_everybody_can_change_is_told(loaded, tmp_path):
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    ca_file.chmod(0o666)
    assert warnings(loaded(f"[homeservers]\nca_file = {ca_file}\n")) == [(5, "homeservers", "ca_file")]


def test_a_warning_from_the_environment_has_no_line():
    config = load(None, MANDATORY | {"SYDENTISH_GENERAL__SERVER_NAME": "localhost"})
    assert [str(warning) for warning in config.warnings] == [
        "environment: [general] server_name: localhost is no public domain: other servers will not know it by that name"
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "Example.org:8448",
            "example.org:8448 carries a port: the name of an identity server is usually a bare domain, such as example.org",
        ),
        (
            "10.0.0.1:8448",
            "10.0.0.1:8448 is an IP address: the name of an identity server is usually a bare domain",
        ),
        (
            "localhost:8448",
            "localhost:8448 is no public domain: other servers will not know it by that name",
        ),
    ],
)
def test_a_warning_says_what_is_odd_about_a_name(name, says):
    config = load(None, MANDATORY | {"SYDENTISH_GENERAL__SERVER_NAME": name})
    assert [warning.message for warning in config.warnings] == [says]


def test_each_odd_alias_is_told_with_its_own_reason(loaded):
    (warning,) = loaded("server_name_aliases = a.example, b.example:1, intern\n").warnings
    told = warning.message.split("; ")
    assert [each.split(":")[0] for each in told] == ["b.example", "intern is no public domain"]
