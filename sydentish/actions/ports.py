"""What the actions need from parts that they don't know; `app.build` joins them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sydentish.domain.delivery import Delivered, Delivery, NotDelivered
from sydentish.domain.statements import Statement
from sydentish.domain.threepids import PhoneNumber, Threepid
from sydentish.store.database import Tx


@dataclass(frozen=True, slots=True)
class Style:
    """How a message to a person is to look.

    Attributes:
        brand: the name of a brand, as the request has it; None, or one that there is not, is the default brand.
        languages: what the person reads, best first, as language tags (RFC 5646); empty for the default.
    """

    brand: str | None = None
    languages: tuple[str, ...] = ()


class VerificationSender(Protocol):
    """Sends the mail that proves an e-mail address."""

    async def send_verification(self, address: str, link: str, style: Style) -> None:
        """Hands the mail with the validation link over to the relay, and returns once it took it.

        Args:
            address: the normalised e-mail address.
            link: the URL that validates the session.
            style: how the mail is to look.

        Raises:
            EmailSendError: when the relay did not take it within the limit.
        """


class CodeSender(Protocol):
    """Sends the SMS that proves a telephone number."""

    def check(self, number: PhoneNumber) -> None:
        """Whether an SMS could be sent there at all; nothing is sent.

        Raises:
            DestinationRejected: this server sends nothing to that country.
            SendError: this server sends no SMS at all.
        """

    async def send_code(self, number: PhoneNumber, code: str, style: Style) -> None:
        """Hands the SMS with the code over to a gateway, and returns once one took it.

        Args:
            number: where it goes.
            code: the digits that the person is to type.
            style: how the SMS is to look.

        Raises:
            SendError: when no gateway took it within the limit.
        """


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that a homeserver claims to have signed.

    Attributes:
        method: the HTTP method.
        target: path and query as they were sent.
        authorizations: the values of all its `Authorization` headers.
        content: the JSON object of its body.
    """

    method: str
    target: str
    authorizations: Sequence[bytes] = field(repr=False)
    content: dict[str, object] = field(repr=False)


class HomeserverProofs(Protocol):
    """Checks the signatures of homeservers under their requests."""

    async def origin_of(self, request: SignedRequest) -> str:
        """The server name of the homeserver that signed the request, in its canonical form.

        Raises:
            ProofRefused: the proof is missing, malformed, meant for another server, or wrong.
            KeysUnavailable: the homeserver's keys cannot be fetched now.
        """


class OpenIdVerifier(Protocol):
    """Asks a homeserver whom an OpenID token belongs to."""

    async def user_id_of(self, server_name: str, access_token: str) -> str:
        """The user ID that the homeserver names, which is one of its own.

        Args:
            server_name: the homeserver, as the OpenID token names it; well-formed.
            access_token: the OpenID token; printable and not empty.

        Raises:
            OpenIdRefused: the homeserver does not accept the token.
            HomeserverError: it cannot be found, reached or understood.
            HomeserverTimeout: it did not answer in time.
        """


class Deliverer(Protocol):
    """Knows how one kind of outbox row reaches its destination."""

    async def deliver(self, delivery: Delivery) -> Delivered | NotDelivered:
        """Tries once, within its own time limit. Whatever goes wrong is a `NotDelivered`, not an exception."""


class StatementTaker(Protocol):
    """Takes what other servers have stated about addresses."""

    def take(self, tx: Tx, statement: Statement, signed: str | None, now_ms: int) -> bool:
        """Applies a statement unless a newer one is known; whether it was applied.

        Args:
            tx: the transaction.
            statement: what a peer has stated; its signature was checked.
            signed: the signed JSON object, as the peer has sent it; None where there is none, as of an unbind
                that it was asked for.
            now_ms: the time, in ms.
        """


class OwnTaker(Protocol):
    """Takes what this server itself has stated, and lost when it was set back to a copy of its database."""

    def take_back(self, tx: Tx, statement: Statement, now_ms: int) -> bool:
        """Applies a statement unless a newer one is known; whether it was applied. Its number is never used again.

        Args:
            tx: the transaction.
            statement: what we had stated, by the word of a peer.
            now_ms: the time, in ms.
        """


class PeerDirectory(Protocol):
    """Knows the peers of this server by their certificates."""

    async def peer_of(self, certificate_names: Sequence[str]) -> str:
        """The server name of the peer whose certificate has one of these names; the first that is known counts.

        Raises:
            UnknownPeer: nobody's is it.
        """


class PushReceiver(Protocol):
    """Answers peers; each is named by its server name, as its certificate has proved it."""

    async def receive(self, peer: str, statements: Mapping[str, object]) -> None:
        """Takes pushed statements, all or none of them.

        Args:
            peer: who has pushed them.
            statements: signed associations by their origin ids in decimal digits; nothing about them was checked yet.

        Raises:
            InvalidParam: there are too many.
            VerificationFailed: one or more are malformed, not signed by the peer, or dated too far ahead.
        """

    async def check(self, peer: str, greeting: Mapping[str, object]) -> dict[str, object]:
        """What this server makes of a peer's greeting, a JSON object that it has signed; the answer is signed, too."""

    async def digests(self, peer: str, after: int, until: int, size: int) -> dict[str, object]:
        """Digests of what is known here of the peer's own statements, `size` origin ids in each, and where it goes on.

        Args:
            peer: whose statements.
            after: the highest origin id that is not meant.
            until: the highest that is.
            size: how many origin ids go into one digest.

        Raises:
            InvalidParam: these would be too many at once.
        """

    async def statements(self, peer: str, origin_ids: Collection[int]) -> dict[str, object]:
        """The peer's own binds that are known here, as it has signed them; what is known no longer is left out.

        Args:
            peer: whose statements.
            origin_ids: their numbers.

        Raises:
            InvalidParam: these would be too many at once.
        """

    async def recall(self, peer: str, after: int) -> dict[str, object]:
        """What is known here of the peer's own statements, from one on: its binds as it has signed them, and its unbinds.

        Args:
            peer: whose statements.
            after: the highest number that is not meant.
        """

    async def log(self, peer: str, after: int) -> dict[str, object]:
        """The statements of this server, from one on, as they are pushed to the peer.

        Args:
            peer: who asks.
            after: the highest number that is not meant.
        """

    async def unbound(self, peer: str, asked: Sequence[tuple[Threepid, int]]) -> dict[str, object]:
        """Which of these addresses belong to nobody any more, by the word of the peer itself or of this server.

        Args:
            peer: who asks.
            asked: addresses, each with the time at which what the peer knows of it was stated, in ms.
        """


class SignsOfLife(Protocol):
    """Wants to know when a server was heard from, since what waits for it can be tried again."""

    def heard_from(self, server_name: str) -> None:
        """Tells that `server_name` is alive; cheap, and never fails."""
