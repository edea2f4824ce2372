"""A line of NDJSON that asks for a bind or an unbind: of `POST /internal/bulk`, or of a file that is imported."""

import orjson

from sydentish.actions.associations import Provision
from sydentish.domain.errors import BadJson, IdentityError, NotJson
from sydentish.web import models
from sydentish.web.readers import parse

_UNBIND = "unbind"


def read_line(line: bytes) -> Provision | IdentityError:
    """What a line asks for, or why it cannot be used."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return NotJson("The line must be JSON in UTF-8")
    if not isinstance(value, dict):
        return BadJson("The line must be a JSON object")
    try:
        read = parse(models.BulkLine, value)
    except IdentityError as error:
        return error
    return read.provision(bound=read.action != _UNBIND)
