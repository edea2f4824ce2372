"""What servers sign: canonical JSON, with Ed25519 (specification, appendices, "Signing JSON")."""

from collections.abc import Callable, Mapping

from canonicaljson import encode_canonical_json
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from sydentish.domain.keys import decode_base64

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


def check_signed_by(
    value: Mapping[str, object], server_name: str, public_key: Callable[[str], str | None]
) -> None:
    """Whether a server has signed a JSON object, with one of the keys that are known of it.

    Args:
        value: the object.
        server_name: the server.
        public_key: its key of an ID, in base64; None where none is known.

    Raises:
        ValueError: it has not; the message says why.
    """
    signatures = value.get("signatures")
    own = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(own, dict) or not own:
        raise ValueError(f"is not signed by {server_name}")
    known = [(text, key) for key_id, text in own.items() if (key := public_key(key_id)) is not None]
    if not known:
        raise ValueError(f"is signed by {server_name} with none of the keys that are known of it")
    message = signed_message(value)
    if not any(is_signed(message, _bytes(text), _bytes(key)) for text, key in known):
        raise ValueError(f"has a wrong signature of {server_name}")


def _bytes(text: object) -> bytes:
    return (decode_base64(text) if isinstance(text, str) else None) or b""
