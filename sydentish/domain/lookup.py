"""Hashed look-ups (Identity Service API, "Hashing")."""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from sydentish.domain.errors import InvalidParam, InvalidPepper
from sydentish.domain.threepids import Threepid

PEPPER_BYTES = 24
"""Random bytes of a pepper."""

SHA256 = "sha256"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Pepper:
    """What is mixed into every hash, so that tables made elsewhere are worthless.

    Attributes:
        pepper_id: its number in the store.
        pepper: the string that clients get.
        retired_ts: since when it is no longer the one given out, in ms; None for the current one.
    """

    pepper_id: int
    pepper: str
    retired_ts: int | None


@dataclass(frozen=True, slots=True)
class Peppers:
    """The peppers whose hashes can be looked up: the current one, and the previous one for a grace time.

    Attributes:
        current: the one that `hash_details` gives out.
        previous: the one before, or None.
        grace_ms: how long after its replacement the previous one is still accepted.
    """

    current: Pepper
    previous: Pepper | None
    grace_ms: int

    def find(self, algorithm: str, pepper: str, now_ms: int) -> Pepper:
        """The pepper that a look-up names.

        Raises:
            InvalidPepper: it is none of ours, or its grace time is over.
        """
        if pepper == self.current.pepper:
            return self.current
        previous = self.previous
        if previous and pepper == previous.pepper and now_ms - (previous.retired_ts or 0) <= self.grace_ms:
            return previous
        raise InvalidPepper(algorithm, self.current.pepper)


def algorithms(*, allow_none: bool) -> list[str]:
    """The algorithms that `hash_details` offers, in the specification's words."""
    return [SHA256, NONE] if allow_none else [SHA256]


def check_algorithm(algorithm: str, *, allow_none: bool) -> str:
    """The algorithm, if this server answers it.

    Raises:
        InvalidParam: it does not.
    """
    offered = algorithms(allow_none=allow_none)
    if algorithm not in offered:
        raise InvalidParam("algorithm", f"must be one of {', '.join(offered)}")
    return algorithm


def hash_address(threepid: Threepid, pepper: str) -> str:
    """What a client sends for an address: unpadded URL-safe base64 of SHA-256 of `address medium pepper`."""
    digest = hashlib.sha256(f"{threepid.address} {threepid.medium} {pepper}".encode()).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def plain_address(entry: str) -> Threepid | None:
    """The address of an entry of algorithm `none`, `address medium`; None when it has not that form."""
    address, blank, medium = entry.rpartition(" ")
    return Threepid(medium, address) if blank and address and medium else None
