"""What options say together: logins that are half, and what is allowed but suspicious."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from sydentish.config import files
from sydentish.config.ini import Entry
from sydentish.config.model import Config, options
from sydentish.config.problems import Problem, in_order
from sydentish.domain.ids import parse_server_name

Chosen = Mapping[tuple[str, str], Entry]
Told = Iterator[tuple[str, str, str]]


def half_login(chosen: Chosen) -> Iterator[Problem]:
    """A user name without a password, or a password without a user name."""
    user = chosen.get(("email", "smtp_username"))
    password = chosen.get(("email", "smtp_password")) or chosen.get(("email", "smtp_password_file"))
    if user is not None and password is None:
        yield user.problem("needs smtp_password or smtp_password_file beside it")
    if password is not None and user is None:
        yield password.problem("needs smtp_username beside it")


def warnings(config: Config, chosen: Chosen, source: str) -> tuple[Problem, ...]:
    """What is suspicious about a configuration that can be used.

    Args:
        config: the configuration.
        chosen: the entries that its values come from.
        source: what to call the file where an option stands at its default.
    """
    found = []
    for told in (_names(config), _protection(config), _open_files(config, chosen)):
        for section, key, message in told:
            entry = chosen.get((section, key))
            found.append(
                Problem(source, None, section, key, message) if entry is None else entry.problem(message)
            )
    return in_order(found)


def _names(config: Config) -> Told:
    if config.general.public_base_url.startswith("http:"):
        message = (
            "plain http: anybody on the way can read and change what is sent; use https outside of tests"
        )
        yield "general", "public_base_url", message
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


def _open_files(config: Config, chosen: Chosen) -> Told:
    for section, key, declaration in options():
        if not declaration.secret:
            continue
        inline, by_file = chosen.get((section, key)), chosen.get((section, f"{key}_file"))
        if inline is not None and inline.line is not None and _may(inline.source, stat.S_IROTH):
            yield (
                section,
                key,
                "everybody on this machine can read it here: use a file of mode 0600, or change this one's",
            )
        if by_file is not None and _may(by_file.value, stat.S_IROTH):
            yield section, f"{key}_file", "everybody on this machine can read the file: give it the mode 0600"
    for section, key, ca_file in (
        ("email", "smtp_ca_file", config.email.smtp_ca_file),
        ("homeservers", "ca_file", config.homeservers.ca_file),
    ):
        if ca_file is not None and files.others_may(ca_file, stat.S_IWOTH):
            yield section, key, "everybody on this machine can change the file: take that right away"


def _may(file: str, permission: int) -> bool:
    return files.others_may(Path(file), permission)
