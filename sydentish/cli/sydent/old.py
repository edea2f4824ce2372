"""The configuration of a Sydent 2.x, as it understands it."""

import configparser
from collections.abc import Mapping, Sequence
from pathlib import Path

DEFAULTS = {
    "general": {
        "server.name": "",
        "log.path": "",
        "log.level": "INFO",
        "pidfile.path": "sydent.pid",
        "terms.path": "",
        "address_lookup_limit": "10000",
        "templates.path": "res",
        "brand.default": "matrix-org",
        "enable_v1_associations": "true",
        "delete_tokens_on_bind": "true",
        "ip.blacklist": "",
        "ip.whitelist": "",
        "homeserver_allow_list": "",
        "enable_v1_access": "true",
    },
    "db": {"db.file": "sydent.db"},
    "http": {
        "clientapi.http.bind_address": "::",
        "clientapi.http.port": "8090",
        "internalapi.http.bind_address": "::1",
        "internalapi.http.port": "",
        "replication.https.certfile": "",
        "replication.https.cacert": "",
        "replication.https.bind_address": "::",
        "replication.https.port": "4434",
        "obey_x_forwarded_for": "False",
        "federation.verifycerts": "True",
        "client_http_base": "",
    },
    "email": {
        "email.from": "",
        "email.subject": "",
        "email.invite.subject": "",
        "email.invite.subject_space": "",
        "email.smtphost": "localhost",
        "email.smtpport": "25",
        "email.smtpusername": "",
        "email.smtppassword": "",
        "email.hostname": "",
        "email.tlsmode": "0",
        "email.default_web_client_location": "https://app.element.io",
        "email.third_party_invite_username_obfuscate_characters": "3",
        "email.third_party_invite_domain_obfuscate_characters": "3",
    },
    "sms": {"bodytemplate": "", "username": "", "password": ""},
    "crypto": {"ed25519.signingkey": ""},
}
"""What counts where the file says nothing, as far as it matters here."""

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# What has no default.
_FURTHER = {
    "general": {"prometheus_port", "prometheus_addr", "sentry_dsn"},
    "http": {"verify_response_template"},
    "email": {
        *("email.template", "email.invite_template"),
        *("email.ratelimit_sender.burst", "email.ratelimit_sender.rate_hz"),
        *(f"email.third_party_invite_{what}_blocklist" for what in ("homeserver", "room", "keyword")),
    },
    "sms": {f"{what}.ratelimit.{part}" for what in ("msisdn", "country") for part in ("burst", "rate_hz")},
}
_PEER = "peer."
_FROM_ENVIRONMENT = {
    ("general", "server.name"): "SYDENT_SERVER_NAME",
    ("general", "pidfile.path"): "SYDENT_PID_FILE",
    ("db", "db.file"): "SYDENT_DB_PATH",
}
# Interpolated by something else, which knows the names in it.
_RAW = {"email.invite.subject", "email.invite.subject_space"}
# No section can have this name: so that [DEFAULT] is one like the others.
_NO_SECTION = "\n"


class OldConfigProblem(Exception):
    """The configuration cannot be used; the message says why, and shows nothing of what stands there."""


class OldConfig:
    """What a Sydent's configuration says.

    Attributes:
        path: the file.

    Args:
        path: the file.
        environ: the environment variables that the Sydent is started with: some are defaults.

    Raises:
        OldConfigProblem: it cannot be read.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._effective = configparser.ConfigParser()
        self._effective.read_dict(DEFAULTS)
        for (section, key), variable in _FROM_ENVIRONMENT.items():
            if variable in environ:
                self._effective.set(section, key, environ[variable].replace("%", "%%"))
        self._given = configparser.RawConfigParser(default_section=_NO_SECTION)
        try:
            text = path.read_text(encoding="utf-8")
            self._effective.read_string(text)
            self._given.read_string(text)
        except OSError as error:
            raise OldConfigProblem(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise OldConfigProblem(f"{path}: must be UTF-8 text") from None
        except configparser.Error as error:
            # Its text could show a secret.
            line = getattr(error, "lineno", None) or next(
                (each[0] for each in getattr(error, "errors", ())), None
            )
            where = path if line is None else f"{path}:{line}"
            raise OldConfigProblem(
                f"{where}: is no configuration of a Sydent: {type(error).__name__}"
            ) from None
        if not {"general", "http", "crypto", "db"} & set(self._given.sections()):
            raise OldConfigProblem(f"{path}: is no configuration of a Sydent: it has no section of one")

    def get(self, section: str, key: str) -> str:
        """What counts: what the file says, else the default, else nothing."""
        try:
            return self._effective.get(section, key, raw=key in _RAW, fallback="").strip()
        except configparser.InterpolationError:
            raise OldConfigProblem(
                f"{self.path}: [{section}] {key}: a percent sign in it must be written twice"
            ) from None

    def is_true(self, section: str, key: str) -> bool:
        """Whether something is switched on."""
        return self.get(section, key).lower() in _TRUE

    def is_false(self, section: str, key: str) -> bool:
        """Whether something is switched off: what is neither true nor false is not."""
        return self.get(section, key).lower() in _FALSE

    def lines(self, section: str, key: str) -> list[str]:
        """The lines of a value that are not empty."""
        return [line.strip() for line in self.get(section, key).split("\n") if line.strip()]

    def is_given(self, section: str, key: str) -> bool:
        """Whether the file itself says something."""
        return self._given.has_option(section, key) and bool(self.get(section, key))

    def path_of(self, value: str) -> Path:
        """A file that is named: a relative path counts from the configuration's folder, or from the working directory."""
        beside = self.path.absolute().parent / value
        return beside if beside.exists() or not Path(value).exists() else Path(value).absolute()

    def keys(self, section: str) -> list[str]:
        """The options that count in a section."""
        return self._effective.options(section) if self._effective.has_section(section) else []

    def peer_urls(self) -> dict[str, str]:
        """Where peers are reached, by their names."""
        sections = [each for each in self._effective.sections() if each.startswith(_PEER)]
        urls = {each.removeprefix(_PEER): self.get(each, "base_replication_url") for each in sections}
        return {name: url for name, url in urls.items() if url}

    def without_meaning(self) -> Sequence[tuple[str, str]]:
        """What the file says, and no Sydent 2.x understands; section and option."""
        found = []
        for section in self._given.sections():
            if section.startswith(_PEER):
                continue
            known = set(DEFAULTS.get(section, {})) | _FURTHER.get(section, set())
            for key in self._given.options(section):
                is_sms = section == "sms" and key.startswith(("originators.", "smsrule."))
                if key not in known and not is_sms:
                    found.append((section, key))
        return found
