"""Secrets: where they come from, and that nothing shows them."""

import pytest

from sydentish.config import Secret

CANARY = "c4n4ry-passw0rd"


def test_a_secret_in_the_file(loaded):
    config = loaded(f"[email]\nsmtp_username = me\nsmtp_password = {CANARY}\n")
    assert config.email.smtp_password == Secret(CANARY)
    assert config.email.smtp_password.reveal() == CANARY
    assert CANARY not in repr(config) + str(config)


def test_a_secret_from_a_file_of_its_own(loaded, tmp_path):
    (tmp_path / "secret").write_text(f"{CANARY}\n")
    config = loaded(f"[email]\nsmtp_username = me\nsmtp_password_file = {tmp_path / 'secret'}\n")
    assert config.email.smtp_password == Secret(CANARY)


def test_secrets_have_equality_and_no_repr():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert f"{Secret(CANARY)} {Secret(CANARY)!r}" == "Secret(...) Secret(...)"


def test_either_the_secret_or_its_file(problems, tmp_path):
    (tmp_path / "secret").write_text(CANARY)
    both = (
        f"[email]\nsmtp_username = me\nsmtp_password = {CANARY}\nsmtp_password_file = {tmp_path / 'secret'}\n"
    )
    assert problems(both) == [
        "7: [email] smtp_password_file: give either smtp_password or smtp_password_file, not both"
    ]


def test_half_a_login(problems):
    assert problems("[email]\nsmtp_username = me\n") == [
        "5: [email] smtp_username: needs smtp_password or smtp_password_file beside it"
    ]
    assert problems("[email]\nsmtp_password = x\n") == [
        "5: [email] smtp_password: needs smtp_username beside it"
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"[email]\nsmtp_password = {CANARY}\n  {CANARY}\n",
        f"[email]\nsmtp_password = {CANARY}\nsmtp_password = {CANARY}\n",
        f"[email]\nsmtp_password: {CANARY}\n",
        f"[email]\nsmtp_password {CANARY}\n",
        f"[email]\nsmtp_password\n{CANARY}\n",
        f"[email]\nfrom = {CANARY}@example.org, b\n",
        f"[validation]\nnext_link_allowed = https://u:{CANARY}@example.org\n",
        f"[policy a]\nversion=1\nen.name=a\nen.url=https://u:{CANARY}@example.org\n",
    ],
)
def test_no_problem_repeats_a_secret(problems, text):
    assert CANARY not in "\n".join(problems(text))
