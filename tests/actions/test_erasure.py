"""Erasure: afterwards nothing in the database is about the address or the user, and all else is as it was."""

import os
from contextlib import closing

import pytest
import pytest_twisted
from canonicaljson import encode_canonical_json
from fixtures import SERVER_NAME, House, signing_keys
from store_tools import START_MS, contents, rows

from sydentish.actions.accounts import NOBODY
from sydentish.actions.associations import Provision
from sydentish.actions.erasure import ERASED, Erasure
from sydentish.actions.invites import InviteRequest
from sydentish.actions.messages import TokenRequest
from sydentish.actions.outbox import INVITE
from sydentish.actions.statements import Statements
from sydentish.domain.associations import Association
from sydentish.domain.invites import InviteDetails, InviteMail
from sydentish.domain.peers import Peer
from sydentish.domain.ratelimit import Budgets, Rate, buckets_of_address, buckets_of_user
from sydentish.domain.statements import Tombstone
from sydentish.domain.terms import Acceptance
from sydentish.domain.threepids import EMAIL, MSISDN, Threepid, parse_phone_number
from sydentish.store import associations as association_rows
from sydentish.store import budgets as budget_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows
from sydentish.store import terms as terms_rows
from sydentish.store.sqlite import connect, empty_log

ANN, BOB, CAROL = "@ann:hs.example.org", "@bob:other.example.org", "@carol:third.example.org"
OURS, THEIRS = Threepid(EMAIL, "ann.canary@example.org"), Threepid(EMAIL, "bob@example.org")
NUMBER = Threepid(MSISDN, "447700900001")
PEER = "id.example.net"
RATE = Rate(50, 3600_000)
BUDGETS = Budgets(
    mails_per_account=RATE,
    mails_per_address=RATE,
    sms_per_account=RATE,
    sms_per_number=RATE,
    invitations_per_sender=RATE,
    invitations_per_address=RATE,
    guesses_per_address=RATE,
)


def statements(server_name=SERVER_NAME):
    return Statements(keys=signing_keys(server_name), validity_ms=10**12, random_bytes=os.urandom)


def signed_by_the_peer(stated):
    return encode_canonical_json(signing_keys(PEER).sign(stated.to_json())).decode()


def erasure(house, on_progress=lambda _done, _of: None, db=None):
    return Erasure(
        db=db or house.db,
        statements=statements(),
        server_name=SERVER_NAME,
        now_ms=house.now_ms,
        on_progress=on_progress,
    )


def told(erased):
    return {kind: number for kind, number in erased.gone.items() if number}


async def invite(house, address, sender):
    request = InviteRequest(address, "!room:x.example.org", sender, InviteDetails(), None, None)
    return await house.invites.store(NOBODY, request)


async def bind(house, address, mxid):
    await house.associations.provision([Provision(address, mxid, bound=True)])


async def add_peer(house):
    peer = Peer(PEER, f"https://{PEER}", {}, ())
    await house.db.write(peer_rows.add, peer, START_MS)


def mentions(house, text):
    """The tables that have a text in any of their rows."""
    return {table for table, found in contents(house.path).items() if text in repr(found)}


async def live(house, user, address):
    """All that a user does here: an account, terms, sessions, invitations, budgets and a bind."""
    caller = await house.log_in(user)
    await house.db.write(terms_rows.add_acceptances, user, [Acceptance("p", "1", "https://x")], START_MS)
    await house.prove(caller, address.address, f"secret of {user}")
    request = TokenRequest(address, f"another of {user}", 1, "https://next.example.org")
    await house.validation.request_token(caller, request)
    await invite(house, Threepid(EMAIL, f"friend-of-{address.address}"), user)
    await bind(house, address, user)


@pytest_twisted.async_yield_fixture
async def house(tmp_path):
    house = House(tmp_path, budgets=BUDGETS)
    await house.start()
    yield house
    await house.stop()


