"""Databases as a Sydent makes them, of each version of its schema, with whatever a test wants in them; and its configuration."""

import hashlib
import json
import sqlite3
from base64 import urlsafe_b64encode
from contextlib import closing

from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

NAME, PEER = "id.example.org", "id.example.net"
PEPPER = "pEpp3"
YEARS_MS = 100 * 365 * 24 * 3600 * 1000

_TEXT, _LONG = "varchar(256) not null", "bigint not null"
_ASSOCIATION = f"medium varchar(16) not null, address {_TEXT}"
_TABLES = {
    1: [
        (
            f"CREATE TABLE invite_tokens (id integer primary key, {_ASSOCIATION}, room_id {_TEXT}, sender {_TEXT}, "
            f"token {_TEXT}, received_ts bigint, sent_ts bigint)"
        ),
        (
            f"CREATE TABLE ephemeral_public_keys (id integer primary key, public_key {_TEXT}, "
            "verify_count bigint default 0, persistence_ts bigint)"
        ),
        (
            "CREATE TABLE peers (id integer primary key, name varchar(255) not null, port integer default null, "
            "lastSentVersion integer, lastPokeSucceededAt integer, active integer not null default 0)"
        ),
        (
            "CREATE TABLE peer_pubkeys (id integer primary key, peername varchar(255) not null, "
            "alg varchar(16) not null, key text not null, foreign key (peername) references peers (name))"
        ),
        (
            f"CREATE TABLE threepid_validation_sessions (id integer primary key, {_ASSOCIATION}, "
            f"clientSecret varchar(32) not null, validated int default 0, mtime {_LONG})"
        ),
        (
            "CREATE TABLE threepid_token_auths (id integer primary key, validationSession integer not null, "
            "token varchar(32) not null, sendAttemptNumber integer not null)"
        ),
        (
            f"CREATE TABLE local_threepid_associations (id integer primary key autoincrement, {_ASSOCIATION}, "
            "mxid varchar(256), ts integer, notBefore bigint, notAfter bigint)"
        ),
        "CREATE UNIQUE INDEX local_threepid_medium_address ON local_threepid_associations (medium, address)",
        (
            f"CREATE TABLE global_threepid_associations (id integer primary key autoincrement, {_ASSOCIATION}, "
            f"mxid {_TEXT}, ts integer not null, notBefore {_LONG}, notAfter integer not null, "
            "originServer varchar(255) not null, originId integer not null, sgAssoc text not null)"
        ),
        "CREATE INDEX global_threepid_medium_lower_address ON global_threepid_associations (medium, lower(address))",
        (
            "CREATE UNIQUE INDEX global_threepid_originServer_originId ON global_threepid_associations "
            "(originServer, originId)"
        ),
    ],
    2: [
        "CREATE INDEX threepid_validation_sessions_mtime ON threepid_validation_sessions (mtime)",
    ],
    3: [
        "ALTER TABLE local_threepid_associations ADD COLUMN lookup_hash VARCHAR(256)",
        "ALTER TABLE global_threepid_associations ADD COLUMN lookup_hash VARCHAR(256)",
        "CREATE TABLE hashing_metadata (id integer primary key, lookup_pepper varchar(256))",
    ],
    4: [
        "CREATE TABLE accounts (user_id TEXT NOT NULL PRIMARY KEY, created_ts BIGINT NOT NULL, consent_version TEXT)",
        "CREATE TABLE tokens (token TEXT NOT NULL PRIMARY KEY, user_id TEXT NOT NULL)",
        "CREATE TABLE accepted_terms_urls (user_id TEXT NOT NULL, url TEXT NOT NULL)",
    ],
    5: [
        "CREATE INDEX global_threepid_lookup_hash ON global_threepid_associations (lookup_hash)",
    ],
}


