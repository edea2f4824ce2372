"""What is taken over from another program, in the tables of ours."""

import json

from sydentish.domain.accounts import hash_secret
from sydentish.domain.peers import Peer
from sydentish.domain.validation import Session
from sydentish.store import validation as validation_rows
from sydentish.store.database import Tx

_SESSION = "session"


def is_new(tx: Tx, kind: str, secret: str) -> bool:
    """Whether something is taken over for the first time, which is noted: it may have been deleted here since.

    Args:
        tx: the transaction.
        kind: what kind of thing it is.
        secret: names it; only a hash is kept.
    """
    return (
        tx.run(
            "INSERT INTO taken_over (kind, key_hash) VALUES (?, ?) ON CONFLICT (kind, key_hash) DO NOTHING",
            (kind, hash_secret(secret)),
        )
        > 0
    )


def was_taken(tx: Tx, kind: str, secret: str) -> bool:
    """Whether something was taken over before; see `is_new`."""
    row = tx.row("SELECT 1 FROM taken_over WHERE kind = ? AND key_hash = ?", (kind, hash_secret(secret)))
    return row is not None


def resume_peer(tx: Tx, peer: Peer, acknowledged_id: int, now_ms: int) -> bool:
    """Has a peer go on behind the statement that it has acknowledged last; whether it was not known yet.

    It is left alone until the configuration tells of it, as soon as the server starts.
    """
    added = tx.run(
        """
        INSERT INTO peers (name, url, keys, certificate_names, source, since_ts, acknowledged_id)
        VALUES (?, ?, ?, ?, 'gone', ?, ?) ON CONFLICT (name) DO NOTHING
        """,
        (
            peer.name,
            peer.url,
            json.dumps(dict(peer.keys)),
            json.dumps(list(peer.certificate_names)),
            now_ms,
            acknowledged_id,
        ),
    )
    if not added:
        tx.run(
            "UPDATE peers SET acknowledged_id = ? WHERE name = ? AND acknowledged_id < ?",
            (acknowledged_id, peer.name, acknowledged_id),
        )
    return added > 0


def add_account(tx: Tx, user_id: str, created_ts: int, now_ms: int) -> bool:
    """Makes an account, which was seen now for all that is known; whether there was none."""
    return (
        tx.run(
            """
            INSERT INTO accounts (user_id, created_ts, last_seen_ts) VALUES (?, ?, ?)
            ON CONFLICT (user_id) DO NOTHING
            """,
            (user_id, created_ts, now_ms),
        )
        > 0
    )


def put_session(tx: Tx, session: Session, token_hash: str | None) -> bool:
    """Adds a session, or brings it up to date unless it was changed or deleted here; whether it was either.

    Args:
        tx: the transaction.
        session: as the other program has it.
        token_hash: of the token that was sent for it, if there is one.
    """
    first = is_new(tx, _SESSION, session.sid)
    known = validation_rows.session(tx, session.sid)
    is_wanted = first if known is None else _is_newer(session, known)
    if not is_wanted:
        return False
    validation_rows.delete_session(tx, session.sid)
    validation_rows.add_session(tx, session)
    if token_hash is not None:
        number = validation_rows.add_token(tx, session.sid, token_hash)
        if session.validated_ts is not None:
            validation_rows.set_validated(tx, session.sid, number, session.validated_ts)
    return True


def _is_newer(session: Session, known: Session) -> bool:
    if known.validated_ts is not None:
        return False
    return session.changed_ts > known.changed_ts or (
        session.changed_ts == known.changed_ts and session.validated_ts is not None
    )
