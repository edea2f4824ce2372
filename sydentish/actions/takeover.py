"""Taking over what a Sydent has kept; see `sydentish.domain.takeover`.

All of it can be repeated: what is known here already, or was deleted or changed here since, stays as it is.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from sydentish.actions import takeover_people as kinds
from sydentish.actions.peppers import PepperRotation
from sydentish.actions.statements import Statements
from sydentish.actions.takeover_people import KNOWN, TAKEN, People, in_batches
from sydentish.domain.associations import Association
from sydentish.domain.peers import Peer
from sydentish.domain.takeover import PEERS, Settled, settle
from sydentish.domain.terms import Terms
from sydentish.store import statements as statement_rows
from sydentish.store import takeover as rows
from sydentish.store.counters import STATEMENT, raise_to, value
from sydentish.store.database import Database, Tx
from sydentish.store.sydent import SydentDatabase

BATCH = 300
"""How many things are written in one transaction, if a running server may wait for it."""

LARGE_BATCH = 20_000
"""The same, if none can."""

PEPPER = "look-up pepper"
PEER = "peers"

_ODD = "unusable: a value of another type, or too long"
_OF_TABLE = {
    "accounts": kinds.ACCOUNTS,
    "tokens": kinds.TOKENS,
    "accepted_terms_urls": kinds.TERMS,
    "invite_tokens": kinds.INVITATIONS,
    "ephemeral_public_keys": kinds.KEYS,
    "threepid_validation_sessions": kinds.SESSIONS,
    "hashing_metadata": PEPPER,
}

# The highest number of a statement that was taken over.
_OLD_STATEMENT = "sydent_statement"


class BothStated(Exception):
    """The Sydent has gone on after this server has begun: both have given the same numbers to what they have stated."""


@dataclass(slots=True)
class Tally:
    """How many things of each kind there are, and what became of them.

    Attributes:
        kinds: how many there are by kind and outcome.
        conflicts: how many addresses stand there in several spellings, for several users.
        told: how many things that concern one address were told of.
    """

    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    conflicts: int = 0
    told: int = 0

    def add(self, kind: str, outcome: str, number: int = 1) -> None:
        """Counts something."""
        self.kinds.setdefault(kind, Counter())[outcome] += number

    def found(self, kind: str) -> int:
        """How many there are of a kind."""
        return self.kinds.get(kind, Counter()).total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is taken over, and how.

    Attributes:
        server_name: that of the Sydent, and ours.
        peers: the peers that can be used, and what each has acknowledged.
        terms: the policies, by which accepted URLs are understood.
        terms_edition: what a Sydent calls all of them together; None without any.
        session_lifetime_ms: how long validation sessions live, in ms.
        invitation_lifetime_ms: how long invitations wait from now on, in ms: the Sydent has promised them no end.
    """

    server_name: str
    peers: tuple[tuple[Peer, int], ...]
    terms: Terms
    terms_edition: str | None
    session_lifetime_ms: int
    invitation_lifetime_ms: int


