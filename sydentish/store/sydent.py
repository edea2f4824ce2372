"""The database of a Sydent, as it stands in a copy of one's own: it is read and never written."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from sydentish.domain.takeover import MOST_ID, OldPeer, OldRow, fold
from sydentish.domain.takeover_invites import OldInvitation, OldKey
from sydentish.store import sydent_values as values
from sydentish.store.database import Row
from sydentish.store.sydent_copy import SydentProblem

OLDEST, NEWEST = 1, 5
"""The versions of its schema that are known. The 2nd added an index, the 3rd the pepper, the 4th accounts."""

_TABLES = {
    1: {
        *("local_threepid_associations", "global_threepid_associations", "peers", "peer_pubkeys"),
        *("invite_tokens", "ephemeral_public_keys", "threepid_validation_sessions", "threepid_token_auths"),
    },
    3: {"hashing_metadata"},
    4: {"accounts", "tokens", "accepted_terms_urls"},
}
_BY_ADDRESS = """
    SELECT medium, folded(CAST(medium AS BLOB), CAST(address AS BLOB)), address, mxid, ts, notBefore, notAfter,
        coalesce(originServer, ''), originId, id
    FROM global_threepid_associations
    UNION ALL
    SELECT medium, folded(CAST(medium AS BLOB), CAST(address AS BLOB)), address, mxid, ts, notBefore, notAfter,
        NULL, id, NULL
    FROM local_threepid_associations
    ORDER BY 1, 2
