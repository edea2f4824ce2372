"""What requests consist of: one class each, whose fields state how they are read.

A model is made from a mapping of names to values, whether these came as JSON, as a form or in the query.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, cast

from sydentish.actions.associations import Unbind
from sydentish.actions.validation import Credentials, TokenRequest
from sydentish.domain.accounts import openid_token
from sydentish.domain.errors import InvalidParam, MissingParams
from sydentish.domain.ids import is_server_name, opaque, user_id
from sydentish.domain.threepids import EMAIL, Threepid, normalise_email
from sydentish.domain.validation import send_attempt

M = TypeVar("M")
Reader = Callable[[str, Any], Any]

_MAX_TOKEN = 255


def parse(model: type[M], params: Mapping[str, object]) -> M:
    """Makes a model from parameters; those it does not know are ignored, as the specification asks.

    Raises:
        MissingParams: names all that are missing.
        InvalidParam: names the first that cannot be used; some parameters have errors of their own.
    """
    declared = fields(cast("Any", model))
    missing = [f.name for f in declared if f.metadata["required"] and f.name not in params]
    if missing:
        raise MissingParams(f"Missing parameters: {', '.join(missing)}")
    values = {
        f.name: f.metadata["reader"](f.name, params[f.name])
        for f in declared
        if f.name in params and (f.metadata["required"] or params[f.name] is not None)
    }
    return model(**values)


def required(reader: Reader) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A parameter that must be there; `reader(name, value)` makes its value or raises."""
    return field(metadata={"reader": reader, "required": True})


def optional(reader: Reader) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A parameter that may be absent or null, and is None then."""
    return field(default=None, metadata={"reader": reader, "required": False})


# --- readers -------------------------------------------------------------------------------------------


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


def texts(name: str, value: object) -> list[str]:
    """A list of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidParam(name, "must be a list of strings")
    return value


def _of_text(read: Callable[[str, str], Any]) -> Reader:
    return lambda name, value: read(name, text(name, value))


def _server_name(name: str, value: str) -> str:
    if not is_server_name(value):
        raise InvalidParam(name, "must be a server name")
    return value


def _validation_token(name: str, value: str) -> str:
    if not 0 < len(value) <= _MAX_TOKEN:
        raise InvalidParam(name, f"must have 1 to {_MAX_TOKEN} characters")
    return value


def _public_key(_name: str, value: str) -> str:
    # A plus sign that was not percent-encoded has become a blank.
    return value.replace(" ", "+")


def _threepid(name: str, value: object) -> Threepid:
    if not isinstance(value, dict):
        raise InvalidParam(name, "must be an object with medium and address")
    missing = [f"{name}.{key}" for key in ("medium", "address") if key not in value]
    if missing:
        raise MissingParams(f"Missing parameters: {', '.join(missing)}")
    return Threepid(text(f"{name}.medium", value["medium"]), text(f"{name}.address", value["address"]))


# --- models --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nothing:
    """A request without parameters."""


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """`POST /account/register`."""

    access_token: str = required(_of_text(openid_token))
    token_type: str = required(text)
    matrix_server_name: str = required(_of_text(_server_name))
    expires_in: float = required(number)


@dataclass(frozen=True, slots=True)
class AcceptedTerms:
    """`POST /terms`."""

    user_accepts: list[str] = required(texts)


@dataclass(frozen=True, slots=True)
class LookupRequest:
    """`POST /lookup`."""

    algorithm: str = required(text)
    pepper: str = required(text)
    addresses: list[str] = required(texts)


@dataclass(frozen=True, slots=True)
class EmailTokenRequest:
    """`POST /validate/email/requestToken`."""

    client_secret: str = required(_of_text(opaque))
    email: str = required(_of_text(lambda _name, value: normalise_email(value)))
    send_attempt: int = required(send_attempt)
    next_link: str | None = optional(text)

    def request(self) -> TokenRequest:
        """What is asked for."""
        threepid = Threepid(EMAIL, self.email)
        return TokenRequest(threepid, self.client_secret, self.send_attempt, self.next_link or None)


@dataclass(frozen=True, slots=True)
class SessionReference:
    """`GET /3pid/getValidated3pid`, and what other requests about a session have in common with it."""

    sid: str = required(_of_text(opaque))
    client_secret: str = required(_of_text(opaque))

    def credentials(self) -> Credentials:
        """The session that is meant."""
        return Credentials(self.sid, self.client_secret)


@dataclass(frozen=True, slots=True)
class SubmittedToken(SessionReference):
    """`/validate/email/submitToken`, by POST or GET."""

    token: str = required(_of_text(_validation_token))


@dataclass(frozen=True, slots=True)
class BindRequest(SessionReference):
    """`POST /3pid/bind`."""

    mxid: str = required(_of_text(user_id))


@dataclass(frozen=True, slots=True)
class UnbindRequest:
    """`POST /3pid/unbind`.

    A malformed sid or client secret is a proof that fails, a 403, and not a malformed request: homeservers
    take a 400 for "cannot unbind at all".
    """

    threepid: Threepid = required(_threepid)
    mxid: str = required(_of_text(user_id))
    sid: str | None = optional(text)
    client_secret: str | None = optional(text)

    def request(self) -> Unbind:
        """What is asked for."""
        credentials = None
        if self.sid is not None and self.client_secret is not None:
            credentials = Credentials(self.sid, self.client_secret)
        return Unbind(self.threepid, self.mxid, credentials)


@dataclass(frozen=True, slots=True)
class KeyReference:
    """`GET /pubkey/{key_id}`."""

    key_id: str = required(text)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`GET /pubkey/isvalid` and `GET /pubkey/ephemeral/isvalid`."""

    public_key: str = required(_of_text(_public_key))
