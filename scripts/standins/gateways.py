"""The kinds of SMS gateways that the stand-in can be: what each takes, to the letter, and what it answers."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from standins.behaviours import Behaviour, answer
from standins.serving import Arrival

_DIGITS = re.compile(r"[1-9][0-9]{6,14}")
_SHORT = re.compile(r"[0-9]{3,6}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &+._-]{1,11}")
_JSON = re.compile(r"application/json(; ?charset=utf-8)?", re.IGNORECASE)
_FORM = re.compile(r"application/x-www-form-urlencoded(; ?charset=utf-8)?", re.IGNORECASE)
_MAX_TEXT = 1600


@dataclass(frozen=True, slots=True)
class Message:
    """An SMS that was taken; `originator` is empty where the gateway is to choose it; `number` is digits only."""

    originator: str
    number: str
    text: str


class Refused(Exception):
    """A request that the real gateway would refuse, or should."""

    def __init__(self, status: int, problem: str, code: int = 0) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem
        self.code = code


class Kind(Protocol):
    """How a kind of gateway is spoken to."""

    def read(self, came: Arrival, username: str | None) -> Message:
        """What a request says; raises `Refused` where it is not exactly as it should be."""

    def accept(self, message: Message) -> Behaviour:
        """How success is told."""

    def refuse(self, refused: Refused) -> Behaviour:
        """How failure is told."""


class Simple:
    """A gateway such as `http` is for: `/send` with exactly `from`, `to` (digits) and `text`.

    They come in the query (GET), as a form, or as JSON with nothing but strings.
    """

    def read(self, came: Arrival, username: str | None) -> Message:  # noqa: ARG002 - the interface's
        """See `Kind`."""
        target = urlsplit(came.target)
        _need(target.path == "/send", "path", 404)
        _need(came.method in {"GET", "POST", "PUT"}, "method", 405)
        if came.method == "GET":
            fields = _form(target.query)
        else:
            _need(not target.query, "query")
            fields = _json(came) if _type(came, _JSON) else _form(_form_body(came))
        _need(set(fields) == {"from", "to", "text"}, "fields")
        _need(bool(_DIGITS.fullmatch(_text(fields["to"]))), "to")
        return Message(_text(fields["from"]), _text(fields["to"]), _text(fields["text"]))

    def accept(self, message: Message) -> Behaviour:  # noqa: ARG002 - the interface's
        """See `Kind`."""
        return answer(200, b"OK 4711\n")

    def refuse(self, refused: Refused) -> Behaviour:
        """See `Kind`."""
        return answer(refused.status, f"ERROR {refused.problem}\n".encode())


class OpenMarket:
    """OpenMarket's Global SMS API, version 4, for one-way messages."""

    def read(self, came: Arrival, username: str | None) -> Message:  # noqa: ARG002 - the interface's
        """See `Kind`."""
        _need(came.target == "/sms/v4/mt", "path", 404)
        _need(came.method == "POST", "method", 405)
        _need(_type(came, _JSON), "Content-Type", 415)
        content = _object(_object(_json(came), {"mobileTerminate"})["mobileTerminate"])
        _need(set(content) - {"source"} == {"interaction", "destination", "message"}, "mobileTerminate")
        _need(content["interaction"] == "one-way", "interaction")
        number = _text(_object(content["destination"], {"address"})["address"])
        _need(bool(_DIGITS.fullmatch(number)), "destination.address")
        message = _object(content["message"], {"content", "type"})
        _need(message["type"] == "text", "message.type")
        return Message(_source(content), number, _text(message["content"]))

    def accept(self, message: Message) -> Behaviour:  # noqa: ARG002 - the interface's
        """See `Kind`."""
        location = "https://smsc.openmarket.com/sms/v4/mt/03155-0331L-1439U-51SLF"
        return answer(202, b"", {"Location": location, "X-Request-Id": "BAC=DE1396F5-C67B-46CF-A488"})

    def refuse(self, refused: Refused) -> Behaviour:
        """See `Kind`."""
        return answer(refused.status, {"error": {"code": "12002", "description": refused.problem}})


