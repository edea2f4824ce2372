"""Whether a text is about somebody: what must go with them when they are erased."""

import json
import re
from collections.abc import Iterable, Iterator

from sydentish.domain.threepids import MSISDN, Threepid

# What may stand in an address beside what was found: then it is another one, which only ends or begins so.
_BEFORE = r"(?<![\w.!#$%&'*+/=?^`{|}~-])"
_BEHIND = r"(?![\w-]|\.\w|:\d)"
# The fewest that a telephone number has with its country code, such as one of Niue.
_FEWEST_DIGITS = 7


class Mentions:
    """Finds addresses and a user in texts, and not those of others that only look alike.

    Args:
        threepids: the addresses.
        mxid: the user, if one is looked for.
    """

    def __init__(self, threepids: Iterable[Threepid], mxid: str | None) -> None:
        emails: list[str] = []
        numbers: list[str] = []
        for each in threepids:
            (numbers if each.medium == MSISDN else emails).append(each.address)
        # Peers may have stated anything; fewer digits stand in many a text that is about something else.
        short = [each for each in numbers if len(each) < _FEWEST_DIGITS]
        long = [each for each in numbers if len(each) >= _FEWEST_DIGITS]
        self._folded = [
            *_pattern(_BEFORE, emails, _BEHIND),
            *_pattern(r"(?<!\d)", long, r"(?!\d)"),
            *_pattern(r"\A\+?", short, r"\Z"),
        ]
        # User IDs of different cases are different users.
        self._exact = [*_pattern(_BEFORE, [] if mxid is None else [mxid], _BEHIND)]

    def found_in(self, *texts: str | None) -> bool:
        """Whether any of these texts, or a string in one that is JSON, has one of them in it."""
        return any(self._is_in(string) for text in texts if text for string in _strings(text))

    def _is_in(self, text: str) -> bool:
        folded = text.casefold()
        return any(each.search(folded) for each in self._folded) or any(
            each.search(text) for each in self._exact
        )


def _pattern(before: str, needles: list[str], behind: str) -> Iterator[re.Pattern[str]]:
    if needles:
        yield re.compile(f"{before}(?:{'|'.join(map(re.escape, needles))}){behind}")


def _strings(text: str) -> Iterator[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    waiting = [value if isinstance(value, dict | list) else text]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
