"""`credential:NAME`: files that systemd hands over."""

from pathlib import Path

import pytest

LOGIN = "[email]\nsmtp_username = me\nsmtp_password_file = credential:smtp-password\n"


@pytest.fixture
def credentials(tmp_path):
    """The directory of credentials, and the environment that tells of it."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    return folder, {"CREDENTIALS_DIRECTORY": str(folder)}


def test_an_option_that_names_a_file_can_name_a_credential(loaded, credentials):
    folder, environ = credentials
    (folder / "smtp-password").write_text("secret\n")
    (folder / "sydentish.token").write_text("another")
    (folder / "gateway").write_text("third")
    config = loaded(
        f"{LOGIN}[sms]\ngateways = a\noriginator = x\n[sms a]\nkind = openmarket\nusername = me\n"
        "password_file = credential:gateway\n",
        environ | {"SYDENTISH_HTTP__INTERNAL_TOKEN_FILE": "credential:sydentish.token"},
    )

    assert config.email.smtp_password.reveal() == "secret"
    assert config.http.internal_token.reveal() == "another"
    assert config.sms_gateways[0].password.reveal() == "third"


def test_a_directory_of_keys_is_handed_over_as_files_beside_one_another(loaded, credentials):
    folder, environ = credentials
    key_dir = "key_dir = credential:keys\n"
    (folder / "keys_ed25519_0.key").touch()
    assert loaded(key_dir, environ).general.key_dir == folder
    (folder / "keys").mkdir()
    assert loaded(key_dir, environ).general.key_dir == folder / "keys"


def test_what_the_environment_sets_is_not_looked_for_among_credentials(loaded, tmp_path):
    config = loaded(
        f"key_dir = credential:keys\n{LOGIN}",
        {"SYDENTISH_GENERAL__KEY_DIR": str(tmp_path), "SYDENTISH_EMAIL__SMTP_PASSWORD": "secret"},
    )
    assert config.general.key_dir == tmp_path
    assert config.email.smtp_password.reveal() == "secret"


def test_elsewhere_it_is_a_text_like_any_other(loaded, credentials):
    assert loaded("data_dir = credential:x\n", credentials[1]).general.data_dir == Path("credential:x")


def test_one_that_is_missing_is_told_once_with_the_remedy(problems, credentials):
    assert problems(LOGIN, credentials[1]) == [
        (
            "6: [email] smtp_password_file: names a credential that systemd has not handed over: add "
            "LoadCredential=smtp-password:/path/of/it to the unit"
        )
    ]
    assert problems("key_dir = credential:keys\n", credentials[1]) == [
        (
            "4: [general] key_dir: names a credential that systemd has not handed over: add "
            "LoadCredential=keys:/path/of/it to the unit"
        )
    ]


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_without_any_it_is_told_how_a_command_gets_at_them(problems, environ):
    assert problems(LOGIN, environ) == [
        (
            "6: [email] smtp_password_file: names a credential, which systemd hands over to the service alone. Beside the "
            "running service, as root: CREDENTIALS_DIRECTORY=/run/credentials/sydentish.service sydentish ..."
        )
    ]


@pytest.mark.parametrize("name", ["", "../smtp-password", "a/b", ".", "..", ".hidden", "a b", "x" * 256])
def test_a_name_that_is_none_is_refused(problems, credentials, name):
    (told,) = problems(LOGIN.replace("smtp-password", name), credentials[1])
    assert told.startswith(
        "6: [email] smtp_password_file: must have the name of a credential behind credential:"
    )
