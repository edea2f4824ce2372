"""What requests of peers consist of; as in `sydentish.web.models`, fields state how they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sydentish.domain.errors import InvalidParam, MissingParams, TooLarge
from sydentish.domain.peers import MOST_ADDRESSES, MOST_STATEMENTS
from sydentish.domain.statements import MAX_ORIGIN_ID, read_origin_id
from sydentish.domain.threepids import Threepid
from sydentish.web.body import body_params
from sydentish.web.readers import json_object, of_text, required, texts, whole_number

# Ten thousand statements have a third of these.
_MOST_BRACKETS = 100_000
_MOST_COMMAS = 300_000

_origin_id = whole_number(0, MAX_ORIGIN_ID)


def _origin_ids(name: str, value: object) -> frozenset[int]:
    """Numbers as they stand in a push, which JSON itself does not have so large everywhere."""
    listed = texts(name, value)
    if len(listed) > MOST_STATEMENTS:
        raise InvalidParam(name, f"must be at most {MOST_STATEMENTS}")
    try:
        return frozenset(map(read_origin_id, listed))
    except ValueError:
        raise InvalidParam(name, "must be decimal numbers of at most 63 bits") from None


def _pushed(_name: str, body: bytes) -> Mapping[str, object]:
    """What is pushed. The bytes are looked at first: brackets and commas take a hundred times their size once parsed."""
    if body.count(b"{") + body.count(b"[") > _MOST_BRACKETS or body.count(b",") > _MOST_COMMAS:
        raise TooLarge("The body must be smaller: push fewer associations at once")
    params = body_params(body, b"")
    if "sgAssocs" not in params:
        raise MissingParams("Missing parameters: sgAssocs")
    return json_object("sgAssocs", params["sgAssocs"])


@dataclass(frozen=True, slots=True)
class Push:
    """`POST /replicate/v1/push`."""

    statements: Mapping[str, object] = required(_pushed, "body")


@dataclass(frozen=True, slots=True)
class Greeting:
    """`POST /replicate/v1/check`: all of the JSON object counts, since it is signed."""

    content: Mapping[str, object] = required(lambda _name, value: body_params(value, b""), "body")


@dataclass(frozen=True, slots=True)
class DigestsRequest:
    """`POST /replicate/v1/digests`."""

    after: int = required(_origin_id)
    until: int = required(_origin_id)
    size: int = required(whole_number(1, MAX_ORIGIN_ID))

    def __post_init__(self) -> None:
        """Raises `InvalidParam` when there is nothing between the two."""
        if self.after >= self.until:
            raise InvalidParam("until", "must be higher than after")


@dataclass(frozen=True, slots=True)
class StatementsRequest:
    """`POST /replicate/v1/statements`."""

    origin_ids: frozenset[int] = required(_origin_ids, "ids")


def _text_id(name: str, text: str) -> int:
    """A number as it stands in a push."""
    try:
        return read_origin_id(text)
    except ValueError:
        raise InvalidParam(name, "must be a decimal number of at most 63 bits") from None


def _addresses(name: str, value: object) -> Sequence[tuple[Threepid, int]]:
    """`[[medium, address, ts], ...]`; what no server could have bound was not unbound either."""
    listed = value if isinstance(value, list) else [None]
    if len(listed) > MOST_ADDRESSES:
        raise InvalidParam(name, f"must be at most {MOST_ADDRESSES}")
    found = []
    for each in listed:
        medium, address, ts = each if isinstance(each, list) and len(each) == 3 else (None, None, None)  # noqa: PLR2004
        if not isinstance(medium, str) or not isinstance(address, str) or type(ts) is not int:
            raise InvalidParam(name, "must be lists of a medium, an address and a time in ms")
        found.append((Threepid(medium, address), ts))
    return found


@dataclass(frozen=True, slots=True)
class RecallRequest:
    """`POST /replicate/v1/recall` and `/replicate/v1/log`."""

    after: int = required(of_text(_text_id))


@dataclass(frozen=True, slots=True)
class UnboundRequest:
    """`POST /replicate/v1/unbound`."""

    asked: Sequence[tuple[Threepid, int]] = required(_addresses, "addresses")
