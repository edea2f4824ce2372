"""`stats`: what it counts, as a process on a real database."""

from store_tools import START_MS

from sydentish.cli.printing import now_ms, size
from sydentish.domain.associations import Association
from sydentish.domain.invites import Invitation
from sydentish.domain.peers import Peer
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid
from sydentish.store import accounts, associations, invites, lookup, peers
from sydentish.store.migrate import shipped_steps

ANN, BOB, PEER = "@ann:hs.example.org", "@bob:hs.example.org", "id.example.net"


def fill(house, now):
    def make(tx):
        lookup.make_current(tx, lookup.add_pepper(tx, "pepper", now), now)
        peers.add(tx, Peer(PEER, f"https://{PEER}", {"ed25519:0": "key"}, (PEER,)), START_MS)
        for threepid, mxid in (
            (Threepid(EMAIL, "a@example.org"), ANN),
            (Threepid(EMAIL, "gone@example.org"), ANN),
            (Threepid(MSISDN, "447700900001"), ANN),
        ):
            house.statements.bind(tx, threepid, mxid, now)
        house.statements.unbind(tx, Threepid(EMAIL, "gone@example.org"), ANN, now)
        theirs = Association(Threepid(EMAIL, "theirs@example.org"), BOB, now, 0, 2 * now, PEER, 1)
        associations.put(tx, theirs, "{}")
        accounts.add_account(tx, ANN, now)
        for token in ("one", "two"):
            accounts.add_token(tx, token, ANN, now)
        invited = Threepid(EMAIL, "invited@example.org")
        invites.add(tx, Invitation("token", invited, "!r:x.org", ANN, now, 2 * now), b"key")
        tx.run("UPDATE outbox SET state = 'dead' WHERE outbox_id = 1")

    house.write(make)


def test_an_empty_database_is_counted(command_house):
    found = command_house.json("stats")
    assert found["bindings"] == {"total": 0, "own": 0, "by_medium": {}, "by_origin": {}}
    assert (found["outbox"], found["peers"], found["pepper_since_ts"]) == ([], [], None)
    assert found["schema"] == shipped_steps()[-1].number
    assert found["database_bytes"] > 0
    status, out, err = command_house.run("stats")
    assert (status, err) == (0, "")
    assert "bindings:          0\n" in out
    assert "never" in out


def test_everything_is_counted(command_house):
    now = now_ms()
    fill(command_house, now)
    found = command_house.json("stats")
    sizes = [found.pop(name) for name in ("database_bytes", "log_bytes")]
    assert all(each >= 0 for each in sizes)
    assert found == {
        "bindings": {
            "total": 3,
            "own": 2,
            "by_medium": {EMAIL: 2, MSISDN: 1},
            "by_origin": {"id.example.org": 2, PEER: 1},
        },
        "users": 2,
        "accounts": 1,
        "access_tokens": 2,
        "sessions": {"open": 0, "validated": 0, "expired": 0},
        "invitations": {"waiting": 1, "handed_over": 0, "expired": 0},
        "outbox": [
            {"kind": "onbind", "state": state, "rows": 1, "oldest_ts": now} for state in ("dead", "pending")
        ],
        "peers": [{"name": PEER, "behind": 3, "waiting_since_ts": now, "parked": 0}],
        "erased_addresses": 1,
        "tombstones": 1,
        "pepper_since_ts": now,
        "schema": shipped_steps()[-1].number,
    }
    status, out, err = command_house.run("stats")
    assert (status, err) == (0, "")
    told = [line.split(":", 1)[-1].strip() for line in out.splitlines()]
    assert told[:3] == ["2 email, 1 msisdn", "2 stated here", f"1 stated by {PEER}"]
    assert "1, 1 of them kept for peers" in told
    assert any(line.startswith("1 onbind dead, the oldest ") for line in told)
    assert "example.org" not in out.replace(PEER, "").replace("id.example.org", "")


def test_sizes_are_told_in_units_that_fit():
    assert [size(number) for number in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        *("0 bytes", "1023 bytes", "1.5 KiB", "5.0 MiB", "3.0 GiB")
    ]
