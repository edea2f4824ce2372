"""Every section with fixed options, each option declared once: name, type, parser, default, and one sentence.

Durations are whole milliseconds, sizes bytes; a limit that is switched off is None. The larger sections stand
in modules of their own, and are found here all the same.
"""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

from dataclasses import dataclass
from pathlib import Path

from sydentish.config import files, network, values
from sydentish.config.budgets import Budgets
from sydentish.config.declare import mandatory, option
from sydentish.config.health import Health
from sydentish.config.homeservers import Homeservers, Onbind
from sydentish.config.keeping import Keeping
from sydentish.config.people import Email, Invites, Sms, Validation
from sydentish.config.replication import Replication
from sydentish.config.serving import Http

__all__ = [
    "Budgets",
    "Database",
    "Email",
    "General",
    "Health",
    "Homeservers",
    "Http",
    "Invites",
    "Keeping",
    "Log",
    "Lookup",
    "Onbind",
    "Replication",
    "Sms",
    "Validation",
]


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
