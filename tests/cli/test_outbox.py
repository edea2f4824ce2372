"""`outbox`: the commands as processes, on a real database."""

import json
from contextlib import closing

import pytest
from click.testing import CliRunner
from store_tools import contents, rows

from sydentish.actions.invites import mail_key
from sydentish.cli import main
from sydentish.cli.printing import now_ms
from sydentish.domain.ephemeral import ephemeral_key
from sydentish.domain.invites import Invitation, InviteDetails, InviteMail
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import invites, outbox
from sydentish.store.sqlite import connect

ANN, BOB = "@ann:hs.example.org", "@bob:hs.example.net"
DAY_MS = 24 * 3600 * 1000
USAGE = 2
# What is worth something to whoever has it.
SECRETS = ("canarytoken", "canarylink", "canaryguest")


class Post:
    """Rows of the outbox in the database of a house."""

    def __init__(self, house):
        self.house = house
        self.now = now_ms()

    def invite(self, name="mail"):
        """Keeps an invitation, and its mail; the number of the mail."""
        invitation = Invitation(
            f"canarytoken-{name}", threepid(name), "!r:x.org", BOB, self.now, self.now + DAY_MS
        )
        details = InviteDetails(room_name="Tea", guest_access_token="canaryguest")
        mail = InviteMail(
            address=invitation.threepid.address, link="https://x/#canarylink", sender=BOB, details=details
        )

        def make(tx):
            invites.add(tx, invitation, ephemeral_key(name.encode().ljust(32)).public_key)
            return outbox.add(
                tx,
                kind="invite",
                destination="relay-3",
                idempotency_key=mail_key(invitation.token),
                payload=mail.to_json(),
                now_ms=self.now,
            )

        return self.house.write(make)

    def bind(self, name="ann", mxid=ANN):
        """Binds an address; the number of the row that tells of it."""
        self.house.write(lambda tx: self.house.statements.bind(tx, threepid(name), mxid, self.now))
        return rows(self.house.path, "SELECT max(outbox_id) FROM outbox WHERE kind = 'onbind'")[0][0]

    def bury(self, kind="onbind", age=0, **options):
        """Gives up what is due first."""

        def end(tx):
            (taken,) = outbox.lease(tx, kind, self.now, 1000, 1, failing=False)
            outbox.bury(tx, kind, taken, "HTTP 403", self.now - age, answered=True, **options)

        self.house.write(end)

    def states(self):
        return dict(rows(self.house.path, "SELECT outbox_id, state FROM outbox"))

    def invitations(self):
        return rows(self.house.path, "SELECT count(*) FROM invitations")[0][0]


def threepid(name):
    return Threepid(EMAIL, f"{name}-canary@example.org")


@pytest.fixture
def post(command_house):
    return Post(command_house)


# --- list and show ----------------------------------------------------------------------------------------


def test_nothing_is_listed_where_nothing_is(command_house):
    assert command_house.run("outbox", "list") == (0, "There are no such rows\n", "")
    assert command_house.json("outbox", "list") == {"rows": [], "next": None}


def test_rows_are_listed_without_addresses_and_payloads(command_house, post):
    mail = post.invite()
    post.bury("invite", 3 * DAY_MS, keeps_payload=False)
    told = post.bind()
    status, out, err = command_house.run("outbox", "list")
    assert (status, err) == (0, "")
    head, *table = out.splitlines()
    assert head.split() == [
        "ID",
        "KIND",
        "STATE",
        "DESTINATION",
        "AGE",
        "TRIES",
        "NEXT",
        "TRY",
        "LAST",
        "ERROR",
    ]
    assert [line.split()[:4] for line in table] == [
        [str(mail), "invite", "dead", "relay-3"],
        [str(told), "onbind", "pending", "hs.example.org"],
    ]
    assert table[0].endswith("HTTP 403")
    assert "now" in table[1].split()
    assert "canary" not in out
    dead, pending = command_house.json("outbox", "list")["rows"]
    assert dead == {
        "id": mail,
        "kind": "invite",
        "destination": "relay-3",
        "state": "dead",
        "created_ts": post.now,
        "next_try_ts": None,
        "died_ts": post.now - 3 * DAY_MS,
        "tries": 1,
        "last_error": "HTTP 403",
        "payload_kept": False,
        "invitations": 0,
    }
    assert (pending["next_try_ts"], pending["died_ts"], pending["payload_kept"]) == (post.now, None, True)


