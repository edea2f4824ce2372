"""Writes SMS to the log instead of sending them: for development."""

from twisted.logger import Logger

from sydentish.senders.sms.gateway import Sms

_log = Logger()


class LogGateway:
    """An `SmsGateway` that sends nothing: who reads the log reads the codes."""

    def __init__(self, *, name: str = "log") -> None:
        """Takes the name that the operator calls it by."""
        self.name = name

    async def send(self, sms: Sms, time_limit: float) -> None:  # noqa: ARG002 - the interface's
        """See `SmsGateway.send`; never fails."""
        _log.warn(
            "{gateway} is for development only. It sends nothing; the SMS says: {text}",
            gateway=self.name,
            text=sms.text,
        )
