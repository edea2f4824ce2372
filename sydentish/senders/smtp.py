"""Hands mails over to a relay by SMTP (RFC 5321), with Twisted's client, and never waits for long."""

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from sydentish.domain.threepids import Mailbox
from sydentish.outgoing import explain
from sydentish.senders.dialogue import Dialogue, Mail
from sydentish.senders.relay import Relay, RelayError, RelayFailed, RelayRefused, RelayTimeout, relay_tls

__all__ = [
    "Relay",
    "RelayError",
    "RelayFailed",
    "RelayRefused",
    "RelayTimeout",
    "SmtpClient",
    "relay_tls",
]


class SmtpClient:
    """Hands mails over to one relay, each on a connection of its own, a bounded number at a time."""

    def __init__(self, reactor: object, clock: IReactorTime, relay: Relay) -> None:
        """Connects to nothing yet.

        Args:
            reactor: opens connections and resolves names.
            clock: measures the limits.
            relay: where mails go.
        """
        self._clock = clock
        self._relay = relay
        self._endpoint = _endpoint(reactor, relay)
        self._slots = DeferredSemaphore(relay.max_connections)

    async def send(self, sender: str, recipient: Mailbox, message: bytes) -> None:
        """Returns once the relay has taken the mail. Cancelling closes the connection.

        Args:
            sender: the address for MAIL FROM, with its domain as A-labels.
            recipient: the address for RCPT TO.
            message: the mail, with CRLF at the end of each line.

        Raises:
            RelayRefused: the relay said no.
            RelayFailed: it cannot be reached, trusted or understood, or lacks SMTPUTF8 (RFC 6531).
            RelayTimeout: the limit was reached first.
        """
        await self._hold(Dialogue(self._clock, self._relay, Mail(sender, recipient, message)))

    async def probe(self) -> bool:
        """Connects, is greeted and logs in, and hands nothing over. Cancelling closes the connection.

        Returns:
            Whether the relay takes addresses beyond ASCII (SMTPUTF8, RFC 6531).

        Raises:
            RelayRefused, RelayFailed, RelayTimeout: as for `send`.
        """
        dialogue = Dialogue(self._clock, self._relay, None)
        await self._hold(dialogue)
        return dialogue.offers_smtputf8

    async def _hold(self, dialogue: Dialogue) -> None:
        def too_late(_result: object, _timeout: float) -> None:
            raise RelayTimeout(dialogue.step)

        handed_over = Deferred.fromCoroutine(self._hand_over(dialogue))
        await handed_over.addTimeout(self._relay.timeout, self._clock, too_late)

    async def _hand_over(self, dialogue: Dialogue) -> None:
        await self._slots.acquire()
        dialogue.step = "connection"
        try:
            await self._endpoint.connect(_Once(dialogue))
        except (ConnectError, ConnectingCancelledError, DNSLookupError, ValueError) as error:
            self._slots.release()
            told = (
                explain(error) if isinstance(error, ConnectError | DNSLookupError) else type(error).__name__
            )
            raise RelayFailed(f"no connection to the relay: {told}") from None
        except BaseException:
            self._slots.release()
            raise
        # The slot belongs to the connection: it is free again once that one is gone.
        dialogue.closed.addCallback(lambda _: self._slots.release())
        await dialogue.result


def _endpoint(reactor: object, relay: Relay) -> IStreamClientEndpoint:
    endpoint = HostnameEndpoint(reactor, relay.host, relay.port, relay.timeout)
    if relay.security == "tls" and relay.tls is not None:
        return wrapClientTLS(relay.tls, endpoint)
    return endpoint


class _Once(Factory):
    noisy = False

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def buildProtocol(self, _addr: IAddress | None) -> Dialogue:
        return self._dialogue
