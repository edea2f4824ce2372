"""Answers, as values."""

from dataclasses import dataclass

import orjson

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, whole."""

    status: int
    content_type: bytes
    body: bytes
    headers: Headers = ()


def json_reply(value: object, *, status: int = 200, headers: Headers = ()) -> Reply:
    """A JSON value as an answer."""
    return raw_json_reply(orjson.dumps(value), status=status, headers=headers)


def raw_json_reply(body: bytes, *, status: int = 200, headers: Headers = ()) -> Reply:
    """JSON that is encoded already as an answer."""
    return Reply(status, b"application/json", body, headers)
