"""Commands and the purge beside a server that runs: nothing is kept that need not be."""

import json
import sqlite3
from contextlib import closing

import pytest_twisted
from daemons import SECONDS, Process
from standins.behaviours import answer
from twisted.internet import reactor
from twisted.internet.task import deferLater

ONBIND = "/_matrix/federation/v1/3pid/onbind"
OLD = 1_600_000_000_000


async def run(town, *arguments):
    """What a command prints."""
    process = Process(*arguments, "-c", str(town.daemon.config))
    assert await process.ended.addTimeout(SECONDS, reactor) == 0, process.output
    return process.output


async def bound(town, address):
    """A user to whom an address is bound."""
    mxid = await town.register()
    session = await town.prove(address)
    status, answered = await town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": mxid})
    assert status == 200, answered
    return mxid


@pytest_twisted.ensureDeferred
async def test_what_was_given_up_is_delivered_once_an_operator_says_so(town):
    town.homeserver.behaviours[ONBIND] = answer(403, {"errcode": "M_FORBIDDEN"})
    await bound(town, "alice@example.org")
    await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    await town.daemon.process.says("given up")
    (dead,) = json.loads(await run(town, "outbox", "list", "--state", "dead", "--json"))["rows"]
    assert (dead["kind"], dead["last_error"]) == ("onbind", "HTTP 403 M_FORBIDDEN")
    del town.homeserver.behaviours[ONBIND]
    await run(town, "outbox", "retry", str(dead["id"]))
    call = await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    assert json.loads(call.body)["address"] == "alice@example.org"


@pytest_twisted.ensureDeferred
async def test_a_user_is_erased_from_under_a_running_server(town):
    address = "alice.canary@example.org"
    mxid = await bound(town, address)
    await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    found = json.loads(await run(town, "erase", "--mxid", mxid, "--yes", "--json"))
    assert (found["erased"]["associations"], found["erased"]["access_tokens"]) == (1, 1)
    assert found["remains"]["homeservers_not_told"] == [town.homeserver.server_name]
    status, _ = await town.daemon.ask("GET", "/v2/account")
    assert status == 401
    assert found["remains"]["left_the_disk"]
    held = b"".join(path.read_bytes() for path in (town.daemon.folder / "data").glob("sydentish.db*"))
    assert address.encode() not in held
    # And it goes on as if nothing had been.
    await bound(town, address)


@pytest_twisted.ensureDeferred
async def test_who_is_logged_out_is_asked_to_register_again(town):
    mxid = await town.register()
    assert (await town.daemon.ask("GET", "/v2/account"))[0] == 200
    assert "1 access tokens" in await run(town, "accounts", "logout", mxid)
    assert (await town.daemon.ask("GET", "/v2/account"))[0] == 401
    (account,) = json.loads(await run(town, "accounts", "list", "--json"))["accounts"]
    assert (account["user_id"], account["access_tokens"]) == (mxid, 0)


@pytest_twisted.ensureDeferred
async def test_what_is_old_goes_while_the_server_runs(town):
    with closing(sqlite3.connect(town.daemon.folder / "data" / "sydentish.db")) as connection:
        connection.execute(
            "INSERT INTO validation_sessions VALUES ('s', 'email', 'old@x.org', 'h', 1, NULL, ?, NULL)",
            (OLD,),
        )
        connection.commit()
    mxid = await town.register()
    purged = 'sydentish_purged_rows_total{what="sessions"} 1.0'
    for _ in range(SECONDS):
        if purged in await town.daemon.metrics():
            break
        await deferLater(reactor, 1, lambda: None)
    else:
        raise AssertionError(await town.daemon.metrics())
    assert (await town.daemon.ask("GET", "/v2/account"))[1] == {"user_id": mxid}
