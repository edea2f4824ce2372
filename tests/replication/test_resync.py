"""Comparing with a peer, and sending what it lacks; both sides are real, over real mutual TLS."""

import json

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from replication.listening_peer import Node, public, ring
from replication.mutual import HERE, THERE
from standins.behaviours import answer, close, error
from store_tools import START_MS

from sydentish.domain.associations import Association
from sydentish.domain.peers import DIGESTS_PATH, PUSH_PATH, Peer
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.replication.link import Answer
from sydentish.replication.resync import Resync, Resynced, read_digests
from sydentish.store import peers as peer_rows
from sydentish.store import pushes as push_rows
from sydentish.store import statements as statement_rows

pytestmark = pytest.mark.usefixtures("quiet_log")

ANN, BOB = "@ann:hs.example.org", "@bob:hs.example.org"
HASH = "a" * 64


def address(number):
    return Threepid(EMAIL, f"u{number}@example.org")


@pytest_twisted.async_yield_fixture
async def here(tmp_path):
    node = Node(tmp_path, HERE, 1)
    await node.start()
    yield node
    await node.stop()


@pytest_twisted.async_yield_fixture
async def there(tmp_path, here, credentials):
    """A peer of ours that knows us, and that we know."""
    node = Node(tmp_path, THERE, 2)
    await node.start()
    await node.knows(Peer(HERE, "https://here.example.org", public(here.keys), (HERE,)))
    await node.listen(credentials(THERE).load())
    await here.knows(node.as_peer())
    yield node
    await node.stop()


@pytest.fixture
def resync(here, make_link):
    async def run(peer, **options):
        options = {"batch_size": 500, "on_progress": lambda _done, _of: None, "keys": here.keys, **options}
        return await Resync(db=here.db, link=make_link(max_bytes=2**20), now_ms=here.now_ms, **options).run(
            peer
        )

    return run


async def bind(node, numbers, mxid=ANN):
    """Binds many addresses in one transaction."""

    def do(tx):
        for number in numbers:
            node.statements.bind(tx, address(number), mxid, node.now_ms())

    await node.db.write(do)


async def same(here, there):
    """Whether both know the same of our statements."""
    bounds = (HERE, 0, 1_000_000, 1)
    return await here.db.read(statement_rows.digests, *bounds) == await there.db.read(
        statement_rows.digests, *bounds
    )


async def state_of(here):
    return await here.db.read(peer_rows.state, THERE)


async def acknowledged(here, until_id):
    """The peer has acknowledged up to a number, as the server would have noted it."""

    def note(tx):
        lease = push_rows.lease(tx, THERE, START_MS, 5000)
        push_rows.acknowledged(tx, THERE, push_rows.Batch((), until_id, moves_on=True), lease, START_MS)

    await here.db.write(note)


# --- between two of ours ----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_where_nothing_is_missing(here, there, resync):
    await bind(here, range(30))
    assert (await resync(there.as_peer())).sent == 30
    assert await resync(there.as_peer()) == Resynced(compared=30)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_without_any_statement_there_is_nothing_to_do(there, resync):
    assert await resync(there.as_peer()) == Resynced()


@pytest_twisted.ensureDeferred
async def test_what_is_lost_there_comes_back(here, there, resync):
    await bind(here, range(2500))
    await resync(there.as_peer())
    lost = [7, 8, 99, 100, 101, 1200, 2400, 2500]

    def lose(tx):
        for origin_id in lost:
            tx.run("DELETE FROM associations WHERE origin_id = ?", (origin_id,))

    await there.db.write(lose)
    assert not await same(here, there)
    assert await resync(there.as_peer(), batch_size=3) == Resynced(compared=2500, sent=len(lost))
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_numbers_far_apart_are_found(here, there, resync):
    for first in (5, 99_999, 100_000, 250_000):
        await here.db.write(lambda tx, n=first: tx.run("UPDATE counters SET value = ?", (n,)) or n)
        await bind(here, [first])
    progress = []
    found = await resync(there.as_peer(), on_progress=lambda done, of: progress.append((done, of)))
    assert found == Resynced(compared=4, sent=4)
    assert progress[-1][0] == progress[-1][1]
    assert progress == sorted(progress)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_unbinds_and_what_was_bound_again_are_compared_too(here, there, resync):
    await bind(here, range(4))
    await resync(there.as_peer())
    await here.unbind(address(0))
    await here.unbind(address(1))
    await here.bind(address(1), BOB)
    found = await resync(there.as_peer())
    assert (found.compared, found.sent, found.foreign, found.outdated) == (4, 2, 0, 0)
    assert await same(here, there)


