"""`import-sydent` as a process, on databases such as a Sydent makes, of each version of its schema."""

import fcntl
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from daemons import COMMAND, SECONDS, stopped
from signedjson.key import get_verify_key
from sydent_files import NAME, PEER, PEPPER, SydentFile, fill, lookup_hash
from sydent_moves import ANN, BOB, NOW_MS, NOW_S, Move, outcomes
from unpaddedbase64 import encode_base64

from sydentish.actions.takeover import LARGE_BATCH
from sydentish.domain.accounts import hash_secret
from sydentish.domain.statements import erased_key
from sydentish.domain.threepids import Threepid
from sydentish.domain.validation import hash_code
from sydentish.keyfiles import load_keys
from sydentish.store.counters import STATEMENT, next_number

REFUSED, INTERRUPTED = 78, 130


@pytest.fixture
def move(tmp_path):
    return Move(tmp_path)


# --- the whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_each_version_of_the_schema_is_taken_over(tmp_path, version):
    move = Move(tmp_path, version)
    move.file.bind("ann@example.org", ANN, 5)
    move.file.know(PEER, 7, "bob@example.org", BOB, 6)
    move.file.invite("new@example.org", "token", NOW_S)
    move.file.add_session(1234, "ann@example.org", "secret", "tok", NOW_MS)
    if version >= 4:
        move.file.add_account(ANN, "access")
    told = move.take()

    assert told["schema"] == version
    assert move.bound() == {"ann@example.org": ANN, "bob@example.org": BOB}
    assert move.rows("SELECT pepper FROM peppers WHERE retired_ts IS NULL") == (
        [(PEPPER,)] if version >= 3 else []
    )
    assert move.rows("SELECT user_id FROM access_tokens") == ([(ANN,)] if version >= 4 else [])
    assert (
        len(move.rows("SELECT * FROM invitations"))
        == len(move.rows("SELECT * FROM validation_sessions"))
        == 1
    )


