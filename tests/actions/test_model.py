"""Binds, unbinds, peers, invitations, deliveries and rotations in any order, against dictionaries."""

import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from fixtures import DAY_MS, INVITES, SERVER_NAME, Counting, RecordingSigns, public_key_bytes, signing_keys
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from store_tools import START_MS, InlineDatabase, at_once, rows
from twisted.internet.task import Clock

from sydentish.actions.accounts import Caller, Gate
from sydentish.actions.associations import Associations, Unbind
from sydentish.actions.invites import InviteRequest, Invites
from sydentish.actions.lookup import Lookup
from sydentish.actions.outbox import ONBIND
from sydentish.actions.peppers import PepperRotation
from sydentish.actions.statements import Statements
from sydentish.actions.validation import Credentials
from sydentish.domain.accounts import hash_secret
from sydentish.domain.associations import Association
from sydentish.domain.errors import Busy, InvalidPepper, ThreepidInUse
from sydentish.domain.invites import InviteDetails
from sydentish.domain.lookup import hash_address
from sydentish.domain.peers import Peer
from sydentish.domain.ratelimit import Budgets
from sydentish.domain.statements import MAX_ORIGIN_ID, Order, Tombstone, erased_key, order_of
from sydentish.domain.terms import Terms
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.domain.validation import Session
from sydentish.store import accounts as account_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import peers as peer_rows
from sydentish.store import progress
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store import validation as validation_rows
from sydentish.store.migrate import migrate_sqlite, shipped_steps

USERS = ["@alice:a.example.org", "@bob:b.example.org"]
ADDRESSES = ["a@example.org", "b@example.org", "c@example.org"]
GRACE = 3600_000
INVITE_LIFETIME = 3 * GRACE
KEY = decode_verify_key_bytes("ed25519:0", public_key_bytes())
INTERVAL = 2 * GRACE
# Where two statements are of one time, one of these is newer than ours, and the other is not.
PEERS = ["a.peer.example.org", "z.peer.example.org"]
LOCAL_KEY = b"k" * 32

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