@pytest_twisted.ensureDeferred
async def test_the_cursor_stays_where_it_is(here, there, resync):
    await bind(here, range(20))
    await acknowledged(here, 12)
    await resync(there.as_peer())
    assert (await state_of(here)).acknowledged_id == 12


@pytest_twisted.ensureDeferred
async def test_what_is_erased_cannot_be_sent(here, there, resync):
    await bind(here, range(3))
    await here.unbind(address(1))
    # It has said so, and then lost it.
    await acknowledged(here, 4)
    found = await resync(there.as_peer())
    assert found == Resynced(compared=3, sent=2, erased=1)


@pytest_twisted.ensureDeferred
async def test_what_lost_to_another_server_there_is_told(here, there, resync):
    await bind(here, range(3))
    newer = Association(address(1), BOB, START_MS + 5, 0, 2**50, "third.example.org", 1)
    await there.take(newer)
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=3, outdated=1)


@pytest_twisted.ensureDeferred
async def test_what_only_the_peer_knows_is_told(here, there, resync):
    await bind(here, range(3))
    for number in (9, 50_000, 100_002):
        await there.take(Association(address(number), BOB, START_MS, 0, 2**50, HERE, number))
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=3, foreign=3)


@pytest_twisted.ensureDeferred
async def test_what_was_parked_and_is_taken_is_parked_no_longer(here, there, resync):
    await bind(here, range(3))
    await here.db.write(push_rows.hold_back, THERE, [1, 3], "once", START_MS)
    assert await resync(there.as_peer()) == Resynced(compared=3, sent=3)
    assert await here.db.read(push_rows.parked, THERE) == []


@pytest_twisted.ensureDeferred
async def test_a_tombstone_that_was_parked_is_erased_once_it_is_taken(here, there, resync):
    await bind(here, [1])
    await resync(there.as_peer())
    await here.unbind(address(1))
    await here.db.write(push_rows.hold_back, THERE, [2], "once", START_MS)
    await acknowledged(here, 2)
    assert await here.db.read(statement_rows.unerased) == 1
    assert (await resync(there.as_peer())).sent == 1
    assert await here.db.read(statement_rows.unerased) == 0


# --- refusals ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_peer_with_a_slow_clock_refuses_what_is_new(here, there, resync):
    await bind(here, [1, 2])
    here.now_ms.ms += 3_600_000
    await bind(here, [3])
    found = await resync(there.as_peer())
    (reason,) = found.refused.values()
    assert "is dated 3600 s in the future" in reason
    assert (found.sent, found.refused.keys(), found.failure) == (2, {3}, None)
    assert await here.db.read(push_rows.parked, THERE) == [(3, reason)]
    # Once more, it is refused alone, and that is still no failure.
    again = await resync(there.as_peer())
    assert (again.sent, again.refused.keys(), again.failure) == (0, {3}, None)


@pytest_twisted.ensureDeferred
async def test_who_refuses_everything_has_something_against_us(here, there, resync):
    await bind(here, range(5))
    found = await resync(there.as_peer(), keys=ring(HERE, 9))
    assert (found.sent, found.refused) == (0, {})
    assert f"has a wrong signature of {HERE}" in found.failure
    assert await here.db.read(push_rows.parked, THERE) == []


@pytest_twisted.ensureDeferred
async def test_who_does_not_know_us_is_told(here, there, resync):
    await bind(here, [1])
    await there.db.write(peer_rows.remove, HERE)
    found = await resync(there.as_peer())
    assert found.failure == "it was asked what it knows, and answers HTTP 403 M_UNKNOWN_PEER"


# --- other peers ------------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def other(start_peer, here):
    """A peer of another making, that we know."""
    server = await start_peer()
    await here.knows(server.peer())
    await bind(here, range(3))
    yield server