def test_what_is_asked_for_is_listed(command_house, post):
    post.bind("a")
    post.bury()
    numbers = [post.bind("b"), post.bind("c", BOB)]
    mail = post.invite("d")

    def listed(*options):
        return [each["id"] for each in command_house.json("outbox", "list", *options)["rows"]]

    assert listed("--state", "dead") == [1]
    assert listed("--state", "pending", "--kind", "onbind") == numbers
    assert listed("--kind", "invite") == [mail]
    assert listed("--destination", "hs.example.net") == numbers[1:]
    assert listed("--limit", "2") == [1, numbers[0]]
    assert listed("--limit", "2", "--after", numbers[0]) == [numbers[1], mail]
    assert command_house.run("outbox", "list", "--limit", "1")[2] == "There are more: add --after 1\n"


def test_an_address_in_an_error_is_not_shown(command_house, post):
    number = post.bind()
    command_house.write(lambda tx: tx.run("UPDATE outbox SET last_error = 'no such ann-canary@example.org'"))
    for command in (("outbox", "list"), ("outbox", "show", number)):
        for options in ((), ("--json",)):
            _, out, _ = command_house.run(*command, *options)
            assert "no such" in out
            assert "canary" not in out


def test_a_row_is_shown_and_what_it_says_only_when_asked_for(command_house, post):
    post.invite("ann")
    number = post.bind("ann")
    status, out, _ = command_house.run("outbox", "show", number)
    assert status == 0
    for word in ("onbind", "hs.example.org", "pending", "carries:", "payload:           kept"):
        assert word in out
    assert "canary" not in out
    status, out, _ = command_house.run("outbox", "show", number, "--payload")
    assert "ann-canary@example.org" in out
    told = command_house.json("outbox", "show", number, "--payload")["payload"]
    assert (told["mxid"], told["invites"][0]["sender"]) == (ANN, BOB)
    assert told["signatures"] == told["invites"][0]["token"] == "(hidden)"
    for shown in (out, json.dumps(told)):
        assert not any(secret in shown for secret in SECRETS)


def test_the_secrets_of_a_mail_are_never_shown(command_house, post):
    number = post.invite()
    _, out, _ = command_house.run("outbox", "show", number, "--payload")
    told = command_house.json("outbox", "show", number, "--payload")["payload"]
    assert (told["address"], told["sender"], told["details"]["room_name"]) == (
        "mail-canary@example.org",
        BOB,
        "Tea",
    )
    for shown in (out, json.dumps(told)):
        assert not any(secret in shown for secret in SECRETS)
    post.bury("invite", keeps_payload=False)
    assert "erased when it was given up" in command_house.run("outbox", "show", number, "--payload")[1]
    assert command_house.json("outbox", "show", number, "--payload")["payload"] is None


@pytest.mark.parametrize("command", ["show", "retry", "drop"])
def test_a_number_that_is_nobodys_is_told_of(command_house, command):
    before = contents(command_house.path)
    status, out, err = command_house.run("outbox", command, "99")
    assert (status, out, err) == (1, "", "99: there is no such row; see sydentish outbox list\n")
    assert contents(command_house.path) == before


# --- retry ------------------------------------------------------------------------------------------------


def test_what_was_given_up_is_tried_again(command_house, post):
    number = post.bind()
    post.bury()
    assert command_house.run("outbox", "retry", number) == (0, f"{number}: is tried again now\n", "")
    (row,) = command_house.json("outbox", "list")["rows"]
    assert (row["state"], row["tries"], row["died_ts"]) == ("pending", 0, None)
    assert row["next_try_ts"] == row["created_ts"] >= post.now
    assert command_house.run("outbox", "retry", number)[1] == f"{number}: was waiting, and is due now\n"


