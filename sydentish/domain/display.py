"""Texts of strangers, made fit to be shown to people."""

import re
import unicodedata

MAX_SHOWN = 100
"""So many characters are shown of a name."""

_MAX_MARKS = 4
_JOINERS = "\u200c\u200d"
# By their Unicode category: controls, format characters, surrogates, and separators of lines.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# To Unicode these are letters and symbols, but they look like blanks: a name of them looks like none.
_BLANK = re.compile("[\\s\u115f\u1160\u2800\u3164\uffa0]+")
# What makes a link of a text: a dot or a colon, in any width, before what a host, a path or a number begins with.
# Between two digits it is a time or a version, but for the dots of an IP address.
_AHEAD = r"(?=[\u200c\u200d]*(?:[^\W0-9]|[/\\@+?#\uff0f]))"
_BEFORE_DIGIT = r"(?=[\u200c\u200d]*[0-9])"
_LINKING = re.compile(
    rf"[.:\u3002\uff0e\uff1a\uff61]{_AHEAD}|(?<![0-9])[.:\u3002\uff0e\uff1a\uff61]{_BEFORE_DIGIT}"
    r"|(?<=[0-9]\.)[0-9]{1,3}\.(?=[0-9])|\\(?=\\)"
)
# Specification, Client-Server API, "Content repository".
_MXC = re.compile(r"mxc://[0-9A-Za-z.:\[\]-]{1,255}/[0-9A-Za-z_-]{1,255}")


def bare(text: str, *, joiners: str = _JOINERS) -> str:
    """The text on one line, without what cannot be seen.

    Args:
        text: any text.
        joiners: which unseen characters stay all the same; those that words and emoji are made with.
    """
    line = _BLANK.sub(" ", text)
    seen = (c for c in line if c in joiners or unicodedata.category(c) not in _UNSEEN)
    return " ".join("".join(seen).split())


def unlinked(text: str) -> str:
    """A name as it can be shown in a mail: one line of at most `MAX_SHOWN` characters, and no link.

    Mail programs make links of whatever looks like one. A blank behind each dot and colon that could be part of one
    keeps `https://evil.example` legible, and unclickable.
    """
    shown = _LINKING.sub(lambda match: match[0] + " ", _with_few_marks(bare(text)))
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1].rstrip() + "…"


def content_uri(text: str) -> str:
    """The text if it is an `mxc:` URI, else an empty one."""
    return text if _MXC.fullmatch(text) else ""


def _with_few_marks(text: str) -> str:
    # More marks on a letter than any script needs run over the lines above and below.
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)
