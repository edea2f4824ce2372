"""What peers answer of what they know of our statements; nothing of it is taken as it is."""

import re
from collections.abc import Collection, Mapping

from sydentish.domain.peers import MOST_DIGESTS, MOST_IDS
from sydentish.domain.statements import read_origin_id
from sydentish.replication.link import Answer

Digests = Mapping[int, tuple[int, str]]
"""As `store.statements.digests` has them."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_next(answer: Answer, until: int) -> int | None:
    """The number of the next statement that a peer knows behind those that it was asked for; None if there is none.

    Args:
        answer: as for `read_digests`.
        until: the highest number that was meant.

    Raises:
        ValueError: it is no number, or one that was meant.
    """
    # Who does not tell has to be asked for all that follow.
    text = (answer.body or {}).get("next", str(until + 1))
    if text is None:
        return None
    number = _number(text) if isinstance(text, str) else None
    if number is None or number <= until:
        raise ValueError("what comes next in it does not come behind")
    return number


def read_digests(answer: Answer, after: int, until: int, size: int) -> dict[int, tuple[int, str]]:
    """What a peer answers of what it knows, as `store.statements.digests` has it.

    Args:
        answer: HTTP 200; nothing of it was checked yet.
        after: the highest origin id that was not meant.
        until: the highest that was.
        size: how many origin ids were to go into one digest.

    Raises:
        ValueError: it is not that.
    """
    digests = (answer.body or {}).get("digests")
    if not isinstance(digests, dict) or len(digests) > MOST_DIGESTS:
        raise ValueError("there are no digests in it, or too many")
    found = {}
    for key, value in digests.items():
        start = _number(key)
        if start is None or not after <= start < until or (start - after) % size:
            raise ValueError("it has digests that were not asked for")
        if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - a number and a hash
            raise ValueError("a digest is none")
        count, digest = value
        # More than there are numbers: a server that was set back to a copy has used some of them twice.
        if type(count) is not int or not 0 < count <= MOST_IDS:
            raise ValueError("a digest is of none, or of too many")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError("a digest is none")
        found[start] = (count, digest)
    return found


def read_binds(answer: Answer, asked: Collection[int]) -> dict[int, Mapping[str, object]]:
    """The JSON objects that a peer answers for the numbers of statements; whose they are was not checked yet.

    Args:
        answer: HTTP 200; nothing of it was checked yet.
        asked: the numbers.

    Raises:
        ValueError: it is not that.
    """
    told = (answer.body or {}).get("sgAssocs")
    if not isinstance(told, dict):
        raise ValueError("there are no statements in it")  # noqa: TRY004 - one kind of error for all that a peer sends
    found: dict[int, Mapping[str, object]] = {}
    for key, value in told.items():
        origin_id = _number(key)
        if origin_id is None or origin_id not in asked:
            raise ValueError("it has statements that were not asked for")
        if not isinstance(value, dict):
            raise ValueError("a statement is none")  # noqa: TRY004 - as above
        found[origin_id] = value
    return found


def _number(key: str) -> int | None:
    try:
        return read_origin_id(key)
    except ValueError:
        return None
