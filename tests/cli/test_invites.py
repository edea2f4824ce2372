"""`invites`: the commands as processes, on a real database."""

import pytest
from click.testing import CliRunner
from store_tools import contents, rows

from sydentish.actions.invites import mail_key
from sydentish.cli import main
from sydentish.cli.printing import now_ms
from sydentish.domain.invites import Invitation
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.store import invites, keys, outbox

ALICE, SPAMMER = "@alice:hs.example.org", "@spammer:evil.example.com"
DAY_MS = 24 * 3600 * 1000
USAGE = 2


class Guests:
    """Invitations in the database of a house."""

    def __init__(self, house):
        self.house = house
        self.now = now_ms()

    def add(self, token, *, address=None, room="!r:x.org", sender=ALICE, age=0, lifetime=30 * DAY_MS):
        """Keeps an invitation whose mail was not sent yet; its ID."""
        created = self.now - age
        threepid = Threepid(EMAIL, address or f"{token}@example.org")
        made = Invitation(token, threepid, room, sender, created, created + lifetime)

        def make(tx):
            invites.add(tx, made, token.encode())
            row = {"destination": f"relay-{token}", "idempotency_key": mail_key(token), "payload": "{}"}
            outbox.add(tx, kind="invite", now_ms=created, **row)

        self.house.write(make)
        return made.short_id

    def bind(self, address):
        self.house.write(
            lambda tx: self.house.statements.bind(tx, Threepid(EMAIL, address), "@x:hs.org", self.now)
        )

    def left(self):
        """The tokens of those that are kept."""
        return [token for (token,) in rows(self.house.path, "SELECT token FROM invitations ORDER BY token")]

    def is_valid(self, token):
        return self.house.write(lambda tx: keys.is_ephemeral_valid(tx, token.encode(), self.now))

    def mails(self):
        return rows(self.house.path, "SELECT count(*) FROM outbox WHERE kind = 'invite'")[0][0]


@pytest.fixture
def guests(command_house):
    return Guests(command_house)


# --- list --------------------------------------------------------------------------------------------------


def test_nothing_is_listed_where_nothing_is(command_house):
    assert command_house.run("invites", "list") == (0, "There are no such invitations\n", "")
    assert command_house.json("invites", "list") == {"invitations": [], "total": 0}


def test_invitations_are_listed_the_newest_first_and_without_their_tokens(command_house, guests):
    ids = [
        guests.add(f"secrettoken{number}", address=f"g{number}@example.org", age=number)
        for number in range(3)
    ]
    status, out, _ = command_house.run("invites", "list")
    head, *table = out.splitlines()
    assert (status, head.split()) == (0, ["ID", "ADDRESS", "ROOM", "SENDER", "CREATED", "EXPIRES", "STATE"])
    assert [row.split()[0] for row in table] == ids
    assert [row.split()[-1] for row in table] == ["waiting"] * 3
    assert "secrettoken" not in out
    listed = command_house.json("invites", "list", "--limit", "2")
    assert ([each["id"] for each in listed["invitations"]], listed["total"]) == (ids[:2], 3)
    assert listed["invitations"][0] == {
        "id": ids[0],
        "medium": EMAIL,
        "address": "g0@example.org",
        "room_id": "!r:x.org",
        "sender": ALICE,
        "created_ts": guests.now,
        "expires_ts": guests.now + 30 * DAY_MS,
        "state": "waiting",
        "outbox_id": None,
    }
    assert (
        command_house.run("invites", "list", "--limit", "2")[2] == "1 older ones are not listed: --limit 3\n"
    )


def test_what_is_asked_for_is_listed(command_house, guests):
    guests.add("a", address="both@example.org")
    guests.add("b", address="both@example.org", room="!other:x.org", sender=SPAMMER)
    guests.add("c", sender=SPAMMER)

    def listed(*options):
        return sorted(
            each["address"][:1] for each in command_house.json("invites", "list", *options)["invitations"]
        )

    assert listed("--address", "Both@Example.org") == ["b", "b"]
    assert listed("--sender", SPAMMER) == ["b", "c"]
    assert listed("--room", "!other:x.org") == ["b"]
    assert listed("--sender", SPAMMER, "--room", "!r:x.org") == ["c"]
    assert listed("--address", "nobody@example.org") == []


def test_how_far_an_invitation_has_come_is_told(command_house, guests):
    for token in ("waiting", "handed", "refused", "expired"):
        guests.add(token, lifetime=1 if token == "expired" else DAY_MS, age=2)
    guests.bind("handed@example.org")
    guests.bind("refused@example.org")
    dead = rows(command_house.path, "SELECT outbox_id FROM invitations WHERE token = 'refused'")[0][0]
    command_house.write(lambda tx: tx.run("UPDATE outbox SET state = 'dead' WHERE outbox_id = ?", (dead,)))
    listed = command_house.json("invites", "list")["invitations"]
    assert {each["address"].split("@")[0]: each["state"] for each in listed} == {
        "waiting": "waiting",
        "handed": "handed over",
        "refused": "given up",
        "expired": "expired",
    }
    assert f"given up: outbox {dead}" in command_house.run("invites", "list")[1]