@pytest_twisted.ensureDeferred
async def test_an_address_is_erased_and_all_else_is_as_it_was(house):
    await live(house, BOB, THEIRS)
    before = contents(house.path)
    # Invitations that wait, one that is on its way to a homeserver, and their mails.
    await invite(house, OURS, CAROL)
    await bind(house, OURS, ANN)
    await house.prove(NOBODY, OURS.address, "x")
    assert mentions(house, "ann.canary") >= {"associations", "validation_sessions", "outbox", "invitations"}
    erased = await erasure(house).address(OURS, dry_run=False)
    assert told(erased) == {
        "associations": 1,
        "sessions": 1,
        "session_tokens": 1,
        "invitations": 1,
        "ephemeral_keys": 1,
        "outbox_rows": 2,
        "budgets": 2,
    }
    assert (erased.waiting, erased.marks, erased.homeservers) == (0, 1, ("hs.example.org",))
    after = contents(house.path)
    changed = {table for table in before if before[table] != after[table]}
    # What nobody can be recognised by: numbers, a keyed hash and its key, and who has invited.
    assert changed <= {"counters", "erased_addresses", "local_keys", "budgets", "outbox_destinations"}
    assert mentions(house, "ann.canary") == set()


@pytest_twisted.ensureDeferred
async def test_a_user_is_erased_with_every_address_and_all_else_is_as_it_was(house):
    await live(house, BOB, THEIRS)
    await invite(house, OURS, BOB)
    before = contents(house.path)
    await live(house, ANN, OURS)
    await bind(house, NUMBER, ANN)
    # An invitation of the user on its way to the homeserver of another, and one that has arrived there.
    await invite(house, Threepid(EMAIL, "late@example.org"), ANN)
    await bind(house, Threepid(EMAIL, "late@example.org"), CAROL)
    erased = await erasure(house).user(ANN, dry_run=False)
    # Bob's invitation of the address is about the user, too.
    assert told(erased) == {
        "associations": 2,
        "sessions": 2,
        "session_tokens": 2,
        "invitations": 3,
        "ephemeral_keys": 3,
        "outbox_rows": 6,
        "accounts": 1,
        "access_tokens": 1,
        "accepted_terms": 1,
        # Mails and invitations of the user, mails to the address and invitations of it.
        "budgets": 4,
    }
    assert mentions(house, "ann.canary") == mentions(house, NUMBER.address) == set()
    assert mentions(house, ANN) == set()
    after = contents(house.path)
    for table in ("accounts", "access_tokens", "accepted_terms", "validation_sessions"):
        assert after[table] == before[table]
    assert [row[2] for row in after["associations"]] == [BOB, CAROL]


@pytest.mark.parametrize("whom", ["address", "user"])
@pytest_twisted.ensureDeferred
async def test_a_dry_run_tells_the_same_and_changes_nothing(house, whom):
    await invite(house, OURS, BOB)
    await live(house, ANN, OURS)
    await add_peer(house)
    subject = OURS if whom == "address" else ANN
    before = contents(house.path)
    foretold = await getattr(erasure(house), whom)(subject, dry_run=True)
    assert contents(house.path) == before
    assert foretold.gone["associations"] == foretold.waiting == 1
    assert await getattr(erasure(house), whom)(subject, dry_run=False) == foretold
    again = await getattr(erasure(house), whom)(subject, dry_run=False)
    assert told(again) == {}
    # What is known of the address by now: that it waits for the peer, which only the address itself could tell.
    assert again.waiting == (whom == "address")


@pytest_twisted.ensureDeferred
async def test_more_than_fits_into_one_transaction_goes_all_the_same(make_house):
    house = await make_house()
    for number in range(30):
        await bind(house, Threepid(EMAIL, f"many-canary-{number}@example.org"), ANN)
    for _ in range(450):
        await invite(house, OURS, ANN)
    seen = []
    erased = await erasure(house, lambda done, of: seen.append((done, of))).user(ANN, dry_run=False)
    assert told(erased) == {
        "associations": 30,
        "invitations": 450,
        "ephemeral_keys": 450,
        # The mails went with the invitations.
        "outbox_rows": 480,
    }
    assert seen[-1] == (30, 30)
    assert mentions(house, ANN) == set()
    assert mentions(house, "many-canary") == set()


class Watched:
    """A database that counts the statements of each transaction that writes."""

    def __init__(self, db):
        self._db = db
        self.read = db.read
        self.statements = []

    def write(self, fn, *arguments):
        def watched(tx):
            self.dialect, self._tx = tx.dialect, tx
            self.statements.append(0)
            return fn(self, *arguments)

        return self._db.write(watched)

    def __getattr__(self, name):
        self.statements[-1] += 1
        return getattr(self._tx, name)


