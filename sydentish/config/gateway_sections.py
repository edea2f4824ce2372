"""The `[sms NAME]` sections: which gateways there are, and what is wrong with them."""

from collections.abc import Iterator, Sequence

from sydentish.config import named, phones
from sydentish.config.declare import keys
from sydentish.config.gateways import KINDS, GatewaySection
from sydentish.config.ini import Document
from sydentish.config.named import Defined
from sydentish.config.problems import Problem, nearest

SECTION = "sms"

_KIND = "kind"
# The keys of all kinds.
KEYS = frozenset({_KIND}.union(*(dict(keys(gateway_type)) for gateway_type in KINDS.values())))

Gateway = Defined[GatewaySection]


def read(document: Document) -> tuple[tuple[Gateway, ...], list[Problem]]:
    """The gateways of a file in its order, and what is wrong with them."""
    return named.read(document, SECTION, _read)


def used(sections: Sequence[Gateway], names: Sequence[str]) -> tuple[GatewaySection, ...]:
    """The gateways that `[sms] gateways` names, in its order; what it names has a section without problems."""
    by_name = {defined.name: defined.meaning for defined in sections}
    return tuple(gateway for name in names if (gateway := by_name[name]) is not None)


def _read(document: Document, defined: Gateway) -> tuple[GatewaySection | None, list[Problem]]:
    problems = list(_wrong_name(defined))
    kind = defined.entries.get(_KIND)
    kinds = ", ".join(KINDS)
    if kind is None:
        return None, [*problems, defined.problem(_KIND, f"must be set, to one of {kinds}")]
    if kind.value not in KINDS:
        return None, [*problems, kind.refused(f"must be one of {kinds}")]
    gateway_type = KINDS[kind.value]
    settled, wrong = named.settle(document, defined, gateway_type)
    problems = [*problems, *_unknown(kind.value, defined), *wrong]
    if problems:
        return None, problems
    return gateway_type(name=defined.name, **settled), []


def _wrong_name(defined: Gateway) -> Iterator[Problem]:
    try:
        phones.gateway(defined.name)
    except ValueError as error:
        yield defined.problem(None, f"must be [sms NAME]; the NAME {error}")


def _unknown(kind: str, defined: Gateway) -> Iterator[Problem]:
    known = [_KIND, *dict(keys(KINDS[kind]))]
    for key in defined.entries:
        if key not in known:
            others = [other for other in KINDS if key in dict(keys(KINDS[other]))]
            hint = f"; it belongs to the kind {' or '.join(others)}" if others else nearest(key, known)
            yield defined.problem(key, f"is no option of the kind {kind}{hint}")