# --- revoke ------------------------------------------------------------------------------------------------


def test_what_is_revoked_cannot_be_accepted_and_is_not_sent(command_house, guests):
    revoked, _ = guests.add("a"), guests.add("b")
    told = "1 invitations are gone, and 1 mails that were not sent\n"
    assert command_house.run("invites", "revoke", revoked) == (0, told, "")
    assert (guests.left(), guests.is_valid("a"), guests.is_valid("b"), guests.mails()) == (
        ["b"],
        False,
        True,
        1,
    )
    # Whoever binds the address now finds nothing that waits.
    guests.bind("a@example.org")
    assert command_house.json("invites", "list", "--address", "a@example.org")["total"] == 0


def test_a_mail_that_was_given_up_goes_with_its_invitation(command_house, guests):
    revoked = guests.add("a")
    command_house.write(lambda tx: tx.run("UPDATE outbox SET state = 'dead'"))
    assert command_house.json("invites", "revoke", revoked) == {
        "invitations": 1,
        "mails": 1,
        "handed_over": 0,
    }
    assert guests.mails() == 0


def test_all_of_a_sender_are_revoked(command_house, guests):
    for number in range(450):
        guests.add(f"spam{number}", sender=SPAMMER)
    guests.add("kept")
    gone = command_house.json("invites", "revoke", "--sender", SPAMMER)
    assert gone == {"invitations": 450, "mails": 450, "handed_over": 0}
    assert (guests.left(), guests.mails()) == (["kept"], 1)
    assert command_house.json("invites", "revoke", "--sender", SPAMMER)["invitations"] == 0


@pytest.mark.parametrize("options", [("--address", "A@example.org"), ("--room", "!a:x.org")])
def test_all_of_an_address_or_a_room_are_revoked(command_house, guests, options):
    guests.add("a", address="a@example.org", room="!a:x.org")
    guests.add("b")
    assert command_house.json("invites", "revoke", *options)["invitations"] == 1
    assert guests.left() == ["b"]


def test_what_was_handed_over_is_left_alone(command_house, guests):
    handed = guests.add("a", sender=SPAMMER)
    guests.add("b", sender=SPAMMER)
    guests.bind("a@example.org")
    status, out, _ = command_house.run("invites", "revoke", "--sender", SPAMMER)
    assert (status, out.splitlines()[1]) == (
        0,
        "1 were handed over to a homeserver already, and are left alone: sydentish outbox list",
    )
    assert (guests.left(), guests.is_valid("a"), guests.is_valid("b")) == (["a"], True, False)
    # Named by its ID, it is a failure.
    assert command_house.json("invites", "revoke", handed, status=1)["handed_over"] == 1


def test_an_id_that_is_not_known_is_told(command_house, guests):
    known = guests.add("a")
    status, out, err = command_house.run("invites", "revoke", known, "0" * 16)
    assert (status, out) == (1, "1 invitations are gone, and 1 mails that were not sent\n")
    assert err == f"{'0' * 16}: there is no such invitation; see sydentish invites list\n"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["revoke"], "--sender"),
        (["revoke", "a"], "hexadecimal"),
        (["revoke", "--sender", "spammer"], "--sender"),
        (["list", "--address", "spammer"], "--address"),
        (["list", "--address", "+44 (0)7700 900001"], "--address"),
        (["list", "--limit", "0"], "--limit"),
        (["expire", "--before", "soon"], "--before"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_of_usage(command_house, guests, command, named):
    guests.add("a")
    before = contents(command_house.path)
    done = CliRunner().invoke(main, ["invites", *command, "-c", str(command_house.conf)])
    assert (done.exit_code, named in done.output.splitlines()[-1]) == (USAGE, True), done.output
    assert contents(command_house.path) == before


# --- expire ------------------------------------------------------------------------------------------------


def test_what_has_expired_goes_with_its_keys_and_mails(command_house, guests):
    guests.add("live", age=10 * DAY_MS)
    for number in range(250):
        # Each is added at a time at which the ones before have not expired yet, so they are all there.
        guests.add(f"old{number}", age=10 * DAY_MS, lifetime=DAY_MS)
    # Its homeserver has taken it: only the key is left.
    guests.add("delivered", age=10 * DAY_MS, lifetime=DAY_MS)
    command_house.write(lambda tx: tx.run("DELETE FROM invitations WHERE token = 'delivered'"))
    assert command_house.json("invites", "expire") == {"invitations": 250, "mails": 250, "handed_over": 0}
    assert guests.left() == ["live"]
    assert rows(command_house.path, "SELECT count(*) FROM ephemeral_keys") == [(1,)]
    assert command_house.json("invites", "expire")["invitations"] == 0


def test_what_has_waited_too_long_goes_if_that_is_said(command_house, guests):
    for token, days in (("old", 9), ("bound", 9), ("new", 1)):
        guests.add(token, age=days * DAY_MS)
    guests.bind("bound@example.org")
    assert command_house.json("invites", "expire", "--before", "5d")["invitations"] == 1
    assert guests.left() == ["bound", "new"]
    assert not guests.is_valid("old")
