"""The production parts, joined as `sydentish.app` joins them, with fake edges: time, relay, homeservers.

Nothing of ours is patched: an edge is a port (`sydentish.actions.ports`), and these are its other sides.
"""

import ipaddress
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nacl.signing import SigningKey
from store_tools import START_MS
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sydentish.actions.accounts import NOBODY, Accounts, Caller, Gate
from sydentish.actions.associations import Associations
from sydentish.actions.budgets import SourceBudget
from sydentish.actions.invites import InviteOptions, Invites
from sydentish.actions.keys import PublicKeys
from sydentish.actions.lookup import Lookup
from sydentish.actions.messages import Codes, Mails, TokenRequest
from sydentish.actions.peppers import PepperRotation
from sydentish.actions.ports import SignedRequest, Style
from sydentish.actions.statements import Statements
from sydentish.actions.terms import TermsOfService
from sydentish.actions.validation import Credentials, Validation
from sydentish.config import V1_ENDPOINTS
from sydentish.domain.accounts import HomeserverPolicy
from sydentish.domain.delivery import Delivered, Delivery, NotDelivered
from sydentish.domain.errors import DestinationRejected, EmailSendError, ProofRefused, SendError
from sydentish.domain.invite_links import WebClients
from sydentish.domain.invites import InvitePolicy
from sydentish.domain.keys import KeyRing, make_key, parse_key
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, MSISDN, PhoneNumber, Threepid
from sydentish.domain.validation import NextLinkPolicy
from sydentish.senders.render import Templates, shipped_templates
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteDatabase
from sydentish.web.admission import PublicAdmission
from sydentish.web.dispatch import Dispatcher, RequestLimits
from sydentish.web.handlers.accounts import AccountHandlers
from sydentish.web.handlers.associations import AssociationHandlers
from sydentish.web.handlers.invites import InviteHandlers
from sydentish.web.handlers.keys import KeyHandlers
from sydentish.web.handlers.lookup import LookupHandlers
from sydentish.web.handlers.status import StatusHandlers
from sydentish.web.handlers.terms import TermsHandlers
from sydentish.web.handlers.validation import ValidationHandlers, ValidationPages
from sydentish.web.pages import Pages
from sydentish.web.routes import CONFIRM_EMAIL, IDENTITY_PREFIX, PublicHandlers, public_routes
from sydentish.web.sources import Sources

SERVER_NAME = "id.example.org"
BASE_URL = "https://id.example.org"
DAY_MS = 24 * 3600 * 1000


@dataclass
class RecordingSender:
    """A relay that takes every mail, refuses every mail, or waits until it is told which.

    Attributes:
        mails: pairs of address and link, in the order in which they were handed over.
        styles: how each was to look.
        failing: refuse.
        holding: answer only when `release` is called.
    """

    mails: list[tuple[str, str]] = field(default_factory=list)
    styles: list[Style] = field(default_factory=list)
    failing: bool = False
    holding: bool = False
    held: list[Deferred[None]] = field(default_factory=list)

    async def send_verification(self, address: str, link: str, style: Style) -> None:
        self.mails.append((address, link))
        self.styles.append(style)
        if self.holding:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        if self.failing:
            raise EmailSendError("The mail could not be sent")

    def release(self) -> None:
        held, self.held = self.held, []
        for waiting in held:
            waiting.callback(None)

    def last_token(self) -> str:
        return parse_qs(urlsplit(self.mails[-1][1]).query)["token"][0]


@dataclass
class RecordingCodes:
    """Gateways that take every SMS, or none, or wait until they are told which.

    Attributes:
        sent: numbers, codes and styles, in the order in which they were handed over.
        failing: hand nothing over.
        holding: answer only when the test ends what is in `held`.
        rejected: regions that nothing goes to.
    """

    sent: list[tuple[PhoneNumber, str, Style]] = field(default_factory=list)
    failing: bool = False
    holding: bool = False
    held: list[Deferred[None]] = field(default_factory=list)
    rejected: frozenset[str] = frozenset()

    def check(self, number: PhoneNumber) -> None:
        if number.region in self.rejected:
            raise DestinationRejected("This server sends nothing to that country")

    async def send_code(self, number: PhoneNumber, code: str, style: Style) -> None:
        self.sent.append((number, code, style))
        if self.holding:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        if self.failing:
            raise SendError("The SMS could not be handed over")

    def last_code(self) -> str:
        return self.sent[-1][1]