def answers(digests, push=None):
    def respond(request):
        behaviour = {DIGESTS_PATH: digests, PUSH_PATH: push}[request.uri.decode()]
        behaviour(request)

    return respond


@pytest_twisted.ensureDeferred
async def test_a_sydent_is_sent_everything_again(here, other, resync):
    await acknowledged(here, 3)
    other.behaviour = answers(answer(404, b"<html>No Such Resource</html>"))
    here.now_ms.ms += 1000
    assert await resync(other.peer()) == Resynced(starts_over=True)
    state = await state_of(here)
    assert (state.acknowledged_id, state.since_ts) == (0, START_MS + 1000)


@pytest.mark.parametrize(
    ("digests", "failure"),
    [
        (error(404, "M_UNRECOGNIZED"), "it was asked what it knows, and answers HTTP 404 M_UNRECOGNIZED"),
        (answer(500), "it was asked what it knows, and answers HTTP 500"),
        (close, "it closed the connection before it had answered"),
        (
            answer(200, b"rubbish"),
            "it was asked what it knows, and its answer makes no sense: there are no digests",
        ),
        (
            answer(200, {"digests": {"5": [1, HASH]}}),
            "it was asked what it knows, and its answer makes no sense",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_answers_rubbish_is_sent_nothing(here, other, resync, digests, failure):
    other.behaviour = answers(digests)
    found = await resync(other.peer())
    assert found.failure.startswith(failure)
    assert [sent.target for sent in other.arrivals] == [DIGESTS_PATH]
    assert (await state_of(here)).acknowledged_id == 0


@pytest_twisted.ensureDeferred
async def test_a_push_that_fails_ends_it(other, resync):
    other.behaviour = answers(answer(200, {"digests": {}}), answer(503))
    found = await resync(other.peer())
    assert (found.failure, found.sent) == ("HTTP 503", 0)


@pytest_twisted.ensureDeferred
async def test_who_refuses_one_after_the_other_is_sent_the_rest(here, other, resync):
    def refuse(request):
        request.content.seek(0)
        told = json.loads(request.content.read())["sgAssocs"]
        refused = [each for each in ("2", "3") if each in told][:1]
        failed = {"errcode": "M_VERIFICATION_FAILED", "error": "no", "failed_ids": refused}
        (answer(400, failed) if refused else answer(200, {"success": True}))(request)

    def respond(request):
        (refuse if request.uri.decode() == PUSH_PATH else answer(200, {"digests": {}}))(request)

    other.behaviour = respond
    found = await resync(other.peer())
    assert (found.sent, found.refused) == (1, {2: "no", 3: "no"})
    assert [number for number, _ in await here.db.read(push_rows.parked, THERE)] == [2, 3]


# --- what is answered -------------------------------------------------------------------------------------


def test_digests_are_read():
    told = Answer(200, {"digests": {"100": [2, HASH], "300": [100, HASH]}})
    assert read_digests(told, 100, 400, 100) == {100: (2, HASH), 300: (100, HASH)}


@pytest.mark.parametrize(
    "digests",
    [
        None,
        [],
        {"0": [1, HASH]},
        {"400": [1, HASH]},
        {"150": [1, HASH]},
        {"0100": [1, HASH]},
        {"x": [1, HASH]},
        {"100": [0, HASH]},
        {"100": [101, HASH]},
        {"100": [True, HASH]},
        {"100": [1.0, HASH]},
        {"100": [1]},
        {"100": [1, HASH, 1]},
        {"100": {"0": 1, "1": HASH}},
        {"100": [1, HASH.upper()]},
        {"100": [1, HASH + "\n"]},
        {"100": [1, None]},
        {str(start): [1, HASH] for start in range(100, 100_300, 100)},
    ],
)
def test_what_was_not_asked_for_is_refused(digests):
    with pytest.raises(ValueError, match="digest"):
        read_digests(Answer(200, {"digests": digests}), 100, 400, 100)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HASH),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["100", "200"]), inner),
)


@given(JSON)
def test_whatever_is_answered_is_read_or_refused(digests):
    try:
        found = read_digests(Answer(200, {"digests": digests}), 100, 400, 100)
    except ValueError:
        return
    assert set(found) <= {100, 200, 300}
