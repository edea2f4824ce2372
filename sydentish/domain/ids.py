"""Identifiers of Matrix: server names, user IDs, and the opaque strings of the identity API."""

import ipaddress
import re
from dataclasses import dataclass, replace

from sydentish.domain.errors import InvalidParam

_OPAQUE = re.compile(r"[0-9a-zA-Z.=_-]{1,255}")
_HOSTNAME = re.compile(r"[0-9A-Za-z.-]{1,253}")
# A zone ID (RFC 4007) is no part of the grammar; the ipaddress module lets any characters be one.
_IP_LITERAL = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65535
_MAX_SERVER_NAME = 255
_MAX_USER_ID_BYTES = 255


@dataclass(frozen=True, slots=True)
class ServerName:
    """A server name, taken apart (specification, appendices, "Server Name").

    Attributes:
        host: a DNS name in lower case, or an IP literal without brackets.
        port: the explicit port, or None.
        is_ip: whether `host` is an IP literal.
    """

    host: str
    port: int | None
    is_ip: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_server_name(text: str) -> ServerName:
    """Takes a server name apart: `host`, `host:port`, `1.2.3.4`, `[::1]:8448`.

    Raises:
        ValueError: when it is not a server name; the message says why.
    """
    if len(text) > _MAX_SERVER_NAME:
        raise ValueError(f"a server name has at most {_MAX_SERVER_NAME} characters")
    host, port_text = _split_port(text)
    port = None
    if port_text is not None:
        if not _PORT.fullmatch(port_text) or not 0 < int(port_text) <= _MAX_PORT:
            raise ValueError(f"the port of a server name is a number from 1 to {_MAX_PORT}")
        port = int(port_text)
    if host.startswith("["):
        return ServerName(_ip_literal(host[1:-1], 6), port, is_ip=True)
    if re.fullmatch(r"[0-9.]+", host):
        return ServerName(_ip_literal(host, 4), port, is_ip=True)
    if not _HOSTNAME.fullmatch(host) or ".." in host or host.startswith((".", "-")):
        raise ValueError("a server name is a DNS name or an IP literal, with an optional port")
    return ServerName(host.lower(), port, is_ip=False)


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 literal in a server name stands in brackets")
        return host + "]", rest[1:] if rest else None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _ip_literal(text: str, version: int) -> str:
    problem = "the server name looks like an IP literal, but is none"
    if not _IP_LITERAL.fullmatch(text):
        raise ValueError(problem)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(problem) from None
    if address.version != version:
        raise ValueError("an IPv6 literal in a server name stands in brackets, an IPv4 literal does not")
    return str(address)


def canonical_server_name(text: str) -> str:
    """The one spelling of a server name: DNS names in lower case, IP literals in their shortest form.

    Raises:
        ValueError: it is not a server name.
    """
    return str(parse_server_name(text))


def is_server_name(text: str) -> bool:
    """Whether `text` is a well-formed server name."""
    try:
        parse_server_name(text)
    except ValueError:
        return False
    return True


def matches_server(server_name: str, patterns: frozenset[str]) -> bool:
    """Whether a server name is among `patterns`: canonical names, and `*.example.org` for every name below it.

    Raises:
        ValueError: it is not a server name.
    """
    return _listed(_without_root(server_name), patterns)


def matches_server_on_any_port(server_name: str, patterns: frozenset[str]) -> bool:
    """As `matches_server`, and a pattern without a port stands for every port: for lists of what is refused.

    Whoever is refused could choose another port, or the dot of the DNS root behind the name.

    Raises:
        ValueError: it is not a server name.
    """
    name = _without_root(server_name)
    return _listed(name, patterns) or _listed(replace(name, port=None), patterns)


def _without_root(server_name: str) -> ServerName:
    parsed = parse_server_name(server_name)
    return replace(parsed, host=parsed.host.removesuffix("."))


def _listed(server_name: ServerName, patterns: frozenset[str]) -> bool:
    name = str(server_name)
    return name in patterns or any(each.startswith("*.") and name.endswith(each[1:]) for each in patterns)


def server_name_of(mxid: str) -> str:
    """The server name of a user ID, as it is written there.

    Raises:
        ValueError: when `mxid` is not a user ID (specification, appendices, "User Identifiers"; the
            historical character set of local parts is accepted, control characters are not).
    """
    if not mxid.startswith("@"):
        raise ValueError("a user ID begins with @")
    localpart, colon, server_name = mxid[1:].partition(":")
    if not colon:
        raise ValueError("a user ID has the form @localpart:server")
    if len(mxid.encode("utf-8", "surrogatepass")) > _MAX_USER_ID_BYTES:
        raise ValueError(f"a user ID has at most {_MAX_USER_ID_BYTES} bytes")
    if not localpart.isprintable() or any(c.isspace() for c in localpart):
        raise ValueError("the local part of a user ID has no blanks and no control characters")
    parse_server_name(server_name)
    return server_name


def user_id(name: str, value: str) -> str:
    """The parameter `name` as a well-formed user ID.

    Raises:
        InvalidParam: when it is none.
    """
    try:
        server_name_of(value)
    except ValueError as error:
        raise InvalidParam(name, str(error)) from None
    return value


def opaque(name: str, value: str) -> str:
    """The parameter `name` as a `sid` or `client_secret`: `[0-9a-zA-Z.=_-]`, 1 to 255 characters.

    Raises:
        InvalidParam: when it breaks that grammar (Identity Service API, requestToken).
    """
    if not _OPAQUE.fullmatch(value):
        raise InvalidParam(name, "must be 1 to 255 characters of 0-9 a-z A-Z . = _ -")
    return value