class Twilio:
    """Twilio's API of 2010-04-01."""

    def read(self, came: Arrival, username: str | None) -> Message:
        """See `Kind`."""
        _need(came.target == f"/2010-04-01/Accounts/{username}/Messages.json", "path", 404, 20404)
        _need(came.method == "POST", "method", 405, 20004)
        fields = _form(_form_body(came))
        others = set(fields) - {"To", "Body"}
        _need(others in ({"From"}, {"MessagingServiceSid"}) and len(fields) == 3, "fields", 400, 21603)  # noqa: PLR2004
        number = _text(fields["To"])
        _need(number.startswith("+") and bool(_DIGITS.fullmatch(number[1:])), "To", 400, 21211)
        originator = _text(fields.get("From", "none"))
        _need(
            bool(re.fullmatch(r"MG[0-9a-f]{32}", _text(fields.get("MessagingServiceSid", "MG" + "0" * 32)))),
            "MG",
        )
        _need(_is_originator(originator, plus=True), "From", 400, 21212)
        return Message("" if "From" not in fields else originator, number[1:], _text(fields["Body"]))

    def accept(self, message: Message) -> Behaviour:
        """See `Kind`."""
        body = {"sid": "SM" + "0" * 32, "status": "queued", "to": f"+{message.number}", "body": message.text}
        return answer(201, {**body, "error_code": None, "error_message": None})

    def refuse(self, refused: Refused) -> Behaviour:
        """See `Kind`."""
        code = refused.code or (20003 if refused.status == 401 else 20001)  # noqa: PLR2004
        body = {"code": code, "message": refused.problem, "status": refused.status}
        return answer(refused.status, {**body, "more_info": f"https://www.twilio.com/docs/errors/{code}"})


KINDS: Mapping[str, Kind] = {"http": Simple(), "openmarket": OpenMarket(), "twilio": Twilio()}


def _need(condition: bool, problem: str, status: int = 400, code: int = 0) -> None:  # noqa: FBT001
    if not condition:
        raise Refused(status, problem, code)


def _type(came: Arrival, pattern: re.Pattern[str]) -> bool:
    return all(pattern.fullmatch(value) for value in came.all("content-type")) and bool(came.body)


def _form_body(came: Arrival) -> str:
    _need(_type(came, _FORM), "Content-Type", 415)
    try:
        return came.body.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(400, "a form is ASCII") from None


def _form(query: str) -> dict[str, object]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise Refused(400, "not a form") from None
    _need(len(dict(pairs)) == len(pairs), "a field twice")
    return dict(pairs)


def _json(came: Arrival) -> dict[str, object]:
    try:
        return _object(json.loads(came.body.decode(), object_pairs_hook=_once))
    except ValueError:
        raise Refused(400, "not JSON") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _need(len(dict(pairs)) == len(pairs), "a key twice")
    return dict(pairs)


def _object(value: object, keys: set[str] | None = None) -> dict[str, object]:
    if not isinstance(value, dict) or (keys is not None and set(value) != keys):
        raise Refused(400, f"not an object with {sorted(keys or set())}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_TEXT:
        raise Refused(400, f"not a text of 1 to {_MAX_TEXT} characters")
    return value


def _source(content: dict[str, object]) -> str:
    if "source" not in content:
        return ""
    source = _object(content["source"], {"ton", "address"})
    address = _text(source["address"])
    patterns = {1: _DIGITS, 3: _SHORT, 5: _NAME}
    pattern = patterns.get(source["ton"]) if type(source["ton"]) is int else None
    _need(pattern is not None and bool(pattern.fullmatch(address)), "source")
    return address


def _is_originator(originator: str, *, plus: bool) -> bool:
    number = originator.removeprefix("+")
    if _DIGITS.fullmatch(number):
        return originator.startswith("+") == plus
    return bool(_SHORT.fullmatch(originator) or _NAME.fullmatch(originator))