@pytest_twisted.ensureDeferred
async def test_a_dry_run_of_much_counts_it_once_and_never_writes_for_long(make_house):
    plenty = Rate(5000, 3600_000)
    house = await make_house(budgets=Budgets(**dict.fromkeys(Budgets.__slots__, plenty)))
    longest = []
    for more in range(2):
        for number in range(220):
            # Such as are found by their sender, by their address, by both, and in the outbox.
            address = OURS if number % 2 else Threepid(EMAIL, f"many+{40 * more + number // 6}@example.org")
            await invite(house, address, BOB if number % 3 else ANN)
        for number in range(40 * more, 40 * more + 40):
            # Those of one mailbox, of which each pair has budgets in common.
            address = Threepid(EMAIL, f"many+{number}@example.org")
            await bind(house, address, ANN)
            await house.prove(NOBODY, address.address, f"secret {number}")
        await bind(house, OURS, CAROL)
        await house.associations.provision([Provision(OURS, CAROL, bound=False)])
        before = contents(house.path)
        watched = Watched(house.db)
        foretold = await erasure(house, db=watched).user(ANN, dry_run=True)
        assert contents(house.path) == before
        longest.append(max(watched.statements))
    assert longest[0] == longest[1]
    assert await erasure(house).user(ANN, dry_run=False) == foretold
    assert foretold.gone["invitations"] > 200
    assert mentions(house, ANN) == set()


@pytest_twisted.ensureDeferred
async def test_the_keys_of_invitations_that_have_arrived_go_with_their_sender(house):
    await invite(house, OURS, ANN)
    await bind(house, OURS, BOB)

    def deliver(tx):
        for kind in ("onbind", INVITE):
            for lease in outbox_rows.lease(tx, kind, START_MS, 1000, 10, failing=False):
                outbox_rows.delivered(tx, kind, lease, "POST")

    await house.db.write(deliver)
    for dry_run in (True, False):
        erased = await erasure(house).user(ANN, dry_run=dry_run)
        assert told(erased) == {"ephemeral_keys": 1, "budgets": 1}
    assert mentions(house, ANN) == set()