@dataclass
class FakeProofs:
    """Signatures that are worth what `origins` says for the first `Authorization` header."""

    origins: dict[bytes, str | Exception] = field(default_factory=dict)
    asked: list[SignedRequest] = field(default_factory=list)

    async def origin_of(self, request: SignedRequest) -> str:
        self.asked.append(request)
        found = self.origins.get(request.authorizations[0], ProofRefused("The signature is wrong"))
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class FakeVerifier:
    """Homeservers that know the OpenID tokens in `tokens`; an exception in there is raised."""

    tokens: dict[str, str | Exception] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def user_id_of(self, server_name: str, access_token: str) -> str:
        self.asked.append((server_name, access_token))
        found = self.tokens[access_token]
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class RecordingSigns:
    """Notes which homeservers were heard from."""

    heard: list[str] = field(default_factory=list)

    def heard_from(self, server_name: str) -> None:
        self.heard.append(server_name)


@dataclass
class ScriptedDeliverer:
    """Answers deliveries with what `answers` says for the destination, else with success; may hold them back."""

    answers: dict[str, list[Delivered | NotDelivered]] = field(default_factory=dict)
    seen: list[Delivery] = field(default_factory=list)
    on_seen: Callable[[Delivery], None] = lambda _delivery: None
    hold: Deferred[None] | None = None

    async def deliver(self, delivery: Delivery) -> Delivered | NotDelivered:
        self.seen.append(delivery)
        self.on_seen(delivery)
        if self.hold is not None:
            await self.hold
        queued = self.answers.get(delivery.destination)
        return queued.pop(0) if queued else Delivered("POST")


@dataclass
class RecordedRequests:
    """A `RequestLog` that remembers."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def answered(self, **line: Any) -> None:
        self.lines.append(line)

    def limited(self, budget: str) -> None:
        self.refusals.append(budget)


class Counting:
    """A random source that never repeats itself and is the same in every run."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(4, "big") * (size // 4) + b"\0" * (size % 4)


def signing_keys(server_name: str = SERVER_NAME) -> KeyRing:
    return KeyRing(server_name, parse_key(make_key("0", bytes(range(32)))))


def public_key_bytes() -> bytes:
    return bytes(SigningKey(bytes(range(32))).verify_key)


def networks(texts: Sequence[str]) -> list[Any]:
    return [text if text == "unix" else ipaddress.ip_network(text) for text in texts]


INVITES = InviteOptions(
    enabled=True,
    lifetime_ms=90 * DAY_MS,
    public_base_url=BASE_URL,
    web_clients=WebClients("https://app.example.org"),
    shown=3,
    policy=InvitePolicy(),
    dry_run=False,
)


