"""Readers: how one parameter of a request is read, whether it came as JSON, in a form or in the query."""

from collections.abc import Callable, Mapping
from dataclasses import field, fields
from typing import Any, TypeVar, cast

import orjson

from sydentish.domain.errors import InvalidParam, MissingParams
from sydentish.domain.ids import is_server_name
from sydentish.domain.threepids import Threepid

M = TypeVar("M")
Reader = Callable[[str, Any], Any]

_MAX_TOKEN = 255
_MAX_BRAND = 64
_PAIR = 2


def parse(model: type[M], params: Mapping[str, object]) -> M:
    """Makes a model from parameters; those it does not know are ignored, as the specification asks.

    Raises:
        MissingParams: names all that are missing.
        InvalidParam: names the first that cannot be used; some parameters have errors of their own.
    """
    declared = [(f.metadata["name"] or f.name, f) for f in fields(cast("Any", model))]
    missing = [name for name, f in declared if f.metadata["required"] and name not in params]
    if missing:
        raise MissingParams(f"Missing parameters: {', '.join(missing)}")
    values = {
        f.name: f.metadata["reader"](name, params[name])
        for name, f in declared
        if name in params and (f.metadata["required"] or params[name] is not None)
    }
    return model(**values)


def required(reader: Reader, name: str | None = None) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A parameter that must be there; `reader(name, value)` makes its value or raises.

    Its `name` is given where a field should have another one; so it is with the others.
    """
    return field(metadata={"reader": reader, "required": True, "name": name})


def optional(reader: Reader, name: str | None = None) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A parameter that may be absent or null, and is None then."""
    return field(default=None, metadata={"reader": reader, "required": False, "name": name})


def text(name: str, value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise InvalidParam(name, "must be a string")
    return value


def number(name: str, value: object) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParam(name, "must be a number")
    return value


def whole_number(lowest: int, highest: int) -> Reader:
    """A whole number between these two, which are good themselves."""

    def read(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise InvalidParam(name, f"must be a whole number from {lowest} to {highest}")
        return value

    return read


def json_object(name: str, value: object) -> dict[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise InvalidParam(name, "must be a JSON object")
    return value


def texts(name: str, value: object) -> list[str]:
    """A list of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidParam(name, "must be a list of strings")
    return value


def of_text(read: Callable[[str, str], Any]) -> Reader:
    """A string that is read further."""
    return lambda name, value: read(name, text(name, value))


def server_name(name: str, value: str) -> str:
    """A server name."""
    if not is_server_name(value):
        raise InvalidParam(name, "must be a server name")
    return value


def validation_token(name: str, value: str) -> str:
    """A token out of a message."""
    if not 0 < len(value) <= _MAX_TOKEN:
        raise InvalidParam(name, f"must have 1 to {_MAX_TOKEN} characters")
    return value


def base64(_name: str, value: str) -> str:
    """A key in base64; a plus sign that was not percent-encoded has become a blank."""
    return value.replace(" ", "+")


def brand(name: str, value: str) -> str:
    """The name of a brand; there need not be one of that name."""
    if len(value) > _MAX_BRAND:
        raise InvalidParam(name, f"must have at most {_MAX_BRAND} characters")
    return value


def bulk_action(name: str, value: str) -> str:
    """What a line of a bulk call asks for."""
    if value not in ("bind", "unbind"):
        raise InvalidParam(name, "must be bind or unbind")
    return value


def threepid(name: str, value: object) -> Threepid:
    """An object with medium and address; in a form, as JSON."""
    value = _decoded(value)
    if not isinstance(value, dict):
        raise InvalidParam(name, "must be an object with medium and address")
    missing = [f"{name}.{key}" for key in ("medium", "address") if key not in value]
    if missing:
        raise MissingParams(f"Missing parameters: {', '.join(missing)}")
    return Threepid(text(f"{name}.medium", value["medium"]), text(f"{name}.address", value["address"]))


def threepids(name: str, value: object) -> list[Threepid]:
    """A list of pairs of medium and address; in a form, as JSON."""
    value = _decoded(value)
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == _PAIR for pair in value
    ):
        raise InvalidParam(name, "must be a list of lists of two strings: medium and address")
    return [Threepid(text(name, medium), text(name, address)) for medium, address in value]


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
