"""Binds, unbinds and rotations in any order, against a dictionary."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import orjson
from fixtures import DAY_MS, Counting, RecordingSigns, signing_keys
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_tools import START_MS, InlineDatabase, at_once, rows
from twisted.internet.task import Clock

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.associations import Associations, Unbind
from sydentish.actions.lookup import Lookup
from sydentish.actions.peppers import PepperRotation
from sydentish.actions.validation import Credentials
from sydentish.domain.accounts import hash_secret
from sydentish.domain.errors import Busy, InvalidPepper
from sydentish.domain.lookup import hash_address
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.domain.validation import Session
from sydentish.store import accounts as account_rows
from sydentish.store import validation as validation_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps

USERS = ["@alice:a.example.org", "@bob:b.example.org"]
ADDRESSES = ["a@example.org", "b@example.org", "c@example.org"]
GRACE = 3600_000
INTERVAL = 2 * GRACE

users, addresses = st.sampled_from(USERS), st.sampled_from(ADDRESSES)


class Cutting:
    """A `Database` whose process is gone after so many writes."""

    def __init__(self, db, writes):
        self._db = db
        self._left = writes

    def write(self, fn, *args, **kwargs):
        self._left -= 1
        if self._left < 0:
            raise Busy("the process is gone")
        return self._db.write(fn, *args, **kwargs)


class Bindings(RuleBasedStateMachine):
    """What is bound, what look-ups answer, and what homeservers will hear."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "sydentish.db"
        migrate_sqlite(self.path, 5000, START_MS, shipped_steps())
        self.db = InlineDatabase(self.path)
        self.db.connection.execute("PRAGMA synchronous = OFF")  # nothing is to survive
        self.now = START_MS
        self.random = Counting()
        gate = Gate(db=self.db, terms=Terms(), now_ms=self.now_ms)
        self.associations = Associations(
            gate=gate,
            keys=signing_keys(),
            validity_ms=DAY_MS,
            session_lifetime_ms=1 << 60,
            wake_outbox=lambda: None,
            now_ms=self.now_ms,
        )
        self.lookup = Lookup(
            gate=gate,
            allow_none=True,
            max_addresses=100,
            pepper_grace_ms=GRACE,
            signs_of_life=RecordingSigns(),
            now_ms=self.now_ms,
        )
        self.bound = {}
        self.told = []
        self.newest_ts = {}
        self.retired = None

    def now_ms(self):
        return self.now

    def rotation(self, db):
        return PepperRotation(
            db=db,
            clock=Clock(),
            interval_ms=INTERVAL,
            grace_ms=GRACE,
            now_ms=self.now_ms,
            random_bytes=self.random,
        )

    @initialize()
    def set_up(self):
        def fill(tx):
            for user in USERS:
                account_rows.add_account(tx, user, START_MS)
                account_rows.add_token(tx, hash_secret(user), user, START_MS)
            for address in ADDRESSES:
                threepid, secret = Threepid(EMAIL, address), hash_secret("secret")
                session = Session(address, threepid, secret, 1, None, START_MS, START_MS)
                validation_rows.add_session(tx, session)

        self.db.write(fill)
        at_once(self.rotation(self.db).ensure_pepper())
        self.pepper = self.current()

    def current(self):
        return at_once(self.lookup.hash_details(Caller(USERS[0])))["lookup_pepper"]

    @rule(user=users, address=addresses)
    def bind(self, user, address):
        signed = at_once(self.associations.bind(Caller(user), Credentials(address, "secret"), user))
        before = self.newest_ts.get(address) if address in self.bound else None
        if self.bound.get(address) == user:  # the homeserver has not heard of it yet: nothing new is said
            assert signed["ts"] == before
            return
        assert signed["ts"] == (self.now if before is None else max(self.now, before + 1))
        self.bound[address] = user
        self.newest_ts[address] = signed["ts"]
        self.told.append((user, address, signed["ts"]))

    @rule(caller=users, user=users, address=addresses)
    def unbind(self, caller, user, address):
        request = Unbind(Threepid(EMAIL, address), user, Credentials(address, "secret"))
        at_once(self.associations.unbind(Caller(caller), request))
        if self.bound.get(address) == user:
            del self.bound[address]

    @rule(ms=st.sampled_from([1, 1000, GRACE, GRACE + 1, INTERVAL, -1000]))
    def let_time_pass(self, ms):
        self.now += ms

    @rule()
    def turn(self):
        at_once(self.rotation(self.db).turn())
        self.note_rotation()

    @rule(writes=st.integers(0, 5))
    def turn_and_die(self, writes):
        with suppress(Busy):
            at_once(self.rotation(Cutting(self.db, writes)).turn())
        self.note_rotation()

    def note_rotation(self):
        if self.current() != self.pepper:
            self.retired = (self.pepper, self.now)
            self.pepper = self.current()

    def ask(self, pepper):
        hashes = {hash_address(Threepid(EMAIL, address), pepper): address for address in ADDRESSES}
        answer = orjson.loads(at_once(self.lookup.lookup(Caller(USERS[0]), "sha256", pepper, list(hashes))))
        return {hashes[hashed]: mxid for hashed, mxid in answer.items()}

    @invariant()
    def look_ups_answer_what_is_bound(self):
        if not hasattr(self, "pepper"):
            return
        assert self.ask(self.pepper) == self.bound
        entries = [f"{address} email" for address in ADDRESSES]
        answer = orjson.loads(at_once(self.lookup.lookup(Caller(USERS[0]), "none", self.pepper, entries)))
        assert answer == {f"{address} email": mxid for address, mxid in self.bound.items()}

    @invariant()
    def the_pepper_before_answers_as_long_as_its_grace_time(self):
        if self.retired is None:
            return
        pepper, retired_ts = self.retired
        try:
            answer = self.ask(pepper)
        except InvalidPepper:
            # Its hashes may be gone when the clock has gone back since.
            assert self.now - retired_ts > GRACE - 100_000
        else:
            assert answer == self.bound

    @invariant()
    def homeservers_will_hear_of_every_bind_in_order(self):
        payloads = [
            orjson.loads(payload)
            for (payload,) in rows(self.path, "SELECT payload FROM outbox ORDER BY outbox_id")
        ]
        assert [(told["mxid"], told["address"], told["ts"]) for told in payloads] == self.told

    def teardown(self):
        self.db.connection.close()
        shutil.rmtree(self.folder)


Bindings.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestBindings = Bindings.TestCase