def test_a_dead_mail_cannot_be_tried_again_and_why(command_house, post):
    mail = post.invite()
    post.bury("invite", keeps_payload=False)
    number = post.bind()
    before = post.states()
    status, out, err = command_house.run("outbox", "retry", mail, number)
    # The others are tried all the same.
    assert (status, out) == (1, f"{number}: was waiting, and is due now\n")
    assert err.startswith(f"{mail}: cannot be tried again: what the mail said was erased")
    assert post.states() == before


def test_what_is_no_longer_so_is_not_told_again(command_house, post):
    outdated = post.bind("ann", ANN)
    post.bury()
    newer = post.bind("ann", BOB)
    status, _, err = command_house.run("outbox", "retry", outdated)
    assert (status, err.split(":")[0]) == (1, str(outdated))
    assert "bound anew since" in err
    assert post.states() == {outdated: "dead", newer: "pending"}


def test_many_are_tried_again_by_what_they_are(command_house, post):
    for name in "abc":
        post.bind(name)
        post.bury()
    post.bind("d", BOB)
    post.bury()
    post.invite("e")
    post.bury("invite", keeps_payload=False)
    narrow = ("--kind", "onbind", "--destination", "hs.example.net")
    assert command_house.run("outbox", "retry", *narrow)[:2] == (0, "1 rows are tried again now\n")
    status, out, _ = command_house.run("outbox", "retry", "--all-dead")
    assert status == 0
    assert out.splitlines() == [
        "3 rows are tried again now",
        "1 mails cannot be: what they said was erased when they were given up",
    ]
    assert sorted(post.states().values()) == ["dead", *["pending"] * 4]


def test_what_waits_for_a_destination_is_due_now(command_house, post):
    number = post.bind("a")
    later = post.now + DAY_MS
    with closing(connect(command_house.path, 5000)) as connection:
        connection.execute("UPDATE outbox SET due_ts = ? WHERE outbox_id = ?", (later, number))
    waiting = ("--kind", "onbind", "--destination", "hs.example.org")
    assert command_house.run("outbox", "retry", *waiting)[:2] == (0, "1 rows are tried again now\n")
    assert rows(command_house.path, "SELECT due_ts < ? FROM outbox", (later,)) == [(1,)]


# --- drop -------------------------------------------------------------------------------------------------


def test_a_row_is_dropped_with_the_invitation_that_it_carries(command_house, post):
    mail = post.invite("ann")
    number = post.bind("ann")
    assert post.invitations() == 1
    status, out, _ = command_house.run("outbox", "drop", number)
    assert (status, out) == (
        0,
        f"{number}: onbind to hs.example.org is dropped; the invitation in it is deleted, too\n",
    )
    assert (post.invitations(), post.states()) == (0, {mail: "pending"})


def test_the_invitation_of_a_dropped_mail_waits_on(command_house, post):
    mail = post.invite()
    status, out, _ = command_house.run("outbox", "drop", mail)
    assert (status, out) == (
        0,
        f"{mail}: invite to relay-3 is dropped; the invitation waits on, but no mail tells of it\n",
    )
    assert (post.invitations(), post.states()) == (1, {})


def test_what_was_given_up_is_dropped_by_its_age(command_house, post):
    for name, age in (("a", 9 * DAY_MS), ("b", 0)):
        post.invite(name)
        post.bind(name)
        post.bury(age=age)
    waiting = post.bind("c")
    drop = ("outbox", "drop", "--dead")
    expected = (0, "1 rows are dropped, and 1 invitations with them\n")
    assert command_house.run(*drop, "--older-than", "7d", "--kind", "onbind")[:2] == expected
    assert command_house.run(*drop)[:2] == expected
    assert [number for number, state in post.states().items() if state == "dead"] == []
    assert waiting in post.states()
    assert command_house.run(*drop)[1] == "0 rows are dropped, and 0 invitations with them\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry"],
        ["drop"],
        ["retry", "1", "--all-dead"],
        ["drop", "1", "--dead"],
        ["drop", "--older-than", "soon", "--dead"],
        ["retry", "0"],
        ["retry", "--kind", "letter"],
        ["list", "--state", "lost"],
        ["show"],
    ],
)
def test_what_is_asked_must_be_clear(command_house, arguments):
    done = CliRunner().invoke(main, ["outbox", *arguments, "-c", str(command_house.conf)])
    assert done.exit_code == USAGE
