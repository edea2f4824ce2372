"""What a person reads, as their browser or app says."""

import re

_TAG = re.compile(r"([A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3})(?:\s*;\s*[qQ]=([01](?:\.[0-9]{0,3})?))?")
_MAX_HEADER = 200
_MAX_TAGS = 5


def languages(accept_language: bytes) -> tuple[str, ...]:
    """The language tags of an `Accept-Language` header, best first, at most five (RFC 9110, 12.5.4).

    What cannot be read is passed over, as is what the person does not want at all.
    """
    weighted: list[tuple[float, str]] = []
    for part in accept_language[:_MAX_HEADER].decode("ascii", "replace").split(","):
        match = _TAG.fullmatch(part.strip())
        quality = float(match[2] or 1) if match else 0
        if match and quality > 0:
            weighted.append((-min(quality, 1), match[1]))
    return tuple(tag for _, tag in sorted(weighted, key=lambda each: each[0]))[:_MAX_TAGS]