class SydentFile:
    """A database in the making.

    Attributes:
        path: the file.
        key: the Sydent's `ed25519:0`.
        peer_key: that of its peer.
    """

    def __init__(self, path, version=5):
        self.path = path
        self.key, self.peer_key = generate_signing_key("0"), generate_signing_key("0")
        with closing(sqlite3.connect(path)) as connection:
            for number, statements in _TABLES.items():
                for statement in statements if number <= version else ():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            connection.commit()
        if version >= 3:
            self.run("INSERT INTO hashing_metadata (id, lookup_pepper) VALUES (0, ?)", PEPPER)

    def run(self, statement, *parameters):
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, parameters).lastrowid

    def insert(self, table, **values):
        names = ", ".join(values)
        places = ", ".join("?" * len(values))
        return self.run(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({places})", *values.values())

    def bind(self, address, mxid, ts, *, medium="email", in_both=True):
        """What it does when an address is bound there; the number of the statement."""
        number = self.insert(
            "local_threepid_associations",
            medium=medium, address=address, mxid=mxid, ts=ts, notBefore=ts, notAfter=ts + YEARS_MS,
        )  # fmt: skip
        if in_both:
            self.know(NAME, number, address, mxid, ts, medium=medium)
        return number

    def unbind(self, address, ts, *, medium="email"):
        """What it does when an address is unbound there; the number of the statement."""
        number = self.insert("local_threepid_associations", medium=medium, address=address, mxid=None, ts=ts)
        self.forget(address, medium=medium)
        return number

    def know(self, origin, number, address, mxid, ts, *, medium="email", signed=None):
        """What it does when it hears of a bind, its own or a peer's."""
        text = self.signed(origin, address, mxid, ts, medium) if signed is None else signed
        self.insert(
            "global_threepid_associations",
            medium=medium, address=address, mxid=mxid, ts=ts, notBefore=ts, notAfter=ts + YEARS_MS,
            originServer=origin, originId=number, sgAssoc=text,
        )  # fmt: skip

    def forget(self, address, *, medium="email"):
        """What it does when a peer, or it itself, has unbound an address."""
        self.run("DELETE FROM global_threepid_associations WHERE medium = ? AND address = ?", medium, address)

    def signed(self, origin, address, mxid, ts, medium="email"):
        value = {"medium": medium, "address": address, "mxid": mxid, "ts": ts}
        value |= {"not_before": ts, "not_after": ts + YEARS_MS}
        return json.dumps(sign_json(value, origin, self.key if origin == NAME else self.peer_key))

    def add_peer(self, name=PEER, *, sent=None, active=1, port=None, key=None):
        self.insert("peers", name=name, active=active, lastSentVersion=sent, port=port)
        key = encode_base64(get_verify_key(self.peer_key).encode()) if key is None else key
        if key:
            self.insert("peer_pubkeys", peername=name, alg="ed25519", key=key)

    def add_account(self, user_id, *tokens, created_ts=1, edition=None, urls=()):
        self.insert("accounts", user_id=user_id, created_ts=created_ts, consent_version=edition)
        for token in tokens:
            self.insert("tokens", token=token, user_id=user_id)
        for url in urls:
            self.insert("accepted_terms_urls", user_id=user_id, url=url)

    def invite(self, address, token, seconds, *, sent=None, sender="@bob:hs.example.org"):
        """What it does when an invitation is left there; the key that accepts it."""
        key = generate_signing_key("0")
        public = encode_base64(get_verify_key(key).encode(), urlsafe=True)
        self.insert("ephemeral_public_keys", public_key=public, persistence_ts=seconds)
        self.insert(
            "invite_tokens",
            medium="email", address=address, room_id="!tea:hs.example.org", sender=sender, token=token,
            received_ts=seconds, sent_ts=sent,
        )  # fmt: skip
        return key

    def add_session(self, sid, address, secret, token, mtime, *, medium="email", validated=0):
        self.insert(
            "threepid_validation_sessions",
            id=sid, medium=medium, address=address, clientSecret=secret, validated=validated, mtime=mtime,
        )  # fmt: skip
        self.insert("threepid_token_auths", validationSession=sid, token=token, sendAttemptNumber=-1)


def fill(file, count, *, start_ms=1_600_000_000_000, peers_share=4):
    """Many associations, quickly; each `peers_share`th is a peer's. All are signed by nobody in particular."""

    def rows():
        for number in range(1, count + 1):
            ts = start_ms + number
            origin = PEER if number % peers_share == 0 else NAME
            address, mxid = f"user{number}@mail{number % 977}.example.org", f"@user{number}:hs.example.org"
            signatures = f'{{"{origin}": {{"ed25519:0": "{"A" * 86}"}}}}'
            text = (
                f'{{"address": "{address}", "medium": "email", "mxid": "{mxid}", "not_after": {ts + YEARS_MS}, '
                f'"not_before": {ts}, "signatures": {signatures}, "ts": {ts}}}'
            )
            yield address, mxid, ts, ts, ts + YEARS_MS, origin, number, text

    with closing(sqlite3.connect(file.path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO global_threepid_associations (medium, address, mxid, ts, notBefore, notAfter, originServer, "
            "originId, sgAssoc) VALUES ('email', ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(),
        )
        connection.execute(
            "INSERT INTO local_threepid_associations (id, medium, address, mxid, ts, notBefore, notAfter) "
            "SELECT originId, medium, address, mxid, ts, notBefore, notAfter FROM global_threepid_associations "
            "WHERE originServer = ?",
            (NAME,),
        )
        connection.commit()


def lookup_hash(address, pepper=PEPPER, medium="email"):
    """What a client sends for an address."""
    digest = hashlib.sha256(f"{address} {medium} {pepper}".encode()).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def configuration(file, **sections):
    """The text of a Sydent's configuration for a database; sections by name, more options in each."""
    key = f"ed25519 0 {encode_base64(file.key.encode())}"
    settings = {
        "general": {"server.name": NAME},
        "db": {"db.file": str(file.path)},
        "http": {"client_http_base": "https://matrix.example.org"},
        "crypto": {"ed25519.signingkey": key},
    }
    for section, options in sections.items():
        settings.setdefault(section, {}).update(options)
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
        for section, options in settings.items()
    )
