"""Templates of requests to gateways: text with placeholders, each filled in as its place demands.

Nothing that is filled in can add to the structure around it, whatever it holds.
"""

import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from sydentish.senders.sms.gateway import Sms

PLACEHOLDERS = ("destination", "destination_e164", "originator", "text")

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# RFC 9110 section 8.3; other parameters than a charset may follow.
_CONTENT_TYPE = re.compile(
    r"([A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+)"
    r'(?: *; *(?:charset="?([A-Za-z0-9_-]+)"?|(?!charset)[A-Za-z0-9_-]+="?[A-Za-z0-9_./-]+"?))*',
    re.IGNORECASE,
)
# Everything in it that means something somewhere.
_HOSTILE = "a\"\\\b\n\u2028 &=+%;#/?:@<>'{text}é\U0001f600"
_SAMPLES = {"destination": "447700900001", "destination_e164": "+447700900001"} | dict.fromkeys(
    ("originator", "text"), _HOSTILE
)

Encode = Callable[[str], str]


def values_of(sms: Sms) -> dict[str, str]:
    """What is filled in, by placeholder."""
    msisdn = sms.destination.msisdn
    return {
        "destination": msisdn,
        "destination_e164": f"+{msisdn}",
        "originator": sms.originator,
        "text": sms.text,
    }


class FieldTemplate:
    """A text with placeholders in braces.

    Attributes:
        names: the placeholders in it.
    """

    def __init__(self, template: str, encode: Encode) -> None:
        """Reads the template.

        Args:
            template: with `{destination}` (digits), `{destination_e164}` (a plus sign in front), `{originator}`
                and `{text}`; other braces stand for themselves.
            encode: what makes a value fit its place.

        Raises:
            ValueError: there is no such placeholder.
        """
        self._template = template
        self._encode = encode
        self.names = frozenset(_PLACEHOLDER.findall(template))
        unknown = sorted(self.names.difference(PLACEHOLDERS))
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"there is no placeholder {{{unknown[0]}}}: there are {known}")

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its placeholders filled in; what is filled in is not looked at again."""
        return _PLACEHOLDER.sub(lambda found: self._encode(values[found[1]]), self._template)


def url_template(url: str) -> FieldTemplate:
    """A URL whose path and query can have placeholders; values are percent-encoded.

    Raises:
        ValueError: a placeholder is unknown, or stands elsewhere.
    """
    parts = urlsplit(url)
    if _PLACEHOLDER.search(parts.scheme + parts.netloc + parts.fragment):
        raise ValueError("placeholders can stand in its path and query only")
    return FieldTemplate(url, _percent_encoded)


def body_template(body: str, content_type: str) -> FieldTemplate:
    """A body, in UTF-8; values are encoded as its type demands.

    Args:
        body: JSON with placeholders within its strings, where numbers of digits only can stand without quotes,
            too; a form (`application/x-www-form-urlencoded`); or plain text, where values stand as they are.
        content_type: of the body; those other than JSON, forms and plain text cannot have placeholders.

    Raises:
        ValueError: a placeholder is unknown, or it is not known what would make a value safe where it stands.
    """
    kind = _media_type(content_type)
    if kind == "application/json" or kind.endswith("+json"):
        return _json_template(body)
    if kind == "application/x-www-form-urlencoded":
        return FieldTemplate(body, _percent_encoded)
    template = FieldTemplate(body, str)
    if template.names and kind != "text/plain":
        raise ValueError(
            "placeholders can stand in a body of application/json, application/x-www-form-urlencoded or text/plain"
        )
    return template


def _media_type(content_type: str) -> str:
    # Strictly: a type that is not known for what it is to the gateway would be one in which values are not safe.
    found = _CONTENT_TYPE.fullmatch(content_type)
    if found is None:
        raise ValueError("content_type must be such as application/json, or text/plain; charset=utf-8")
    if (found[2] or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise ValueError("it is sent in UTF-8, so content_type cannot have another charset")
    return found[1].lower()


def _json_template(body: str) -> FieldTemplate:
    template = FieldTemplate(body, _json_escaped)
    try:
        json.loads(template.fill(_SAMPLES))
    except ValueError:
        raise ValueError('is not JSON, or has a placeholder outside of a string: write "{text}"') from None
    return template


def _json_escaped(value: str) -> str:
    return json.dumps(value)[1:-1]


def _percent_encoded(value: str) -> str:
    # No value has lone surrogates; if one had, it would not be worth an exception.
    return quote(value, safe="", errors="replace")
