"""The main job as processes and sockets: what is answered with 200 survives everything."""

import json
import re
import signal

import pytest
import pytest_twisted
from daemons import BASE, SECONDS
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from unpaddedbase64 import decode_base64


async def verify_key(daemon):
    status, answer = await daemon.ask("GET", "/v2/pubkey/ed25519:0")
    assert status == 200
    return decode_verify_key_bytes("ed25519:0", decode_base64(answer["public_key"]))


@pytest_twisted.ensureDeferred
async def test_a_bind_reaches_the_homeserver_signed(town):
    mxid = await town.register()
    session = await town.prove("Alice@Example.ORG")
    status, association = await town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": mxid})
    assert status == 200
    assert association["address"] == "alice@example.org"
    key = await verify_key(town.daemon)
    verify_signed_json(association, "id.example.org", key)
    call = await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    assert (call.method, call.path) == ("POST", "/_matrix/federation/v1/3pid/onbind")
    body = json.loads(call.body)
    verify_signed_json(body, "id.example.org", key)
    assert {key: body[key] for key in ("medium", "address", "mxid", "invites")} == {
        "medium": "email",
        "address": "alice@example.org",
        "mxid": mxid,
        "invites": [],
    }


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_bind_outlives_the_process_and_is_delivered_exactly_as_signed(town, how):
    mxid = await town.register()
    session = await town.prove("alice@example.org")
    port = town.homeserver.port
    await town.homeserver.stop()
    status, _ = await town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": mxid})
    assert status == 200
    await town.daemon.process.says("was not delivered")
    stored = await stored_payload(town)
    await town.daemon.end(how)

    await town.daemon.start()
    town.homeserver = Homeserver(town.certificate)
    town.homeserver.start(reactor, port)
    call = await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    assert call.body == stored
    verify_signed_json(json.loads(call.body), "id.example.org", await verify_key(town.daemon))


async def stored_payload(town):
    """What the outbox has for the homeserver, read as another process would."""
    import sqlite3  # noqa: PLC0415 - only here

    connection = sqlite3.connect(town.daemon.folder / "data" / "sydentish.db")
    ((payload,),) = connection.execute("SELECT payload FROM outbox WHERE state = 'pending'").fetchall()
    connection.close()
    return payload.encode()


@pytest_twisted.ensureDeferred
async def test_everything_that_was_answered_is_there_after_a_kill(town):
    mxid = await town.register()
    sessions = [await town.prove(f"user{number}@example.org", f"secret{number}") for number in range(5)]
    answers = await gatherResults(
        [town_ask(town, "POST", "/v2/3pid/bind", {**session, "mxid": mxid}) for session in sessions]
    )
    await town.daemon.end(signal.SIGKILL)
    assert [status for status, _ in answers] == [200] * 5
    await town.daemon.start()
    _, details = await town.daemon.ask("GET", "/v2/hash_details")
    asked = [f"user{number}@example.org email" for number in range(5)]
    body = {"algorithm": "none", "pepper": details["lookup_pepper"], "addresses": asked}
    status, found = await town.daemon.ask("POST", "/v2/lookup", body)
    assert (status, found) == (200, {"mappings": dict.fromkeys(asked, mxid)})


def town_ask(town, *arguments):
    from twisted.internet.defer import Deferred  # noqa: PLC0415 - only here

    return Deferred.fromCoroutine(town.daemon.ask(*arguments))


@pytest_twisted.ensureDeferred
async def test_nothing_personal_or_secret_is_in_the_log_or_the_metrics(town):
    mxid = await town.register()
    session = await town.prove("canary@example.org", "canary-secret")
    await town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": mxid})
    await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    _, details = await town.daemon.ask("GET", f"/v2/hash_details?access_token={town.daemon.token}")
    body = {
        "algorithm": "none",
        "pepper": details["lookup_pepper"],
        "addresses": ["canary@example.org email"],
    }
    await town.daemon.ask("POST", "/v2/lookup", body)
    town.mailbox.stop()
    failing = {"client_secret": "canary-secret", "email": "canary@example.org", "send_attempt": 2}
    status, error = await town.daemon.ask("POST", "/v2/validate/email/requestToken", failing)
    assert (status, error["errcode"]) == (400, "M_EMAIL_SEND_ERROR")
    town.mailbox = Mailbox(reactor=reactor)
    town.mailbox.start()
    metrics = await town.daemon.metrics()
    token = town.daemon.token
    assert await town.daemon.end() == 0
    for secret in ("canary", token, session["sid"], "openid-alice"):
        assert secret not in town.daemon.output
        assert secret not in metrics
    assert re.search(
        r"request method=POST route=v2/3pid/bind status=200 ms=\S+ request_id=\w+", town.daemon.output
    )
    assert "?" not in "".join(line for line in town.daemon.output.splitlines() if "request_id=" in line)


@pytest_twisted.ensureDeferred
async def test_metrics_tell_of_requests_mails_deliveries_and_the_process(town):
    mxid = await town.register()
    session = await town.prove("alice@example.org")
    await town.daemon.ask("POST", "/v2/3pid/bind", {**session, "mxid": mxid})
    await town.homeserver.next_onbind().addTimeout(SECONDS, reactor)
    metrics = await town.daemon.metrics()
    for line in (
        'sydentish_http_requests_total{method="POST",route="v2/3pid/bind",status="200"} 1.0',
        'sydentish_sends_total{channel="email",outcome="sent",provider="relay"} 1.0',
        'sydentish_outbox_rows{kind="onbind",state="dead"} 0.0',
        'sydentish_http_request_duration_seconds_count{route="v2/3pid/bind"} 1.0',
    ):
        assert line in metrics
    assert "process_resident_memory_bytes" in metrics


@pytest_twisted.ensureDeferred
async def test_a_preflight_and_an_error_carry_the_headers_browsers_need(town):
    for method, path in (("OPTIONS", "/v2/lookup"), ("GET", "/v2/account"), ("GET", "/nothing")):
        response = await town.daemon.raw(method, path)
        await response.content()
        assert response.headers.getRawHeaders("access-control-allow-origin") == ["*"]
        allowed = response.headers.getRawHeaders("access-control-allow-headers")[0].lower()
        assert "authorization" in allowed
        assert "content-type" in allowed
    assert BASE == "/_matrix/identity"
