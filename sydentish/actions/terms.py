"""Terms of service: what is offered, and accepting it."""

from collections.abc import Callable, Sequence

from sydentish.actions.accounts import Caller, Gate
from sydentish.domain.accounts import Account
from sydentish.domain.terms import Acceptance, Terms
from sydentish.store import terms as terms_rows
from sydentish.store.database import Tx


class TermsOfService:
    """What a user does with our terms (Identity Service API, "Terms of service").

    Attributes:
        terms: what is offered; may be replaced at any time.
    """

    def __init__(self, *, gate: Gate, terms: Terms, now_ms: Callable[[], int]) -> None:
        self._gate = gate
        self.terms = terms
        self._now_ms = now_ms

    def offered(self) -> dict[str, object]:
        """All policies in all languages."""
        return self.terms.to_json()

    async def accept(self, caller: Caller, urls: Sequence[str]) -> None:
        """Adds to what the user has accepted; one language's URL stands for the policy."""
        await self._gate.write(caller, _accept, self.terms.acceptances(urls), self._now_ms())


def _accept(tx: Tx, account: Account, acceptances: list[Acceptance], now_ms: int) -> None:
    terms_rows.add_acceptances(tx, account.user_id, acceptances, now_ms)
