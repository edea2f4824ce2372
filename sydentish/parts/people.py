"""The way to people, by mail and in a browser."""

from email.utils import parseaddr

from sydentish.config import Config
from sydentish.domain.ids import parse_server_name
from sydentish.metrics import Metrics
from sydentish.parts.world import World
from sydentish.senders.email import EmailSender
from sydentish.senders.relay import Relay, Security, relay_tls
from sydentish.senders.render import Templates, shipped_templates
from sydentish.senders.smtp import SmtpClient
from sydentish.web.pages import Pages


def checked_templates(config: Config) -> Templates:
    """What mails and pages are made from.

    Raises:
        TemplateProblem: they cannot be used.
    """
    templates = Templates(shipped_templates(), config.general.templates_path, config.general.default_brand)
    templates.check()
    return templates


def make_pages(config: Config, templates: Templates) -> Pages:
    """What people see in a browser."""
    return Pages(templates, brand=config.general.default_brand, server_name=config.general.server_name)


def mail_relay(config: Config) -> Relay:
    """Where mails go, and how."""
    options = config.email
    security: Security = options.smtp_security  # type: ignore[assignment]  # one of three words, see [email]
    return Relay(
        host=options.smtp_host,
        port=options.smtp_port,
        security=security,
        identity=parse_server_name(config.general.server_name).host,
        tls=None
        if security == "plain"
        else relay_tls(options.smtp_host, options.smtp_ca_file, verify=options.smtp_verify),
        username=options.smtp_username,
        password=options.smtp_password.reveal() if options.smtp_password else "",
        timeout=options.timeout / 1000,
        max_connections=options.max_connections,
    )


def email_sender(config: Config, world: World, templates: Templates, metrics: Metrics) -> EmailSender:
    """What sends mails through the relay."""
    name, address = parseaddr(config.email.sender)
    return EmailSender(
        templates=templates,
        relay=SmtpClient(world.reactor, world.reactor, mail_relay(config)),
        clock=world.reactor,
        random_bytes=world.random_bytes,
        on_result=lambda outcome: metrics.sends.labels("email", "relay", outcome).inc(),
        server_name=config.general.server_name,
        from_address=address,
        from_name=name,
        brand=config.general.default_brand,
    )
