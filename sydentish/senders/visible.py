"""What of a value, which may come from anybody, templates get."""

from sydentish.domain.display import bare

_MAX_VALUE = 500


def visible_value(name: str, value: str) -> str:
    """What can be seen of a value, on one line, shortened unless its name says that it is a link."""
    seen = bare(value)
    if name in {"link", "action"} or name.endswith(("_link", "_url")) or len(seen) <= _MAX_VALUE:
        return seen
    return seen[:_MAX_VALUE] + "…"
