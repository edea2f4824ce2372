"""Validation sessions and their tokens."""

from sydentish.domain.threepids import Threepid
from sydentish.domain.validation import SentToken, Session
from sydentish.store.database import Row, Tx

_COLUMNS = "sid, medium, address, client_secret_hash, send_attempt, next_link, changed_ts, validated_ts"


def session(tx: Tx, sid: str) -> Session | None:
    """The session with this sid."""
    return _session(tx.row(f"SELECT {_COLUMNS} FROM validation_sessions WHERE sid = ?", (sid,)))  # noqa: S608


def latest_session(tx: Tx, threepid: Threepid, client_secret_hash: str) -> Session | None:
    """The newest session of this address and client secret."""
    return _session(
        tx.row(
            f"""
            SELECT {_COLUMNS} FROM validation_sessions
            WHERE client_secret_hash = ? AND address = ? AND medium = ?
            ORDER BY changed_ts DESC LIMIT 1
            """,  # noqa: S608 - the columns are a constant
            (client_secret_hash, threepid.address, threepid.medium),
        )
    )


def add_session(tx: Tx, session: Session) -> None:
    """Adds a session."""
    tx.run(
        f"INSERT INTO validation_sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            session.sid,
            session.threepid.medium,
            session.threepid.address,
            session.client_secret_hash,
            session.send_attempt,
            session.next_link,
            session.changed_ts,
            session.validated_ts,
        ),
    )


def add_token(tx: Tx, sid: str, token_hash: str) -> int:
    """Adds a token to the session; its number within the session."""
    row = tx.row(
        """
        INSERT INTO validation_tokens (sid, number, token_hash)
        SELECT ?, coalesce(max(number), 0) + 1, ? FROM validation_tokens WHERE sid = ?
        RETURNING number
        """,
        (sid, token_hash, sid),
    )
    if row is None:
        raise LookupError(sid)
    return int(row[0])


def delete_token(tx: Tx, sid: str, number: int) -> None:
    """Deletes a token whose message never left."""
    tx.run("DELETE FROM validation_tokens WHERE sid = ? AND number = ?", (sid, number))


def keep_newest_tokens(tx: Tx, sid: str, number: int, kept: int) -> None:
    """Deletes all tokens of the session but the newest `kept` up to `number`, and later ones."""
    # Numbers have gaps, where a message never left.
    tx.run(
        """
        DELETE FROM validation_tokens WHERE sid = ? AND number < (
            SELECT min(number) FROM (
                SELECT number FROM validation_tokens WHERE sid = ? AND number <= ? ORDER BY number DESC LIMIT ?
            ) AS newest
        )
        """,
        (sid, sid, number, kept),
    )


def tokens(tx: Tx, sid: str) -> list[SentToken]:
    """The tokens that are valid for the session."""
    rows = tx.rows(
        "SELECT number, token_hash, used_ts, wrong_guesses FROM validation_tokens WHERE sid = ?", (sid,)
    )
    return [
        SentToken(number, token_hash, used_ts is not None, wrong)
        for number, token_hash, used_ts, wrong in rows
    ]


def set_sent(tx: Tx, sid: str, send_attempt: int, next_link: str | None, now_ms: int) -> None:
    """Notes that the message of an attempt was handed over; an attempt that was overtaken changes nothing.

    It gives the session new time, unless its address is proved already: a proof must not be kept young for ever
    by asking for mails. Another validation renews it.
    """
    tx.run(
        """
        UPDATE validation_sessions SET send_attempt = ?, next_link = ?,
            changed_ts = CASE WHEN validated_ts IS NULL THEN ? ELSE changed_ts END
        WHERE sid = ? AND send_attempt < ?
        """,
        (send_attempt, next_link, now_ms, sid, send_attempt),
    )


def set_validated(tx: Tx, sid: str, number: int, now_ms: int) -> None:
    """Notes that the address of the session was proved, by its token of that number."""
    tx.run(
        "UPDATE validation_sessions SET validated_ts = ?, changed_ts = ? WHERE sid = ?", (now_ms, now_ms, sid)
    )
    tx.run("UPDATE validation_tokens SET used_ts = ? WHERE sid = ? AND number = ?", (now_ms, sid, number))


def add_wrong_guess(tx: Tx, sid: str) -> None:
    """Notes that a token was tried that is none of the session's: a guess at each of those it has."""
    tx.run("UPDATE validation_tokens SET wrong_guesses = wrong_guesses + 1 WHERE sid = ?", (sid,))


def sessions_of(tx: Tx, threepid: Threepid) -> list[str]:
    """The sids of all sessions of an address."""
    rows = tx.rows(
        "SELECT sid FROM validation_sessions WHERE medium = ? AND address = ?",
        (threepid.medium, threepid.address),
    )
    return [sid for (sid,) in rows]


def delete_session(tx: Tx, sid: str) -> None:
    """Deletes a session and its tokens."""
    tx.run("DELETE FROM validation_sessions WHERE sid = ?", (sid,))


def purge(tx: Tx, before_ts: int, limit: int) -> int:
    """Deletes some sessions that were last changed before a time, in ms, with their tokens; how many sessions."""
    return tx.run(
        """
        DELETE FROM validation_sessions WHERE sid IN (
            SELECT sid FROM validation_sessions WHERE changed_ts < ? ORDER BY changed_ts LIMIT ?
        )
        """,
        (before_ts, limit),
    )


def _session(row: Row | None) -> Session | None:
    if row is None:
        return None
    sid, medium, address, *rest = row
    return Session(sid, Threepid(medium, address), *rest)
