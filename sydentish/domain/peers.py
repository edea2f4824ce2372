"""Peers: the identity servers that we exchange statements with."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sydentish.domain.signatures import check_signed_by

PUSH_PATH = "/_matrix/identity/replicate/v1/push"
"""Where statements are posted to, as Sydent has it."""

CHECK_PATH = "/_matrix/identity/replicate/v1/check"
"""Where a peer can be asked what it makes of us; ours only."""

DIGESTS_PATH = "/_matrix/identity/replicate/v1/digests"
"""Where a peer can be asked what it knows of our statements; ours only."""

MOST_IDS = 100_000
"""How many numbers of statements one question for digests may be about."""

MOST_DIGESTS = 1000
"""How many digests one answer may have."""

STATEMENTS_PATH = "/_matrix/identity/replicate/v1/statements"
"""Where a peer can be asked for binds of ours that it knows; ours only."""

MOST_STATEMENTS = 1000
"""How many statements may be asked for at once."""

RECALL_PATH = "/_matrix/identity/replicate/v1/recall"
"""Where a peer can be asked for all that it knows of our statements from one on; ours only, as the two below."""

LOG_PATH = "/_matrix/identity/replicate/v1/log"
"""Where a peer can be asked for its own statements from one on, as it pushes them."""

UNBOUND_PATH = "/_matrix/identity/replicate/v1/unbound"
"""Where a peer can be asked which addresses were unbound by itself or by us."""

MOST_RECALLED = 500
"""How many statements an answer to one of these may tell of; the longest of them fit into a megabyte."""

MOST_ADDRESSES = 1000
"""How many addresses may be asked about at once."""


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
        check_signed_by(value, self.name, self.keys.get)

    def own_part(self, value: Mapping[str, object]) -> dict[str, object]:
        """Of a JSON object that the peer has signed: what it has signed, and its signatures by keys that are known."""
        signatures = value.get("signatures")
        own = signatures.get(self.name) if isinstance(signatures, dict) else None
        kept = {key_id: text for key_id, text in (own or {}).items() if key_id in self.keys}
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


FailureKind = Literal[
    "unreachable",  # there is no connection
    "certificate",  # one of us does not accept the other's, or TLS fails otherwise
    "timeout",  # it takes too long
    "unknown_peer",  # it does not know us
    "refused",  # it takes none of what is pushed
    "too_large",  # it takes no pushes of this size
    "status",  # it answers with another HTTP status
    "answer",  # its answer makes no sense
]
"""How a push can fail."""

REFUSED: FailureKind = "refused"


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer could not be reached, or understood.

    Attributes:
        kind: in one word.
        reason: for the operator.
    """

    kind: FailureKind
    reason: str


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
    return Failed(REFUSED, outcome.reason)
