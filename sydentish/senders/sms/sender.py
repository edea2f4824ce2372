"""Sends codes to telephones: from a code to an SMS to the first gateway that takes it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from sydentish.actions.ports import Style
from sydentish.domain.errors import DestinationRejected, SendError
from sydentish.domain.threepids import PhoneNumber
from sydentish.senders.render import Templates
from sydentish.senders.sms.gateway import GatewayError, Sms, SmsGateway, check_originator

Outcome = Literal["sent", "refused", "failed", "timeout"]

# Seconds before a gateway is asked once more, and what must be left then to make that worth while.
_PAUSE = 0.5
_LEAST = 1.0

_log = Logger()


class SmsSender:
    """Sends codes through the gateways of one configuration: a `sydentish.actions.ports.CodeSender`."""

    def __init__(
        self,
        *,
        templates: Templates,
        gateways: Sequence[SmsGateway],
        clock: IReactorTime,
        on_result: Callable[[str, Outcome], None],
        server_name: str,
        time_limit: float,
        originators: Mapping[str, str] | None = None,
        allowed_countries: frozenset[str] | None = None,
        rejected_countries: frozenset[str] = frozenset(),
    ) -> None:
        """Takes what it uses.

        Args:
            templates: what an SMS says.
            gateways: the gateways, in the order in which they are tried.
            clock: measures the limit.
            on_result: is told of each hand-over: the gateway's name, and how it ended.
            server_name: our name, as users know it.
            time_limit: seconds for one SMS, whatever is tried.
            originators: who an SMS is from, by the country of the number (ISO 3166-1 alpha-2); gateways have
                their own for the others.
            allowed_countries: the only ones that SMS go to; None for all.
            rejected_countries: those that none go to, even where they are allowed. Where either is given, none go to
                numbers of no country (satellite telephones, for example), which cost most.

        Raises:
            ValueError: an originator cannot be one.
        """
        for originator in (originators or {}).values():
            check_originator(originator)
        self._templates = templates
        self._gateways = tuple(gateways)
        self._clock = clock
        self._on_result = on_result
        self._server_name = server_name
        self._time_limit = time_limit
        self._originators = dict(originators or {})
        self._allowed = allowed_countries
        self._rejected = rejected_countries

    def check(self, number: PhoneNumber) -> None:
        """Whether an SMS could be sent there at all; nothing is sent.

        Raises:
            DestinationRejected: this server sends nothing to that country; or the number is of none, and countries
                are allowed or rejected.
            SendError: this server sends no SMS at all.
        """
        if not self._gateways:
            raise SendError("This server sends no SMS")
        if not self._goes_to(number.region):
            raise DestinationRejected("phone_number: this server sends no SMS to numbers of that country")

    def _goes_to(self, region: str | None) -> bool:
        if region is None:
            return self._allowed is None and not self._rejected
        return region not in self._rejected and (self._allowed is None or region in self._allowed)

    async def send_code(self, number: PhoneNumber, code: str, style: Style) -> None:
        """Hands the SMS with the code over to the first gateway that takes it.

        Each gateway has its share of the time that is left: one that is slow cannot use up that of the next.

        Args:
            number: where it goes.
            code: the digits that the person is to type.
            style: how the SMS is to look.

        Raises:
            DestinationRejected: as for `check`.
            SendError: when no gateway took it within the limit, or there is none.
        """
        self.check(number)
        variables = {"code": code, "server_name": self._server_name}
        sms = Sms(
            originator=self._originators.get(number.region or "", ""),
            destination=number,
            text=self._templates.text("sms", style.brand, style.languages, variables),
        )
        if not await self._handed_over(sms, self._clock.seconds() + self._time_limit):
            raise SendError("The SMS could not be handed over to a gateway")

    async def _handed_over(self, sms: Sms, deadline: float) -> bool:
        worth_another_try: list[SmsGateway] = []
        for position, gateway in enumerate(self._gateways):
            share = self._left(deadline) / (len(self._gateways) - position)
            error = await self._try(gateway, sms, share)
            if error is None:
                return True
            if error.temporary:
                worth_another_try.append(gateway)
        if not worth_another_try or self._left(deadline) < _PAUSE + _LEAST:
            return False
        await deferLater(self._clock, _PAUSE)
        return await self._try(worth_another_try[0], sms, self._left(deadline)) is None

    async def _try(self, gateway: SmsGateway, sms: Sms, time_limit: float) -> GatewayError | None:
        try:
            await gateway.send(sms, time_limit)
        except GatewayError as error:
            outcome = _outcome(error)
            self._on_result(gateway.name, outcome)
            _log.warn(
                "SMS not handed over to {gateway}, {outcome}: {reason}",
                gateway=gateway.name,
                outcome=outcome,
                reason=error.reason,
            )
            return error
        self._on_result(gateway.name, "sent")
        return None

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock.seconds())


def _outcome(error: GatewayError) -> Outcome:
    if error.timed_out:
        return "timeout"
    return "refused" if error.refused else "failed"
