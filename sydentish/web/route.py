"""What a row of the route table says."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from sydentish.actions.accounts import Caller
from sydentish.web.reply import Reply

M = TypeVar("M")


class Auth(Enum):
    """What a route asks of the caller."""

    NONE = "none"
    TOKEN = "token"  # noqa: S105 - the name of a rule, not a token
    """An access token, whether or not the terms are accepted."""
    TOKEN_AND_TERMS = "token and terms"  # noqa: S105


class Source(Enum):
    """Where the parameters stand."""

    BODY = "body"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """A request that is ready to be acted upon.

    Attributes:
        params: its parameters.
        caller: who asks; the gate knows nobody by the empty token of routes without authentication.
    """

    params: M
    caller: Caller


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    Attributes:
        method: the HTTP method; a GET row answers HEAD, too, unless there is a HEAD row.
        path: below `/_matrix/identity/`; a last segment in braces takes whatever stands there.
        handler: answers the call.
        model: what the parameters are read as.
        auth: what is asked of the caller.
        source: where the parameters stand.
        large: whether the larger limit of a body applies.
        page: whether people read the answer: errors are pages then, too.
    """

    method: str
    path: str
    handler: Callable[[Call[Any]], Awaitable[Reply]]
    model: type[Any]
    auth: Auth
    source: Source = field(default=Source.QUERY, kw_only=True)
    large: bool = field(default=False, kw_only=True)
    page: bool = field(default=False, kw_only=True)
