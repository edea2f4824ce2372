"""From the bytes of a request to the parameters in it."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

import orjson

from sydentish.domain.errors import BadJson, InvalidParam, NotJson

# The second is what the specification calls the first.
_FORMS = (b"application/x-www-form-urlencoded", b"application/x-form-www-urlencoded")
_MAX_FIELDS = 100


def form_params(encoded: bytes, where: str) -> dict[str, str]:
    """The parameters of a query or a form; of two with one name the last counts.

    Args:
        encoded: `name=value&…`, percent-encoded UTF-8.
        where: what to call it in an error: "query" or "body".

    Raises:
        InvalidParam: it is not UTF-8, or has more than 100 parameters.
    """
    if not encoded:
        return {}
    try:
        text = encoded.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidParam(
            where, f"must be at most {_MAX_FIELDS} parameters in percent-encoded UTF-8"
        ) from None
    return dict(pairs)


def body_params(body: bytes, content_type: bytes) -> Mapping[str, object]:
    """The parameters of a body: JSON whatever the content type says, unless it says form.

    Raises:
        NotJson: it is not JSON in UTF-8.
        BadJson: it is, but not an object.
        InvalidParam: the form cannot be read.
    """
    is_form = content_type.partition(b";")[0].strip().lower() in _FORMS
    # Some clients call everything a form; a form cannot begin with a bare brace.
    if is_form and not body.lstrip().startswith(b"{"):
        return form_params(body, "body")
    if not body:
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NotJson("The body must be JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise BadJson("The body must be a JSON object")
    return value
