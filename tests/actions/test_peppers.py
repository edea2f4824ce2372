"""Replacing the look-up pepper while the server answers."""

import orjson
import pytest
import pytest_twisted
from fixtures import DAY_MS, Counting
from store_tools import START_MS, WatchedDatabase, contents, rows
from twisted.internet.defer import Deferred, gatherResults

from sydentish.actions.associations import Unbind
from sydentish.actions.peppers import PepperRotation
from sydentish.domain.errors import Busy, InvalidPepper
from sydentish.domain.lookup import hash_address
from sydentish.domain.threepids import EMAIL, Threepid

ALICE = "@alice:hs.example.org"
GRACE = 3600_000


class Steps(WatchedDatabase):
    """A `Database` that lets a test act before a chosen write."""

    def __init__(self, db, before=None):
        super().__init__(db)
        self.before = before or (lambda _number: None)

    def write(self, fn, *args, **kwargs):
        return Deferred.fromCoroutine(self._write(fn, args, kwargs))

    async def _write(self, fn, args, kwargs):
        acting = self.before(self.writes + 1)
        if acting is not None:
            await acting
        return await super().write(fn, *args, **kwargs)


def rotation(house, db=None, interval_ms=DAY_MS):
    random = Counting()
    random.count = 10**6 + house.random.count
    house.random.count += 1000
    return PepperRotation(
        db=db or house.db,
        clock=house.clock,
        interval_ms=interval_ms,
        grace_ms=GRACE,
        now_ms=house.now_ms,
        random_bytes=random,
    )


async def fill(house, count):
    """Binds addresses, without a session for each."""

    def put(tx):
        for number in range(count):
            tx.run(
                "INSERT INTO associations VALUES ('email', ?, ?, 1, 1, 2, 'id', ?, NULL)",
                (f"u{number:05}@example.org", f"@u{number}:x.org", number),
            )
        for pepper_id, pepper in tx.rows("SELECT pepper_id, pepper FROM peppers"):
            for number in range(count):
                hashed = hash_address(Threepid(EMAIL, f"u{number:05}@example.org"), pepper)
                tx.run("INSERT INTO lookup_hashes VALUES (?, ?, ?)", (pepper_id, hashed, f"@u{number}:x.org"))

    await house.db.write(put)


async def pepper_of(house, caller):
    return (await house.lookup.hash_details(caller))["lookup_pepper"]


async def found(house, caller, address, pepper):
    hashed = hash_address(Threepid(EMAIL, address), pepper)
    return orjson.loads(await house.lookup.lookup(caller, "sha256", pepper, [hashed])).get(hashed)


def is_whole(house):
    """Every association has its hash under every pepper there is, and nothing else has one."""
    stored = rows(house.path, "SELECT pepper_id, hash, mxid FROM lookup_hashes ORDER BY 1, 2")
    return stored == sorted(
        (pepper_id, hash_address(Threepid(medium, address), pepper), mxid)
        for pepper_id, pepper in rows(house.path, "SELECT pepper_id, pepper FROM peppers")
        for medium, address, mxid in rows(house.path, "SELECT medium, address, mxid FROM associations")
    )


@pytest_twisted.ensureDeferred
async def test_the_first_pepper_is_made_once(house):
    before = contents(house.path)["peppers"]
    assert len(before) == 1
    await gatherResults([Deferred.fromCoroutine(rotation(house).ensure_pepper()) for _ in range(5)])
    assert contents(house.path)["peppers"] == before


@pytest.mark.parametrize(("age", "rotated"), [(DAY_MS - 1, False), (DAY_MS, True)])
@pytest_twisted.ensureDeferred
async def test_a_pepper_is_replaced_when_it_has_become_old(house, age, rotated):
    caller = await house.log_in()
    first = await pepper_of(house, caller)
    house.advance(age)
    await rotation(house).turn()
    assert (await pepper_of(house, caller) != first) == rotated


@pytest_twisted.ensureDeferred
async def test_without_an_interval_a_pepper_stays_for_ever(house):
    before = contents(house.path)["peppers"]
    house.advance(10_000 * DAY_MS)
    await rotation(house, interval_ms=None).turn()
    assert contents(house.path)["peppers"] == before


@pytest_twisted.ensureDeferred
async def test_both_peppers_answer_until_the_grace_time_is_over(house):
    caller = await house.log_in()
    await fill(house, 3)
    old = await pepper_of(house, caller)
    house.advance(DAY_MS)
    await rotation(house).turn()
    new = await pepper_of(house, caller)
    house.advance(GRACE)
    await rotation(house).turn()
    assert [await found(house, caller, "u00001@example.org", pepper) for pepper in (old, new)] == [
        "@u1:x.org",
        "@u1:x.org",
    ]
    house.advance(1)
    with pytest.raises(InvalidPepper) as refused:
        await found(house, caller, "u00001@example.org", old)
    assert refused.value.lookup_pepper == new
    await rotation(house).turn()
    assert rows(house.path, "SELECT pepper FROM peppers") == [(new,)]
    assert is_whole(house)
    assert await found(house, caller, "u00001@example.org", new) == "@u1:x.org"


@pytest.mark.parametrize("count", [0, 499, 500, 501, 1300])
@pytest_twisted.ensureDeferred
async def test_every_address_is_hashed_anew_in_batches(house, count):
    await fill(house, count)
    house.advance(DAY_MS)
    db = WatchedDatabase(house.db)
    await rotation(house, db).turn()
    assert db.writes >= count // 500 + 1
    assert len(rows(house.path, "SELECT * FROM lookup_hashes")) == 2 * count
    assert is_whole(house)
    house.advance(GRACE + 1)
    await rotation(house).turn()
    assert len(rows(house.path, "SELECT * FROM lookup_hashes")) == count
    assert is_whole(house)


