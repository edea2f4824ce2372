"""Public keys: which there are, and whether they are valid."""

from collections.abc import Callable

from sydentish.domain.errors import NotFound
from sydentish.domain.keys import KeyRing, decode_base64
from sydentish.store import keys as key_rows
from sydentish.store.database import Database


class PublicKeys:
    """What anybody may ask of our keys (Identity Service API, "Key management")."""

    def __init__(self, *, db: Database, keys: KeyRing, now_ms: Callable[[], int]) -> None:
        self._db = db
        self._keys = keys
        self._now_ms = now_ms

    def public_key(self, key_id: str) -> str:
        """The long-term public key of that ID, in unpadded base64.

        Raises:
            NotFound: there is none, or it was revoked.
        """
        public_key = self._keys.public_key(key_id)
        if public_key is None:
            raise NotFound("The public key was not found")
        return public_key

    def is_valid(self, public_key: str) -> bool:
        """Whether this is a valid long-term key of ours."""
        return self._keys.is_valid(public_key)

    async def is_ephemeral_valid(self, public_key: str) -> bool:
        """Whether this is the valid key of a pending invitation."""
        decoded = decode_base64(public_key)
        if decoded is None:
            return False
        return await self._db.read(key_rows.is_ephemeral_valid, decoded, self._now_ms())
