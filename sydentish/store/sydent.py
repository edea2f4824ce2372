"""The database of a Sydent, which is read and never written: everything happens on a copy of one's own."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from sydentish.domain.takeover import OldRow, fold
from sydentish.domain.takeover_invites import OldInvitation, OldKey
from sydentish.store.database import Row
from sydentish.store.peek import MAGIC

OLDEST, NEWEST = 1, 5
"""The versions of its schema that are known. The 2nd added an index, the 3rd the pepper, the 4th accounts."""

_PAGES = 2048
_PAUSE_SECONDS = 0.01
# https://www.sqlite.org/fileformat.html, section 1.3: 2 where a write-ahead log is kept.
_LOG_BYTE, _HAS_LOG = 18, 2
_TABLES = {
    1: {
        *("local_threepid_associations", "global_threepid_associations", "peers", "peer_pubkeys"),
        *("invite_tokens", "ephemeral_public_keys", "threepid_validation_sessions", "threepid_token_auths"),
    },
    3: {"hashing_metadata"},
    4: {"accounts", "tokens", "accepted_terms_urls"},
}
_BY_ADDRESS = """
    SELECT medium, folded(medium, address), address, mxid, ts, notBefore, notAfter, originServer, originId, id
    FROM global_threepid_associations
    UNION ALL
    SELECT medium, folded(medium, address), address, mxid, ts, notBefore, notAfter, NULL, id, NULL
    FROM local_threepid_associations
    ORDER BY 1, 2
