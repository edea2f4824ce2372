"""Health, over a real listener and a real database; what is wrong with it is made to happen."""

import os
import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest
import pytest_twisted
from store_tools import WatchedDatabase
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from sydentish.actions.health import Health, HealthLimits
from sydentish.actions.outbox import INVITE, KINDS, ONBIND
from sydentish.domain.keys import KeyRing, KeyState, make_key, parse_key
from sydentish.store import health as health_rows
from sydentish.store import outbox as outbox_rows
from sydentish.store.migrate import shipped_steps
from sydentish.store.sqlite import connect
from sydentish.web.admission import OpenAdmission
from sydentish.web.handlers.health import HealthHandlers
from sydentish.web.handlers.metrics import MetricsHandlers
from sydentish.web.routes import metrics_routes

SCHEMA = shipped_steps()[-1].number
OUTBOX_MS = 600_000
FREE = 64 * 1024 * 1024
CHECKS = {"server", "database", "key", "schema", "outbox", "disk"}


@pytest_twisted.async_yield_fixture
async def probed(make_house, serve_routes):
    """A server that can be asked for its health; parts of it that a test may spoil are attributes."""
    house = await make_house()
    probed = SimpleNamespace(house=house, stage="ready", free=lambda: FREE, db=WatchedDatabase(house.db))

    def health(schema=SCHEMA, keys=house.keys):
        return Health(
            db=probed.db,
            keys=keys,
            stage=lambda: probed.stage,
            free_bytes=lambda: probed.free(),  # noqa: PLW0108 - a test may replace it
            limits=HealthLimits(schema=schema, outbox_ms=OUTBOX_MS, free_bytes=FREE),
            clock=house.clock,
            now_ms=house.now_ms,
        )

    async def checks():
        return await probed.health.checks()

    probed.make, probed.health = health, health()
    server = await serve_routes(
        *metrics_routes(MetricsHandlers(None, "text/plain"), HealthHandlers(checks)),
        admission=OpenAdmission(),
    )
    probed.ask = server.ask
    probed.live = lambda: server.ask("GET", "/health/live")
    probed.ready = lambda: server.ask("GET", "/health/ready")
    yield probed


def failing(answer):
    """What is wrong, by check; the rest of the answer fits it."""
    found = answer.json["checks"]
    reasons = {name: each["reason"] for name, each in found.items() if not each["ok"]}
    assert all(each == {"ok": True} for name, each in found.items() if name not in reasons)
    assert answer.json["ready"] is (not reasons)
    assert answer.status == (503 if reasons else 200)
    return reasons


