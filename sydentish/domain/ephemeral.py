"""The key pair of an invitation: whoever has the link of the mail can accept it (Identity Service API)."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

import signedjson.key
import signedjson.sign
from signedjson.types import SigningKey
from unpaddedbase64 import encode_base64

from sydentish.domain.errors import InvalidParam
from sydentish.domain.keys import SEED_BYTES, decode_base64

_ALGORITHM = "ed25519"
# The key ID under which such signatures are known.
_VERSION = "0"


@dataclass(frozen=True, slots=True)
class EphemeralKey:
    """A key pair; its repr shows no secret.

    Attributes:
        private_key: the seed in unpadded base64, URL-safe alphabet, for the link.
        public_key: the public key.
    """

    private_key: str = field(repr=False)
    public_key: bytes

    @property
    def public_base64(self) -> str:
        """The public key in unpadded base64, standard alphabet: not every homeserver reads the other one."""
        return str(encode_base64(self.public_key))


def ephemeral_key(seed: bytes) -> EphemeralKey:
    """The key pair of a seed.

    Args:
        seed: 32 random bytes.

    Raises:
        ValueError: it has another length.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"the seed of an ephemeral key is {SEED_BYTES} bytes")
    public = bytes(_signing_key(seed).verify_key)
    return EphemeralKey(urlsafe_b64encode(seed).decode().rstrip("="), public)


def public_key_of(private_key: str) -> bytes:
    """The public key that belongs to a private one, to be compared with the one that was stored.

    Args:
        private_key: in base64 of either alphabet, padded or not.

    Raises:
        InvalidParam: it is none.
    """
    return bytes(_signing_key(_seed(private_key)).verify_key)


def sign_invite(
    private_key: str, *, mxid: str, sender: str, token: str, server_name: str
) -> dict[str, object]:
    """What accepts an invitation, signed (Identity Service API, `sign-ed25519`).

    Args:
        private_key: the invitation's, in base64 of either alphabet, padded or not.
        mxid: who accepts it.
        sender: who sent it.
        token: the invitation's.
        server_name: in whose name it is signed: ours.

    Raises:
        InvalidParam: the private key is none.
    """
    key = _signing_key(_seed(private_key))
    statement = {"mxid": mxid, "sender": sender, "token": token}
    return dict(signedjson.sign.sign_json(statement, server_name, key))


def public_keys_json(long_term_key: str, ephemeral: EphemeralKey, public_base_url: str) -> dict[str, object]:
    """The keys in the answer of store-invite, and where it is asked whether they are valid.

    Args:
        long_term_key: the public key that signs when the address is bound, in unpadded base64.
        ephemeral: the key of the invitation.
        public_base_url: without a slash at its end.
    """
    where = f"{public_base_url}/_matrix/identity/v2/pubkey"
    keys = [
        {"public_key": long_term_key, "key_validity_url": f"{where}/isvalid"},
        {"public_key": ephemeral.public_base64, "key_validity_url": f"{where}/ephemeral/isvalid"},
    ]
    # Homeservers of today want `public_key` beside the list, and ask about it as about a long-term key.
    return {"public_keys": keys, "public_key": long_term_key}


def _seed(private_key: str) -> bytes:
    seed = decode_base64(private_key)
    if seed is None or len(seed) != SEED_BYTES:
        raise InvalidParam("private_key", f"must be {SEED_BYTES} bytes in base64")
    return seed


def _signing_key(seed: bytes) -> SigningKey:
    return signedjson.key.decode_signing_key_base64(_ALGORITHM, _VERSION, encode_base64(seed))
