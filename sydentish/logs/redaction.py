"""Takes addresses, tokens and secrets out of text."""

import re

_NUMBERS = "(?:msisdn|phone_number|address|destination)"
# Each is tried at few places of a long text, so that none costs its length squared.
_REDACTIONS = [
    # Tokens and secrets where they are named: in a URL, a header, JSON, or a repr of strings, bytes and lists.
    (
        re.compile(
            r"""(?ix) ( (?: (?<![a-z0-9]) | (?<=%[0-9a-f][0-9a-f]) )
                (?: token | secret | password | private_key | authorization | sid | code ) )
            (\\* ["']? \s* (?: [=:] | %3[ad]) [\s\[({\\]*)
            (?: (?:bearer | basic | x-matrix) \s+ )?
            (?: b? "(?: [^"\\] | \\. )* "? | b? '(?: [^'\\] | \\. )* '? | [^\s"'&,;)\]}<>]+ )"""
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\bbearer(?:\s|%20|\+)+[^\s\"'<>]+"), "Bearer [redacted]"),
    # E-mail addresses; a user ID has nothing in front of its @.
    (
        re.compile(
            r"""(?ix) (?: (?<![^\s"'<>()\[\]{}=:,;/@]) [^\s"'<>()\[\]{}=:,;/@]+ | "[^"\n]{0,320}" )
                (?: @ | %40) (?: \[ [^\s\]]+ \]? | [^\s"'<>()\[\]{},;@]+ )"""
        ),
        "[address]",
    ),
    # Telephone numbers in the international form, and where they are named.
    (re.compile(r"(?i)(?:\+|%2b)[0-9][0-9 .-]{5,}[0-9]"), "[number]"),
    (re.compile(rf"(?i)\b({_NUMBERS}\\*[\"']?\s*(?:[=:]|%3[ad])[\s\\]*[\"']?)[0-9]{{6,}}"), r"\1[number]"),
]


def redact(text: str) -> str:
    """The text without addresses, tokens and secrets."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text
