"""`import-sydent` on databases that have values of any type in any column, as SQLite allows."""

import shutil
import sqlite3
import time
from contextlib import closing, suppress
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_tools import InlineDatabase, at_once, rows
from sydent_files import NAME, PEER, SydentFile
from sydent_moves import ANN, BOB, NOW_MS, NOW_S, Move, outcomes
from twisted.internet.task import Clock

from sydentish.actions.peppers import PepperRotation
from sydentish.actions.statements import Statements
from sydentish.actions.takeover import Plan, Takeover
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import Threepid
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx, connect
from sydentish.store.sydent import SydentDatabase

LARGEST = (1 << 63) - 1
BLOB = b"\x00\xff"
NO_UTF8 = "CAST(x'61ff62' AS TEXT)"
LONG = "x" * 5000
ODD = "unusable: a value of another type, or too long"
ACCOUNTS, TOKENS, TERMS = "accounts", "access tokens", "accepted terms"
INVITATIONS, KEYS, SESSIONS = "invitations", "keys of invitations", "validation sessions"
OF_TABLE = {
    "accounts": ACCOUNTS,
    "tokens": TOKENS,
    "invite_tokens": INVITATIONS,
    "ephemeral_public_keys": KEYS,
    "threepid_validation_sessions": SESSIONS,
    "hashing_metadata": "look-up pepper",
}


class Taking:
    """Takes over in this process, on real files."""

    def __init__(self, folder, original=None):
        self.path = folder / "ours.db"
        if original is None:
            self.file = SydentFile(folder / "sydent.db")
            migrate_sqlite(self.path, 5000, 1, shipped_steps())
        else:
            self.file = copy(original.file)
            self.file.path = Path(shutil.copy(original.file.path, folder))
            shutil.copy(original.path, folder)
        self.statements = Statements(
            keys=KeyRing(NAME, parse_key(make_key("0", bytes(32)))), validity_ms=1000, random_bytes=bytes
        )

    def run(self):
        """What became of everything."""
        old, db = SydentDatabase(self.file.path), InlineDatabase(self.path)
        peppers = PepperRotation(
            db=db,
            clock=Clock(),
            interval_ms=None,
            grace_ms=1,
            now_ms=lambda: NOW_MS,
            random_bytes=bytes,
        )
        # What a command asks for before anything else.
        old.peers()
        day = 24 * 3600 * 1000
        plan = Plan(
            server_name=NAME,
            peers=(),
            terms=Terms(),
            terms_edition=None,
            session_lifetime_ms=day,
            invitation_lifetime_ms=day,
        )
        with closing(old):
            takeover = Takeover(
                plan=plan,
                old=old,
                db=db,
                statements=self.statements,
                peppers=peppers,
                batch=100,
                now_ms=lambda: NOW_MS,
                on_progress=lambda *_: None,
                on_detail=lambda _: None,
            )
            return at_once(takeover.run())

    def bind_afterwards(self):
        with closing(connect(self.path, 5000)) as connection:
            return self.statements.bind(
                SqliteTx(connection), Threepid("email", "after@example.org"), ANN, int(time.time() * 1000)
            )


def spoiling(table, column, value, outcome=ODD):
    """A row of a table that is like the one that is there, but for one column."""
    shown = value if isinstance(value, (int, float)) else repr(value)[:12]
    return pytest.param(table, column, value, outcome, id=f"{table}.{column}={shown}")


def good(file):
    """One row of everything, and another for what is going to be odd."""
    for number, (name, mxid) in enumerate((("ann", ANN), ("odd", BOB)), 1):
        file.bind(f"{name}@example.org", mxid, 5)
        file.know(PEER, number, f"{name}@peer.example.org", mxid, 5)
        file.add_account(mxid, f"{name}-access", urls=["https://example.org/terms"])
        file.invite(f"{name}@new.example.org", f"{name}-token", NOW_S)
        file.add_session(100 + number, f"{name}@example.org", "secret", f"{name}-code", NOW_MS)


def spoil(file, table, column, value):
    with closing(sqlite3.connect(file.path)) as connection, connection:
        (row_id,) = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()
        place = NO_UTF8 if value is NO_UTF8 else "?"
        given_values = () if value is NO_UTF8 else (value,)
        connection.execute(f"UPDATE {table} SET {column} = {place} WHERE rowid = ?", (*given_values, row_id))


ODDITIES = [
    *(spoiling("accounts", "user_id", value) for value in (BLOB, NO_UTF8, LONG)),
    *(spoiling("accounts", "created_ts", value) for value in ("yesterday", 1.5, BLOB, LARGEST)),
    *(spoiling("tokens", "token", value) for value in (BLOB, NO_UTF8, LONG)),
    *(
        spoiling("invite_tokens", column, value)
        for column in ("token", "address", "room_id", "sender", "medium")
        for value in (BLOB, NO_UTF8)
    ),
    *(spoiling("invite_tokens", "received_ts", value) for value in (BLOB, "then", LARGEST)),
    *(
        spoiling("invite_tokens", "room_id", value, "unusable: no room ID")
        for value in ("tea", "!a\nb", "!" + "x" * 300)
    ),
    *(spoiling("ephemeral_public_keys", "public_key", value) for value in (BLOB, NO_UTF8)),
    spoiling("ephemeral_public_keys", "public_key", "é~~", "unusable: no public key"),
    *(spoiling("ephemeral_public_keys", "persistence_ts", value) for value in (BLOB, 1.5, LARGEST)),
    *(
        spoiling("threepid_validation_sessions", column, value)
        for column, value in (
            *(("address", BLOB), ("medium", BLOB), ("address", NO_UTF8), ("clientSecret", BLOB)),
            *(("mtime", "now"), ("mtime", LARGEST), ("validated", "yes")),
        )
    ),
    spoiling("hashing_metadata", "lookup_pepper", BLOB),
]


