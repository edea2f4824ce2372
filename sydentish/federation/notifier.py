"""Telling a homeserver that an address was bound: `/_matrix/federation/v1/3pid/onbind` (Server-Server API)."""

from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from sydentish.domain.delivery import Delivered, Delivery, NotDelivered
from sydentish.federation.client import Answer, ExchangeFailed, HomeserverClient
from sydentish.waiting import within

_ONBIND = "/_matrix/federation/v1/3pid/onbind"
_OTHER_METHOD = (404, 405)
_TRY_AGAIN = (408, 429)


class OnbindNotifier:
    """Delivers signed associations to homeservers; a `Deliverer`."""

    def __init__(self, *, client: HomeserverClient, clock: IReactorTime, time_limit: float) -> None:
        """Takes what it uses.

        Args:
            client: asks homeservers.
            clock: for the time limit.
            time_limit: seconds for a delivery, also when it takes both methods; shorter than its lease.
        """
        self._client = client
        self._clock = clock
        self._time_limit = time_limit

    async def deliver(self, delivery: Delivery) -> Delivered | NotDelivered:
        """Sends the payload as it was stored: by POST, as homeservers implement it, or else by PUT.

        The current specification says PUT. What is answered 404 or 405 is tried at once by the other method, and
        later again.
        """
        try:
            return await within(self._time_limit, self._clock, self._try_methods(delivery))
        except ExchangeFailed as failed:
            return NotDelivered(failed.reason, permanent=False)
        except DeferredTimeoutError:
            return NotDelivered("timed out", permanent=False)

    async def _try_methods(self, delivery: Delivery) -> Delivered | NotDelivered:
        methods = ("PUT", "POST") if delivery.method == "PUT" else ("POST", "PUT")
        seen: list[str] = []
        for method in methods:
            answer = await self._client.attempt(
                method, delivery.destination, _ONBIND, json_body=delivery.payload.encode()
            )
            if 200 <= answer.status < 300:  # noqa: PLR2004 - RFC 9110 section 15.3
                return Delivered(method)
            seen.append(f"{_shown(answer)} to {method}")
            if answer.status not in _OTHER_METHOD:
                return NotDelivered(_shown(answer), permanent=_is_final(answer.status))
        # A proxy answers so, too, while the homeserver behind it is away.
        return NotDelivered(", ".join(seen), permanent=False)


def _is_final(status: int) -> bool:
    return 400 <= status < 500 and status not in _TRY_AGAIN  # noqa: PLR2004 - RFC 9110 section 15.5


def _shown(answer: Answer) -> str:
    return f"HTTP {answer.status}" if answer.errcode is None else f"HTTP {answer.status} {answer.errcode}"