"""


class SydentProblem(Exception):
    """The database cannot be taken over; the message says why, and what to do."""


def snapshot(source: Path, folder: Path, *, in_use: bool) -> Path:
    """A copy of the database as it is now, with whatever a killed program has left beside it.

    Args:
        source: the file; it is only read, and nothing is made beside it.
        folder: where the copy is made.
        in_use: whether somebody may be writing to it.

    Raises:
        SydentProblem: it is none, or cannot be copied while it is in use.
    """
    copy = folder / "sydent.db"
    try:
        with source.open("rb") as file:
            head = file.read(_LOG_BYTE + 1)
        if not head.startswith(MAGIC):
            raise SydentProblem(f"{source}: is no SQLite database")
        left = [each for each in _beside(source) if each.exists()]
        if head[_LOG_BYTE] == _HAS_LOG and in_use:
            raise SydentProblem(f"{source}: is in use, with a write-ahead log: stop the Sydent first")
        if head[_LOG_BYTE] == _HAS_LOG or (left and not in_use):
            for each in (source, *left):
                shutil.copyfile(each, copy.with_name(each.name.replace(source.name, copy.name, 1)))
        else:
            _back_up(source, copy)
    except (OSError, sqlite3.DatabaseError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SydentProblem(f"{source}: cannot be read: {reason}") from error
    return copy


def _beside(source: Path) -> list[Path]:
    """What belongs to a database while transactions are under way; the index of the log is made anew."""
    return [source.with_name(f"{source.name}{ending}") for ending in ("-wal", "-journal")]


def _back_up(source: Path, copy: Path) -> None:
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as reading, closing(sqlite3.connect(copy)) as writing:
        # Being told of progress is what lets a signal end it.
        reading.backup(writing, pages=_PAGES, sleep=_PAUSE_SECONDS, progress=lambda *_: None)


def copy_of_ours(source: Path, copy: Path) -> None:
    """A copy of our own database, if there is one, to try something with.

    Raises:
        SydentProblem: it cannot be copied.
    """
    if not source.exists():
        return
    try:
        _back_up(source, copy)
    except sqlite3.DatabaseError as error:
        raise SydentProblem(f"{source}: cannot be copied: {error}") from error


class SydentDatabase:
    """What stands in the copy of such a database.

    Attributes:
        version: of its schema.

    Args:
        path: the copy.

    Raises:
        SydentProblem: it is the database of another program, or of a version that is not known.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.create_function("folded", 2, _fold, deterministic=True)
        try:
            (self.version,) = self._one("PRAGMA user_version")
            self._tables = {name for (name,) in self._rows("SELECT name FROM sqlite_master")}
            self._check()
        except SydentProblem:
            self.close()
            raise

    def close(self) -> None:
        """Ends the use of the copy."""
        self._connection.close()

    def _check(self) -> None:
        if "schema_steps" in self._tables:
            raise SydentProblem("the database is one of Sydentish: name that of the Sydent with --database")
        missing = _TABLES[1] - self._tables
        if missing:
            raise SydentProblem(
                f"the database is none of a Sydent: it has no table {min(missing)}; name the right one with --database"
            )
        if self.version < OLDEST:
            raise SydentProblem(
                f"the database has schema {self.version}, and {OLDEST} to {NEWEST} are known: "
                "start Sydent 2.6.1 with it once, which brings it up to date"
            )
        if self.version > NEWEST:
            raise SydentProblem(
                f"the database has schema {self.version}, and {OLDEST} to {NEWEST} are known: "
                "it was used by a Sydent that is newer than 2.6.1"
            )
        for since, tables in _TABLES.items():
            if self.version >= since and tables - self._tables:
                raise SydentProblem(f"the database is damaged: it has no table {min(tables - self._tables)}")

    # --- associations ---

    def number_of_rows(self) -> int:
        """How many rows `by_address` goes through."""
        tables = ("local_threepid_associations", "global_threepid_associations")
        return sum(int(self._one(f"SELECT count(*) FROM {table}")[0]) for table in tables)  # noqa: S608 - constants

    def by_address(self) -> Iterator[list[OldRow]]:
        """All rows about addresses, those about one address together, whatever its spellings."""
        for _, rows in groupby(self._each(_BY_ADDRESS), key=lambda row: row[:2]):
            yield [OldRow(medium, *rest) for medium, _, *rest in rows]

    def signed(self, row_id: int) -> str | None:
        """The signed JSON object of a row of the table of all binds."""
        row = self._one("SELECT sgAssoc FROM global_threepid_associations WHERE id = ?", row_id)
        return row[0] if isinstance(row[0], str) else None

    def last_own_id(self, server_name: str) -> int:
        """The highest number that it has ever given to a statement of its own, or has claimed to."""
        highest = [
            self._one("SELECT coalesce(max(id), 0) FROM local_threepid_associations"),
            self._one("SELECT coalesce(max(lastSentVersion), 0) FROM peers"),
            self._one(
                "SELECT coalesce(max(originId), 0) FROM global_threepid_associations WHERE originServer = ?",
                server_name,
            ),
        ]
        if "sqlite_sequence" in self._tables:
            highest.append(
                self._one(
                    "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'local_threepid_associations'"
                )
            )
        return max(int(number) for (number,) in highest)

    def pepper(self) -> str | None:
        """The look-up pepper, if it has ever had one."""
        if "hashing_metadata" not in self._tables:
            return None
        pepper = self._one("SELECT max(lookup_pepper) FROM hashing_metadata")[0]
        return str(pepper) if pepper else None

    # --- peers ---

    def peers(self) -> list[tuple[str, int | None, int, bool, str | None]]:
        """Peers: name, port, the last number that each has acknowledged, whether it is in use, and its key."""
        return [
            (str(name), port, int(sent or 0), bool(active), key)
            for name, port, sent, active, key in self._rows(
                """
                SELECT name, port, lastSentVersion, active,
                    (SELECT key FROM peer_pubkeys WHERE peername = peers.name AND alg = 'ed25519')
                FROM peers ORDER BY name
                """
            )
        ]

    # --- people ---

    def accounts(self) -> Iterator[tuple[str, int, str | None]]:
        """Accounts: user, when it was made in ms, and which edition of the terms it has accepted as a whole."""
        yield from self._since(
            4, "SELECT user_id, created_ts, consent_version FROM accounts ORDER BY user_id"
        )

    def tokens(self) -> Iterator[tuple[str, str]]:
        """Access tokens that can be used: the token, and whose it is."""
        yield from self._since(
            4, "SELECT token, user_id FROM tokens WHERE user_id IN (SELECT user_id FROM accounts)"
        )

    def accepted_urls(self) -> Iterator[tuple[str, list[str]]]:
        """Users, and the URLs of the terms that each has accepted."""
        rows = self._since(
            4,
            """
            SELECT user_id, url FROM accepted_terms_urls WHERE user_id IN (SELECT user_id FROM accounts)
            ORDER BY user_id, url
            """,
        )
        for user_id, found in groupby(rows, key=lambda row: row[0]):
            yield user_id, [url for _, url in found]

    def invitations(self) -> Iterator[OldInvitation]:
        """Invitations, by time."""
        for row_id, medium, address, room_id, sender, token, received_s, sent_ts in self._each(
            """
            SELECT id, medium, address, room_id, sender, token, coalesce(received_ts, 0), sent_ts FROM invite_tokens
            ORDER BY coalesce(received_ts, 0), id
            """
        ):
            yield OldInvitation(
                row_id, medium, address, room_id, sender, token, received_s, sent_ts is not None
            )

    def keys(self) -> Iterator[OldKey]:
        """The keys of invitations, by time."""
        yield from (
            OldKey(*row)
            for row in self._each(
                """
                SELECT id, public_key, coalesce(persistence_ts, 0) FROM ephemeral_public_keys
                ORDER BY coalesce(persistence_ts, 0), id
                """
            )
        )

    def sessions(self) -> Iterator[Row]:
        """Validation sessions: id, medium, address, client secret, whether validated, changed in ms, token, attempt."""
        yield from self._each(
            """
            SELECT s.id, s.medium, s.address, s.clientSecret, coalesce(s.validated, 0), s.mtime, t.token,
                coalesce(t.sendAttemptNumber, -1)
            FROM threepid_validation_sessions AS s
            LEFT JOIN threepid_token_auths AS t
                ON t.id = (SELECT max(id) FROM threepid_token_auths WHERE validationSession = s.id)
            ORDER BY s.id
            """
        )

    def _since(self, version: int, sql: str) -> Iterator[Row]:
        if self.version >= version:
            yield from self._each(sql)

    def _each(self, sql: str) -> Iterator[Row]:
        # A cursor of its own, so that several go on side by side.
        try:
            yield from self._connection.execute(sql)
        except sqlite3.DatabaseError as error:
            raise SydentProblem(f"the Sydent's database is damaged: {error}") from error

    def _rows(self, sql: str) -> list[Row]:
        return list(self._each(sql))

    def _one(self, sql: str, *params: Any) -> Row:  # noqa: ANN401 - whatever SQLite takes
        try:
            return self._connection.execute(sql, params).fetchone() or (None,)
        except sqlite3.DatabaseError as error:
            raise SydentProblem(f"the Sydent's database is damaged: {error}") from error


def _fold(medium: object, address: object) -> str:
    return fold(str(medium), address) if isinstance(address, str) else ""
