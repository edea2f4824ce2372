"""What of a Sydent's configuration is about the server itself: its name, its listeners, homeservers and the log."""

from pathlib import Path

from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig, OldConfigProblem
from sydentish.config import network
from sydentish.config.network import V1_NEEDED

_LEVELS = {
    "DEBUG": "debug",
    "INFO": "info",
    "WARNING": "warning",
    "WARN": "warning",
    "ERROR": "error",
    "CRITICAL": "error",
}
_SWITCHES = (
    ("http", "obey_x_forwarded_for", "no proxy is believed; see [http] trusted_proxies"),
    ("general", "enable_v1_access", "v1 is off; see [http] v1_endpoints"),
    ("http", "federation.verifycerts", "certificates are checked; see [homeservers] verify_tls"),
)


def server_name(old: OldConfig) -> str:
    """The name of the server, which must be known: all that it has signed is signed in this name.

    Raises:
        OldConfigProblem: it is not.
    """
    name = old.get("general", "server.name")
    if not name:
        raise OldConfigProblem(
            f"{old.path}: [general] server.name: is not set, so the Sydent has used the name of its machine: write that there"
        )
    try:
        return network.server_name(name)
    except ValueError as error:
        raise OldConfigProblem(f"{old.path}: [general] server.name: {error}") from None


def translate(draft: Draft, old: OldConfig, data_dir: Path, public_base_url: str | None) -> None:
    """Adds what these sections become.

    Args:
        draft: takes it.
        old: the Sydent's configuration.
        data_dir: where ours keeps its things.
        public_base_url: where clients reach the server, if somebody has said so.
    """
    draft.translate("general", "server_name", server_name(old), "[general] server.name")
    _public_base_url(draft, old, public_base_url)
    draft.translate(
        "general", "data_dir", str(data_dir), "[db] db.file", "all is kept in a database of its own"
    )
    _listeners(draft, old)
    _proxies(draft, old)
    _v1(draft, old)
    _homeservers(draft, old)
    _switches(draft, old)
    limit = old.get("general", "address_lookup_limit")
    draft.translate("lookup", "max_addresses", limit, "[general] address_lookup_limit")
    _log(draft, old)
    _dropped(draft, old)


def _public_base_url(draft: Draft, old: OldConfig, given: str | None) -> None:
    source, url = "[http] client_http_base", old.get("http", "client_http_base")
    if given is not None:
        draft.translate("general", "public_base_url", given, source, "as --public-base-url says")
    elif url:
        draft.translate("general", "public_base_url", url, source)
    else:
        draft.decide(
            "general",
            "public_base_url",
            f"https://{server_name(old)}",
            source,
            "is not set there; this is a guess: it must be the URL at which clients and homeservers reach the server, for "
            "the links in mails lead there",
        )


def _listeners(draft: Draft, old: OldConfig) -> None:
    where, port = old.get("http", "clientapi.http.bind_address"), old.get("http", "clientapi.http.port")
    draft.translate(
        "http", "listeners", endpoint(where, port), "[http] clientapi.http.bind_address, clientapi.http.port"
    )
    source = "[http] internalapi.http.bind_address, internalapi.http.port"
    where, port = old.get("http", "internalapi.http.bind_address"), old.get("http", "internalapi.http.port")
    if port:
        draft.translate("http", "internal_listeners", endpoint(where, port), source)
    source = "[general] prometheus_addr, prometheus_port"
    if old.is_given("general", "prometheus_port"):
        listener = endpoint(old.get("general", "prometheus_addr"), old.get("general", "prometheus_port"))
        draft.translate(
            "http",
            "metrics_listeners",
            listener,
            source,
            "the metrics have other names: docs/operating.md; the public must not reach them",
        )


def endpoint(address: str, port: str) -> str:
    """The endpoint string of an address and a port; without an address it is all of them."""
    if ":" not in address:
        return f"tcp:{port}:interface={address}" if address else f"tcp:{port}"
    escaped = address.replace(":", "\\:")
    return f"tcp6:{port}" if address == "::" else f"tcp6:{port}:interface={escaped}"


def _proxies(draft: Draft, old: OldConfig) -> None:
    if old.is_true("http", "obey_x_forwarded_for"):
        draft.decide(
            "http",
            "trusted_proxies",
            "127.0.0.1, ::1",
            "[http] obey_x_forwarded_for",
            "the Sydent believes X-Forwarded-For whoever sends it; here only the reverse proxies that are listed are believed: "
            "check their addresses",
        )


def _v1(draft: Draft, old: OldConfig) -> None:
    source = "[general] enable_v1_access, enable_v1_associations"
    if old.is_true("general", "enable_v1_access"):
        draft.decide(
            "http",
            "v1_endpoints",
            "all",
            source,
            "the Sydent serves all of v1, which asks for no access token; what stands here without this line is what today's "
            "homeservers, clients and mails need, and is the default",
            is_set=False,
        )
        return
    kept = [each for each in V1_NEEDED if each in ("status", "pubkey", "sign-ed25519", "submit-links")]
    draft.translate(
        "http",
        "v1_endpoints",
        ", ".join(kept),
        source,
        "v1 is off there; these ask for nothing and give nothing away, and the links of mails lead to some of them",
    )


def _homeservers(draft: Draft, old: OldConfig) -> None:
    for key, ours in (
        ("homeserver_allow_list", "allow"),
        ("ip.blacklist", "blocked_addresses"),
        ("ip.whitelist", "allowed_addresses"),
    ):
        if old.get("general", key):
            draft.translate("homeservers", ours, _items(old.get("general", key)), f"[general] {key}")
    if old.is_false("http", "federation.verifycerts"):
        draft.decide(
            "homeservers",
            "verify_tls",
            "no",
            "[http] federation.verifycerts",
            "then anybody on the way can pose as a homeserver: better set ca_file",
        )


def _switches(draft: Draft, old: OldConfig) -> None:
    for section, key, told in _SWITCHES:
        if not old.is_true(section, key) and not old.is_false(section, key):
            draft.remark(f"[{section}] {key}", f"is neither true nor false: {told}")


def _items(value: str) -> str:
    return "\n".join(["", *(item.strip() for item in value.split(",") if item.strip())])


def _log(draft: Draft, old: OldConfig) -> None:
    level = old.get("general", "log.level").upper()
    draft.translate("log", "level", _LEVELS.get(level, "info"), "[general] log.level")
    if old.get("general", "log.path"):
        draft.decide(
            "log",
            "file",
            old.get("general", "log.path"),
            "[general] log.path",
            "without it the log goes to standard error, and so into the journal; the old file belongs to the Sydent",
            is_set=False,
        )


def _dropped(draft: Draft, old: OldConfig) -> None:
    for section, key, told in (
        ("general", "pidfile.path", "systemd knows which process it is"),
        ("general", "sentry_dsn", "nothing is reported to Sentry; the log and the metrics tell of errors"),
        ("general", "delete_tokens_on_bind", "an invitation is deleted when a homeserver has taken it"),
        ("email", "email.hostname", "the relay is greeted with the name of the machine"),
        (
            "email",
            "email.subject",
            "the subject stands in the template verification.eml.txt, as docs/templates.md tells",
        ),
    ):
        if old.is_given(section, key):
            draft.drop(f"[{section}] {key}", told)
    for section, key in old.without_meaning():
        draft.drop(f"[{section}] {key}", "means nothing to Sydent 2.6.1 either")
