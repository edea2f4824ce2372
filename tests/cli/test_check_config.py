"""`check-config`: what it tells of the file, of what the file names, and with which status."""

import os

import pytest
from click.testing import CliRunner
from standins.certificates import weak_certificate
from unprivileged import unprivileged_folder

from sydentish.cli import main

INIT = "or start once with: sydentish serve --init"
MINIMUM = "[general]\nserver_name = example.org\npublic_base_url = https://id.example.org\n"


@pytest.fixture
def conf(tmp_path):
    file = tmp_path / "sydentish.conf"
    (tmp_path / "data").mkdir()
    file.write_text(f"{MINIMUM}data_dir = {tmp_path}/data\n")
    return file


def checked(*arguments):
    done = CliRunner().invoke(main, ["check-config", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output.splitlines()


def with_key(conf):
    assert CliRunner().invoke(main, ["keys", "generate", "-c", str(conf)]).exit_code == 0


def everything_in(folder):
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_what_is_right_is_ok(conf):
    with_key(conf)
    before = everything_in(conf.parent)
    assert checked("-c", conf) == (0, [f"{conf}: ok"])
    assert everything_in(conf.parent) == before


def test_a_file_that_is_not_there(tmp_path):
    status, lines = checked("-c", tmp_path / "no.conf")
    assert status == os.EX_CONFIG
    (line,) = lines
    assert line.startswith(f"{tmp_path}/no.conf: cannot be read: No such file or directory; ")
    assert "-c" in line
    assert "sydentish.conf.sample" in line


def test_a_directory(tmp_path):
    assert checked("-c", tmp_path) == (os.EX_CONFIG, [f"{tmp_path}: cannot be read: Is a directory"])


@pytest.mark.parametrize("command", [["check-config"], ["serve"], ["keys", "generate"]])
def test_an_empty_name(command):
    done = CliRunner().invoke(main, [*command, "-c", ""])
    assert (done.exit_code, done.output) == (
        os.EX_CONFIG,
        "-c: must name the configuration file, but is empty\n",
    )


def test_a_file_that_may_not_be_read():
    with unprivileged_folder() as (folder, unprivileged):
        file = folder / "sydentish.conf"
        file.write_text(MINIMUM)
        file.chmod(0o600)
        with unprivileged(file):
            told = checked("-c", file)
    assert told == (os.EX_CONFIG, [f"{file}: cannot be read: Permission denied"])


def test_all_mistakes_in_templates_and_the_surroundings_are_told_at_once(conf, tmp_path):
    with_key(conf)
    (tmp_path / "brands" / "acme").mkdir(parents=True)
    (tmp_path / "brands" / "acme" / "verification.eml.txt").write_text("")
    conf.write_text(
        f"{conf.read_text()}templates_path = {tmp_path}/brands\ndefault_brand = acmee\n"
        f"[log]\nfile = {tmp_path}/no/x.log\n"
    )
    status, lines = checked("-c", conf)
    assert status == os.EX_CONFIG
    assert lines[0].startswith(f"{conf}:8: [log] file: {tmp_path}/no: there is no such directory")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "[general] default_brand",
        "brand 'acme'",
        "brand 'acme'",
    ]


def test_a_data_dir_that_is_not_there_is_no_mistake(conf, tmp_path):
    with_key(conf)
    conf.write_text(f"{MINIMUM}data_dir = {tmp_path}/later\nkey_dir = {tmp_path}/data/keys\n")
    status, lines = checked("-c", conf)
    assert status == 0
    assert lines == [
        f"warning: {conf}:4: [general] data_dir: {tmp_path}/later: there is no such directory: make it, {INIT}",
        f"{conf}: ok",
    ]
    assert not (tmp_path / "later").exists()


def test_the_links_of_invitation_mails_must_lead_somewhere(conf):
    with_key(conf)
    conf.write_text(f"{conf.read_text()}[http]\nv1_endpoints = none\n")
    status, lines = checked("-c", conf)
    assert status == os.EX_CONFIG
    (line,) = lines
    assert line.startswith(f"{conf}:6: [http] v1_endpoints: must have sign-ed25519")
    conf.write_text(f"{conf.read_text()}[invites]\nenabled = no\n")
    assert checked("-c", conf) == (0, [f"{conf}: ok"])


def test_what_is_suspicious_about_the_internal_api_and_invitations_is_told(conf):
    with_key(conf)
    conf.write_text(
        f"{conf.read_text()}[http]\ninternal_listeners = tcp:0:interface=127.0.0.1\n"
        "[invites]\nweb_client = http://chat.example.org\n[sms a]\nkind = log\n"
    )
    status, lines = checked("-c", conf)
    assert status == 0
    assert [line.split(": ")[:3] for line in lines] == [
        ["warning", f"{conf}:6", "[http] internal_listeners"],
        ["warning", f"{conf}:8", "[invites] web_client"],
        ["warning", f"{conf}:9", "[sms a]"],
        [str(conf), "ok"],
    ]


GATEWAY = (
    "[sms]\ngateways = a\n[sms a]\nkind = http\nurl = https://sms.example.org/send\n"
    "headers = X-Channel: otp\nbody = {body}\n[http]\ntrusted_proxies = ::1\n"
)


def test_a_gateway_that_can_be_used_is_ok(conf):
    with_key(conf)
    body = '{"to": "{destination}", "text": "{text}"}'
    conf.write_text(conf.read_text() + GATEWAY.replace("{body}", body))
    assert checked("-c", conf) == (0, [f"{conf}: ok"])


def test_a_gateway_that_would_send_no_code_is_refused(conf):
    with_key(conf)
    conf.write_text(conf.read_text() + GATEWAY.replace("{body}", '{"to": "{destination}"}'))
    status, lines = checked("-c", conf)
    assert status == os.EX_CONFIG
    (line,) = lines
    assert line.startswith(f"{conf}:11: [sms a] url, body: {{text}}")


def test_every_gateway_that_cannot_be_used_is_named(conf):
    with_key(conf)
    gateway = "kind = http\nurl = https://sms.example.org/send\nheaders = X-Channel: otp\nbody = "
    of_no_use = "".join(f"[sms {name}]\n{gateway}{{}}\n" for name in "abc")
    conf.write_text(
        f"{conf.read_text()}[sms]\ngateways = a, b, c\n{of_no_use}[http]\ntrusted_proxies = ::1\n"
    )
    status, lines = checked("-c", conf)
    assert status == os.EX_CONFIG
    assert [line.partition(" url")[0] for line in lines] == [
        f"{conf}:{number}: [sms {name}]" for number, name in ((11, "a"), (16, "b"), (21, "c"))
    ]


def test_a_placeholder_that_nobody_knows_is_told_with_its_line(conf):
    with_key(conf)
    conf.write_text(conf.read_text() + GATEWAY.replace("{body}", '{"to": "{destination}", "text": {text}}'))
    status, lines = checked("-c", conf)
    assert status == os.EX_CONFIG
    (line,) = lines
    assert line.startswith(f"{conf}:11: [sms a] body: is not JSON")


def test_a_server_without_a_key_is_told_the_whole_command(conf, tmp_path):
    status, lines = checked("-c", conf)
    command = f"sydentish keys generate -c {conf}"
    assert (status, lines) == (
        os.EX_CONFIG,
        [f"{tmp_path}/data/keys: there is no signing key; make one, as the server's user, with: {command}"],
    )
    done = CliRunner().invoke(main, ["serve", "-c", str(conf)])
    assert (done.exit_code, done.output.splitlines()) == (status, lines)


def test_a_socket_without_a_directory_is_told_with_its_line(conf, tmp_path):
    with_key(conf)
    conf.write_text(f"{conf.read_text()}[http]\ninternal_listeners = unix:{tmp_path}/no/x.sock\n")
    problem = f"{conf}:6: [http] internal_listeners: {tmp_path}/no: there is no such directory: make it"
    assert checked("-c", conf) == (os.EX_CONFIG, [problem])


def test_a_certificate_that_tls_refuses_is_told(conf, tmp_path):
    with_key(conf)
    pem = tmp_path / "own.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(weak_certificate())
    conf.write_text(f"{conf.read_text()}[replication]\ncertificate_file = {pem}\nca_file = {pem}\n")
    status, (warning, problem) = checked("-c", conf)
    assert (status, problem) == (os.EX_CONFIG, f"{pem}: cannot be used for TLS (ee key too small)")
    assert "[replication] certificate_file: expires on" in warning