@pytest.fixture
def told():
    """What was logged of health."""
    lines = []

    def note(event):
        if event["log_namespace"].endswith("health"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    yield lines
    globalLogPublisher.removeObserver(note)


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_well_is_alive_and_ready(probed):
    assert (await probed.live()).json == {"live": True}
    answer = await probed.ready()
    assert failing(answer) == {}
    assert set(answer.json["checks"]) == CHECKS


@pytest_twisted.ensureDeferred
async def test_health_can_be_asked_by_head_and_by_no_other_method(probed):
    for path in ("/health/live", "/health/ready"):
        assert (await probed.ask("HEAD", path)).status == 200
        assert (await probed.ask("POST", path)).status == 405
    assert (await probed.ask("GET", "/health")).status == 404


@pytest.mark.parametrize("stage", ["starting", "stopping"])
@pytest_twisted.ensureDeferred
async def test_it_is_alive_but_not_ready_while_it_starts_or_stops_and_the_database_is_left_alone(
    probed, stage
):
    probed.stage = stage
    answer = await probed.ready()
    assert failing(answer) == {"server": f"the server is {stage}"}
    assert (await probed.live()).status == 200
    assert (probed.db.reads, probed.db.writes) == (0, 0)


# --- the database --------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_being_ready_is_something_that_was_written_to_the_disk(probed):
    def traces():
        with closing(sqlite3.connect(probed.house.path)) as connection:
            return connection.execute("SELECT value FROM counters WHERE name = 'health'").fetchall()

    assert traces() == []
    await probed.ready()
    assert traces() == [(1,)]


@pytest_twisted.ensureDeferred
async def test_however_many_ask_the_database_is_asked_once_a_second(probed):
    for _ in range(20):
        assert failing(await probed.ready()) == {}
    assert (probed.db.reads, probed.db.writes) == (1, 1)
    probed.house.advance(1000)
    await probed.ready()
    assert (probed.db.reads, probed.db.writes) == (2, 2)


@pytest_twisted.ensureDeferred
async def test_a_database_that_hangs_is_not_waited_for_longer_than_a_second(probed):
    reason = "the database did not answer within 1 s"
    released = threading.Event()
    hanging = probed.house.db.write(lambda _tx: released.wait())
    try:
        first = Deferred.fromCoroutine(probed.health.checks())
        probed.house.advance(999)
        assert not first.called
        probed.house.advance(1)
        assert (await first)["database"] == reason
        # Nobody who comes later waits, and nothing piles up behind the one question.
        for _ in range(20):
            probed.house.advance(1000)
            assert failing(await probed.ready())["database"] == reason
        assert probed.db.writes == 1
        assert (await probed.live()).status == 200
    finally:
        released.set()
    await hanging
    await probed.house.settled()
    probed.house.advance(1000)
    assert failing(await probed.ready()) == {}


@pytest_twisted.ensureDeferred
async def test_a_database_that_refuses_says_why(probed):
    probed.db.refuse_writes = 1
    assert failing(await probed.ready()) == {"database": "refused"}
    probed.house.advance(1000)
    probed.db.refuse_reads = 1
    assert failing(await probed.ready()) == {"schema": "refused", "outbox": "refused", "disk": "refused"}
    probed.house.advance(1000)
    assert failing(await probed.ready()) == {}


@pytest_twisted.ensureDeferred
async def test_a_database_of_which_a_table_is_gone_is_none(probed):
    with closing(connect(probed.house.path, 5000)) as other:
        other.execute("DROP TABLE counters")
    assert failing(await probed.ready()) == {"database": "it failed: OperationalError"}


@pytest_twisted.ensureDeferred
async def test_the_schema_must_be_that_of_this_program(probed):
    with closing(connect(probed.house.path, 5000)) as other:
        other.execute("INSERT INTO schema_steps VALUES (?, 'from the future', 0)", (SCHEMA + 1,))
    assert failing(await probed.ready()) == {
        "schema": f"the database has schema {SCHEMA + 1}, and this program works with {SCHEMA}"
    }


# --- the key, and the disk -----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_key_that_may_not_sign_is_none(probed):
    ring = KeyRing("id.example.org", parse_key(make_key("0", bytes(32)), KeyState.REVOKED))
    probed.health = probed.make(keys=ring)
    assert failing(await probed.ready()) == {"key": "no active signing key is loaded"}
    ring.adopt(probed.house.keys)
    assert failing(await probed.ready()) == {}


@pytest_twisted.ensureDeferred
async def test_there_must_be_space_on_the_disk(probed):
    probed.free = lambda: FREE - 1
    assert failing(await probed.ready()) == {
        "disk": f"{FREE - 1} bytes are free where the database is; the limit is {FREE}"
    }


@pytest_twisted.ensureDeferred
async def test_a_disk_that_cannot_be_looked_at_is_no_good_sign(probed):
    def broken():
        raise OSError(5, "Input/output error")

    probed.free = broken
    assert failing(await probed.ready())["disk"] == "it failed: OSError"


def test_the_space_is_that_of_the_file_system_of_the_database(tmp_path):
    found = os.statvfs(tmp_path)
    assert 0 < health_rows.free_bytes(tmp_path / "sydentish.db") <= found.f_blocks * found.f_frsize


# --- the outbox ----------------------------------------------------------------------------------------


def due(probed, destination="hs.example.org", kind=ONBIND):
    return probed.house.db.write(
        lambda tx: outbox_rows.add(
            tx,
            kind=kind,
            destination=destination,
            idempotency_key=f"{kind} {destination}",
            payload="{}",
            now_ms=probed.house.now_ms(),
        )
    )


def lease(probed, lease_ms, kind=ONBIND):
    return probed.house.db.write(
        lambda tx: outbox_rows.lease(tx, kind, probed.house.now_ms(), lease_ms, 10, failing=False)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_what_is_due_and_nobody_tries_means_that_nobody_works(probed, kind):
    await due(probed, kind=kind)
    probed.house.advance(OUTBOX_MS)
    assert failing(await probed.ready()) == {}
    probed.house.advance(1000)
    assert failing(await probed.ready()) == {
        "outbox": f"a row of the kind {kind} is due for 601 s, and nobody tries to deliver it; the limit is 600 s"
    }


@pytest_twisted.ensureDeferred
async def test_what_was_due_before_the_server_began_counts_from_its_beginning(probed):
    await due(probed, kind=INVITE)
    probed.house.advance(24 * 3600 * 1000)
    probed.health = probed.make()
    probed.house.advance(OUTBOX_MS)
    assert failing(await probed.ready()) == {}
    probed.house.advance(1000)
    assert set(failing(await probed.ready())) == {"outbox"}


@pytest_twisted.ensureDeferred
async def test_what_is_being_tried_does_not_count_until_its_lease_has_run_out(probed):
    await due(probed)
    probed.house.advance(OUTBOX_MS)
    await lease(probed, 15_000)
    probed.house.advance(14_999)
    assert failing(await probed.ready()) == {}
    probed.house.advance(1001)
    assert set(failing(await probed.ready())) == {"outbox"}


@pytest_twisted.ensureDeferred
async def test_a_homeserver_that_is_away_for_days_is_no_sickness_of_this_server(probed):
    await due(probed)
    (leased,) = await lease(probed, 15_000)
    now_ms = probed.house.now_ms()
    await probed.house.db.write(
        outbox_rows.retry, ONBIND, leased, now_ms + 1000, "away", now_ms=now_ms, jitter=0.0
    )
    probed.house.advance(3 * 24 * 3600 * 1000)
    assert failing(await probed.ready()) == {}
    # Another one is well, and waits.
    await due(probed, "other.example.org")
    probed.house.advance(OUTBOX_MS + 1000)
    assert set(failing(await probed.ready())) == {"outbox"}


@pytest_twisted.ensureDeferred
async def test_limits_can_be_switched_off(probed):
    await due(probed)
    probed.free = lambda: 0
    house = probed.house
    probed.health = Health(
        db=probed.db,
        keys=house.keys,
        stage=lambda: "ready",
        free_bytes=probed.free,
        limits=HealthLimits(schema=SCHEMA, outbox_ms=None, free_bytes=None),
        clock=house.clock,
        now_ms=house.now_ms,
    )
    house.advance(24 * 3600 * 1000)
    assert failing(await probed.ready()) == {}


# --- what is logged ------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_change_is_told_once(probed, told):
    await probed.ready()
    probed.free = lambda: 1
    for _ in range(3):
        probed.house.advance(1000)
        await probed.ready()
    probed.free = lambda: FREE
    for _ in range(3):
        probed.house.advance(1000)
        await probed.ready()
    assert told == [
        f"not ready: disk: 1 bytes are free where the database is; the limit is {FREE}",
        "ready again",
    ]


def test_this_would_notice_an_answer_that_does_not_fit():
    answer = SimpleNamespace(
        status=200, json={"ready": True, "checks": {"disk": {"ok": False, "reason": "x"}}}
    )
    with pytest.raises(AssertionError):
        failing(answer)