class Takeover:
    """Takes over what stands in a Sydent's database.

    Args:
        plan: what, and how.
        old: the Sydent's database.
        db: ours.
        statements: takes statements.
        peppers: gives out peppers.
        batch: how many things are written in one transaction.
        now_ms: the time, in ms.
        on_progress: hears what is being done, how much of it is done, and of how much.
        on_detail: hears of each conflict, and of each row that cannot be used.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        old: SydentDatabase,
        db: Database,
        statements: Statements,
        peppers: PepperRotation,
        batch: int,
        now_ms: Callable[[], int],
        on_progress: Callable[[int, int], None],
        on_detail: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._plan = plan
        self._old = old
        self._db = db
        self._statements = statements
        self._peppers = peppers
        self._batch = batch
        self._now_ms = now_ms
        self._on_progress = on_progress
        self._on_detail = on_detail
        self._tally = Tally()

    async def run(self) -> Tally:
        """Takes over all that is new, in small transactions, beside a running server.

        Raises:
            BothStated: this server has stated something since the last time, and so has the Sydent.
            SydentProblem: the Sydent's database is damaged.
        """
        last_id = self._old.last_own_id(self._plan.server_name)
        # First of all: a server that is running must not give one of these numbers to anything.
        await self._db.write(_reserve, last_id)
        for peer, acknowledged_id in self._plan.peers:
            added = await self._db.write(rows.resume_peer, peer, acknowledged_id, self._now_ms())
            self._tally.add(PEER, TAKEN if added else KNOWN)
        people = People(
            db=self._db, old=self._old, now_ms=self._now_ms(), batch=self._batch, count=self._tally.add
        )
        # Before the associations: those that are bound at a peer wake them.
        await people.invitations(self._plan.invitation_lifetime_ms)
        await self._associations()
        await self._db.write(_erase)
        await self._pepper()
        await people.accounts(self._plan.terms, self._plan.terms_edition)
        await people.sessions(self._plan.session_lifetime_ms)
        for table, number in self._old.misfits.items():
            if number:
                self._tally.add(_OF_TABLE[table], _ODD, number)
        return self._tally

    async def _associations(self) -> None:
        total, done = self._old.number_of_rows(), 0
        for batch in in_batches(self._settled(), self._batch):
            taken = await self._db.write(self._take, [settled for _, settled in batch])
            for (_, settled), is_taken in zip(batch, taken, strict=True):
                self._note(settled, is_taken=is_taken)
            done += sum(number for number, _ in batch)
            self._on_progress(done, total)

    def _settled(self) -> Iterator[tuple[int, Settled]]:
        for found in self._old.by_address():
            yield len(found), settle(found, self._plan.server_name, self._old.signed)

    def _take(self, tx: Tx, batch: Sequence[Settled]) -> list[bool]:
        return [self._take_one(tx, each) for each in batch]

    def _take_one(self, tx: Tx, settled: Settled) -> bool:
        statement = settled.statement
        if statement is None:
            return False
        if settled.kind == PEERS or not (settled.is_told or isinstance(statement, Association)):
            return self._statements.take(tx, statement, settled.signed, self._now_ms())
        return self._statements.take_back(tx, statement, self._now_ms())

    def _note(self, settled: Settled, *, is_taken: bool) -> None:
        if isinstance(settled.statement, Association) or settled.is_told:
            self._tally.add(settled.kind, TAKEN if is_taken else KNOWN)
        for kind, outcome in settled.others:
            self._tally.add(kind, outcome)
        if settled.conflict is not None:
            self._tally.conflicts += 1
            self._tell({"conflict": asdict(settled.conflict)})
        for row, reason in settled.unusable:
            self._tell({"unusable": {**row.fields, "reason": reason}})

    def _tell(self, detail: Mapping[str, object]) -> None:
        self._tally.told += 1
        self._on_detail(detail)

    async def _pepper(self) -> None:
        pepper = self._old.pepper()
        if pepper is not None:
            self._tally.add(PEPPER, TAKEN if await self._peppers.adopt(pepper, self._batch) else KNOWN)


def _reserve(tx: Tx, last_id: int) -> None:
    """Our numbers go on above those of the Sydent."""
    before, own = value(tx, _OLD_STATEMENT), value(tx, STATEMENT)
    if own > before and last_id > before:
        raise BothStated(
            f"the Sydent has stated something (number {last_id}) since it was taken over up to number {before}, and so "
            f"has this server (number {own}): peers would mix them up. Stop the Sydent, state here again what was stated "
            "there meanwhile (sydentish bindings), and do not take over from it any more"
        )
    raise_to(tx, STATEMENT, last_id)
    raise_to(tx, _OLD_STATEMENT, last_id)


def _erase(tx: Tx) -> None:
    statement_rows.erase_acknowledged(tx)