@pytest.mark.parametrize(("table", "column", "value", "outcome"), ODDITIES)
def test_an_odd_row_is_left_out_and_the_others_are_taken(tmp_path, table, column, value, outcome):
    taking = Taking(tmp_path)
    good(taking.file)
    spoil(taking.file, table, column, value)
    tally = taking.run()

    assert tally.kinds[OF_TABLE[table]][outcome] == 1
    assert tally.kinds["associations of this server"] == {"taken over": 2}
    if table != "hashing_metadata":
        assert tally.kinds[OF_TABLE[table]]["taken over"] == 1
    taking.bind_afterwards()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("originServer", value) for value in (BLOB, "no server", "", NO_UTF8, LONG)),
        *(("originId", value) for value in ((1 << 62) + 1, LARGEST, -1, BLOB, "first", 1.5)),
        *(("sgAssoc", value) for value in (BLOB, NO_UTF8, "[" * 5000, "{" + " " * 70_000 + "}")),
        *((column, BLOB) for column in ("medium", "address", "mxid", "ts", "notBefore", "notAfter")),
        ("address", NO_UTF8),
    ],
)
def test_an_odd_statement_is_left_out_and_the_others_are_taken(tmp_path, column, value):
    taking = Taking(tmp_path)
    good(taking.file)
    spoil(taking.file, "global_threepid_associations", column, value)
    taking.run()
    bound = dict(rows(taking.path, "SELECT address, mxid FROM associations"))

    assert bound == {"ann@example.org": ANN, "odd@example.org": BOB, "ann@peer.example.org": ANN}
    taking.bind_afterwards()


@pytest.mark.parametrize("value", [LARGEST, "last", 1.5, BLOB, None])
def test_a_sequence_that_makes_no_sense_is_ignored(tmp_path, value):
    taking = Taking(tmp_path)
    good(taking.file)
    taking.file.run("UPDATE sqlite_sequence SET seq = ?", value)
    taking.run()

    assert taking.bind_afterwards().origin_id == 3


def test_an_id_that_leaves_no_room_is_not_taken(tmp_path):
    taking = Taking(tmp_path)
    good(taking.file)
    taking.file.run("UPDATE local_threepid_associations SET id = ? WHERE id = 2", LARGEST)
    taking.file.run("UPDATE global_threepid_associations SET originId = ? WHERE originId = 2", LARGEST)
    taking.run()

    # The second was given out, as SQLite knows.
    assert taking.bind_afterwards().origin_id == 3


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("name", value) for value in (BLOB, "a\nb = c", NO_UTF8)),
        *(("port", value) for value in (BLOB, "x")),
        *(("lastSentVersion", value) for value in (LARGEST, (1 << 62) + 1, -1, "x", BLOB, 1.5)),
    ],
)
def test_an_odd_peer_is_left_out(tmp_path, column, value):
    move = Move(tmp_path)
    move.with_certificates()
    move.file.add_peer(sent=1)
    move.file.add_peer("odd.example.net", sent=1)
    move.file.bind("ann@example.org", ANN, 5)
    spoil(move.file, "peers", column, value)
    told = move.take()

    assert move.rows("SELECT name, acknowledged_id FROM peers") == [(PEER, 1)]
    assert [each for each in told["configuration"]["settings"] if "is left out" in each["told"]]
    assert move.rows("SELECT value FROM counters WHERE name = 'statement'") == [(1,)]


def test_all_at_once_end_in_a_report(tmp_path):
    move = Move(tmp_path)
    good(move.file)
    for odd in ODDITIES:
        table, column, value, _ = odd.values
        spoil(move.file, table, column, value)
    spoil(move.file, "global_threepid_associations", "address", BLOB)
    told = move.take("--report", move.folder / "report")

    assert outcomes(told, ACCOUNTS) == {"taken over": 1, ODD: 1}
    assert "\\\\x00\\\\xff" in (move.folder / "report").read_text()


# --- anything, anywhere ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A Sydent's database and ours before anything happens, to make copies of."""
    taking = Taking(tmp_path_factory.mktemp("originals"))
    good(taking.file)
    taking.file.add_peer(sent=1)
    return taking


TABLES = [
    *("local_threepid_associations", "global_threepid_associations", "sqlite_sequence", *OF_TABLE),
    *("accepted_terms_urls", "threepid_token_auths", "peers", "peer_pubkeys"),
]


@settings(max_examples=150, deadline=None)
@given(table=st.sampled_from(TABLES), data=st.data())
def test_whatever_stands_in_a_row_the_rest_is_taken_and_addresses_can_be_bound(originals, table, data):
    anything = st.one_of(
        st.none(),
        st.sampled_from(
            [LARGEST, -LARGEST - 1, 1 << 62, (1 << 62) + 1, (1 << 53) - 1, LONG, NO_UTF8, BLOB, "\0"]
        ),
        st.integers(-LARGEST, LARGEST),
        st.floats(),
        st.binary(max_size=20),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    )
    with TemporaryDirectory() as folder:
        taking = Taking(Path(folder), originals)
        columns = [column for _, column, *_ in rows(taking.file.path, f"PRAGMA table_info({table})")]
        for column in data.draw(st.lists(st.sampled_from(columns), min_size=1, unique=True)):
            # What SQLite itself refuses does not stand there.
            with suppress(sqlite3.IntegrityError):
                spoil(taking.file, table, column, data.draw(anything))
        taking.run()
        bound = dict(rows(taking.path, "SELECT address, mxid FROM associations"))

        if table not in {"local_threepid_associations", "sqlite_sequence"}:
            assert bound["ann@example.org"] == ANN
        taking.bind_afterwards()
