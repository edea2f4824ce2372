"""Peers: the identity servers that we exchange statements with."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sydentish.domain.keys import decode_base64
from sydentish.domain.signatures import is_signed, signed_message

PUSH_PATH = "/_matrix/identity/replicate/v1/push"
"""Where statements are posted to, as Sydent has it."""

CHECK_PATH = "/_matrix/identity/replicate/v1/check"
"""Where a peer can be asked what it makes of us; ours only."""

DIGESTS_PATH = "/_matrix/identity/replicate/v1/digests"
"""Where a peer can be asked what it knows of our statements; ours only."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of a peer, by the word of our operator.

    Attributes:
        name: its server name, in the canonical form: in whose name it signs.
        url: where its replication listener is reached, `https://host:port`, without a slash at its end.
        keys: its public keys in base64, by key ID.
        certificate_names: DNS names or IP addresses, one of which its certificate must have; in lower case.
    """

    name: str
    url: str
    keys: Mapping[str, str]
    certificate_names: tuple[str, ...]

    def check_signature(self, value: Mapping[str, object]) -> None:
        """Whether the peer has signed a JSON object, with one of the keys that are known here.

        Raises:
            ValueError: it has not; the message says why.
        """
        signatures = value.get("signatures")
        own = signatures.get(self.name) if isinstance(signatures, dict) else None
        if not isinstance(own, dict) or not own:
            raise ValueError(f"is not signed by {self.name}")
        known = [key_id for key_id in own if key_id in self.keys]
        if not known:
            raise ValueError(f"is signed by {self.name} with none of the keys that are known of it")
        message = signed_message(value)
        if not any(is_signed(message, _bytes(own[key_id]), _bytes(self.keys[key_id])) for key_id in known):
            raise ValueError(f"has a wrong signature of {self.name}")

    def own_part(self, value: Mapping[str, object]) -> dict[str, object]:
        """Of a JSON object that the peer has signed: what it has signed, and its signatures."""
        signatures = value.get("signatures")
        own = signatures.get(self.name) if isinstance(signatures, dict) else None
        kept = {key_id: text for key_id, text in (own or {}).items() if isinstance(text, str)}
        return {key: value[key] for key in value if key != "unsigned"} | {"signatures": {self.name: kept}}


def recognised(certificate_names: Sequence[str], peers: Iterable[Peer]) -> Peer | None:
    """Whose certificate it is.

    Args:
        certificate_names: the names in it, the most telling first; the first that is a peer's counts.
        peers: the peers there are.
    """
    by_name = {name: peer for peer in peers for name in peer.certificate_names}
    return next((by_name[name] for name in certificate_names if name in by_name), None)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer has taken all that was pushed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer has taken nothing because of some of it.

    Attributes:
        origin_ids: the statements that it names.
        reason: what it says, for the operator.
    """

    origin_ids: frozenset[int]
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer could not be reached, or understood.

    Attributes:
        kind: one word of `FAILURE_KINDS`.
        reason: for the operator.
    """

    kind: str
    reason: str


FAILURE_KINDS = ("unreachable", "certificate", "timeout", "unknown_peer", "refused", "status", "answer")
"""How a push can fail: there is no connection; one of us does not accept the other's certificate; it takes too long; the
peer does not know us; it takes none of what is pushed; it answers with another HTTP status; its answer makes no sense."""

Outcome = Accepted | Refused | Failed


def settled(pushed: Collection[int], outcome: Outcome, *, parked: bool = False) -> Outcome:
    """What an outcome means for the statements that were pushed.

    A peer that refuses some of them has something against those: they are parked, and the rest is sent without them.
    One that refuses all of them has something against us, or we against its clock: that passes, or an operator mends it.

    Args:
        pushed: the numbers of the statements.
        outcome: what the peer has made of them.
        parked: whether it had refused each of them before: then it is no news that it still does.
    """
    if not isinstance(outcome, Refused):
        return outcome
    named = outcome.origin_ids & frozenset(pushed)
    if named and (parked or len(named) < len(pushed)):
        return Refused(named, outcome.reason)
    return Failed("refused", outcome.reason)


def _bytes(text: object) -> bytes:
    return (decode_base64(text) if isinstance(text, str) else None) or b""
