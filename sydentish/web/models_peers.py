"""What requests of peers consist of; as in `sydentish.web.models`, fields state how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass

from sydentish.domain.errors import InvalidParam
from sydentish.domain.statements import MAX_ORIGIN_ID
from sydentish.web.body import body_params
from sydentish.web.readers import json_object, required, whole_number

_origin_id = whole_number(0, MAX_ORIGIN_ID)


@dataclass(frozen=True, slots=True)
class Push:
    """`POST /replicate/v1/push`."""

    statements: Mapping[str, object] = required(json_object, "sgAssocs")


@dataclass(frozen=True, slots=True)
class Greeting:
    """`POST /replicate/v1/check`: all of the JSON object counts, since it is signed."""

    content: Mapping[str, object] = required(lambda _name, value: body_params(value, b""), "body")


@dataclass(frozen=True, slots=True)
class DigestsRequest:
    """`POST /replicate/v1/digests`."""

    after: int = required(_origin_id)
    until: int = required(_origin_id)
    size: int = required(whole_number(1, MAX_ORIGIN_ID))

    def __post_init__(self) -> None:
        """Raises `InvalidParam` when there is nothing between the two."""
        if self.after >= self.until:
            raise InvalidParam("until", "must be higher than after")