"""


class SydentDatabase:
    """What stands in the copy of such a database.

    Attributes:
        version: of its schema.
        misfits: how many rows were left out of each table so far, since a value in them is of no type that it can be.

    Args:
        path: the copy.

    Raises:
        SydentProblem: it is the database of another program, or of a version that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.misfits: Counter[str] = Counter()
        self._connection = sqlite3.connect(path)
        self._connection.text_factory = values.decoded
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
            yield [OldRow(*map(values.shortened, (medium, *rest))) for medium, _, *rest in rows]  # type: ignore[arg-type]

    def signed(self, row_id: int) -> str | None:
        """The signed JSON object of a row of the table of all binds."""
        row = self._one("SELECT sgAssoc FROM global_threepid_associations WHERE id = ?", row_id)
        return row[0] if values.is_text(row[0], values.MOST_SIGNED) else None

    def last_own_id(self, server_name: str) -> int:
        """The highest number that it has ever given to a statement of its own, or has claimed to."""
        columns: list[tuple[str, str, tuple[str, ...]]] = [
            ("id", "local_threepid_associations", ()),
            ("lastSentVersion", "peers", ()),
            ("originId", "global_threepid_associations WHERE originServer = ?", (server_name,)),
        ]
        if "sqlite_sequence" in self._tables:
            columns.append(("seq", "sqlite_sequence WHERE name = 'local_threepid_associations'", ()))
        highest = [
            self._one(
                f"SELECT max(n) FROM (SELECT {column} AS n FROM {table}) WHERE typeof(n) = 'integer' AND n <= {MOST_ID}",  # noqa: S608 - constants
                *params,
            )[0]
            for column, table, params in columns
        ]
        return max(0, *(number or 0 for number in highest))

    def pepper(self) -> str | None:
        """The look-up pepper, if it has ever had one."""
        if "hashing_metadata" not in self._tables:
            return None
        rows = self._each("SELECT lookup_pepper FROM hashing_metadata WHERE lookup_pepper IS NOT NULL")
        found = [pepper for (pepper,) in rows if self._fits("hashing_metadata", values.is_text(pepper))]
        return max(found, default=None) or None

    # --- peers ---

    def peers(self) -> list[OldPeer]:
        """Peers, by name."""
        return [
            OldPeer(
                name=values.name(name, row_id),
                port=values.port(port),
                acknowledged_id=values.acknowledged(sent),
                is_active=bool(active),
                key=values.key(key),
            )
            for row_id, name, port, sent, active, key in self._rows(
                """
                SELECT id, name, port, lastSentVersion, active,
                    (SELECT key FROM peer_pubkeys WHERE peername = peers.name AND alg = 'ed25519')
                FROM peers ORDER BY name
                """
            )
        ]

    # --- people ---

    def accounts(self) -> Iterator[tuple[str, int, str | None]]:
        """Accounts: user, when it was made in ms, and which edition of the terms it has accepted as a whole."""
        for row in self._since(
            4, "SELECT user_id, created_ts, consent_version FROM accounts ORDER BY user_id"
        ):
            if self._fits("accounts", values.is_text(row[0]) and values.is_number(row[1])):
                yield row

    def tokens(self) -> Iterator[tuple[str, str]]:
        """Access tokens that can be used: the token, and whose it is."""
        for row in self._since(
            4, "SELECT token, user_id FROM tokens WHERE user_id IN (SELECT user_id FROM accounts)"
        ):
            if self._fits("tokens", values.are_texts(*row)):
                yield row

    def accepted_urls(self) -> Iterator[tuple[str, list[str]]]:
        """Users, and the URLs of the terms that each has accepted."""
        rows = self._since(
            4,
            """
            SELECT user_id, url FROM accepted_terms_urls WHERE user_id IN (SELECT user_id FROM accounts)
            ORDER BY user_id, url
            """,
        )
        fitting = (row for row in rows if self._fits("accepted_terms_urls", values.are_texts(*row)))
        for user_id, found in groupby(fitting, key=lambda row: row[0]):
            yield user_id, [url for _, url in found]

    def invitations(self) -> Iterator[OldInvitation]:
        """Invitations, by time."""
        for row_id, medium, address, room_id, sender, token, received_s, sent_ts in self._each(
            """
            SELECT id, medium, address, room_id, sender, token, coalesce(received_ts, 0), sent_ts FROM invite_tokens
            ORDER BY coalesce(received_ts, 0), id
            """
        ):
            texts = (medium, address, room_id, sender, token)
            if self._fits("invite_tokens", values.are_texts(*texts) and values.is_seconds(received_s)):
                yield OldInvitation(row_id, *texts, received_s, sent_ts is not None)

    def keys(self) -> Iterator[OldKey]:
        """The keys of invitations, by time."""
        for row in self._each(
            """
            SELECT id, public_key, coalesce(persistence_ts, 0) FROM ephemeral_public_keys
            ORDER BY coalesce(persistence_ts, 0), id
            """
        ):
            if self._fits("ephemeral_public_keys", values.is_text(row[1]) and values.is_seconds(row[2])):
                yield OldKey(*row)

    def sessions(self) -> Iterator[Row]:
        """Validation sessions: id, medium, address, client secret, whether validated, changed in ms, token, attempt."""
        for row in self._each(
            """
            SELECT s.id, s.medium, s.address, s.clientSecret, coalesce(s.validated, 0), s.mtime, t.token,
                coalesce(t.sendAttemptNumber, -1)
            FROM threepid_validation_sessions AS s
            LEFT JOIN threepid_token_auths AS t
                ON t.id = (SELECT max(id) FROM threepid_token_auths WHERE validationSession = s.id)
            ORDER BY s.id
            """
        ):
            _, medium, address, secret, is_validated, changed_ts, token, attempt = row
            texts = (medium, address, secret, "" if token is None else token)
            numbers = (is_validated, changed_ts, attempt)
            are_numbers = all(map(values.is_number, numbers))
            if self._fits("threepid_validation_sessions", values.are_texts(*texts) and are_numbers):
                yield row

    def _fits(self, table: str, fits: bool) -> bool:  # noqa: FBT001 - what was found of a row
        self.misfits[table] += not fits
        return fits

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


def _fold(medium: bytes | None, address: bytes | None) -> str:
    # As bytes: SQLite hands no text to a function that is not UTF-8.
    return fold((medium or b"").decode(errors="replace"), (address or b"").decode(errors="replace"))
