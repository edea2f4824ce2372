"""What is allowed, but suspicious."""

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from sydentish.config import endpoints, files
from sydentish.config.declare import keys
from sydentish.config.gateway_sections import Gateway
from sydentish.config.gateways import HttpSection, LogSection
from sydentish.config.ini import Entry
from sydentish.config.model import Config, options
from sydentish.config.network import Source
from sydentish.config.problems import Problem, in_order
from sydentish.config.replication import names_of
from sydentish.config.settle import Chosen
from sydentish.domain.ids import parse_server_name

Told = Iterator[tuple[str, str, str]]

_READABLE_HERE = (
    "can be read here by everybody on this machine: use a file of mode 0600, or change this one's"
)
_READABLE_FILE = "names a file that everybody on this machine can read: give it the mode 0600"
_CHANGEABLE_FILE = "everybody on this machine can change the file: take that right away"
_PLAIN_HTTP = "plain http: anybody on the way can read and change what is sent; use https outside of tests"

# Gateways want their keys under many names, and in many places.
_CREDENTIAL = re.compile(r"auth|key|token|secret|pass", re.IGNORECASE)
_INTERNAL = (
    "every program on this machine may bind and unbind any address there: set internal_token_file, or use a unix "
    "socket that only some may connect to"
)
_NOTHING_RECEIVED = "is not set, so that nothing can be received from the peers that are described here: they are only pushed to"
_UNKNOWN_TO_PEERS = "peers know this server by that name, unless they were told the names of its certificate"
_UNKNOWN_PROXY = (
    "a reverse proxy on this machine that is not named here, and sends no X-Forwarded-For, makes everybody look like "
    "this machine, which v1_trusted_networks lets have SMS sent without a token: name it, and have it send that header"
)


def warnings(config: Config, chosen: Chosen, gateways: Sequence[Gateway], source: str) -> tuple[Problem, ...]:
    """What is suspicious about a configuration that can be used.

    Args:
        config: the configuration.
        chosen: the entries that its values come from.
        gateways: what the `[sms NAME]` sections say.
        source: what to call the file where an option stands at its default.
    """
    found = []
    for told in (
        _names(config),
        _protection(config),
        _reach(config),
        _replication(config),
        _open_files(config, chosen),
    ):
        for section, key, message in told:
            entry = chosen.get((section, key))
            found.append(
                Problem(source, None, section, key, message) if entry is None else entry.problem(message)
            )
    for defined in gateways:
        found.extend(_gateway(defined, config.sms.gateways))
    return in_order(found)


def _names(config: Config) -> Told:
    if config.general.public_base_url.startswith("http:"):
        yield "general", "public_base_url", _PLAIN_HTTP
    for key, names in (
        ("server_name", (config.general.server_name,)),
        ("server_name_aliases", config.general.server_name_aliases),
    ):
        odd = [f"{name} {why}" for name in names if (why := _oddity(name)) is not None]
        if odd:
            yield "general", key, "; ".join(odd)


def _oddity(name: str) -> str | None:
    """What is suspicious about a server name, as the rest of a sentence that begins with it."""
    parsed = parse_server_name(name)
    if parsed.is_ip:
        return "is an IP address: the name of an identity server is usually a bare domain"
    if "." not in parsed.host:
        return "is no public domain: other servers will not know it by that name"
    if parsed.port is not None:
        return (
            f"carries a port: the name of an identity server is usually a bare domain, such as {parsed.host}"
        )
    return None


def _protection(config: Config) -> Told:
    if not config.homeservers.verify_tls:
        yield "homeservers", "verify_tls", "anybody on the way can pose as any homeserver; only for tests"
    if not config.email.smtp_verify and config.email.smtp_security != "plain":
        yield "email", "smtp_verify", "anybody on the way can pose as the mail relay; only for tests"
    if config.email.smtp_password is not None and config.email.smtp_security == "plain":
        yield "email", "smtp_security", "the password is sent to the mail relay in the clear"
    if config.invites.enabled and config.invites.web_client.startswith("http:"):
        yield "invites", "web_client", _PLAIN_HTTP
    both = [code for code in config.sms.rejected_countries if code in config.sms.allowed_countries]
    if both:
        yield "sms", "rejected_countries", f"{', '.join(both)} is allowed, too: what is rejected here wins"


