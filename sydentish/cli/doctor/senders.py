"""The ways to people: the mail relay and the SMS gateways; nothing is sent."""

from contextlib import suppress
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol

from sydentish.cli.doctor.asking import SECONDS, endpoint_to, parts_of
from sydentish.cli.doctor.certificates import Inspector, look_at_certificate
from sydentish.cli.doctor.findings import Finding, failed, ok, warning
from sydentish.config import Config
from sydentish.config.gateways import GatewaySection, HttpSection, LogSection
from sydentish.outgoing import explain
from sydentish.parts.people import mail_relay
from sydentish.parts.world import World
from sydentish.senders.relay import Relay, RelayError, RelayFailed, RelayRefused, RelayTimeout
from sydentish.senders.smtp import SmtpClient
from sydentish.waiting import cancellable, within

_MAIL = "mail relay"
_SMS = "SMS gateway"
_REACH = "check smtp_host, smtp_port, the DNS and the firewalls"
# What the error has in it, and what helps; the first that fits.
_REMEDIES = (
    ("no connection", _REACH),
    ("STARTTLS", "use [email] smtp_security = tls, usually with port 465, or a port that offers STARTTLS"),
    ("does not offer a login", "use TLS, or another port: many relays offer the log-in on 587 and 465 alone"),
    ("does not speak SMTP", "does smtp_security fit the port? 587 is usually starttls, 465 tls, 25 plain"),
    ("TLS failed", "does smtp_security fit the port? 587 is usually starttls, 465 tls, 25 plain"),
)
_AUTH = "check smtp_username and smtp_password"


async def mail_findings(config: Config, world: World) -> list[Finding]:
    """Connects to the relay and logs in, and hands no mail over."""
    relay = mail_relay(config)
    where = f"{relay.host}:{relay.port}"
    try:
        smtputf8 = await SmtpClient(world.reactor, world.reactor, relay).probe()
    except RelayFailed as error:
        return await _why_failed(config, world, relay, str(error))
    except RelayError as error:
        return [failed(_MAIL, f"{where}: {error}", _remedy(error))]
    how = {"plain": "without TLS", "starttls": "by STARTTLS", "tls": "by TLS"}[relay.security]
    login = "no log-in is set" if relay.username is None else "the log-in works"
    utf8 = "it takes addresses beyond ASCII" if smtputf8 else "addresses beyond ASCII cannot be written to"
    return [ok(_MAIL, f"{where} is reached {how}; {login}; {utf8}")]


async def _why_failed(config: Config, world: World, relay: Relay, reason: str) -> list[Finding]:
    """Where TLS has failed, the certificate knows more; the password is not told to whoever shows it."""
    if relay.tls is not None and config.email.smtp_verify:
        inspector = Inspector(relay.host, config.email.smtp_ca_file)
        looking = replace(relay, tls=inspector, username=None, password="")
        with suppress(RelayError):
            await SmtpClient(world.reactor, world.reactor, looking).probe()
        if failures := inspector.failures(_MAIL):
            return failures
    return [failed(_MAIL, f"{relay.host}:{relay.port}: {reason}", _by_reason(reason))]


def _remedy(error: RelayError) -> str:
    if isinstance(error, RelayTimeout):
        return _REACH if error.step in {"connection", "greeting"} else "look into the log of the relay"
    if isinstance(error, RelayRefused) and error.step == "AUTH":
        return _AUTH
    return "look into the log of the relay: it does not want this server"


def _by_reason(reason: str) -> str:
    return next((what for sign, what in _REMEDIES if sign in reason), "look into the log of the relay")


async def gateway_findings(world: World, gateway: GatewaySection) -> list[Finding]:
    """Connects to a gateway, and looks at its certificate; sends nothing."""
    check = f"{_SMS} {gateway.name}"
    if isinstance(gateway, LogSection):
        return [
            warning(check, "codes are written to the log and sent to nobody", "that is for development only")
        ]
    url = gateway.url if isinstance(gateway, HttpSection) else gateway.base_url
    scheme, host, port = parts_of(url)
    if scheme == "https":
        inspector = Inspector(host, gateway.ca_file)
        endpoint = endpoint_to(world, host, port, inspector)
        return await look_at_certificate(world, check, inspector, endpoint)
    try:
        await within(SECONDS, world.reactor, _touch(world, host, port))
    except CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - the network fails in many ways
        return [failed(check, f"{host}:{port}: {explain(error)}", "check host, port and firewalls")]
    return [ok(check, f"{host}:{port} is reached, without TLS")]


async def _touch(world: World, host: str, port: int) -> None:
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    connecting: Deferred[IProtocol] = endpoint_to(world, host, port, None).connect(factory)
    connected = await cancellable(connecting)
    connected.transport.abortConnection()  # type: ignore[attr-defined]
