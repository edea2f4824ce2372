"""[homeservers] and [onbind]: with whom this server talks, and how."""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

from dataclasses import dataclass
from pathlib import Path

from sydentish.config import files, network, values
from sydentish.config.blocked import BLOCKED_ADDRESSES
from sydentish.config.declare import option
from sydentish.config.network import DnsServer, IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Homeservers:
    """[homeservers]: with which homeservers this server talks, and how."""

    allow: tuple[str, ...] = option(
        values.items(network.server_pattern),
        "",
        "The homeservers whose users may register, *.example.org for all below a domain; if empty, any.",
    )
    deny: tuple[str, ...] = option(
        values.items(network.server_pattern),
        "",
        "Homeservers whose users may not register, written as in allow; deny wins over allow.",
    )
    verify_tls: bool = option(
        values.boolean, "yes", "Whether the certificates of homeservers are verified; no is for tests only."
    )
    ca_file: Path | None = option(
        values.optional(files.ca_file),
        "",
        "A file with the authorities (PEM) that may vouch for homeservers, instead of the system's.",
    )
    allowed_addresses: tuple[IPNetwork, ...] = option(
        values.items(network.network),
        "",
        "Networks that homeservers may be in although blocked_addresses has them.",
    )
    blocked_addresses: tuple[IPNetwork, ...] = option(
        values.items(network.network),
        ", ".join(BLOCKED_ADDRESSES),
        "Networks that are never connected to for a homeserver; setting this replaces the whole list.",
    )
    max_registering: int | None = option(
        values.limit(values.integer(1, 1_000_000)),
        "200",
        "How many registrations may wait for their homeservers at the same time, or off.",
    )
    timeout: int = option(values.duration(), "20s", "How long a homeserver may take to answer.")
    response_limit: int = option(values.size, "64K", "The largest answer that is read from a homeserver.")
    dns_servers: tuple[DnsServer, ...] = option(
        values.items(network.dns_server),
        "",
        "DNS servers that are asked for homeservers, as IP addresses with an optional port; if empty, those of "
        "/etc/resolv.conf. /etc/hosts comes first.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbind:
    """[onbind]: telling homeservers that an address was bound."""

    timeout: int = option(values.duration(maximum="10s"), "10s", "How long one call may take, at most 10s.")
    max_in_flight: int = option(
        values.integer(2, 10_000),
        "100",
        "How many homeservers are called at the same time; those that do not answer get half of it at most.",
    )
    retry_for: int = option(
        values.duration(), "14d", "How long a failing call is tried again before it is given up."
    )
