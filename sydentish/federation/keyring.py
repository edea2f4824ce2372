"""The public keys of homeservers: `GET /_matrix/key/v2/server` (Server-Server API, "Retrieving server keys")."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from twisted.logger import Logger

from sydentish.domain.errors import KeysUnavailable
from sydentish.domain.ids import canonical_server_name
from sydentish.domain.keys import decode_base64
from sydentish.domain.signatures import ED25519, PUBLIC_KEY_BYTES, is_signed, signed_message
from sydentish.federation.client import Answer, ExchangeFailed, HomeserverClient
from sydentish.waiting import SharedWork

KEYS_PATH = "/_matrix/key/v2/server"
"""Where a homeserver publishes its keys."""

_OK = 200
_MAX_KEYS = 64
# A homeserver may say that its keys are good for years; it could not take one back, then.
_MAX_KEPT_MS = 7 * 24 * 3600 * 1000
# A key that was not there so recently is not asked for again: anybody can name keys that there are not.
_FRESH_MS = 60 * 1000
_FAILING_MS = 10 * 1000
_BUSY_MS = 1000

_log = Logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """The keys that a homeserver signs with now.

    Attributes:
        keys: public keys by ID.
        valid_until_ts: how long the homeserver answers for them, in ms.
    """

    keys: Mapping[str, bytes]
    valid_until_ts: int


def read_keys(document: Mapping[str, object], server_name: str, now_ms: int) -> PublishedKeys:
    """What a homeserver has published about its keys, as far as it is signed.

    Only `verify_keys` count, and of those each that has signed the document. With `old_verify_keys` no request is
    signed any more: one of them may be old because somebody else has got hold of it.

    Args:
        document: what it answered.
        server_name: whom we asked, in the canonical form.
        now_ms: the time, in ms.

    Raises:
        ValueError: it is not the document of that server, has expired, or has no key that can be used; the message
            says why.
    """
    name, valid_until_ts = document.get("server_name"), document.get("valid_until_ts")
    if not isinstance(name, str) or canonical_server_name(name) != server_name:
        raise ValueError("they are those of another server")
    if not isinstance(valid_until_ts, int) or valid_until_ts <= now_ms:
        raise ValueError("they have expired")
    published = _object(document, "verify_keys")
    if len(published) > _MAX_KEYS:
        raise ValueError(f"they are more than {_MAX_KEYS}")
    signatures = _object(_object(document, "signatures"), name)
    message = signed_message(document)
    keys = {key_id: _public_key(entry) for key_id, entry in published.items() if key_id.startswith(ED25519)}
    usable = {
        key_id: key
        for key_id, key in keys.items()
        if key is not None and is_signed(message, _bytes(signatures.get(key_id)), key)
    }
    if not usable:
        raise ValueError("none of them has signed them")
    return PublishedKeys(usable, valid_until_ts)


def _object(parent: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = parent.get(name)
    return found if isinstance(found, dict) else {}


def _public_key(entry: object) -> bytes | None:
    key = _bytes(entry.get("key")) if isinstance(entry, dict) else b""
    return key if len(key) == PUBLIC_KEY_BYTES else None


def _bytes(text: object) -> bytes:
    return (decode_base64(text) if isinstance(text, str) else None) or b""


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: Mapping[str, bytes]
    fetched_ts: int
    expires_ts: int


class HomeserverKeys:
    """Knows the public keys of homeservers; asks them, and remembers for as long as they say, at most 7 days."""

    def __init__(
        self,
        *,
        client: HomeserverClient,
        now_ms: Callable[[], int],
        max_fetching: int,
        max_servers: int = 1000,
    ) -> None:
        """Takes what it uses.

        Args:
            client: asks homeservers; its time limit is the limit for keys.
            now_ms: the time, in ms.
            max_fetching: how many homeservers may be asked at the same time: anybody can make us ask anybody.
            max_servers: how many homeservers are remembered.
        """
        self._client = client
        self._now_ms = now_ms
        self._max_fetching = max_fetching
        self._max_servers = max_servers
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failing_until: OrderedDict[str, int] = OrderedDict()
        self._fetching = 0
        self._fetches: SharedWork[str, Mapping[str, bytes]] = SharedWork()

    async def key(self, server_name: str, key_id: str) -> bytes | None:
        """The public key of that ID, or None when the homeserver has, or just had, no such key.

        Args:
            server_name: the homeserver, in the canonical form.
            key_id: `ed25519:<version>`.

        Raises:
            KeysUnavailable: the keys cannot be fetched now, or what was fetched cannot be used.
        """
        kept = self._kept_of(server_name)
        if kept is not None and (key_id in kept.keys or 0 <= self._now_ms() - kept.fetched_ts < _FRESH_MS):
            return kept.keys.get(key_id)
        keys = await self._fetches.result(server_name, lambda: self._fetch(server_name))
        return keys.get(key_id)

    def _kept_of(self, server_name: str) -> _Kept | None:
        kept = self._kept.get(server_name)
        if kept is None or kept.expires_ts <= self._now_ms():
            return None
        self._kept.move_to_end(server_name)
        return kept

    async def _fetch(self, server_name: str) -> Mapping[str, bytes]:
        wait_ms = self._failing_until.get(server_name, 0) - self._now_ms()
        # More than that is left from before the clock was set back.
        if 0 < wait_ms <= _FAILING_MS:
            raise _unavailable(wait_ms)
        if self._fetching >= self._max_fetching:
            raise _unavailable(_BUSY_MS)
        self._fetching += 1
        try:
            published = await self._ask(server_name)
        finally:
            self._fetching -= 1
        now_ms = self._now_ms()
        expires_ts = min(published.valid_until_ts, now_ms + _MAX_KEPT_MS)
        _remember(self._kept, server_name, _Kept(published.keys, now_ms, expires_ts), self._max_servers)
        return published.keys

    async def _ask(self, server_name: str) -> PublishedKeys:
        try:
            answer = await self._client.attempt("GET", server_name, KEYS_PATH)
            return read_keys(_document(answer), server_name, self._now_ms())
        except (ExchangeFailed, ValueError) as error:
            # For the operator only: who asks could have us look around in networks.
            _log.info(
                "{server_name}: its keys cannot be fetched or used: {reason}",
                server_name=server_name,
                reason=str(error),
            )
            until_ts = self._now_ms() + _FAILING_MS
            _remember(self._failing_until, server_name, until_ts, self._max_servers)
            raise _unavailable(_FAILING_MS) from None


def _remember(where: OrderedDict[str, T], server_name: str, what: T, at_most: int) -> None:
    where[server_name] = what
    where.move_to_end(server_name)
    while len(where) > at_most:
        where.popitem(last=False)


def _document(answer: Answer) -> Mapping[str, object]:
    if answer.status != _OK or answer.body is None:
        raise ValueError(f"HTTP {answer.status} without them")
    return answer.body


def _unavailable(retry_after_ms: int) -> KeysUnavailable:
    return KeysUnavailable(
        "The homeserver's signing keys cannot be fetched now: try again later", retry_after_ms
    )
