"""What of a Sydent's configuration is about mails, SMS and invitations."""

import math
from collections.abc import Iterable

import phonenumbers

from sydentish.cli.sydent.draft import Draft
from sydentish.cli.sydent.old import OldConfig, OldConfigProblem

_SECURITY = {"STARTTLS": "starttls", "SSL": "tls", "TLS": "tls"}
_GATEWAY = "openmarket"
_BLOCKED = {"homeserver": "blocked_homeservers", "room": "blocked_rooms", "keyword": "blocked_words"}
_REVEALED = [f"email.third_party_invite_{half}_obfuscate_characters" for half in ("username", "domain")]


def translate(draft: Draft, old: OldConfig) -> None:
    """Adds what these sections become."""
    _sender(draft, old)
    _relay(draft, old)
    _sms(draft, old)
    _invitations(draft, old)
    for section, name, budget in (
        ("email", "email.ratelimit_sender", "invitations_per_sender"),
        ("sms", "msisdn.ratelimit", "sms_per_number"),
        ("sms", "country.ratelimit", "sms_per_country"),
    ):
        _budget(draft, old, section, name, budget)


def _sender(draft: Draft, old: OldConfig) -> None:
    sender = old.get("email", "email.from")
    if not sender:
        return
    if "{" in sender:
        draft.decide(
            "email",
            "from",
            sender,
            "[email] email.from",
            "put a name for what stands in braces",
            is_set=False,
        )
    else:
        draft.translate("email", "from", sender, "[email] email.from")


def _relay(draft: Draft, old: OldConfig) -> None:
    draft.translate("email", "smtp_host", old.get("email", "email.smtphost"), "[email] email.smtphost")
    draft.translate("email", "smtp_port", old.get("email", "email.smtpport"), "[email] email.smtpport")
    security = _SECURITY.get(old.get("email", "email.tlsmode").upper(), "plain")
    draft.translate("email", "smtp_security", security, "[email] email.tlsmode")
    if old.get("email", "email.smtpusername"):
        username, password = old.get("email", "email.smtpusername"), old.get("email", "email.smtppassword")
        draft.translate("email", "smtp_username", username, "[email] email.smtpusername")
        draft.translate("email", "smtp_password", password, "[email] email.smtppassword")


def _sms(draft: Draft, old: OldConfig) -> None:
    username, password = old.get("sms", "username"), old.get("sms", "password")
    if username or password:
        section = f"sms {_GATEWAY}"
        draft.translate(
            "sms", "gateways", _GATEWAY, "[sms] username, password", "the Sydent knows this one gateway"
        )
        draft.translate(section, "kind", _GATEWAY, "[sms]")
        draft.translate(section, "username", username, "[sms] username")
        draft.translate(section, "password", password, "[sms] password")
    _originators(draft, old)
    rejected = [
        key.removeprefix("smsrule.")
        for key in old.keys("sms")
        if key.startswith("smsrule.") and old.get("sms", key) == "reject"
    ]
    if rejected:
        codes = ", ".join(f"smsrule.{code}" for code in rejected)
        draft.decide(
            "sms",
            "rejected_countries",
            ", ".join(_regions(rejected)),
            f"[sms] {codes}",
            "calling codes there, countries here: several share one; with this list, numbers of no country are refused, too",
        )


def _originators(draft: Draft, old: OldConfig) -> None:
    """Here each country has one; there it has some, of which the number that is written to chooses."""
    found: dict[str, str] = {}
    for key in old.keys("sms"):
        if key.startswith("originators."):
            code = key.removeprefix("originators.")
            names = [item.partition(":")[2].strip() for item in old.get("sms", key).split(",")]
            told = "" if len(names) == 1 else "the first of several"
            if code == "default":
                draft.translate("sms", "originator", names[0], f"[sms] {key}", told)
            else:
                found |= dict.fromkeys(_regions([code]), names[0])
    if found:
        draft.decide(
            "sms",
            "originators",
            "\n".join(["", *(f"{region}:{name}" for region, name in sorted(found.items()))]),
            "[sms] originators.*",
            "calling codes there, countries here: several share one; of several names the first one counts",
        )


def _regions(codes: Iterable[str]) -> list[str]:
    known = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    found = {region for code in codes if code.isdigit() for region in known.get(int(code), ())}
    return sorted(found & phonenumbers.SUPPORTED_REGIONS)


def _invitations(draft: Draft, old: OldConfig) -> None:
    client = old.get("email", "email.default_web_client_location")
    draft.translate("invites", "web_client", client, "[email] email.default_web_client_location")
    draft.decide(
        "invites",
        "web_clients_allowed",
        "*",
        "org.matrix.web_client_location of a request",
        "the Sydent lets homeservers choose any web client; here only the one above, unless this is set",
        is_set=False,
    )
    shown = [_number(old, "email", key) for key in _REVEALED]
    draft.translate(
        "invites",
        "shown_characters",
        f"{min(shown):.0f}",
        f"[email] {', '.join(_REVEALED)}",
        "" if len(set(shown)) == 1 else "here both halves have one number: the smaller one",
    )
    for what, ours in _BLOCKED.items():
        key = f"email.third_party_invite_{what}_blocklist"
        items = old.lines("email", key)
        # In a list of ours, commas separate, and such lines are comments.
        usable = [item for item in items if "," not in item and not item.startswith(("#", ";"))]
        if usable:
            draft.translate("invites", ours, "\n".join(["", *usable]), f"[email] {key}")
        if len(usable) < len(items):
            draft.remark(
                f"[email] {key}", f"items with a comma, or with # or ; in front, cannot stand in {ours}"
            )


def _budget(draft: Draft, old: OldConfig, section: str, name: str, budget: str) -> None:
    keys = (f"{name}.burst", f"{name}.rate_hz")
    if not any(old.is_given(section, key) for key in keys):
        return
    source = f"[{section}] {', '.join(keys)}"
    if not all(old.is_given(section, key) for key in keys):
        draft.remark(source, f"only one of them is set; see [budgets] {budget}")
        return
    burst, rate = (_number(old, section, key) for key in keys)
    # So small a rate is none.
    if burst < 1 or rate <= 0 or not math.isfinite(burst / rate):
        draft.remark(source, f"lets nothing through, or everything; see [budgets] {budget}")
        return
    draft.translate("budgets", budget, f"{burst:.0f}/{max(1, round(burst / rate))}s", source)


def _number(old: OldConfig, section: str, key: str) -> float:
    try:
        number = float(old.get(section, key))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise OldConfigProblem(f"{old.path}: [{section}] {key}: must be a number")
    return number
