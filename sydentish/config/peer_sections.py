"""The `[peer NAME]` sections: which peers there are, and what is wrong with them."""

from collections.abc import Iterator, Sequence

from sydentish.config import named, network
from sydentish.config.declare import keys
from sydentish.config.ini import Document
from sydentish.config.named import Defined
from sydentish.config.problems import Problem, nearest
from sydentish.config.replication import PeerSection, Replication, certificate_names, names_of
from sydentish.domain.peers import Peer

SECTION = "peer"
KEYS = frozenset(dict(keys(PeerSection)))

_OF_ALL = frozenset(dict(keys(Replication)))


def read(document: Document) -> tuple[tuple[Defined[Peer], ...], list[Problem]]:
    """The peers of a file in its order, and what is wrong with them."""
    found, problems = named.read(document, SECTION, _read)
    return found, [*problems, *_twice(found)]


def known(sections: Sequence[Defined[Peer]]) -> tuple[Peer, ...]:
    """The peers of sections without problems."""
    return tuple(defined.meaning for defined in sections if defined.meaning is not None)


def server_name(defined: Defined[Peer]) -> str | None:
    """The server name of a peer in its canonical form, whatever else its section says; None if it is none."""
    try:
        return network.server_name(defined.name)
    except ValueError:
        return None


def names_in_certificate(defined: Defined[Peer]) -> tuple[str, ...]:
    """The certificate names of a peer, whatever else its section says; none where they are wrong."""
    name = server_name(defined)
    try:
        return names_of(name, certificate_names(defined.says("certificate_names"))) if name else ()
    except ValueError:
        return ()


def _read(document: Document, defined: Defined[Peer]) -> tuple[Peer | None, list[Problem]]:
    settled, wrong = named.settle(document, defined, PeerSection)
    problems = [*_wrong_name(defined), *_unknown(defined), *wrong]
    name = server_name(defined)
    if problems or name is None:
        return None, problems
    return PeerSection(**settled).peer(name), []


def _wrong_name(defined: Defined[Peer]) -> Iterator[Problem]:
    try:
        network.server_name(defined.name)
    except ValueError as error:
        yield defined.problem(None, f"must be [peer NAME]; the NAME {error}")


def _unknown(defined: Defined[Peer]) -> Iterator[Problem]:
    for key in defined.entries:
        if key not in KEYS:
            hint = "; it belongs into [replication]" if key in _OF_ALL else nearest(key, KEYS)
            yield defined.problem(key, f"is no option of a peer{hint}")


def _twice(sections: Sequence[Defined[Peer]]) -> Iterator[Problem]:
    """One peer in two spellings of its name; what is spelt alike is one section."""
    first: dict[str, Defined[Peer]] = {}
    for defined in sections:
        name = server_name(defined)
        if name is not None and (other := first.setdefault(name, defined)) is not defined:
            yield defined.problem(None, f"is the peer of [{other.section}], in line {other.place.line}, too")
