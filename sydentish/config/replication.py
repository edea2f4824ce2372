"""[replication] and the options of `[peer NAME]`: with which identity servers statements are exchanged, and how."""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from unpaddedbase64 import encode_base64

from sydentish.config import endpoints, files, network, values
from sydentish.config.declare import mandatory, option
from sydentish.domain.ids import parse_server_name
from sydentish.domain.keys import decode_base64, is_version
from sydentish.domain.peers import Peer

_KEY = re.compile(r"ed25519:(\S+)[ \t]+(\S+)")
_KEY_BYTES = 32


def peer_keys(value: str) -> Mapping[str, str]:
    """The public keys of a peer in unpadded base64, by key ID: `ed25519:0 BASE64`, by line or comma.

    No message repeats one, since it could be a private key that was taken for the public one.
    """
    found: dict[str, str] = {}
    wrong, twice = [], []
    for number, item in enumerate(filter(None, map(str.strip, re.split(r"[,\n]", value))), start=1):
        key = _key(item)
        if key is None:
            wrong.append(f"number {number} is none")
        elif key[0] in found:
            twice.append(f"number {number} has the ID of an earlier one")
        else:
            found[key[0]] = key[1]
    if wrong or twice or not found:
        problem = "must be public keys such as ed25519:0 BASE64, each with an ID of its own, the key 32 bytes in base64"
        raise ValueError("; ".join([problem, ", ".join(wrong + twice)]).removesuffix("; "))
    return MappingProxyType(found)


def _key(item: str) -> tuple[str, str] | None:
    match = _KEY.fullmatch(item)
    if match is None or not is_version(match[1]):
        return None
    public_key = decode_base64(match[2])
    if public_key is None or len(public_key) != _KEY_BYTES:
        return None
    return f"ed25519:{match[1]}", str(encode_base64(public_key))


certificate_names = values.distinct(values.items(network.certificate_name))
"""Parses names that a certificate can have: DNS names and IP addresses, as a list; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """[replication]: exchanging associations with other identity servers, the peers."""

    listeners: tuple[str, ...] = option(
        values.lines(endpoints.plain_listener),
        "",
        "Where peers push to this server, always by TLS with certificates on both sides: endpoint strings as in [http] "
        "listeners (kinds tcp, tcp6, unix, systemd), one on each line; if empty, nothing is received.",
    )
    certificate_file: Path | None = option(
        values.optional(files.ca_file),
        "",
        "The certificate of this server (PEM), with its chain, that peers are shown: its common name must be "
        "server_name, which is all that a Sydent looks at.",
    )
    key_file: Path | None = option(
        values.optional(files.private_key_file),
        "",
        "The private key (PEM) of that certificate; if not set, it is in certificate_file.",
    )
    ca_file: Path | None = option(
        values.optional(files.ca_file),
        "",
        "The authorities (PEM) that may vouch for peers; those of the system never do.",
    )
    timeout: int = option(
        values.duration(maximum="60s"), "10s", "How long one push to a peer may take, at most 60s."
    )
    batch_size: int = option(
        values.integer(10, 10_000), "500", "How many statements, binds and unbinds, are pushed at once."
    )
    body_limit: int | None = option(
        values.limit(values.size), "4M", "The largest body of a push from a peer, or off for any size."
    )
    max_statements: int = option(
        values.integer(500, 1_000_000), "1000", "How many statements one push from a peer may bring."
    )
    max_future: int = option(
        values.duration(), "5m", "How far ahead of the clock here what a peer states may be dated."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSection:
    """peer: what one peer is called, and how it is known."""

    url: str = mandatory(
        network.peer_url,
        "https://id.example.net:4434",
        "Where its replication listener is reached, without a path.",
    )
    keys: Mapping[str, str] = mandatory(
        peer_keys,
        "ed25519:0 KFD2reWSKC6Ebm2yiR7VrOqp1eqGXjCigIpDw80YdD8",
        "Its public keys, each an ID and the key in base64; statements that none of them has signed are refused.",
    )
    certificate_names: tuple[str, ...] = option(
        certificate_names,
        "",
        "The DNS names or IP addresses of which its certificate must have one; if empty, the host of its NAME.",
    )

    def peer(self, name: str) -> Peer:
        """The peer of that server name, which is canonical."""
        return Peer(name, self.url, self.keys, names_of(name, self.certificate_names))


def names_of(name: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """The certificate names of a peer, which are the host of its server name where none are given."""
    return given or (parse_server_name(name).host.removesuffix("."),)
