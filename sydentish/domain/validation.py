"""Validation sessions: when a mail is sent, how long a session lives, and what proves an address.

Identity Service API, "Establishing associations".
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from sydentish.domain.accounts import hash_secret, same_hash
from sydentish.domain.errors import (
    InvalidParam,
    LimitExceeded,
    NoValidSession,
    SessionExpired,
    SessionNotValidated,
    TokenIncorrect,
)
from sydentish.domain.threepids import Threepid

SID_BYTES = 16
"""Random bytes of a session ID: 128 bits, so that it cannot be guessed."""

TOKEN_BYTES = 24
"""Random bytes of the token in a validation mail."""

MAIL_TOKENS_KEPT = 5
"""So many mails of a session are valid at a time: people open an older one, too."""

CODES_KEPT = 1
"""Of the codes of a session only the newest is valid: more would be easier to guess."""

CODE_BYTES = 16
"""Random bytes that a code is made from: so many that no code is likelier than another."""

MAX_WRONG_GUESSES = 10
"""After so many wrong guesses a code is worth nothing, so that six digits are enough."""

_CODES = 10**6

NEVER_SENT = -1
"""The attempt number of a session before its first message: a client may begin with 0."""

# The code will not get better by waiting; a new one can be asked for at once.
_GUESS_AGAIN_MS = 60_000
_MAX_SEND_ATTEMPT = 2**53
_MAX_NEXT_LINK = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
# urlsplit passes over what stands before or behind the brackets of an IP literal; browsers do not.
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Session:
    """One attempt of somebody to prove that an address is theirs.

    Attributes:
        sid: the session ID.
        threepid: the address, normalised.
        client_secret_hash: of the secret that the client chose.
        send_attempt: the highest attempt for which a message was handed over, or `NEVER_SENT`.
        next_link: where a browser goes after the validation, or None.
        changed_ts: when the session was last changed, in ms.
        validated_ts: when the address was proved, in ms, or None.
    """

    sid: str
    threepid: Threepid
    client_secret_hash: str
    send_attempt: int
    next_link: str | None
    changed_ts: int
    validated_ts: int | None


def check_live(session: Session | None, client_secret: str, now_ms: int, lifetime_ms: int) -> Session:
    """The session, if it exists, is the caller's, and has not expired.

    Raises:
        NoValidSession: there is none, or the secret is not its own; the same error, so that nobody can find
            out which sessions exist.
        SessionExpired: it was last changed more than `lifetime_ms` ago.
    """
    # The comparison is made in every case, so that its time tells nothing either.
    stored = session.client_secret_hash if session else hash_secret("")
    if not same_hash(stored, hash_secret(client_secret)) or session is None:
        raise NoValidSession("No valid session was found matching that sid and client secret")
    if is_expired(session, now_ms, lifetime_ms):
        raise SessionExpired("This validation session has expired: request a new token")
    return session


def is_expired(session: Session, now_ms: int, lifetime_ms: int) -> bool:
    """Whether the session was last changed more than `lifetime_ms` ago (24 hours by the specification)."""
    return now_ms - session.changed_ts > lifetime_ms


def check_validated(session: Session) -> int:
    """When the address of the session was proved, in ms.

    Raises:
        SessionNotValidated: it was not.
    """
    if session.validated_ts is None:
        raise SessionNotValidated("This validation session has not yet been completed")
    return session.validated_ts


@dataclass(frozen=True, slots=True)
class SentToken:
    """A token that was sent for a session.

    Attributes:
        number: which one of the session.
        token_hash: its hash.
        used: it has proved the address already, and proves nothing new when it comes again.
        wrong_guesses: how often something else was tried since it was made.
    """

    number: int
    token_hash: str
    used: bool
    wrong_guesses: int = 0


def check_token(token_hash: str, sent: Collection[SentToken]) -> SentToken:
    """Which of the tokens that were sent for the session has this hash; every comparison takes the same time.

    Raises:
        TokenIncorrect: none of them.
    """
    matches = [each for each in sent if same_hash(each.token_hash, token_hash)]
    if not matches:
        raise TokenIncorrect("The token is incorrect")
    return matches[0]


def numeric_code(random_bytes: bytes) -> str:
    """Six digits that a person can type."""
    return f"{int.from_bytes(random_bytes) % _CODES:06}"


def hash_code(code: str, client_secret: str) -> str:
    """The form in which a code is stored.

    A code alone has so few values that any hash of it could be turned back; the client secret, of which only a hash
    is stored, keeps it hidden.
    """
    return hash_secret(f"{client_secret}:{code}")


def guessable(sent: Collection[SentToken]) -> list[SentToken]:
    """Those of the codes that may still be tried.

    While a new code is on its way there are several; what is tried then is a guess at each of them, so that none gets
    more than its ten.

    Raises:
        LimitExceeded: too many guesses at all of them were wrong; a new code must be sent first.
    """
    left = [each for each in sent if each.wrong_guesses < MAX_WRONG_GUESSES]
    if sent and not left:
        raise LimitExceeded("Too many wrong codes: request a new one", _GUESS_AGAIN_MS, "guesses_per_code")
    return left


def must_send(session: Session, send_attempt: int) -> bool:
    """Whether a request with this attempt number sends a message: only a number above the last one does."""
    return send_attempt > session.send_attempt


def send_attempt(name: str, value: object) -> int:
    """The parameter as a number; clients send an integer or its decimal form as a string.

    Raises:
        InvalidParam: it is neither, or is not between 0 and 2^53.
    """
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdigit()
        and len(value) <= len(str(_MAX_SEND_ATTEMPT))
    ):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SEND_ATTEMPT:
        raise InvalidParam(name, "must be a whole number that is not negative")
    return value


@dataclass(frozen=True, slots=True)
class NextLinkPolicy:
    """Which URLs a browser may be sent to after a validation.

    Attributes:
        origins: allowed origins such as `https://app.example.org`, without a default port; None for any.
    """

    origins: frozenset[str] | None = None

    def check(self, name: str, link: str) -> str:
        """The link, if a browser may be sent there.

        Raises:
            InvalidParam: it is no absolute http or https URL, or its origin is not allowed.
        """
        if len(link) > _MAX_NEXT_LINK or not link.isascii() or not link.isprintable() or " " in link:
            raise InvalidParam(name, f"must be an encoded URL of at most {_MAX_NEXT_LINK} characters")
        try:
            parts = urlsplit(link)
            default_port = parts.port in (None, _DEFAULT_PORTS.get(parts.scheme))
        except ValueError:
            raise InvalidParam(name, "must be a URL") from None
        authority = _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2])
        if parts.scheme not in ("http", "https") or not authority or not parts.hostname or "\\" in link:
            raise InvalidParam(name, "must be an absolute http or https URL")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        origin = f"{parts.scheme}://{host}" if default_port else f"{parts.scheme}://{host}:{parts.port}"
        if self.origins is not None and origin not in self.origins:
            raise InvalidParam(name, "leads to a site that this server does not send people to")
        return link


def validation_link(public_base_url: str, sid: str, client_secret: str, token: str) -> str:
    """The link of a validation mail, which a browser opens by GET."""
    query = urlencode({"sid": sid, "client_secret": client_secret, "token": token})
    return f"{public_base_url}/_matrix/identity/v2/validate/email/submitToken?{query}"