def test_key_configuration_and_data_are_for_their_owner_alone_and_can_be_used(move):
    move.configure(email={"email.smtpusername": "me", "email.smtppassword": "p#w%%d ;x"})
    told = move.take()
    ring = load_keys(move.data / "keys", NAME)
    check = subprocess.run(
        [COMMAND, "check-config", "-c", move.new],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert (ring.active.key_id, ring.active.signing_key) == ("ed25519:0", move.file.key)
    assert told["signing_key"] == {
        "key_id": "ed25519:0",
        "public_key": encode_base64(get_verify_key(move.file.key).encode()),
        "new": True,
    }
    for path in (move.new, move.path, next((move.data / "keys").iterdir())):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (check.returncode, check.stdout) == (0, f"{move.new}: ok\n"), check.stderr
    assert "\nsmtp_password = p#w%d ;x\n" in move.new.read_text()
    assert "p#w" not in json.dumps(told)
    assert not list(move.data.glob("import-sydent-*"))


def test_nothing_of_the_sydent_is_changed(move):
    move.file.bind("ann@example.org", ANN, 5)
    before = move.everything()
    move.take()

    assert {path: content for path, content in move.everything().items() if path in before} == before


def test_a_rehearsal_tells_the_same_and_changes_nothing(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.file.add_account(ANN, "access")
    before = move.everything()
    rehearsed = move.take("--dry-run")
    unchanged = move.everything() == before and not move.data.exists()
    told = move.take()

    assert unchanged
    assert (rehearsed.pop("dry_run"), told.pop("dry_run")) == (True, False)
    assert (rehearsed["configuration"].pop("written"), told["configuration"].pop("written")) == (False, True)
    rehearsed["warnings"] = told["warnings"] = []
    assert rehearsed == told


def test_a_rehearsal_of_a_repetition_leaves_our_database_alone(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.take()
    move.file.bind("new@example.org", ANN, 6)
    before = move.bound()
    told = move.take("--dry-run")

    assert outcomes(told, "associations of this server") == {"known here already": 1, "taken over": 1}
    assert move.bound() == before == {"ann@example.org": ANN}


def test_repeated_it_takes_over_what_is_new(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.file.add_account(ANN, "first")
    move.file.invite("one@example.org", "token1", NOW_S)
    move.take()
    again = move.take()
    move.file.bind("ann@example.org", BOB, 9)
    move.file.add_account(BOB, "second")
    move.file.invite("two@example.org", "token2", NOW_S)
    told = move.take()

    kinds = ("associations of this server", "accounts", "access tokens", "invitations", "look-up pepper")
    assert [outcomes(again, kind) for kind in kinds] == [{"known here already": 1}] * 5
    assert again["configuration"] == {"file": str(move.new), "written": False, "settings": []}
    assert again["signing_key"]["new"] is False
    assert move.bound() == {"ann@example.org": BOB}
    assert outcomes(told, "access tokens") == {"known here already": 1, "taken over": 1}
    assert {token for (token,) in move.rows("SELECT token FROM invitations")} == {"token1", "token2"}


def test_the_configuration_that_is_there_is_written_anew_only_by_force(move):
    move.take()
    text = move.new.read_text()
    move.new.write_text(f"{text}\n# ours\n")
    kept = (move.take(), move.new.read_text())[1]
    forced = (move.take("--force"), move.new.read_text())[1]

    assert (kept, forced) == (f"{text}\n# ours\n", text)


def test_what_stands_on_a_terminal_has_no_address_in_it_but_the_report_has(move):
    move.file.know(PEER, 1, "Ann@Example.org", ANN, 5)
    move.file.know(PEER, 2, "ann@example.org", BOB, 6)
    move.file.know(PEER, 3, "no address", ANN, 7)
    move.file.know(PEER, 4, "bad@example.org", "nobody", 8)
    status, out, err = move.run("--report", move.folder / "report")
    lines = [json.loads(line) for line in (move.folder / "report").read_text().splitlines()]

    assert status == 0
    assert "ann@" not in (out + err).lower()
    assert "of which the newest statement counts: 1" in out
    assert stat.S_IMODE((move.folder / "report").stat().st_mode) == 0o600
    assert {
        "conflict": {
            "medium": "email",
            "address": "ann@example.org",
            "spellings": ["Ann@Example.org", "ann@example.org"],
            "kept": BOB,
            "lost": [ANN],
        }
    } in lines
    assert {line["unusable"]["address"] for line in lines if "unusable" in line} == {
        "no address",
        "bad@example.org",
    }
    assert move.bound() == {"ann@example.org": BOB}


# --- who has which address ------------------------------------------------------------------------------------


def test_the_newest_statement_counts_whoever_has_made_it(move):
    move.file.bind("own@example.org", ANN, 5)
    move.file.bind("own@example.org", BOB, 6)
    move.file.bind("peers@example.org", ANN, 5)
    move.file.know(PEER, 1, "peers@example.org", BOB, 6)
    move.file.know(PEER, 2, "older@example.org", BOB, 4)
    move.file.bind("older@example.org", ANN, 5)
    told = move.take()

    assert move.bound() == {"own@example.org": BOB, "peers@example.org": BOB, "older@example.org": ANN}
    outdated = "outdated: a newer statement about that address counts"
    assert outcomes(told, "associations of this server") == {"taken over": 2, outdated: 2}
    assert outcomes(told, "associations of peers") == {"taken over": 1, outdated: 1}


def test_statements_keep_their_numbers_and_the_signatures_of_peers(move):
    number = move.file.bind("own@example.org", ANN, 5)
    move.file.know(PEER, 77, "peers@example.org", BOB, 6)
    move.take()
    found = {
        address: rest
        for address, *rest in move.rows(
            "SELECT address, origin_server, origin_id, ts, not_after, signed FROM associations"
        )
    }
    signed = json.loads(found["peers@example.org"].pop())

    assert found["own@example.org"][:3] == [NAME, number, 5]
    assert found["own@example.org"][-1] is None
    assert found["peers@example.org"][:3] == [PEER, 77, 6]
    assert signed == json.loads(move.file.signed(PEER, "peers@example.org", BOB, 6))


def test_what_is_stated_next_has_a_number_that_was_never_used(move):
    for ts in range(1, 4):
        move.file.bind("ann@example.org", ANN, ts)
    # The newest one is gone, and only SQLite still knows of it.
    move.file.run("DELETE FROM local_threepid_associations")
    move.file.run("DELETE FROM global_threepid_associations")
    move.take()
    numbers = []
    move.write(lambda tx: numbers.append(next_number(tx, STATEMENT)))

    assert numbers == [4]


def test_an_unbind_is_kept_until_all_peers_have_heard_of_it(move):
    move.with_certificates()
    for name in ("told", "untold"):
        move.file.bind(f"{name}@example.org", ANN, 5)
    heard = move.file.unbind("told@example.org", 6)
    untold = move.file.unbind("untold@example.org", 7)
    move.file.add_peer(sent=heard)
    told = move.take()

    assert move.bound() == {}
    assert outcomes(told, "unbinds") == {"taken over": 2}
    assert move.rows("SELECT origin_id, address, ts FROM tombstones") == [(untold, "untold@example.org", 7)]
    assert len(move.rows("SELECT * FROM erased_addresses")) == 2


def test_what_is_older_than_an_unbind_of_ours_stays_unbound(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.file.unbind("ann@example.org", 9)
    move.file.know(PEER, 1, "ann@example.org", BOB, 7)
    move.file.bind("bob@example.org", ANN, 5)
    move.file.unbind("bob@example.org", 6)
    move.file.know(PEER, 2, "bob@example.org", BOB, 7)
    move.take()

    assert move.bound() == {"bob@example.org": BOB}


def test_what_a_peer_has_unbound_does_not_come_back(move):
    number = move.file.bind("ann@example.org", ANN, 5)
    move.file.forget("ann@example.org")
    told = move.take()
    ((key,),) = move.rows("SELECT key_hex FROM local_keys")

    assert move.bound() == {}
    assert outcomes(told, "associations of this server") == {"unbound at a peer": 1}
    assert move.rows("SELECT address_hmac, ts, origin_server, origin_id FROM erased_addresses") == [
        (erased_key(bytes.fromhex(key), Threepid("email", "ann@example.org")), 5, NAME, number)
    ]
    assert move.rows("SELECT * FROM tombstones") == []


def test_a_statement_that_its_server_has_not_signed_is_left_out_for_the_next_one(move):
    move.file.know(PEER, 1, "ann@example.org", ANN, 5)
    for number, signed in enumerate(("", "[]", "{}", move.file.signed(NAME, "ann@example.org", BOB, 9)), 2):
        move.file.know(PEER, number, "ann@example.org", BOB, number + 5, signed=signed)
    move.file.know(
        PEER, 9, "ann@example.org", BOB, 20, signed=move.file.signed(PEER, "bob@example.org", BOB, 20)
    )
    told = move.take()

    assert move.bound() == {"ann@example.org": ANN}
    assert sum(outcomes(told, "associations of peers").values()) == 6


def test_what_was_stated_here_since_is_not_overwritten(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.take()
    move.write(lambda tx: tx.run("UPDATE associations SET mxid = ?, ts = 9, origin_id = 2", (BOB,)))
    move.take()

    assert move.bound() == {"ann@example.org": BOB}


def test_looked_up_hashes_are_those_that_clients_have(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.file.bind("447700900001", BOB, 5, medium="msisdn")
    move.take()
    hashes = dict(move.rows("SELECT hash, mxid FROM lookup_hashes"))

    assert hashes == {
        lookup_hash("ann@example.org"): ANN,
        lookup_hash("447700900001", medium="msisdn"): BOB,
    }
    assert move.rows("SELECT count(*) FROM peppers WHERE current_since_ts IS NOT NULL") == [(1,)]


def test_the_pepper_takes_the_place_of_one_that_is_there(move):
    move.take()
    move.write(lambda tx: tx.run("UPDATE peppers SET pepper = 'ours'"))
    move.file.bind("ann@example.org", ANN, 5)
    told = move.take()
    current = move.rows("SELECT pepper, retired_ts IS NULL FROM peppers ORDER BY pepper_id")

    assert outcomes(told, "look-up pepper") == {"taken over": 1}
    assert current == [("ours", 0), (PEPPER, 1)]
    assert (lookup_hash("ann@example.org"), ANN) in move.rows("SELECT hash, mxid FROM lookup_hashes")


# --- peers ------------------------------------------------------------------------------------------------


def test_peers_and_what_they_have_acknowledged(move):
    move.with_certificates()
    move.file.add_peer(sent=7)
    move.file.add_peer("hex.example.net", key="ab" * 32, port=4444)
    move.file.add_peer("off.example.net", active=0)
    move.file.add_peer("keyless.example.net", key="")
    with move.old.open("a") as file:
        file.write(f"[peer.{PEER}]\nbase_replication_url = https://{PEER}:4434/\n")
    told = move.take()
    found = move.rows("SELECT name, url, acknowledged_id FROM peers ORDER BY name")

    assert found == [
        ("hex.example.net", "https://hex.example.net:4444", 0),
        (PEER, f"https://{PEER}:4434", 7),
    ]
    assert f"[peer {PEER}]\n" in move.new.read_text()
    left = {each["setting"] for each in told["configuration"]["settings"] if "left out" in each["told"]}
    assert left == {f"peer {name}.example.net in the database" for name in ("off", "keyless")}


def test_a_cursor_only_goes_ahead(move):
    move.with_certificates()
    move.file.add_peer(sent=7)
    move.take()
    move.write(lambda tx: tx.run("UPDATE peers SET acknowledged_id = 9"))
    move.take()

    assert move.rows("SELECT acknowledged_id FROM peers") == [(9,)]


def test_without_a_certificate_nothing_was_exchanged_and_no_peer_is_taken_over(move):
    move.file.add_peer(sent=7)
    move.take()

    assert move.rows("SELECT name FROM peers") == []


# --- people ---------------------------------------------------------------------------------------------------


def test_tokens_are_hashed_and_go_on_to_be_those_of_their_users(move):
    move.file.add_account(ANN, "one", "two", created_ts=1234)
    move.file.add_account("nobody", "three")
    move.file.insert("tokens", token="four", user_id="@lost:hs.example.org")
    told = move.take()

    assert move.rows("SELECT user_id, created_ts FROM accounts") == [(ANN, 1234)]
    tokens = move.rows("SELECT token_hash, user_id FROM access_tokens")
    assert set(tokens) == {(hash_secret("one"), ANN), (hash_secret("two"), ANN)}
    assert outcomes(told, "accounts") == {"taken over": 1, "unusable: no user ID": 1}


def test_who_has_logged_out_since_stays_logged_out(move):
    move.file.add_account(ANN, "one", "two")
    move.take()
    move.write(lambda tx: tx.run("DELETE FROM access_tokens WHERE token_hash = ?", (hash_secret("one"),)))
    told = move.take()

    assert outcomes(told, "access tokens") == {"known here already": 2}
    assert move.rows("SELECT token_hash FROM access_tokens") == [(hash_secret("two"),)]


TERMS = """
master_version: "m2"
docs:
  terms_of_service:
    version: "2.0"
    langs:
      en: {name: Terms, url: "https://example.org/terms-en"}
      de: {name: Bedingungen, url: "https://example.org/terms-de"}
  privacy:
    version: 1.1
    langs:
      en: {name: Privacy, url: "https://example.org/privacy"}
"""


def test_accepted_terms_are_those_of_the_policies_that_are_offered(move):
    (move.folder / "terms.yaml").write_text(TERMS)
    move.configure(general={"terms.path": "terms.yaml"})
    urls = ("https://example.org/terms-de", "https://example.org/privacy")
    move.file.add_account(ANN, "one", edition="m2", urls=urls)
    move.file.add_account(BOB, "two", urls=urls[1:])
    move.file.add_account("@old:hs.example.org", "three", edition="m1", urls=urls)
    told = move.take()
    accepted = move.rows("SELECT user_id, policy_id, version FROM accepted_terms ORDER BY user_id, policy_id")

    assert accepted == [
        (ANN, "privacy", "1.1"),
        (ANN, "terms_of_service", "2.0"),
        (BOB, "privacy", "1.1"),
    ]
    assert outcomes(told, "accepted terms") == {"taken over": 2, "of terms that are not offered any more": 1}
    assert "[policy terms_of_service]" in move.new.read_text()


def test_invitations_wait_with_their_keys(move):
    key = move.file.invite("New@Example.org", "token", NOW_S - 400 * 86400)
    move.file.invite("sent@example.org", "told", NOW_S, sent=NOW_S)
    move.file.insert("ephemeral_public_keys", public_key="A" * 43, persistence_ts=5)
    told = move.take()
    ((token, address, expires_ts),) = move.rows("SELECT token, address, expires_ts FROM invitations")
    keys = move.rows(
        "SELECT public_key, token_hash, sender FROM ephemeral_keys WHERE token_hash = ?", hash_secret("token")
    )

    assert (token, address) == ("token", "new@example.org")
    # From now on: nobody has told whoever invited that it would end.
    assert expires_ts > NOW_MS + 89 * 86_400_000
    assert keys == [(get_verify_key(key).encode().hex(), hash_secret("token"), BOB)]
    assert outcomes(told, "invitations") == {"taken over": 1, "a homeserver was told of it": 1}
    assert outcomes(told, "keys of invitations") == {"taken over": 2, "expired": 1}


def test_an_invitation_that_was_delivered_since_does_not_come_back(move):
    move.file.invite("new@example.org", "token", NOW_S)
    move.take()
    move.write(lambda tx: tx.run("DELETE FROM invitations"))
    move.take()

    assert move.rows("SELECT * FROM invitations") == []


def test_an_invitation_of_an_address_that_a_peer_has_bound_is_delivered(move):
    move.file.invite("new@example.org", "token", NOW_S)
    move.file.know(PEER, 1, "new@example.org", ANN, 5)
    move.take()
    ((kind, destination, payload),) = move.rows("SELECT kind, destination, payload FROM outbox")

    assert (kind, destination) == ("onbind", "hs.example.org")
    assert json.loads(payload)["invites"][0]["signed"]["token"] == "token"


def test_open_sessions_go_on_and_expired_ones_are_left(move):
    day = 86_400_000
    move.file.add_session(111, "a@example.org", "s1", "mail-token", NOW_MS - 1000)
    move.file.add_session(222, "447700900001", "s2", "123456", NOW_MS - 1000, medium="msisdn", validated=1)
    move.file.add_session(333, "a@example.org", "s3", "t", NOW_MS - 2 * day)
    told = move.take()
    sessions = move.rows(
        "SELECT sid, client_secret_hash, changed_ts, validated_ts FROM validation_sessions ORDER BY sid"
    )
    tokens = dict(move.rows("SELECT sid, token_hash FROM validation_tokens"))

    assert sessions == [
        ("111", hash_secret("s1"), NOW_MS - 1000, None),
        ("222", hash_secret("s2"), NOW_MS - 1000, NOW_MS - 1000),
    ]
    assert tokens == {"111": hash_secret("mail-token"), "222": hash_code("123456", "s2")}
    assert outcomes(told, "validation sessions") == {"taken over": 2, "expired": 1}


def test_a_session_that_was_validated_there_meanwhile_is_validated_here_but_not_the_other_way(move):
    move.file.add_session(111, "a@example.org", "s1", "t1", NOW_MS - 1000)
    move.file.add_session(222, "b@example.org", "s2", "t2", NOW_MS - 1000)
    move.take()
    move.write(lambda tx: tx.run("UPDATE validation_sessions SET validated_ts = 7 WHERE sid = '222'"))
    move.file.run("UPDATE threepid_validation_sessions SET validated = 1 WHERE id = 111")
    move.take()

    assert dict(move.rows("SELECT sid, validated_ts FROM validation_sessions")) == {
        "111": NOW_MS - 1000,
        "222": 7,
    }


# --- what was erased here, and what a stopped command leaves -----------------------------------------------------


ADDRESS = "ann.canary@example.org"


def erase(move, *whom):
    done = subprocess.run(
        [COMMAND, "erase", "-c", move.new, "--yes", *whom],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_was_erased_since_does_not_come_back(move):
    (move.folder / "terms.yaml").write_text(TERMS)
    move.configure(general={"terms.path": "terms.yaml"})
    move.file.bind(ADDRESS, ANN, 5)
    move.file.add_account(ANN, "one", edition="m2", urls=("https://example.org/privacy",))
    move.file.invite(ADDRESS, "token1", NOW_S)
    move.file.invite("new@example.org", "token2", NOW_S, sender=ANN)
    move.file.add_session(111, ADDRESS, "s1", "t1", NOW_MS - 1000)
    kept = ("accounts", "access_tokens", "accepted_terms", "validation_sessions", "validation_tokens")
    kept += ("invitations", "ephemeral_keys", "associations")
    first = move.take()
    were = {table: len(move.rows(f"SELECT * FROM {table}")) for table in kept}
    erase(move, "--address", ADDRESS)
    erase(move, "--mxid", ANN)
    # Also what somebody else does at the Sydent in the user's name.
    move.file.insert("tokens", token="two", user_id=ANN)
    move.file.run("UPDATE threepid_validation_sessions SET validated = 1, mtime = mtime + 500")
    told = move.take()

    assert all(were.values()), were
    assert {table: move.rows(f"SELECT * FROM {table}") for table in kept} == {table: [] for table in kept}
    held = b"".join(path.read_bytes() for path in move.data.glob("sydentish.db*"))
    assert ADDRESS.encode() not in held
    known = {"known here already": 1}
    kinds = ("accounts", "accepted terms", "validation sessions")
    assert [outcomes(first, kind) for kind in kinds] == [{"taken over": 1}] * 3
    assert [outcomes(told, kind) for kind in kinds] == [known] * 3
    assert (
        outcomes(told, "access tokens") == outcomes(told, "keys of invitations") == {"known here already": 2}
    )


def test_what_was_known_before_it_was_taken_over_does_not_come_back_either(move):
    move.take()
    move.file.add_account(ANN, "one")
    move.write(lambda tx: tx.run("INSERT INTO accounts VALUES (?, 1, 1)", (ANN,)))
    assert outcomes(move.take(), "accounts") == {"known here already": 1}
    erase(move, "--mxid", ANN)
    move.take()

    assert move.rows("SELECT * FROM accounts") == move.rows("SELECT * FROM access_tokens") == []


def scratch(move):
    return sorted(move.data.glob("import-sydent-*"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
# While the copy is made, while it is read, and while things are taken over.
@pytest.mark.parametrize("nth", [2, 3, 6])
def test_stopped_in_the_middle_it_leaves_no_copy(move, name, nth):
    fill(move.file, 2000)
    status, _, err = move.run(env=stopped(move.folder, name, nth))

    assert status == INTERRUPTED
    assert "stopped" in err
    # Where nothing was taken over yet, the directory of the copy has gone with it.
    assert move.data.is_dir() is (nth == 6)
    assert scratch(move) == []
    move.take()
    assert len(move.bound()) == 2000


def test_what_a_killed_one_has_left_goes_with_the_next_and_nothing_else(move):
    move.file.bind("ann@example.org", ANN, 5)
    assert move.run(env=stopped(move.folder, "SIGKILL", 3))[0] == -signal.SIGKILL
    (left,) = scratch(move)
    assert b"ann@example.org" in (left / "sydent.db").read_bytes()
    others = [move.data / f"import-sydent-{name}" for name in ("20240101", "notes", "in-use")]
    others += [move.data / "import-sydent-abcdefgh", move.data / "import-sydent-link1234"]
    for folder in others[:-1]:
        folder.mkdir(mode=0o700)
        (folder / "sydent.db").write_bytes(b"mine")
    # One that another run works in, and a link to one that was left.
    others[-1].symlink_to(left)
    mark = others[3] / ".made-by-sydentish"
    with mark.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        move.take()

    assert not left.exists()
    assert scratch(move) == sorted(others)
    move.take()
    assert scratch(move) == sorted(set(others) - {others[3]})


# --- what is refused ------------------------------------------------------------------------------------------


def _no_database(move):
    move.file.path.write_text("hello, this is no database at all")


def _ours(move):
    move.take()
    move.file.path.unlink()
    move.path.rename(move.file.path)
    (move.data / "keys").rename(move.folder / "keys")


def _damaged(move):
    fill(move.file, 2000)
    content = bytearray(move.file.path.read_bytes())
    content[len(content) // 3 : len(content) * 2 // 3] = b"\xff" * len(
        content[len(content) // 3 : len(content) * 2 // 3]
    )
    move.file.path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda move: move.file.path.unlink(), "cannot be read: No such file"),
        (_no_database, "is no SQLite database"),
        (_ours, "the database is one of Sydentish"),
        (lambda move: move.file.run("DROP TABLE peers"), "it has no table peers"),
        (lambda move: move.file.run("PRAGMA user_version = 0"), "start Sydent 2.6.1 with it once"),
        (lambda move: move.file.run("PRAGMA user_version = 6"), "used by a Sydent that is newer"),
        (lambda move: move.file.run("DROP TABLE tokens"), "is damaged: it has no table tokens"),
        (_damaged, "is damaged"),
    ],
)
def test_what_is_not_the_database_of_a_sydent_is_refused(move, spoil, told):
    spoil(move)
    status, _, err = move.run()

    assert status == 1
    assert told in err
    assert move.new.exists() is (spoil in (_ours, _damaged))


def test_where_it_is_refused_no_empty_directory_is_left(move):
    move.data = move.folder / "srv" / "data"
    move.configure(crypto={"ed25519.signingkey": "ed25519 0 rubbish"})
    assert move.run()[0] == REFUSED
    assert not move.data.parent.exists()
    move.data.parent.mkdir()
    assert move.run()[0] == REFUSED
    assert list(move.data.parent.iterdir()) == []
    move.configure()
    move.take()
    assert stat.S_IMODE(move.data.stat().st_mode) == 0o700


def test_another_servers_configuration_is_not_used(move):
    move.take()
    move.configure(general={"server.name": "other.example.org"})
    status, _, err = move.run()

    assert (status, "server_name: is id.example.org, but the Sydent is other.example.org" in err) == (
        REFUSED,
        True,
    )


def test_another_signing_key_is_not_replaced(move):
    move.take()
    move.file.key = SydentFile(move.folder / "other.db").key
    move.configure()
    status, _, err = move.run()

    assert (status, "there is another signing key, ed25519:0" in err) == (REFUSED, True)


def test_where_another_signing_key_is_nothing_is_written_so_that_another_directory_can_be_named(move):
    move.take()
    move.new.unlink()
    move.file.key = SydentFile(move.folder / "other.db").key
    move.configure()
    status, _, err = move.run()
    assert (status, move.new.exists()) == (REFUSED, False)
    assert "there is another signing key, ed25519:0" in err
    assert "--force" not in err
    move.data = move.folder / "elsewhere"
    move.take()

    assert load_keys(move.data / "keys", NAME).active.signing_key == move.file.key


def test_where_the_configuration_is_kept_it_is_told_why_no_other_directory_is_used(move):
    move.take()
    move.file.key = SydentFile(move.folder / "other.db").key
    move.configure()
    move.data = move.folder / "elsewhere"
    status, _, err = move.run()
    assert status == REFUSED
    assert f"{move.new} is there and is used: without --force, --data-dir means nothing" in err
    move.take("--force")

    assert load_keys(move.data / "keys", NAME).active.signing_key == move.file.key


def test_where_another_database_is_nothing_is_written_so_that_another_directory_can_be_named(move):
    move.data.mkdir(mode=0o700)
    with closing(sqlite3.connect(move.path)) as connection:
        connection.execute("CREATE TABLE others (x)")
    status, _, err = move.run()
    assert (status, move.new.exists(), (move.data / "keys").exists()) == (1, False, False)
    assert f"{move.path}: is the database of another program" in err
    move.data = move.folder / "elsewhere"
    move.take()

    assert (move.data / "sydentish.db").exists()


def test_both_cannot_have_gone_on(move):
    move.file.bind("ann@example.org", ANN, 5)
    move.take()
    move.write(lambda tx: next_number(tx, STATEMENT))
    unchanged = move.run()[0]
    move.file.bind("bob@example.org", BOB, 6)
    status, _, err = move.run()

    assert (unchanged, status) == (0, 1)
    assert "Stop the Sydent" in err
    assert move.bound() == {"ann@example.org": ANN}


def test_a_report_that_is_there_is_not_overwritten(move):
    (move.folder / "report").write_text("precious")
    status, _, err = move.run("--report", move.folder / "report")

    assert (status, "File exists" in err) == (1, True)
    assert (move.folder / "report").read_text() == "precious"


# --- a database that is in use, or was left in the middle of something --------------------------------------------


def test_it_warns_of_whoever_has_the_database_open(move):
    move.file.bind("ann@example.org", ANN, 5)
    with closing(sqlite3.connect(move.file.path)) as connection:
        connection.execute("SELECT count(*) FROM peers").fetchone()
        told = move.take()

    assert any(f"is in use by process {os.getpid()}" in warning for warning in told["warnings"])
    assert move.bound() == {"ann@example.org": ANN}


def test_it_warns_of_the_process_that_the_sydent_has_noted(move):
    process = subprocess.Popen([sys.executable, "-c", "input()", "sydent"], stdin=subprocess.PIPE)
    try:
        (move.folder / "sydent.pid").write_text(f"{process.pid}\n")
        running = move.take()["warnings"]
    finally:
        process.communicate(b"\n", timeout=SECONDS)
    ended = move.take()["warnings"]

    assert any(f"is in use by process {process.pid}" in warning for warning in running)
    assert not any("is in use" in warning for warning in ended)


LEAVE = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("PRAGMA cache_size = 1")
connection.execute("UPDATE local_threepid_associations SET mxid = '@wal:hs.example.org'")
connection.execute("UPDATE global_threepid_associations SET mxid = '@wal:hs.example.org'")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE global_threepid_associations SET mxid = '@undone:hs.example.org', sgAssoc = zeroblob(99999)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_what_a_killed_program_has_left_beside_the_database_counts(move, journal):
    for number in range(50):
        move.file.bind(f"u{number}@example.org", ANN, 5)
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, move.file.path, journal], timeout=SECONDS, check=False
    )
    beside = {path.name for path in move.folder.glob("sydent.db-*")}
    before = move.everything()
    move.take()
    ending = "-wal" if journal == "WAL" else "-journal"

    assert done.returncode == -signal.SIGKILL
    assert f"sydent.db{ending}" in beside
    assert set(move.bound().values()) == {"@wal:hs.example.org"}
    assert {path: content for path, content in move.everything().items() if path in before} == before


def test_with_a_write_ahead_log_it_must_not_be_in_use(move):
    with closing(sqlite3.connect(move.file.path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("SELECT count(*) FROM peers").fetchone()
        status, _, err = move.run()

    assert (status, "stop the Sydent first" in err) == (1, True)


# --- many -----------------------------------------------------------------------------------------------------


def test_many_associations(move):
    fill(move.file, 20_000)
    told = move.take()

    assert outcomes(told, "associations of this server") == {"taken over": 15_000}
    assert outcomes(told, "associations of peers") == {"taken over": 5_000}
    assert move.rows("SELECT count(*), count(DISTINCT mxid) FROM lookup_hashes") == [(20_000, 20_000)]
    assert move.rows("SELECT value FROM counters WHERE name = 'statement'") == [(19_999,)]


# The most memory that a command has needed, in kB; of those that this process has waited for, so each has its own.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
MAX_GROWTH_KB = 30_000


def most_memory(folder, number):
    folder.mkdir()
    move = Move(folder)
    fill(move.file, number)
    command = [COMMAND, "import-sydent", "--config", move.old, "--out", move.new, "--data-dir", move.data]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        capture_output=True,
        text=True,
        timeout=SECONDS * 4,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(move.bound()) == number
    return int(done.stdout)


def test_more_associations_do_not_take_more_memory(tmp_path):
    # What is written in one transaction is in memory as a whole: the fewer are as many as that.
    few, many = (most_memory(tmp_path / str(number), number) for number in (LARGE_BATCH, 3 * LARGE_BATCH))

    assert many - few < MAX_GROWTH_KB
