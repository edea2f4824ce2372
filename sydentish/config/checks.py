"""What options say together and cannot both be meant."""

from collections.abc import Iterator, Mapping, Sequence

from sydentish.config import endpoints, replication_checks, values
from sydentish.config.gateway_sections import Gateway
from sydentish.config.named import Defined
from sydentish.config.problems import Problem
from sydentish.config.settle import Chosen
from sydentish.domain.peers import Peer

Settled = Mapping[str, Mapping[str, object]]

_SIGNING = "sign-ed25519"
_ORIGINATOR = "{originator}"
_LISTENERS = (
    ("http", "listeners"),
    ("http", "internal_listeners"),
    ("http", "metrics_listeners"),
    ("replication", "listeners"),
)


def problems(
    settled: Settled, chosen: Chosen, gateways: Sequence[Gateway], peers: Sequence[Defined[Peer]]
) -> Iterator[Problem]:
    """What is wrong with a configuration although each option for itself is right.

    Args:
        settled: the values by section and field, as far as they could be parsed.
        chosen: the entries that they come from.
        gateways: what the `[sms NAME]` sections say.
        peers: what the `[peer NAME]` sections say.
    """
    yield from _half_login_at_relay(chosen)
    yield from _invitations_without_signing(settled, chosen)
    yield from _colliding_listeners(settled, chosen)
    yield from _missing_gateways(settled, chosen, gateways)
    for defined in gateways:
        yield from _gateway(defined, settled)
    yield from replication_checks.problems(settled, chosen, peers)


def _half_login_at_relay(chosen: Chosen) -> Iterator[Problem]:
    user = chosen.get(("email", "smtp_username"))
    password = chosen.get(("email", "smtp_password")) or chosen.get(("email", "smtp_password_file"))
    if user is not None and password is None:
        yield user.problem("needs smtp_password or smtp_password_file beside it")
    if password is not None and user is None:
        yield password.problem("needs smtp_username beside it")


def _invitations_without_signing(settled: Settled, chosen: Chosen) -> Iterator[Problem]:
    served = settled["http"].get("v1_endpoints")
    entry = chosen.get(("http", "v1_endpoints"))
    if entry is None or not isinstance(served, frozenset) or _SIGNING in served:
        return
    if settled["invites"].get("enabled"):
        yield entry.problem(
            f"must have {_SIGNING}, which the links of invitation mails lead to; or set [invites] enabled to no"
        )


def _colliding_listeners(settled: Settled, chosen: Chosen) -> Iterator[Problem]:
    seen: list[tuple[tuple[str, str], str]] = []
    for place in _LISTENERS:
        section, key = place
        listeners = settled[section].get(key)
        for listener in listeners if isinstance(listeners, tuple) else ():
            earlier = next((other for other, taken in seen if endpoints.collide(listener, taken)), None)
            # What is set by nobody is at most the first of them.
            if earlier is not None and (entry := chosen.get(place)) is not None:
                where = _where(earlier, chosen, section)
                yield entry.problem(
                    f"{values.quoted(listener)} is taken by {where}: give each an address of its own"
                )
            seen.append((place, listener))


def _where(place: tuple[str, str], chosen: Chosen, here: str) -> str:
    """A place, for who is told something of another one in the section `here`."""
    section, key = place
    name = key if section == here else f"[{section}] {key}"
    entry = chosen.get(place)
    if entry is None:
        return f"{name} at its default"
    return name if entry.line is None else f"{name} in line {entry.line}"


def _missing_gateways(settled: Settled, chosen: Chosen, gateways: Sequence[Gateway]) -> Iterator[Problem]:
    names = settled["sms"].get("gateways")
    entry = chosen.get(("sms", "gateways"))
    if entry is None or not isinstance(names, tuple):
        return
    defined = {gateway.name for gateway in gateways}
    for name in names:
        if name not in defined:
            yield entry.problem(f"`{name}` has no section: describe that gateway in [sms {name}]")


def _gateway(defined: Gateway, settled: Settled) -> Iterator[Problem]:
    """By what the section says, since anything else in it may be wrong."""
    kind = defined.says("kind")
    if kind == "http":
        yield from _half_login_at_gateway(defined)
    if not _lacks_originator(defined, settled["sms"]):
        return
    if kind == "twilio" and not defined.says("messaging_service_sid"):
        yield defined.problem("messaging_service_sid", "must be set, or else originator, here or in [sms]")
    for key in ("url", "body"):
        # Where it must not stand in the URL, that is told already.
        is_wrong = key == "url" and defined.meaning is None
        if kind == "http" and _ORIGINATOR in defined.says(key) and not is_wrong:
            yield defined.problem(key, f"has {_ORIGINATOR}: set originator, here or in [sms]")


def _half_login_at_gateway(defined: Gateway) -> Iterator[Problem]:
    passwords = [key for key in ("password", "password_file") if defined.says(key)]
    if defined.says("username") and not passwords:
        yield defined.problem("username", "needs password or password_file beside it")
    if passwords and not defined.says("username"):
        yield defined.problem(passwords[0], "needs username beside it")


def _lacks_originator(defined: Gateway, sms: Mapping[str, object]) -> bool:
    """Whether a gateway that is used knows of nothing that SMS are from, but perhaps for some countries."""
    names = sms.get("gateways")
    is_used = isinstance(names, tuple) and defined.name in names
    # Where it cannot be parsed, that is told already.
    unset = "originator" in sms and sms["originator"] is None
    return is_used and unset and not defined.says("originator")
