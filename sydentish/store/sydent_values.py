"""What can stand in a column of a Sydent: SQLite keeps a value of any type in any of them."""

from sydentish.domain.takeover import MOST_ID

MOST_TEXT = 1000
"""The most characters of an address, an ID or a token."""

MOST_SIGNED = 64 * 1024
"""The most characters of a signed JSON object."""

# Numbers beyond it have no canonical JSON.
_MOST_TIME = (1 << 53) - 1
_MOST_PORT = 65535
_NO_PORT = -1


def decoded(raw: bytes) -> str:
    """Text as it stands there, which need not be UTF-8; `is_text` refuses what is not."""
    return raw.decode(errors="surrogateescape")


def is_text(value: object, most: int = MOST_TEXT) -> bool:
    """Whether it is a text that can be written down here, of so many characters at most."""
    if not isinstance(value, str) or len(value) > most:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def are_texts(*values: object) -> bool:
    """Whether each is a text of usual length."""
    return all(map(is_text, values))


def is_number(value: object) -> bool:
    """Whether it is a whole number that can be reckoned with."""
    return isinstance(value, int) and -MOST_ID <= value <= MOST_ID


def is_id(value: object) -> bool:
    """Whether it is a number that a statement can have, with room for others behind it."""
    return isinstance(value, int) and 0 <= value <= MOST_ID


def is_seconds(value: object) -> bool:
    """Whether it is a time in seconds."""
    return isinstance(value, int) and 0 <= value <= _MOST_TIME // 1000


def shortened(value: object) -> object:
    """The same, but no longer than what can be used; what was too long is still refused."""
    return value[: MOST_TEXT + 1] if isinstance(value, (str, bytes)) else value


def port(value: object) -> int | None:
    """A port; one that cannot be one if it is none."""
    if value is None:
        return None
    return value if isinstance(value, int) and 0 <= value <= _MOST_PORT else _NO_PORT


def name(value: object, row_id: int) -> str:
    """The name of a peer, or what stands for one that cannot be shown, and is no name."""
    return value if isinstance(value, str) and is_text(value) and value.isprintable() else f"number {row_id}"


def acknowledged(value: object) -> int | None:
    """What a peer has acknowledged: nothing yet is 0; None if it makes no sense."""
    if value is None:
        return 0
    return value if isinstance(value, int) and is_id(value) else None


def key(value: object) -> str | None:
    """The key of a peer; empty if it is none."""
    return value if value is None or (isinstance(value, str) and is_text(value)) else ""
