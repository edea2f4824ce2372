"""The way to people, by telephone."""

import re
from typing import Any

from sydentish.config import Config, Problem
from sydentish.config.gateways import GatewaySection, HttpSection, LogSection, OpenMarketSection
from sydentish.metrics import Metrics
from sydentish.parts.world import World
from sydentish.senders.render import Templates
from sydentish.senders.sms.gateway import SmsGateway
from sydentish.senders.sms.http import SUCCESS, HttpGateway, HttpRules
from sydentish.senders.sms.log import LogGateway
from sydentish.senders.sms.openmarket import OpenMarket
from sydentish.senders.sms.sender import SmsSender
from sydentish.senders.sms.twilio import Twilio


class GatewayProblem(Exception):
    """Gateways cannot be used as they are configured; the message has a line for each problem.

    Attributes:
        problems: what is wrong.
    """

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def sms_sender(config: Config, world: World, templates: Templates, metrics: Metrics) -> SmsSender:
    """What sends codes to telephones.

    Raises:
        GatewayProblem: one or more cannot be used as they are configured.
    """
    options = config.sms
    return SmsSender(
        templates=templates,
        gateways=gateways(config, world.reactor),
        clock=world.reactor,
        on_result=lambda gateway, outcome: metrics.sends.labels("sms", gateway, outcome).inc(),
        server_name=config.general.server_name,
        time_limit=options.timeout / 1000,
        originators=options.originators,
        allowed_countries=frozenset(options.allowed_countries) if options.allowed_countries else None,
        rejected_countries=frozenset(options.rejected_countries),
    )


def gateways(config: Config, reactor: Any) -> list[SmsGateway]:  # noqa: ANN401 - several interfaces
    """The gateways, in the order in which they are tried.

    Raises:
        GatewayProblem: with every one that cannot be used as it is configured.
    """
    made: list[SmsGateway] = []
    problems: list[Problem] = []
    for gateway in config.sms_gateways:
        try:
            made.append(_gateway(gateway, config.sms.originator or "", reactor))
        except (ValueError, OSError) as error:
            problems.append(_problem(config, gateway, str(error)))
    if problems:
        raise GatewayProblem(*problems)
    return made


def _problem(config: Config, gateway: GatewaySection, message: str) -> Problem:
    option, colon, what = message.partition(": ")
    # A message that begins with no option is about the section.
    named = colon and re.fullmatch(r"[a-z_]+(, [a-z_]+)*", option)
    return config.places.problem(f"sms {gateway.name}", option if named else None, what if named else message)


def _gateway(gateway: GatewaySection, originator: str, reactor: Any) -> SmsGateway:  # noqa: ANN401
    if isinstance(gateway, LogSection):
        return LogGateway(name=gateway.name)
    common: dict[str, Any] = {
        "name": gateway.name,
        "reactor": reactor,
        "clock": reactor,
        "ca_file": gateway.ca_file,
    }
    originator = gateway.originator or originator
    if isinstance(gateway, HttpSection):
        return HttpGateway(
            **common,
            rules=_rules(gateway, originator),
            username=gateway.username,
            password=gateway.password.reveal() if gateway.password else "",
        )
    if isinstance(gateway, OpenMarketSection):
        return OpenMarket(
            **common,
            base_url=gateway.base_url,
            username=gateway.username,
            password=gateway.password.reveal(),
            originator=originator,
        )
    return Twilio(
        **common,
        base_url=gateway.base_url,
        account_sid=gateway.account_sid,
        auth_token=gateway.auth_token.reveal(),
        messaging_service_sid=gateway.messaging_service_sid,
        originator=originator,
    )


def _rules(gateway: HttpSection, originator: str) -> HttpRules:
    return HttpRules(
        url=gateway.url,
        method=gateway.method,
        headers=gateway.headers,
        body=gateway.body or None,
        content_type=gateway.content_type,
        success_statuses=gateway.success_statuses or SUCCESS,
        success_pattern=gateway.success_pattern.pattern if gateway.success_pattern else None,
        originator=originator,
    )
