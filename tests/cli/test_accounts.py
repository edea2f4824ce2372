"""`accounts`: the commands as processes, on a real database."""

import pytest
from click.testing import CliRunner
from store_tools import contents, rows

from sydentish.cli import main
from sydentish.cli.printing import now_ms
from sydentish.store import accounts

ALICE, BOB = "@alice:hs.example.org", "@bob:hs.example.net"
DAY_MS = 24 * 3600 * 1000
USAGE = 2


@pytest.fixture
def people(command_house):
    """Alice with two tokens, Bob with none."""

    def add(tx):
        accounts.add_account(tx, ALICE, now_ms() - 9 * DAY_MS)
        for number, days in enumerate((3, 5)):
            accounts.add_token(tx, f"secret{number}", ALICE, now_ms() - days * DAY_MS)
        accounts.add_account(tx, BOB, now_ms() - 7 * DAY_MS)

    command_house.write(add)
    return command_house


def tokens(house):
    return rows(house.path, "SELECT token_hash FROM access_tokens")


def test_nothing_is_listed_where_nothing_is(command_house):
    assert command_house.run("accounts", "list") == (0, "There are no accounts\n", "")
    assert command_house.json("accounts", "list") == {"accounts": [], "next": None}


def test_accounts_are_listed_without_their_tokens(people):
    status, out, err = people.run("accounts", "list")
    assert (status, err) == (0, "")
    head, *table = [line.split("  ") for line in out.splitlines()]
    assert [cell.strip() for cell in head if cell] == ["USER", "CREATED", "LAST SEEN", "TOKENS"]
    assert [[cell.strip() for cell in line if cell] for line in table] == [
        [ALICE, "9 d ago", "9 d ago", "2"],
        [BOB, "7 d ago", "7 d ago", "0"],
    ]
    assert "secret" not in out
    listed = people.json("accounts", "list")
    assert listed["next"] is None
    assert [(each["user_id"], each["access_tokens"]) for each in listed["accounts"]] == [(ALICE, 2), (BOB, 0)]
    assert set(listed["accounts"][0]) == {"user_id", "created_ts", "last_seen_ts", "access_tokens"}


def test_they_are_listed_page_by_page(people):
    status, out, err = people.run("accounts", "list", "--limit", "1")
    assert (status, BOB in out) == (0, False)
    assert err == f"There are more: sydentish accounts list --after {ALICE}\n"
    first = people.json("accounts", "list", "--limit", "1")
    assert first["next"] == ALICE
    rest = people.json("accounts", "list", "--limit", "1", "--after", first["next"])
    assert ([each["user_id"] for each in rest["accounts"]], rest["next"]) == ([BOB], None)
    assert people.run("accounts", "list", "--after", BOB)[1] == "There are no accounts behind that user\n"


def test_a_user_is_logged_out_and_stays_known(people):
    assert people.run("accounts", "logout", ALICE) == (0, f"{ALICE}: 2 access tokens are ended\n", "")
    assert tokens(people) == []
    (alice, _) = people.json("accounts", "list")["accounts"]
    # When a token was last used, not when the operator came.
    assert alice["last_seen_ts"] < now_ms() - 3 * DAY_MS + 60_000
    assert people.run("accounts", "logout", ALICE)[1] == f"{ALICE}: 0 access tokens are ended\n"


def test_who_has_no_account_cannot_be_logged_out(people):
    before = contents(people.path)
    status, out, err = people.run("accounts", "logout", "@nobody:hs.example.org")
    assert (status, out) == (1, "")
    assert err == "@nobody:hs.example.org: has no account; see sydentish accounts list\n"
    assert contents(people.path) == before


def test_everybody_is_logged_out(people):
    def crowd(tx):
        for number in range(450):
            accounts.add_account(tx, f"@u{number:03}:x.org", 1)
            accounts.add_token(tx, f"t{number}", f"@u{number:03}:x.org", 1)

    people.write(crowd)
    status, out, _ = people.run("accounts", "logout", "--all")
    assert (status, out) == (0, "452 access tokens of 451 users are ended\n")
    assert tokens(people) == []
    assert len(rows(people.path, "SELECT * FROM accounts")) == 452


@pytest.mark.parametrize("arguments", [[], ["--all", ALICE], ["alice"], ["--nobody"]])
def test_what_is_asked_must_be_clear(command_house, arguments):
    done = CliRunner().invoke(main, ["accounts", "logout", *arguments, "-c", str(command_house.conf)])
    assert done.exit_code == USAGE
