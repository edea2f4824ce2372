"""Accounts and their secrets: how tokens are made, and in what form they are kept."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from sydentish.domain.errors import Forbidden, InvalidParam
from sydentish.domain.ids import matches_server, matches_server_on_any_port

ACCESS_TOKEN_BYTES = 32
"""Random bytes of an access token."""

TOUCH_AFTER_MS = 24 * 3600 * 1000
"""The last use of an access token is noted once a day; more would turn every look-up into a write."""

_MAX_OPENID_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Account:
    """The holder of an access token.

    Attributes:
        user_id: the Matrix user ID that a homeserver vouched for.
        last_used_ts: when the token was last noted as used, in ms.
    """

    user_id: str
    last_used_ts: int


def opaque_token(random_bytes: bytes) -> str:
    """Random bytes as a string that fits everywhere: in a header, a query, and the grammar of `sid`."""
    return urlsafe_b64encode(random_bytes).decode().rstrip("=")


def hash_secret(secret: str) -> str:
    """The form in which tokens and client secrets are stored: SHA-256, in hexadecimal.

    No salt and no stretching: tokens of ours are random, and a client secret is worth nothing without the
    random sid of its session.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def same_hash(left: str, right: str) -> bool:
    """Compares two hashes in a time that does not depend on where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())


def openid_token(name: str, value: str) -> str:
    """The parameter as an OpenID token that can be sent to a homeserver.

    Raises:
        InvalidParam: it is empty, longer than 4096 characters, or not printable.
    """
    if not value or len(value) > _MAX_OPENID_TOKEN or not value.isprintable():
        raise InvalidParam(name, f"must be 1 to {_MAX_OPENID_TOKEN} printable characters")
    return value


@dataclass(frozen=True, slots=True)
class HomeserverPolicy:
    """Whose users may have an account here.

    Attributes:
        allow: server names; None lets everybody in. `*.example.org` stands for every name below it.
        deny: server names that are refused, in the same form; they win over `allow`.
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()

    def check(self, server_name: str) -> None:
        """Whether users of this homeserver may register.

        A denied name is denied on every port, and with the dot of the DNS root behind it: whoever is denied
        could choose those spellings.

        Args:
            server_name: a well-formed server name.

        Raises:
            Forbidden: they may not.
        """
        denied = matches_server_on_any_port(server_name, self.deny)
        if denied or (self.allow is not None and not matches_server(server_name, self.allow)):
            raise Forbidden("Users of this homeserver cannot register here")