class House:
    """All actions and the public dispatcher over a real SQLite database."""

    def __init__(
        self,
        folder: Path,
        *,
        terms: Terms = Terms(),  # noqa: B008 - frozen
        next_links: NextLinkPolicy = NextLinkPolicy(),  # noqa: B008 - frozen
        policy: HomeserverPolicy = HomeserverPolicy(),  # noqa: B008 - frozen
        allow_none: bool = True,
        max_addresses: int | None = 10_000,
        pepper_rotation_ms: int | None = None,
        confirm: bool = False,
        token_in_query: bool = True,
        budgets: Budgets = Budgets(),  # noqa: B008 - frozen
        invites: InviteOptions | None = None,
        strict_numbers: bool = False,
        v1_endpoints: Collection[str] = V1_ENDPOINTS,
        trusted: Sequence[str] = ("127.0.0.0/8",),
        proxies: Sequence[str] = (),
        limits: RequestLimits = RequestLimits(65536, 4 * 1024 * 1024, 60.0),  # noqa: B008 - frozen
    ) -> None:
        self.path = folder / "sydentish.db"
        self.clock = Clock()
        self.clock.advance(START_MS / 1000)
        self.random = Counting()
        self.sender = RecordingSender()
        self.codes = RecordingCodes()
        self.proofs = FakeProofs()
        self.policy_findings: list[tuple[str, str]] = []
        self.verifier = FakeVerifier()
        self.signs = RecordingSigns()
        self.keys = signing_keys()
        self.woken = 0
        self.registered: list[bool] = []
        self.outcomes: list[tuple[str, str]] = []
        self.changes: list[tuple[str, str, str]] = []
        self.lookups: list[tuple[str, int, int]] = []
        migrate_sqlite(self.path, 5000, START_MS, shipped_steps())
        self.db = SqliteDatabase(self.path, reactor, readers=2, max_queue=1000, busy_timeout_ms=5000)
        self.gate = Gate(db=self.db, terms=terms, now_ms=self.now_ms)
        self.accounts = Accounts(
            db=self.db,
            gate=self.gate,
            verifier=self.verifier,
            policy=policy,
            budgets=budgets,
            signs_of_life=self.signs,
            max_registering=2,
            on_registered=lambda: self.registered.append(True),
            now_ms=self.now_ms,
            random_bytes=self.random,
        )
        self.terms = TermsOfService(gate=self.gate, terms=terms, now_ms=self.now_ms)
        self.validation = Validation(
            db=self.db,
            gate=self.gate,
            messages={
                EMAIL: Mails(
                    sender=self.sender,
                    public_base_url=BASE_URL,
                    budgets=budgets,
                    random_bytes=self.random,
                ),
                MSISDN: Codes(
                    sender=self.codes, strict=strict_numbers, budgets=budgets, random_bytes=self.random
                ),
            },
            budgets=budgets,
            next_links=next_links,
            lifetime_ms=DAY_MS,
            on_outcome=lambda medium, outcome: self.outcomes.append((medium, outcome)),
            now_ms=self.now_ms,
            random_bytes=self.random,
        )
        self.associations = Associations(
            db=self.db,
            gate=self.gate,
            statements=Statements(keys=self.keys, validity_ms=100 * 365 * DAY_MS, random_bytes=os.urandom),
            keys=self.keys,
            session_lifetime_ms=DAY_MS,
            on_outcome=lambda source, became, medium: self.changes.append((source, became.value, medium)),
            on_stated=self._wake,
            now_ms=self.now_ms,
        )
        self.invites = Invites(
            gate=self.gate,
            keys=self.keys,
            options=invites or INVITES,
            budgets=budgets,
            on_stored=self._wake,
            on_policy=lambda reason, outcome: self.policy_findings.append((reason, outcome)),
            now_ms=self.now_ms,
            random_bytes=self.random,
        )
        self.lookup = Lookup(
            gate=self.gate,
            keys=self.keys,
            allow_none=allow_none,
            max_addresses=max_addresses,
            pepper_grace_ms=3600_000,
            signs_of_life=self.signs,
            on_lookup=lambda *figures: self.lookups.append(figures),
            now_ms=self.now_ms,
        )
        self.peppers = PepperRotation(
            db=self.db,
            clock=self.clock,
            interval_ms=pepper_rotation_ms,
            grace_ms=3600_000,
            now_ms=self.now_ms,
            random_bytes=self.random,
        )
        self.public_keys = PublicKeys(db=self.db, keys=self.keys, now_ms=self.now_ms)
        self.requests = RecordedRequests()
        self.pages = Pages(Templates(shipped_templates()), brand="default", server_name=SERVER_NAME)
        self.routes = public_routes(
            PublicHandlers(
                accounts=AccountHandlers(self.accounts),
                associations=AssociationHandlers(self.associations),
                invites=InviteHandlers(self.invites),
                keys=KeyHandlers(self.public_keys),
                lookup=LookupHandlers(self.lookup),
                status=StatusHandlers(),
                terms=TermsHandlers(self.terms),
                validation=ValidationHandlers(self.validation),
                validation_pages=ValidationPages(
                    self.validation,
                    self.pages,
                    confirm=confirm,
                    confirm_action=BASE_URL + IDENTITY_PREFIX + CONFIRM_EMAIL,
                ),
            ),
            v1_endpoints,
        )
        self.admission = PublicAdmission(
            gate=self.gate,
            sources=Sources(networks(proxies), networks(trusted)),
            budget=SourceBudget(db=self.db, budgets=budgets, now_ms=self.now_ms),
            proofs=self.proofs,
            token_in_query=token_in_query,
        )
        self.dispatcher = Dispatcher(
            routes=self.routes,
            prefix=IDENTITY_PREFIX,
            admission=self.admission,
            pages=self.pages,
            limits=limits,
            clock=self.clock,
            new_request_id=lambda: f"r{self.random.count}",
            log=self.requests,
        )

    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    def advance(self, ms: int) -> None:
        self.clock.advance(ms / 1000)

    async def start(self) -> None:
        self.db.startService()
        await self.peppers.ensure_pepper()

    async def stop(self) -> None:
        await self.db.stopService()

    async def settled(self) -> None:
        """Returns when everything that was asked of the database before is answered."""
        for _ in range(3):
            await self.db.write(lambda _tx: None)

    async def log_in(self, user_id: str = "@alice:hs.example.org") -> Caller:
        """An account with an access token; what the gate is asked with."""
        return Caller(await self.token(user_id))

    async def token(self, user_id: str = "@alice:hs.example.org") -> str:
        self.verifier.tokens[f"openid for {user_id}"] = user_id
        server_name = user_id.partition(":")[2]
        return await self.accounts.register(NOBODY, server_name, f"openid for {user_id}")

    async def prove(
        self, caller: Caller, address: str = "alice@example.org", client_secret: str = "s3cret"
    ) -> Credentials:
        """A session that has proved an address."""
        request = TokenRequest(Threepid(EMAIL, address), client_secret, 1, None)
        credentials = Credentials(await self.validation.request_token(caller, request), client_secret)
        await self.validation.submit_token(caller, credentials, self.sender.last_token())
        return credentials

    def _wake(self) -> None:
        self.woken += 1
