"""Value parsers for names and places of a network: server names, URLs, origins, addresses."""

import ipaddress
import re
from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from sydentish.domain.ids import parse_server_name

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
# Where requests come from; whoever connects to a unix socket has no address.
Source = IPNetwork | Literal["unix"]

# What the API of before v2 has, each as one switch; the first ones are what today's homeservers, clients and
# mails need.
V1_NEEDED = ("status", "pubkey", "sign-ed25519", "submit-links", "validate/msisdn", "getValidated3pid")
V1_ENDPOINTS = (*V1_NEEDED, "validate/email", "lookup", "bulk_lookup", "bind", "unbind", "store-invite")

_HOST = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,252}")
# RFC 3986 section 3.3.
_PATH = re.compile(r"([0-9A-Za-z._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_SCHEME = re.compile(r"([A-Za-z][0-9A-Za-z+.-]*)://")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DNS_PORT = 53


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


def certificate_name(value: str) -> str:
    """A DNS name or an IP address as certificates have it: in lower case, without the dot of the DNS root."""
    return host(value).removesuffix(".")


def bare_url(example: str) -> Callable[[str], str]:
    """An absolute http or https URL, perhaps with a path, to which something can be added.

    It is returned with scheme and host in lower case and without a slash at its end.

    Args:
        example: what a message shows as right.
    """
    problem = f"must be an absolute URL such as {example}, without user, query and fragment"

    def parse(value: str) -> str:
        parts = _web_url(value, problem)
        if "?" in value or "#" in value:
            raise ValueError(problem)
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"

    return parse


def base_url(value: str) -> str:
    """The URL of a server of Matrix, as `bare_url`.

    The paths that are added begin with `/_matrix`, so it has none of that itself.
    """
    url = bare_url("https://id.example.org")(value)
    if "/_matrix" in unquote(url).lower():
        raise ValueError(
            "must be the URL without /_matrix and what follows it, such as https://id.example.org: "
            "whoever uses it adds that"
        )
    return url


def web_client(value: str) -> str:
    """The URL of a web client, as `bare_url`."""
    return bare_url("https://app.element.io")(value)


def web_client_or_any(value: str) -> str:
    """The URL of a web client, or `*`."""
    return value if value == "*" else web_client(value)


def page_url(value: str) -> str:
    """An absolute http or https URL of a page, as it is written."""
    return web_url(value, "must be an absolute URL such as https://example.org/terms.html, without a user")


def origin(value: str) -> str:
    """An origin as browsers write it (RFC 6454 section 6.2), or `*`.

    Scheme and host are in lower case, and a port that is the scheme's own is left out.
    """
    if value == "*":
        return value
    return _origin(value, "must be an origin such as https://app.example.org, or *")


def peer_url(value: str) -> str:
    """The URL of a peer's replication listener: https, host and port, in the form of `origin`."""
    problem = (
        "must be an https URL such as https://id.example.net:4434, without user, path, query and fragment: "
        "whoever uses it adds the path"
    )
    url = _origin(value, problem)
    if not url.startswith("https:"):
        raise ValueError(problem)
    return url


def _origin(value: str, problem: str) -> str:
    parts = _web_url(value, problem)
    if parts.path not in ("", "/") or "?" in value or "#" in value:
        raise ValueError(problem)
    name = parse_server_name(parts.netloc)
    default = name.port == _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{name if not default else str(name).rpartition(':')[0]}"


def web_url(value: str, problem: str) -> str:
    """An absolute http or https URL with any query, as it is written.

    Args:
        value: the text.
        problem: what to say of it when it is something else.
    """
    _web_url(value, problem)
    return value


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


def source(value: str) -> Source:
    """Where requests come from: a network, a single address, or `unix` for all unix sockets."""
    if value == "unix":
        return "unix"
    try:
        return network(value)
    except ValueError as error:
        raise ValueError(f"{error}; or the word unix") from None


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
