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
    SOURCE = "source"
    """No access token; requests are counted by where they come from."""
    TRUSTED_SOURCE = "trusted source"
    """No access token, but only from networks that the operator trusts."""
    OPERATOR = "operator"
    """Whoever reaches the internal listener, and knows its token if there is one."""
    PEER = "peer"
    """A peer, by its certificate."""
    TOKEN = "token"  # noqa: S105 - the name of a rule, not a token
    """An access token, whether or not the terms are accepted."""
    TOKEN_AND_TERMS = "token and terms"  # noqa: S105

    @property
    def needs_token(self) -> bool:
        """Whether it is an access token that is asked for."""
        return self in (Auth.TOKEN, Auth.TOKEN_AND_TERMS)


class Params(Enum):
    """Where the parameters stand."""

    BODY = "body"
    QUERY = "query"
    ANYWHERE = "anywhere"
    """In the body, and what is not there, in the query: as v1 has it."""
    RAW = "raw"
    """The body as it is, under the name `body`."""


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """A request that is ready to be acted upon.

    Attributes:
        params: its parameters.
        caller: who asks.
        origin: the server that is proved to ask: the homeserver that has signed the request, or the peer that
            the certificate belongs to; None where that is not asked.
        languages: what the person who asks reads, best first.
    """

    params: M
    caller: Caller
    origin: str | None = None
    languages: tuple[str, ...] = ()


Handler = Callable[[Call[Any]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    Attributes:
        method: the HTTP method; a GET row answers HEAD, too, unless there is a HEAD row.
        path: below `/_matrix/identity/`; a last segment in braces takes whatever stands there.
        handler: answers the call.
        model: what the parameters are read as.
        auth: what is asked of the caller.
        params: where the parameters stand.
        large: whether the larger limit of a body applies.
        page: the medium whose page it is, if people read the answer: errors are pages then, too.
        signed: whether a homeserver may sign the request, in the place of what `auth` asks for.
    """

    method: str
    path: str
    handler: Handler
    model: type[Any]
    auth: Auth
    params: Params = field(default=Params.QUERY, kw_only=True)
    large: bool = field(default=False, kw_only=True)
    page: str | None = field(default=None, kw_only=True)
    signed: bool = field(default=False, kw_only=True)