def _reach(config: Config) -> Told:
    """Who could come in that was perhaps not meant to."""
    if config.http.internal_token is None and any(map(_is_for_everybody, config.http.internal_listeners)):
        yield (
            "http",
            "internal_listeners",
            _INTERNAL,
        )
    for key, sources, harm in (
        ("trusted_proxies", config.http.trusted_proxies, "pose as any address"),
        ("v1_trusted_networks", config.http.v1_trusted_networks, "have SMS sent without a token"),
    ):
        if any(map(_is_everywhere, sources)):
            yield "http", key, f"everybody can {harm}: name no more than the machines that are meant"
    if config.sms.gateways and is_behind_unknown_proxy(config):
        yield "http", "trusted_proxies", _UNKNOWN_PROXY


def _replication(config: Config) -> Told:
    replication = config.replication
    if config.peers and not replication.listeners:
        yield "replication", "listeners", _NOTHING_RECEIVED
    if replication.certificate_file is not None:
        server_name = config.general.server_name
        (host,) = names_of(server_name, ())
        if {server_name, host}.isdisjoint(files.names_in_certificate(replication.certificate_file)):
            yield "replication", "certificate_file", f"is not made out to {host}: {_UNKNOWN_TO_PEERS}"


def is_behind_unknown_proxy(config: Config) -> bool:
    """Whether a reverse proxy must be in front of the server, and none is named."""
    http = config.http
    return (
        config.general.public_base_url.startswith("https:")
        and not http.trusted_proxies
        and all(map(endpoints.is_local_and_plain, http.listeners))
    )


def _is_for_everybody(listener: str) -> bool:
    if endpoints.inherited(listener) is not None:
        return False  # its unit says who may connect to it
    return not endpoints.is_unix(listener) or bool(endpoints.socket_mode(listener) & stat.S_IWOTH)


def _is_everywhere(source: Source) -> bool:
    return source != "unix" and source.prefixlen == 0


def _open_files(config: Config, chosen: Chosen) -> Told:
    for section, key, declaration in options():
        if declaration.secret:
            by_file = f"{key}_file"
            yield from _readable(section, key, chosen.get((section, key)), chosen.get((section, by_file)))
    for section, key, ca_file in (
        ("email", "smtp_ca_file", config.email.smtp_ca_file),
        ("homeservers", "ca_file", config.homeservers.ca_file),
        ("replication", "ca_file", config.replication.ca_file),
    ):
        if ca_file is not None and files.others_may(ca_file, stat.S_IWOTH):
            yield section, key, _CHANGEABLE_FILE
    replication = config.replication
    key, private_key = "key_file", replication.key_file
    if private_key is None:
        key, private_key = "certificate_file", replication.certificate_file
    if private_key is not None and files.others_may(private_key, stat.S_IROTH):
        yield "replication", key, _READABLE_FILE


def _readable(section: str, key: str, inline: Entry | None, by_file: Entry | None) -> Told:
    if inline is not None and inline.line is not None and _may(inline.source, stat.S_IROTH):
        yield section, key, _READABLE_HERE
    if by_file is not None and _may(by_file.value, stat.S_IROTH):
        yield section, f"{key}_file", _READABLE_FILE


def _may(file: str, permission: int) -> bool:
    return files.others_may(Path(file), permission)


def _gateway(defined: Gateway, used: Sequence[str]) -> Iterator[Problem]:
    if defined.name in used:
        yield from _gateway_in_use(defined)
    elif not used:
        yield defined.problem(
            None,
            f"is not used, and no telephone number can be validated: set [sms] gateways = {defined.name}",
        )
    else:
        yield defined.problem(None, f"is not used: [sms] gateways does not name {defined.name}")
    yield from _open_files_of_gateway(defined)


def _gateway_in_use(defined: Gateway) -> Iterator[Problem]:
    if isinstance(defined.meaning, LogSection):
        yield defined.problem("kind", "codes are written to the log and sent to nobody; for development only")
    for key in ("url", "base_url"):
        if key in defined.entries and defined.entries[key].value.lower().startswith("http:"):
            yield defined.problem(key, _PLAIN_HTTP)


def _open_files_of_gateway(defined: Gateway) -> Iterator[Problem]:
    gateway, entries = defined.meaning, defined.entries
    if gateway is None or isinstance(gateway, LogSection):
        return
    secrets = [key for key, declaration in keys(type(gateway)) if declaration.secret]
    if isinstance(gateway, HttpSection):
        loose = [key for key in ("url", "headers", "body") if key in entries]
        secrets += [key for key in loose if _CREDENTIAL.search(entries[key].value)]
    for key in secrets:
        told = _readable(defined.name, key, entries.get(key), entries.get(f"{key}_file"))
        for _, where, message in told:
            yield defined.problem(where, message)
    if gateway.ca_file is not None and files.others_may(gateway.ca_file, stat.S_IWOTH):
        yield defined.problem("ca_file", _CHANGEABLE_FILE)