@pytest_twisted.ensureDeferred
async def test_binds_and_unbinds_in_the_middle_of_it_are_not_missed(house):
    caller = await house.log_in(ALICE)
    await fill(house, 1200)
    early = await house.prove(caller, "aa@example.org", "s1")
    late = await house.prove(caller, "zz@example.org", "s2")
    gone = await house.prove(caller, "u00001@example.org", "s3")
    later_gone = await house.prove(caller, "u01100@example.org", "s4")
    taken = await house.prove(caller, "u00002@example.org", "s5")
    old = await pepper_of(house, caller)
    house.advance(2 * GRACE)

    async def act():
        assert await pepper_of(house, caller) == old
        for credentials in (early, late, taken):
            await house.associations.bind(caller, credentials, ALICE)
        for credentials, address, mxid in (
            (gone, "u00001@example.org", "@u1:x.org"),
            (later_gone, "u01100@example.org", "@u1100:x.org"),
        ):
            await house.associations.unbind(caller, Unbind(Threepid(EMAIL, address), mxid, credentials))

    for when in (3, 4, 5, 6):  # before each batch, and before the peppers change places
        acted = []

        def before(number, when=when, acted=acted):
            if number == when:
                acted.append(number)
                return act()
            return None

        await rotation(house, Steps(house.db, before), 2 * GRACE).turn()
        assert acted == [when]
        new = await pepper_of(house, caller)
        assert new != old
        for pepper in (old, new):
            for address in ("aa@example.org", "zz@example.org", "u00002@example.org"):
                assert await found(house, caller, address, pepper) == ALICE
            for address in ("u00001@example.org", "u01100@example.org"):
                assert await found(house, caller, address, pepper) is None
        house.advance(2 * GRACE)
        await rotation(house, interval_ms=None).turn()
        assert is_whole(house)
        old = new


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6])
@pytest_twisted.ensureDeferred
async def test_a_rotation_that_was_cut_short_is_finished_by_the_next(house, cut):
    caller = await house.log_in()
    await fill(house, 1200)
    old = await pepper_of(house, caller)
    house.advance(DAY_MS)

    def before(number):
        if number >= cut:
            raise Busy("the process is gone")

    with pytest.raises(Busy):
        await rotation(house, Steps(house.db, before)).turn()
    assert await pepper_of(house, caller) == old
    assert await found(house, caller, "u00007@example.org", old) == "@u7:x.org"
    await rotation(house).turn()
    new = await pepper_of(house, caller)
    assert new != old
    assert len(rows(house.path, "SELECT * FROM peppers")) == 2
    assert is_whole(house)


@pytest.mark.parametrize("when", [2, 3, 4, 5, 6])
@pytest_twisted.ensureDeferred
async def test_two_processes_that_rotate_at_once_do_no_harm(house, when):
    caller = await house.log_in()
    await fill(house, 1200)
    old = await pepper_of(house, caller)
    house.advance(DAY_MS)

    async def overtake():
        await rotation(house).turn()
        house.advance(1000)

    def before(number):
        return overtake() if number == when else None

    await rotation(house, Steps(house.db, before)).turn()
    new = await pepper_of(house, caller)
    # One replacement, and the new pepper is not taken for a retired one.
    assert rows(
        house.path, "SELECT pepper, current_since_ts, retired_ts FROM peppers ORDER BY pepper_id"
    ) == [
        (old, START_MS, START_MS + DAY_MS),
        (new, START_MS + DAY_MS, None),
    ]
    house.advance(2 * GRACE)
    await rotation(house).turn()
    assert await found(house, caller, "u00007@example.org", new) == "@u7:x.org"
    assert is_whole(house)
    house.advance(DAY_MS)
    await rotation(house).turn()
    assert await pepper_of(house, caller) not in (old, new)


# --- the service ---------------------------------------------------------------------------------------


async def settled(house):
    for _ in range(10):
        await house.db.write(lambda _tx: None)


@pytest_twisted.ensureDeferred
async def test_it_looks_once_a_minute_and_stops(house):
    caller = await house.log_in()
    old = await pepper_of(house, caller)
    service = rotation(house)
    service.startService()
    house.clock.rightNow += DAY_MS / 1000
    house.clock.advance(60)
    await settled(house)
    assert await pepper_of(house, caller) != old
    await service.stopService()
    assert house.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_turn_that_fails_is_tried_again(house):
    caller = await house.log_in()
    old = await pepper_of(house, caller)
    db = WatchedDatabase(house.db)
    db.refuse_writes = 2  # at the start, and in the first turn
    service = rotation(house, db)
    service.startService()
    house.clock.rightNow += DAY_MS / 1000
    house.clock.advance(60)
    await settled(house)
    assert await pepper_of(house, caller) == old
    house.clock.advance(60)
    await settled(house)
    assert await pepper_of(house, caller) != old
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_the_batch_at_hand_and_leaves_the_rest(house):
    caller = await house.log_in()
    await fill(house, 1200)
    old = await pepper_of(house, caller)
    reached, go = Deferred(), Deferred()

    async def hold():
        reached.callback(None)
        await go

    # The first pepper at the start and in the turn, the beginning, one batch.
    service = rotation(house, Steps(house.db, lambda number: hold() if number == 5 else None))
    service.startService()
    house.clock.rightNow += DAY_MS / 1000
    house.clock.advance(60)
    await reached
    stopped = Deferred.fromCoroutine(service.stopService())
    assert not stopped.called
    go.callback(None)
    await stopped
    assert house.clock.getDelayedCalls() == []
    assert await pepper_of(house, caller) == old
    await rotation(house).turn()
    assert is_whole(house)
