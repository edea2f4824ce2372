"""What reaches people: mails, SMS, validations and invitations."""

# ruff: noqa: RUF009 - option(), mandatory() and secret() are `dataclasses.field` with a declaration

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sydentish.config import files, network, phones, values
from sydentish.config.declare import Secret, option, secret


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
    timeout: int = option(
        values.duration(),
        "20s",
        "How long handing a mail over may take; that of an invitation at most 10s, since it is tried again.",
    )
    max_connections: int = option(
        values.integer(1, 10_000), "10", "How many mails are handed over at the same time."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sms:
    """[sms]: sending codes to telephone numbers."""

    gateways: tuple[str, ...] = option(
        values.distinct(values.items(phones.gateway)),
        "",
        "The gateways that take SMS, each the NAME of a section [sms NAME], tried in this order; "
        "if empty, telephone numbers cannot be validated.",
    )
    allowed_countries: tuple[str, ...] = option(
        values.items(phones.country),
        "",
        "The countries that SMS are sent to, as two-letter codes such as GB; if empty, any, and then also numbers of no "
        "country such as those of satellite telephones, unless rejected_countries is set.",
    )
    rejected_countries: tuple[str, ...] = option(
        values.items(phones.country),
        "",
        "Countries that none are sent to, written as in allowed_countries; rejected_countries wins over it, and where "
        "it is set, none are sent to numbers of no country, either.",
    )
    originator: str | None = option(
        values.optional(phones.originator),
        "",
        "What SMS are from: a number, a short code, or a name of up to 11 characters; if not set, as the gateway has it.",
    )
    originators: Mapping[str, str] = option(
        phones.originators,
        "",
        "What SMS to some countries are from instead: a list of items such as GB:447700900001.",
    )
    strict_numbers: bool = option(
        values.boolean,
        "no",
        "Whether numbers must match a known numbering plan, and not just have a possible length.",
    )
    timeout: int = option(
        values.duration(), "20s", "How long handing an SMS over may take, all gateways together."
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
class Invites:
    """[invites]: invitations for addresses that have no user yet."""

    enabled: bool = option(values.boolean, "yes", "Whether homeservers may leave invitations here.")
    lifetime: int = option(
        values.duration(), "90d", "How long an invitation waits for its address to be bound."
    )
    web_client: str = option(
        network.web_client,
        "https://app.element.io",
        "The URL of the web client that the link of an invitation mail opens.",
    )
    web_clients_allowed: tuple[str, ...] = option(
        values.items(network.web_client_or_any),
        "",
        "Web clients that the link may open instead when the homeserver asks for it: a list of URLs, or * for any; if "
        "empty, only the one above.",
    )
    shown_characters: int = option(
        values.integer(0, 64),
        "3",
        "How many characters of each half of an invited address a room may see, never all of them.",
    )
    blocked_rooms: tuple[str, ...] = option(
        values.items(values.room_id),
        "",
        "Rooms to which nobody is invited, as room IDs such as !id:example.org.",
    )
    blocked_homeservers: tuple[str, ...] = option(
        values.items(network.server_pattern),
        "",
        "Homeservers whose users invite nobody, and to whose rooms nobody is invited, *.example.org for all below a domain.",
    )
    blocked_words: tuple[str, ...] = option(
        values.items(values.text),
        "",
        "Texts that make an invitation refused when the name or alias of its room, or the name or user ID of its sender, has "
        "them, also inside of a longer word, in upper or lower case.",
    )
    policy_dry_run: bool = option(
        values.boolean, "no", "Whether invitations that the three lists above would refuse are only counted."
    )
    retry_for: int = option(
        values.duration(), "14d", "How long a mail that the relay does not take is tried again."
    )