@pytest_twisted.ensureDeferred
async def test_dead_letters_go_too_also_those_that_only_their_error_gives_away(house):
    reasons = {
        OURS.address: "550",
        THEIRS.address: "550 no such user: Ann.Canary@example.org",
        "carol@example.org": "550 no such user: joann.canary@example.org",
    }
    for address in reasons:
        await invite(house, Threepid(EMAIL, address), BOB)

    def bury(tx):
        for lease in outbox_rows.lease(tx, INVITE, START_MS, 1000, 9, failing=False):
            reason = reasons[InviteMail.from_json(lease.delivery.payload).address]
            outbox_rows.bury(tx, INVITE, lease, reason, START_MS, answered=True, keeps_payload=False)

    for _ in reasons:  # some may share a lane to the relay
        await house.db.write(bury)
    erased = await erasure(house).address(OURS, dry_run=False)
    assert (erased.gone["invitations"], erased.gone["outbox_rows"]) == (1, 2)
    assert rows(house.path, "SELECT last_error FROM outbox") == [(reasons["carol@example.org"],)]


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@b\u00fccher.example"),
        ("stra\u00dfe@example.org".casefold(), "strasse@example.org"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_address_is_found_however_its_domain_is_written(house, stored, given):
    await bind(house, Threepid(EMAIL, stored), ANN)
    erased = await erasure(house).address(Threepid(EMAIL, given), dry_run=False)
    assert erased.gone["associations"] == 1
    assert rows(house.path, "SELECT * FROM associations") == []


@pytest_twisted.ensureDeferred
async def test_an_address_that_nothing_is_stored_about_is_erased_already(house):
    await live(house, BOB, THEIRS)
    before = contents(house.path)
    erased = await erasure(house).address(OURS, dry_run=False)
    assert (told(erased), erased.waiting, erased.marks, erased.homeservers) == ({}, 0, 0, ())
    assert set(erased.gone) == set(ERASED)
    assert contents(house.path) == before


# --- peers ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_address_leaves_once_every_peer_has_acknowledged_it(house):
    await add_peer(house)
    await bind(house, OURS, ANN)
    erased = await erasure(house).address(OURS, dry_run=False)
    assert erased.waiting == 1
    assert mentions(house, "ann.canary") == {"tombstones"}

    def acknowledge(tx):
        until = push_rows.lease(tx, PEER, START_MS, 1000)
        push_rows.acknowledged(tx, PEER, push_rows.Batch([], 9, moves_on=True), until, START_MS)

    await house.db.write(acknowledge)
    assert mentions(house, "ann.canary") == set()


@pytest_twisted.ensureDeferred
async def test_what_a_peer_has_stated_is_erased_there_and_everywhere(make_house):
    here, there, third = [await make_house() for _ in range(3)]
    for house in (here, there, third):
        await add_peer(house)
    # The clock of the peer is ahead: our statement must win all the same.
    stated = Association(OURS, ANN, START_MS + 60_000, 1, 2**52, PEER, 1)
    signed = signed_by_the_peer(stated)
    for house in (here, third):
        assert await house.db.write(statements().take, stated, signed, START_MS)
    await there.db.write(association_rows.put, stated)
    erased = await erasure(here).address(OURS, dry_run=False)
    assert (erased.gone["associations"], erased.gone["associations_of_peers"]) == (1, 1)
    (ours,) = await here.db.read(statement_rows.log_between, SERVER_NAME, 0, 100, 10)
    assert isinstance(ours, Tombstone)
    assert ours.ts > stated.ts
    for house, name in ((there, PEER), (third, "third.example.org")):
        assert await house.db.write(statements(name).take, ours, "", START_MS)
        assert rows(house.path, "SELECT * FROM associations") == []
    # Told again, and late, it comes back nowhere.
    for house in (here, third):
        assert not await house.db.write(statements().take, stated, signed, START_MS)
        assert mentions(house, "ann.canary") <= {"tombstones"}


@pytest_twisted.ensureDeferred
async def test_an_address_that_only_another_server_would_have_bound_is_erased(house):
    odd = Threepid(EMAIL, '"odd canary"@example.org')
    stated = Association(odd, ANN, START_MS, 1, 2**52, PEER, 1)
    signed = signed_by_the_peer(stated)
    await house.db.write(statements().take, stated, signed, START_MS)
    assert (await erasure(house).address(odd, dry_run=False)).gone["associations_of_peers"] == 1
    assert mentions(house, "canary") == set()


# --- the disk ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_after_it_and_a_checkpoint_the_address_is_nowhere_on_the_disk(house):
    await live(house, BOB, THEIRS)
    await invite(house, OURS, BOB)
    await live(house, ANN, OURS)

    def files():
        names = [house.path, *(house.path.with_name(f"{house.path.name}{end}") for end in ("-wal", "-shm"))]
        return b"".join(name.read_bytes() for name in names).lower()

    assert b"ann.canary" in files()
    await erasure(house).user(ANN, dry_run=False)
    assert empty_log(house.path, 5000)
    found = files()
    assert b"ann.canary" not in found
    assert b"ann:hs" not in found
    assert b"bob@example.org" in found


@pytest_twisted.ensureDeferred
async def test_who_reads_an_old_state_keeps_the_log_and_is_told_of(house):
    await bind(house, OURS, ANN)
    with closing(connect(house.path, 5000, read_only=True)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM associations").fetchone() == (1,)
        await erasure(house).address(OURS, dry_run=False)
        assert not empty_log(house.path, 1)
        reader.execute("COMMIT")
    assert empty_log(house.path, 5000)


# --- the budgets ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_every_bucket_of_a_person_is_found(house):
    number = parse_phone_number("GB", f"+{NUMBER.address}")
    mail = Threepid(EMAIL, "ann+list@b\u00fccher.example")
    charges = [
        *BUDGETS.mail(ANN, "192.0.2.1", mail.address),
        *BUDGETS.sms(ANN, "192.0.2.1", number),
        *BUDGETS.invitation(ANN, "192.0.2.1", mail.address),
        *BUDGETS.guess(NUMBER),
        *BUDGETS.guess(mail),
    ]
    for charge in charges:
        await house.db.write(budget_rows.charge, [charge], START_MS)
    assert len(rows(house.path, "SELECT * FROM budgets")) == 8
    buckets = [*buckets_of_user(ANN), *buckets_of_address(mail), *buckets_of_address(NUMBER)]
    assert await house.db.write(budget_rows.forget, buckets) == 8
    assert rows(house.path, "SELECT * FROM budgets") == []
