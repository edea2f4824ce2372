"""What peers answer when they are asked back for statements; nothing of it is taken as it is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sydentish.domain.peers import MOST_RECALLED
from sydentish.domain.statements import Order, read_origin_id
from sydentish.domain.threepids import Threepid
from sydentish.replication.link import Answer

HIGHEST_ID = 1 << 62
"""No server gets so far; who believed a higher number would soon have none left."""

MOST_UNBOUND = 200_000
"""As many unbinds as one peer may make us look for."""

# The longest statement has less than this many bytes, so that these are not many.
_MOST_TOLD = 2 * MOST_RECALLED
_MAX_TIME = (1 << 53) - 1


@dataclass(slots=True)
class Recalled:
    """What has come of asking one peer.

    Attributes:
        peer: who it is.
        peers_id: the highest number of a statement of its own that was known here, before it was asked.
        binds: how many binds of ours it had that were lost here, and still hold.
        unbinds: how many addresses were unbound here because of what it knows of unbinds, ours and its own.
        pushed: how many statements of its own it has sent.
        foreign: how many statements it has in our name that none of our keys has signed.
        refused: how many of its own are malformed, or not signed by it.
        is_sydent: whether it seems to be a Sydent, which cannot be asked.
        unfound: how many unbinds it tells of whose addresses were not found among those that it was asked about; they may
            never have been known here.
        failure: why it could not be asked, or not for all; None when it was.
    """

    peer: str
    peers_id: int
    binds: int = 0
    unbinds: int = 0
    pushed: int = 0
    foreign: int = 0
    refused: int = 0
    is_sydent: bool = False
    unfound: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the statements of one server, in the order of their numbers.

    Attributes:
        statements: signed JSON objects by their numbers; whose they are was not checked yet.
        unbound: unbinds whose addresses were erased: when each was stated, in ms, by number.
        until: up to which number these are all.
        more: whether there may be more behind it.
    """

    statements: Mapping[int, Mapping[str, object]] = field(repr=False)
    unbound: Mapping[int, int]
    until: int
    more: bool


def read_page(answer: Answer, after: int, highest: int = HIGHEST_ID) -> Page:
    """What a peer answers of statements from one on.

    Args:
        answer: HTTP 200; nothing of it was checked yet.
        after: the highest number that was not meant.
        highest: the highest number that there can be.

    Raises:
        ValueError: it is not that.
    """
    body = answer.body or {}
    told, unbound = body.get("sgAssocs"), body.get("unbound")
    if not isinstance(told, dict) or not isinstance(unbound, dict) or len(told) + len(unbound) > _MOST_TOLD:
        raise ValueError("there are no statements in it, or too many")
    until, more = _number(body.get("until"), after - 1, highest), body.get("more") is True
    statements = {_number(key, after, until): value for key, value in told.items()}
    times = {_number(key, after, until): _time(value) for key, value in unbound.items()}
    if not all(isinstance(value, dict) for value in statements.values()):
        raise ValueError("a statement is none")
    if more and until != max((*statements, *times), default=None):
        raise ValueError("it has more of nothing")
    return Page(statements, times, until, more)


def read_unbound(
    answer: Answer, asked: Sequence[tuple[Threepid, Order]], origins: Collection[str], latest_ts: int
) -> dict[Threepid, Order]:
    """Which addresses a peer says are unbound, and by which statement.

    Args:
        answer: HTTP 200; nothing of it was checked yet.
        asked: the addresses, in the order in which they were asked about, and what is known here of each.
        origins: whose word it may pass on: ours, and its own.
        latest_ts: how late they may be dated, in ms.

    Raises:
        ValueError: it is not that.
    """
    told = (answer.body or {}).get("unbound")
    if not isinstance(told, dict):
        raise ValueError("it does not say which")  # noqa: TRY004 - one kind of error for all that a peer sends
    found: dict[Threepid, Order] = {}
    for key, value in told.items():
        number = _number(key, -1, len(asked) - 1)
        if not isinstance(value, list) or len(value) != 3 or value[1] not in origins:  # noqa: PLR2004 - an order
            raise ValueError("an unbind is none, or of another server")
        order = Order(_time(value[0]), value[1], _number(value[2], 0))
        threepid, known = asked[number]
        if order.ts > latest_ts:
            raise ValueError("an unbind is dated too far ahead: compare the clocks")
        # Something older was no answer to what was asked.
        if order > known:
            found[threepid] = order
    return found


def _number(text: object, above: int, until: int = HIGHEST_ID) -> int:
    number = read_origin_id(text) if isinstance(text, str) else -1
    if not above < number <= until:
        raise ValueError("it has numbers that were not asked for")
    return number


def _time(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_TIME:
        raise ValueError("a time is none")
    return value