def told(body):
    """What a homeserver hears of, as the model has it."""
    tokens = [invite["signed"]["token"] for invite in body["invites"]] or [None]
    assert len(tokens) == 1
    return body["mxid"], body["address"], body["ts"], tokens[0]


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
        keys = signing_keys()
        self.statements = Statements(keys=keys, validity_ms=DAY_MS, random_bytes=lambda _size: LOCAL_KEY)
        gate = Gate(db=self.db, terms=Terms(), now_ms=self.now_ms)
        self.associations = Associations(
            db=self.db,
            gate=gate,
            statements=self.statements,
            keys=keys,
            session_lifetime_ms=1 << 60,
            on_outcome=lambda *_: None,
            on_stated=lambda: None,
            now_ms=self.now_ms,
        )
        self.invites = Invites(
            gate=gate,
            keys=keys,
            options=replace(INVITES, lifetime_ms=INVITE_LIFETIME),
            budgets=Budgets(),
            on_stored=lambda: None,
            on_policy=lambda *_: None,
            now_ms=self.now_ms,
            random_bytes=self.random,
        )
        self.lookup = Lookup(
            gate=gate,
            keys=keys,
            allow_none=True,
            max_addresses=100,
            pepper_grace_ms=GRACE,
            signs_of_life=RecordingSigns(),
            on_lookup=lambda *_: None,
            now_ms=self.now_ms,
        )
        self.bound = {}
        # The newest statement of each address, and how many were made here.
        self.newest = {}
        self.made = 0
        # What each peer has acknowledged, and our unbinds that one of them has not: address and time by number.
        self.acknowledged = {}
        self.reminders = {peer: {} for peer in PEERS}
        self.unacknowledged = {}
        # What homeservers are still to hear: user, address, time, and the token of an invitation or None.
        self.untold = []
        # Tokens to their address and when they were made; where each of them is.
        self.tokens = {}
        self.waiting = set()
        # What was refused, and the address and time of the statement that it was told with.
        self.dead = {}
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
        told_already = not any(row[1] == address for row in self.untold)
        if self.bound.get(address) == user and not told_already and not self.due_tokens(address):
            # The homeserver has not heard of it yet: nothing new is said.
            assert signed["ts"] == self.newest[address].ts
            return
        order = self.state(address)
        assert signed["ts"] == order.ts
        self.now_bound(address, user, order, self.take_waiting(address) or [None])

    def state(self, address):
        """The order of a new statement that is made here."""
        self.made += 1
        newest = self.newest.get(address)
        ts = self.now if newest is None else max(self.now, newest.ts + 1)
        return Order(ts, SERVER_NAME, self.made)

    def take_waiting(self, address):
        """The invitations that go with a new statement, in their order."""
        self.withdraw(address)
        tokens = self.due_tokens(address)
        self.waiting.difference_update(tokens)
        return tokens

    def now_bound(self, address, user, order, tokens):
        self.untold += [(user, address, order.ts, token) for token in tokens]
        self.bound[address] = user
        self.now_newest(address, order)

    def now_unbound(self, address, order):
        del self.bound[address]
        self.withdraw(address)
        told = (address, self.newest[address])
        self.dead = {token: each for token, each in self.dead.items() if each != told}
        self.now_newest(address, order)

    def now_newest(self, address, order):
        self.newest[address] = order
        waiting = self.unacknowledged.items()
        self.unacknowledged = {number: each for number, each in waiting if each[0] != address}

    def due_tokens(self, address):
        """The invitations that wait for an address, in their order."""
        made = sorted((*self.tokens[token], token) for token in self.waiting)
        return [token for to, ts, token in made if to == address and self.now < ts + INVITE_LIFETIME]

    def withdraw(self, address):
        """What was not told of an address will not be, and its invitations wait again."""
        self.waiting.update(row[3] for row in self.untold if row[1] == address and row[3])
        self.untold = [row for row in self.untold if row[1] != address]

    @rule(user=users, address=addresses)
    def invite(self, user, address):
        request = InviteRequest(Threepid(EMAIL, address), "!r:x.org", user, InviteDetails(), None, None)
        if address in self.bound:
            with pytest.raises(ThreepidInUse) as in_use:
                at_once(self.invites.store(Caller(user), request))
            assert in_use.value.mxid == self.bound[address]
            return
        token = at_once(self.invites.store(Caller(user), request))["token"]
        self.tokens[token] = (address, self.now)
        self.waiting.add(token)

    @rule(end=st.sampled_from(["delivered", "dead", "later"]))
    def deliver(self, end):
        """To every homeserver that something is due for, the first of it."""

        def settle(tx):
            leases = [
                lease
                for failing in (False, True)
                for lease in outbox_rows.lease(tx, ONBIND, self.now, 1000, 10, failing=failing)
            ]
            for lease in leases:
                if end == "delivered":
                    outbox_rows.delivered(tx, ONBIND, lease, "POST")
                elif end == "dead":
                    outbox_rows.bury(tx, ONBIND, lease, "refused", self.now, answered=True)
                else:
                    outbox_rows.retry(tx, ONBIND, lease, self.now + 1000, "down", self.now, 0.0)
            return [told(orjson.loads(lease.delivery.payload)) for lease in leases]

        for row in self.db.write(settle).result:
            if end != "later":
                self.untold.remove(row)
            if end == "dead" and row[3]:
                self.dead[row[3]] = (row[1], self.newest[row[1]])

    @rule(caller=users, user=users, address=addresses)
    def unbind(self, caller, user, address):
        request = Unbind(Threepid(EMAIL, address), user, Credentials(address, "secret"))
        at_once(self.associations.unbind(Caller(caller), request))
        if self.bound.get(address) == user:
            order = self.state(address)
            self.now_unbound(address, order)
            if self.acknowledged:
                self.unacknowledged[order.origin_id] = (address, order.ts)

    @rule(
        peer=st.sampled_from(PEERS),
        user=st.none() | users,
        address=addresses,
        ms=st.sampled_from([-GRACE, -1, 0, 1, 1000]) | st.none(),
        number=st.integers(1, 3),
    )
    def hear(self, peer, user, address, ms, number):
        """A peer has stated something, at some time or at that of the newest statement."""
        newest = self.newest.get(address)
        ts = self.now + (ms or 0) if ms is not None or newest is None else newest.ts
        threepid = Threepid(EMAIL, address)
        statement = (
            Tombstone(threepid, ts, peer, number)
            if user is None
            else Association(threepid, user, ts, ts, ts + 1, peer, number)
        )
        if any(each.ts == ts and each.origin_server == peer for each in self.newest.values()):
            return  # a peer makes no two statements with one number at one time
        taken = self.db.write(self.statements.take, statement, "{}", self.now).result
        assert taken == (newest is None or order_of(statement) > newest)
        if not taken:
            # One unbind has nothing to correct in another.
            if order_of(statement) < newest and (user is not None or address in self.bound):
                self.remind(peer, address, newest)
            return
        if user is not None:
            self.now_bound(address, user, order_of(statement), self.take_waiting(address))
        elif address in self.bound:
            self.now_unbound(address, order_of(statement))
        else:
            self.now_newest(address, order_of(statement))

    def remind(self, peer, address, newest):
        """A peer that should know better is sent what it should know."""
        number = newest.origin_id
        if newest.origin_server != SERVER_NAME or peer not in self.acknowledged:
            return
        if address not in self.bound:
            self.unacknowledged[number] = (address, newest.ts)
        # Else it is yet to be sent in its turn.
        if self.acknowledged[peer] >= number:
            self.reminders[peer][number] = self.now

    @rule(peer=st.sampled_from(PEERS), removed=st.booleans())
    def change_peers(self, peer, removed):
        if removed:
            self.db.write(peer_rows.remove, peer)
            self.acknowledged.pop(peer, None)
            self.reminders[peer].clear()
            self.erase()
        else:
            self.db.write(peer_rows.add, Peer(peer, "https://x", {}, ()), self.now)
            self.acknowledged.setdefault(peer, 0)

    @rule(peer=st.sampled_from(PEERS), limit=st.integers(1, 3))
    def push(self, peer, limit):
        if peer not in self.acknowledged:
            return

        def take(tx):
            batch = push_rows.batch(tx, SERVER_NAME, peer_rows.state(tx, peer), self.now, limit)
            lease = push_rows.lease(tx, peer, self.now, 1000)
            push_rows.acknowledged(tx, peer, batch, lease, self.now)
            return [each.origin_id for each in batch.statements]

        sent = self.db.write(take).result
        new = [number for number in sorted(self.log()) if number > self.acknowledged[peer]]
        if new:
            assert sent == new[:limit]
            self.acknowledged[peer] = max([self.acknowledged[peer], *sent])
        else:
            reminders = self.reminders[peer]
            due = sorted((ts, number) for number, ts in reminders.items() if ts <= self.now)[:limit]
            assert sent == [number for _, number in due if number in self.log()]
            for _, number in due:
                del reminders[number]
        self.erase()

    def log(self):
        """What peers are sent: address, user and time by number."""
        ours = {each: order for each, order in self.newest.items() if order.origin_server == SERVER_NAME}
        bound = {
            ours[each].origin_id: (each, user, ours[each].ts)
            for each, user in self.bound.items()
            if each in ours
        }
        return bound | {number: (each, None, ts) for number, (each, ts) in self.unacknowledged.items()}

    def erase(self):
        """What all peers have heard of is forgotten."""
        everybody = min(self.acknowledged.values(), default=MAX_ORIGIN_ID)
        waiting, reminded = self.unacknowledged.items(), set().union(*self.reminders.values())
        self.unacknowledged = {
            number: each for number, each in waiting if number > everybody or number in reminded
        }

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
    def homeservers_will_hear_of_what_is_bound_in_order(self):
        payloads = rows(
            self.path,
            "SELECT payload FROM outbox WHERE kind = 'onbind' AND state = 'pending' ORDER BY outbox_id",
        )
        bodies = [orjson.loads(payload) for (payload,) in payloads]
        assert [told(body) for body in bodies] == self.untold
        assert {(body["address"], body["mxid"]) for body in bodies} <= set(self.bound.items())
        for body in bodies:
            verify_signed_json(body, SERVER_NAME, KEY)
            for each in body["invites"]:
                verify_signed_json(each["signed"], SERVER_NAME, KEY)

    @invariant()
    def an_invitation_waits_or_is_on_its_way_or_was_refused_or_is_gone(self):
        found = rows(
            self.path,
            "SELECT token, address, state FROM invitations LEFT JOIN outbox USING (outbox_id)",
        )
        assert {token for token, _, state in found if state is None} == self.waiting
        assert {token for token, _, state in found if state == "dead"} == set(self.dead)
        on_their_way = {row[3] for row in self.untold if row[3]}
        assert {token for token, _, state in found if state == "pending"} == on_their_way
        assert all(self.tokens[token][0] == address for token, address, _ in found)

    @invariant()
    def peers_will_hear_of_what_was_stated_here_and_is_not_superseded(self):
        sent = self.db.read(statement_rows.log_between, SERVER_NAME, 0, MAX_ORIGIN_ID, 100).result
        found = {
            each.origin_id: (each.threepid.address, getattr(each, "mxid", None), each.ts) for each in sent
        }
        assert found == self.log()
        assert list(found) == sorted(found)
        for peer, acknowledged_id in self.acknowledged.items():
            state = self.db.read(peer_rows.state, peer).result
            assert state.acknowledged_id == acknowledged_id
            reminders = self.reminders[peer]
            behind = len([number for number in found if number > acknowledged_id or number in reminders])
            assert self.db.read(progress.lag, SERVER_NAME, state).result[0] == behind

    @invariant()
    def of_what_is_unbound_only_the_hmac_is_kept(self):
        unbound = {address: order for address, order in self.newest.items() if address not in self.bound}
        assert set(rows(self.path, "SELECT * FROM erased_addresses")) == {
            (erased_key(LOCAL_KEY, Threepid(EMAIL, address)), order.ts, order.origin_server, order.origin_id)
            for address, order in unbound.items()
        }
        kept = {address for (address,) in rows(self.path, "SELECT address FROM tombstones")}
        assert kept == {address for address, _ in self.unacknowledged.values()} <= unbound.keys()

    def teardown(self):
        self.db.connection.close()
        shutil.rmtree(self.folder)


Bindings.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBindings = Bindings.TestCase
