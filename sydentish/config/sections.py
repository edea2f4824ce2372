"""Every option, declared once: its name, type, parser, default, and one sentence about it.

Durations are whole milliseconds, sizes bytes; a limit that is switched off is None.
"""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

from dataclasses import dataclass
from pathlib import Path

from sydentish.config import files, network, values
from sydentish.config.blocked import BLOCKED_ADDRESSES
from sydentish.config.declare import Secret, mandatory, option, secret
from sydentish.config.network import DnsServer, IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class General:
    """[general]: who this server is, and where its things lie."""

    server_name: str = mandatory(
        network.server_name,
        "example.org",
        "The name of this server: what it signs as, and what homeservers know it by; usually a bare domain.",
    )
    public_base_url: str = mandatory(
        network.base_url,
        "https://id.example.org",
        "The URL at which clients and homeservers reach this server, without /_matrix.",
    )
    server_name_aliases: tuple[str, ...] = option(
        values.items(network.server_name),
        "",
        "Further names by which homeservers may call this server in what they sign, for example a former name.",
    )
    data_dir: Path = option(
        files.folder, "/var/lib/sydentish", "The directory for all that the server keeps."
    )
    key_dir: Path = option(
        files.folder,
        "$data_dir/keys",
        "The directory with the signing keys, one file each; if not set, the directory keys in data_dir.",
    )
    templates_path: Path | None = option(
        values.optional(files.readable_folder),
        "",
        "A directory with brands of your own, a folder of templates each; what is missing there is taken from the "
        "shipped brand.",
    )
    default_brand: str = option(values.folder_name, "default", "The brand for requests that name none.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """[http]: where the server listens, and what one request may cost."""

    listeners: tuple[str, ...] = option(
        values.lines(network.listener, at_least=1),
        "tcp:8090:interface=127.0.0.1",
        "Where the public API is served: server endpoint strings of Twisted (kinds tcp, tcp6, unix, ssl), "
        "one on each line; a unix socket is for its owner and group unless it says otherwise: unix:PATH:mode=660.",
    )
    metrics_listeners: tuple[str, ...] = option(
        values.lines(network.listener),
        "",
        "Where metrics are served, one endpoint string on each line; the public must not reach them.",
    )
    access_token_in_query: bool = option(
        values.boolean,
        "yes",
        "Whether an access token is accepted in the query of a URL, as some homeservers still send it.",
    )
    body_limit: int | None = option(
        values.limit(values.size), "64K", "The largest body of a request, or off for any size."
    )
    lookup_body_limit: int | None = option(
        values.limit(values.size), "4M", "The largest body of a look-up, or off for any size."
    )
    header_limit: int = option(values.size, "16K", "The most that the headers of a request may add up to.")
    receive_timeout: int | None = option(
        values.limit(values.duration()), "30s", "How long a client may take to send one request, or off."
    )
    request_timeout: int | None = option(
        values.limit(values.duration()), "60s", "How long this server may take to answer one request, or off."
    )
    idle_timeout: int | None = option(
        values.limit(values.duration()), "60s", "How long a connection may rest between two requests, or off."
    )
    max_connections: int | None = option(
        values.limit(values.integer(1, 10_000_000)),
        "10000",
        "How many connections each listener holds, or off.",
    )
    stop_timeout: int = option(
        values.duration(),
        "8s",
        "How long requests and transactions may take to finish when the server stops.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """[database]: the embedded SQLite database."""

    path: Path = option(
        files.data_file, "$data_dir/sydentish.db", "The database file; if not set, sydentish.db in data_dir."
    )
    readers: int = option(values.integer(1, 64), "4", "How many threads read at the same time.")
    max_queue: int = option(
        values.integer(1, 10_000_000),
        "10000",
        "How many transactions may wait before further requests are turned away with 503.",
    )
    busy_timeout: int = option(
        values.duration(), "5s", "How long a transaction waits for another process that holds the database."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """[lookup]: finding users by their addresses."""

    allow_none: bool = option(
        values.boolean, "yes", "Whether addresses may also be looked up unhashed, by the algorithm none."
    )
    max_addresses: int | None = option(
        values.limit(values.integer(1, 10_000_000)),
        "10000",
        "How many addresses one look-up may ask for, or off.",
    )
    pepper_rotation: int | None = option(
        values.limit(values.duration()),
        "off",
        "How often the pepper of hashed look-ups is replaced, or off for never.",
    )
    pepper_grace: int = option(
        values.duration(), "1h", "How long the previous pepper stays valid after it was replaced."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """[email]: the relay for mails, and what they say they are from."""

    sender: str = option(
        values.mailbox,
        "Sydentish <noreply@$host>",
        "The mailbox that mails are from; if not set, noreply at the host of server_name.",
        key="from",
    )
    smtp_host: str = option(network.host, "localhost", "The mail relay that takes the mails.")
    smtp_port: int = option(
        values.integer(1, 65535), "587", "The relay's port, usually 587, or 465 with tls."
    )
    smtp_security: str = option(
        values.choice("starttls", "tls", "plain"),
        "starttls",
        "How the connection to the relay is protected: starttls, tls from the first byte on, or plain for not at all.",
    )
    smtp_username: str | None = option(
        values.optional(values.text), "", "The user name at the relay; without one there is no log-in."
    )
    smtp_password: Secret | None = secret("The password at the relay.")
    smtp_ca_file: Path | None = option(
        values.optional(files.ca_file),
        "",
        "A file with the authorities (PEM) that may vouch for the relay, instead of the system's.",
    )
    smtp_verify: bool = option(
        values.boolean, "yes", "Whether the relay's certificate is verified; no is for tests only."
    )
    timeout: int = option(values.duration(), "20s", "How long handing a mail over may take.")
    max_connections: int = option(
        values.integer(1, 10_000), "10", "How many mails are handed over at the same time."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """[validation]: proving that an address is somebody's own."""

    session_lifetime: int = option(
        values.duration(), "24h", "How long a session lives after its last change."
    )
    next_link_allowed: tuple[str, ...] = option(
        values.items(network.origin),
        "*",
        "Where clients may send people after a validation: a list of origins, * for any, or nothing for nowhere.",
    )
    association_lifetime: int = option(
        values.duration(), "36500d", "How long an association that is made here is valid."
    )
    confirm_links: bool = option(
        values.boolean,
        "no",
        "Whether the link of a mail shows a page with a button, so that scanners that open links validate nothing.",
    )


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
        "DNS servers for SRV records (host names are always resolved as the system does), as IP addresses with an "
        "optional port; if empty, the system's.",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """[log]: what is told about the running server."""

    level: str = option(
        values.choice("debug", "info", "warning", "error"),
        "info",
        "The least important kind of line that is logged: debug, info, warning or error.",
    )
    format: str = option(values.choice("text", "json"), "text", "The form of a line: text or json.")
    file: Path | None = option(
        values.optional(files.data_file), "", "The file that lines are added to; if not set, standard error."
    )
