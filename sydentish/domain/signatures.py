"""What servers sign: canonical JSON, with Ed25519 (specification, appendices, "Signing JSON")."""

from collections.abc import Mapping

from canonicaljson import encode_canonical_json
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

ED25519 = "ed25519:"
"""What the ID of such a key begins with; there is no other algorithm yet."""

PUBLIC_KEY_BYTES = 32
"""Bytes of an Ed25519 public key (RFC 8032, section 5.1.5)."""

_MAX_NUMBER = 2**53 - 1
_MAX_DEPTH = 64


def canonical(value: object) -> bytes:
    """The one encoding of a JSON value (specification, appendices, "Canonical JSON").

    Raises:
        ValueError: it has none: a number with a fraction or beyond 2^53 - 1, a text that is not Unicode, or
            nested deeper than 64.
    """
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return _encode(value)
    raise ValueError(f"is nested deeper than {_MAX_DEPTH}")


def signed_message(value: Mapping[str, object]) -> bytes:
    """What the signatures of a JSON object sign: all of it but `signatures` and `unsigned`.

    Raises:
        ValueError: it has no canonical form.
    """
    return canonical({key: value[key] for key in value if key not in ("signatures", "unsigned")})


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, int) and not -_MAX_NUMBER <= value <= _MAX_NUMBER:
        raise ValueError("a number is beyond 2^53 - 1")
    if value is not None and not isinstance(value, str | int):
        raise ValueError("a number is not a whole one")
    return []


def _encode(value: object) -> bytes:
    try:
        return encode_canonical_json(value)
    except UnicodeEncodeError:
        raise ValueError("a text is not Unicode") from None


def is_signed(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether this is the signature of the holder of an Ed25519 key under a message."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        # ValueError: it is not of the right length.
        return False
    return True
