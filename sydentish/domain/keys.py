"""Signing keys: the server's own, in signedjson's format, and what they sign."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import signedjson.key
import signedjson.sign
from signedjson.types import SigningKey
from unpaddedbase64 import encode_base64

SEED_BYTES = 32
"""Bytes of an Ed25519 seed (RFC 8032, section 5.1.5)."""

_VERSION = re.compile(r"[a-zA-Z0-9_]{1,64}")
_ALGORITHM = "ed25519"
_LINE_FIELDS = 3
_TO_STANDARD_ALPHABET = str.maketrans("-_", "+/")


class KeyState(Enum):
    """What a key may do, in the order of its life: check and sign one day, sign and check, check only, nothing."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key of ours; its repr shows no secret."""

    signing_key: SigningKey
    state: KeyState

    @property
    def key_id(self) -> str:
        """`ed25519:<version>`."""
        return f"{self.signing_key.alg}:{self.signing_key.version}"

    @property
    def public_key(self) -> str:
        """The public key in unpadded base64, standard alphabet."""
        return str(encode_base64(bytes(self.signing_key.verify_key)))

    def __repr__(self) -> str:
        return f"Key({self.key_id}, {self.state.value})"


def parse_key(text: str, state: KeyState = KeyState.ACTIVE) -> Key:
    """Reads a key file: one line `ed25519 <version> <unpadded base64 seed>`, as homeservers use.

    Raises:
        ValueError: it is not that; the message never shows the seed.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    fields = lines[0].split() if len(lines) == 1 else []
    if len(fields) != _LINE_FIELDS or fields[0] != _ALGORITHM:
        raise ValueError("a signing key file holds one line: ed25519 <version> <unpadded base64 seed>")
    if not is_version(fields[1]):
        raise ValueError("the version of a signing key is 1 to 64 characters of a-z A-Z 0-9 _")
    # Decoded here, since signedjson passes over characters that are not base64.
    seed = decode_base64(fields[2])
    if seed is None or len(seed) != SEED_BYTES:
        raise ValueError("the seed of a signing key is 32 bytes in unpadded base64")
    return Key(signedjson.key.decode_signing_key_base64(fields[0], fields[1], encode_base64(seed)), state)


def make_key(version: str, seed: bytes) -> str:
    """The text of a key file for a new key.

    Args:
        version: 1 to 64 characters of a-z A-Z 0-9 _.
        seed: 32 random bytes.

    Raises:
        ValueError: either is not that.
    """
    if not is_version(version) or len(seed) != SEED_BYTES:
        raise ValueError("a signing key needs a version of a-z A-Z 0-9 _ and a seed of 32 bytes")
    return f"{_ALGORITHM} {version} {encode_base64(seed)}\n"


def is_version(text: str) -> bool:
    """Whether `text` can stand behind `ed25519:` in a key ID."""
    return bool(_VERSION.fullmatch(text))


class KeyRing:
    """All signing keys of the server; whoever signs or checks shares one, so that a change of keys reaches all at once.

    It may be asked from any thread.

    Args:
        server_name: in whose name the active key signs.
        active: the key that signs.
        others: keys that do not sign; all but revoked ones are valid for checking.
    """

    __slots__ = ("_keys", "server_name")

    def __init__(self, server_name: str, active: Key, others: tuple[Key, ...] = ()) -> None:
        self.server_name = server_name
        # One value, since threads may read it while it is replaced.
        self._keys = (active, *others)

    def __repr__(self) -> str:
        return f"KeyRing({self.server_name}, {', '.join(map(repr, self._keys))})"

    @property
    def active(self) -> Key:
        """The key that signs."""
        return self._keys[0]

    @property
    def all(self) -> tuple[Key, ...]:
        """The active key, and all others behind it."""
        return self._keys

    @property
    def others(self) -> tuple[Key, ...]:
        """Keys that do not sign, or not yet."""
        return self._keys[1:]

    @property
    def announced(self) -> tuple[Key, ...]:
        """What those must know who check what we sign: the active key, and whichever comes after it."""
        active, *others = self._keys
        return (active, *(key for key in others if key.state is KeyState.NEXT))

    def adopt(self, other: "KeyRing") -> None:
        """Has the keys of another ring from now on; the server name stays.

        Args:
            other: the keys as they are now, of the same server.
        """
        self._keys = other._keys  # noqa: SLF001 - one of our own kind

    def sign(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a JSON object with our signature added (specification, appendices, "Signing JSON")."""
        # The signatures that are there are copied too: signedjson adds ours to the very object it is given.
        signatures = {name: dict(keys) for name, keys in value.get("signatures", {}).items()}
        copied = {**value, "signatures": signatures}
        return dict(signedjson.sign.sign_json(copied, self.server_name, self.active.signing_key))

    def public_key(self, key_id: str) -> str | None:
        """The public key of that ID in unpadded base64, unless it is unknown or revoked."""
        return next((key.public_key for key in self._valid() if key.key_id == key_id), None)

    def is_valid(self, public_key: str) -> bool:
        """Whether this is a public key of ours that was not revoked, in either base64 alphabet."""
        wanted = decode_base64(public_key)
        return any(wanted == bytes(key.signing_key.verify_key) for key in self._valid())

    def _valid(self) -> list[Key]:
        # A key that was revoked stays so when it comes again under another version.
        keys = self._keys
        revoked = {key.public_key for key in keys if key.state is KeyState.REVOKED}
        return [key for key in keys if key.public_key not in revoked]


def decode_base64(text: str) -> bytes | None:
    """The bytes of a key or a signature in base64 of either alphabet, padded or not; None when it is not base64."""
    bare = text.rstrip("=").translate(_TO_STANDARD_ALPHABET)
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError:
        return None
