"""Value parsers for names and places of a network: server names, URLs, origins, addresses, listeners."""

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from sydentish.config import files
from sydentish.domain.ids import parse_server_name

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,252}")
# RFC 3986 section 3.3.
_PATH = re.compile(r"([0-9A-Za-z._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_SCHEME = re.compile(r"([A-Za-z][0-9A-Za-z+.-]*)://")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
# For the owner and the group; Twisted's own would be for everybody.
_SOCKET_MODE = "660"
_DNS_PORT = 53

_INET = ("port", "interface", "backlog")
# The kinds of Twisted's server endpoint strings, with the names of their arguments in the order of Twisted.
_ENDPOINTS = {
    "tcp": _INET,
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (*_INET, "privateKey", "certKey", "sslmethod", "extraCertChain", "dhParameters"),
    "unix": ("address", "mode", "backlog", "lockfile"),
}


class DnsServer(NamedTuple):
    """Where a DNS server listens, as Twisted's resolver takes it."""

    host: str
    port: int


def server_name(value: str) -> str:
    """A Matrix server name in its canonical form: lower case, IP literals shortened."""
    scheme = _SCHEME.match(value)
    if scheme is not None:
        what = scheme[0].lower() if scheme[1].lower() in _DEFAULT_PORTS else "a scheme"
        raise ValueError(f"must be a server name such as example.org: write it without {what}")
    try:
        return str(parse_server_name(value))
    except ValueError as error:
        raise ValueError(f"must be a server name such as example.org: {error}") from None


def server_pattern(value: str) -> str:
    """A server name, or `*.` and a domain for all its subdomains, canonical."""
    wildcard = "*." if value.startswith("*.") else ""
    return wildcard + server_name(value.removeprefix(wildcard))


def host(value: str) -> str:
    """A host name (also a local one with an underscore) or an IP address without brackets."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if not _HOST.fullmatch(value):
            raise ValueError("must be a host name or an IP address") from None
    return value.lower()


def base_url(value: str) -> str:
    """An absolute http or https URL, perhaps with a path, to which paths can be added.

    Returned with scheme and host in lower case and without a slash at its end. The paths that are added begin with
    `/_matrix`, so it has none of that itself.
    """
    problem = "must be an absolute URL such as https://id.example.org, without user, query and fragment"
    parts = _web_url(value, problem)
    if "?" in value or "#" in value:
        raise ValueError(problem)
    if "/_matrix" in unquote(parts.path).lower():
        raise ValueError(
            "must be the URL without /_matrix and what follows it, such as https://id.example.org: "
            "whoever uses it adds that"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def page_url(value: str) -> str:
    """An absolute http or https URL of a page, as it is written."""
    _web_url(value, "must be an absolute URL such as https://example.org/terms.html, without a user")
    return value


def origin(value: str) -> str:
    """An origin as browsers write it (RFC 6454 section 6.2), or `*`.

    Scheme and host are in lower case, and a port that is the scheme's own is left out.
    """
    if value == "*":
        return value
    problem = "must be an origin such as https://app.example.org, or *"
    parts = _web_url(value, problem)
    if parts.path not in ("", "/") or "?" in value or "#" in value:
        raise ValueError(problem)
    name = parse_server_name(parts.netloc)
    default = name.port == _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{name if not default else str(name).rpartition(':')[0]}"


def _web_url(value: str, problem: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        # Checked as a server name, the authority is a host with an optional port and nothing else.
        parse_server_name(parts.netloc)
    except ValueError:
        raise ValueError(problem) from None
    blanks = any(c.isspace() or not c.isprintable() for c in value)
    if parts.scheme not in _DEFAULT_PORTS or blanks or not _PATH.fullmatch(parts.path):
        raise ValueError(problem)
    return parts


def network(value: str) -> IPNetwork:
    """A network or a single address, IPv4 or IPv6."""
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(
            "must be an address or a network such as 10.0.0.0/8 or fd00::/8, host bits zero"
        ) from None


def dns_server(value: str) -> DnsServer:
    """An IP address with an optional port: `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`."""
    try:
        return DnsServer(str(ipaddress.ip_address(value)), _DNS_PORT)
    except ValueError:
        problem = "must be an IP address with an optional port, such as 192.0.2.1:53"
    try:
        name = parse_server_name(value)
    except ValueError:
        raise ValueError(problem) from None
    if not name.is_ip:
        raise ValueError(problem)
    return DnsServer(name.host, name.port or _DNS_PORT)


def listener(value: str) -> str:
    r"""A server endpoint string of Twisted; only what is always right is checked here.

    It is returned as it is written, and a unix socket that has no mode gets mode 660.

    Whether the address can be listened on is found out at the start. Colons in an argument are escaped:
    `tcp6:8090:interface=\:\:1`.
    """
    kind, *arguments = re.findall(r"(?:^|:)((?:\\.|[^:\\])*)", value, flags=re.DOTALL)
    if kind not in _ENDPOINTS or ":".join([kind, *arguments]) != value or not value.isprintable():
        raise ValueError(f"must begin with one of {', '.join(_ENDPOINTS)} and a colon")
    names = _ENDPOINTS[kind]
    given = _given(arguments, names)
    if given is None:
        raise ValueError(
            f"must have arguments out of {', '.join(names)} behind {kind}, colons in them written \\:"
        )
    if kind != "unix" and not _is_port(given.get("port", "")):
        raise ValueError(f"must have a port from 0 to {_MAX_PORT} behind {kind}")
    if not re.fullmatch(r"[0-9]{1,9}", given.get("backlog", "50")):
        raise ValueError("must have a whole number as its backlog")
    if kind == "unix":
        return _unix_listener(value, given)
    if kind == "ssl":
        private_key = given.get("privateKey", "")
        files.tls_key_pair(private_key, given.get("certKey", private_key))
    return value


def _unix_listener(value: str, given: Mapping[str, str]) -> str:
    if not given.get("address"):
        raise ValueError("must have the path of a socket behind unix")
    if not re.fullmatch(r"[0-7]{3,4}", given.get("mode", _SOCKET_MODE)):
        raise ValueError("must have an octal mode such as 660")
    if given.get("lockfile", "1") not in ("0", "1"):
        raise ValueError("must have 0 or 1 as its lockfile")
    return value if "mode" in given else f"{value}:mode={_SOCKET_MODE}"


def _given(arguments: list[str], names: tuple[str, ...]) -> dict[str, str] | None:
    """The arguments by name; None when one is empty, unknown, given twice or too many, or there is none."""
    positional = [part for part in arguments if "=" not in part]
    named = [part.split("=", 1) for part in arguments if "=" in part]
    used = [*names[: len(positional)], *(name for name, _ in named)]
    if not arguments or not all(positional) or len(positional) > len(names):
        return None
    if len(set(used)) < len(used) or not set(used) <= set(names):
        return None
    return dict(zip(names, positional, strict=False)) | dict(named)


def _is_port(value: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", value)) and int(value) <= _MAX_PORT
