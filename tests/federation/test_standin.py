import json
import sys

import pytest_twisted
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from standins.homeserver import KEYS, ONBIND, USERINFO
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from unpaddedbase64 import decode_base64

from sydentish.federation.agent import Request
from sydentish.federation.discovery import Route, Target
from sydentish.federation.tls import tls_options


@pytest_twisted.ensureDeferred
async def test_it_publishes_a_key_that_signs_itself(make_client, homeserver):
    published = (await make_client().request("GET", homeserver.server_name, KEYS)).body
    key_id, key = next(iter(published["verify_keys"].items()))
    verify_signed_json(
        published, homeserver.server_name, decode_verify_key_bytes(key_id, decode_base64(key["key"]))
    )


@pytest_twisted.ensureDeferred
async def test_what_it_does_not_know_is_refused_as_homeservers_do(make_client, homeserver):
    client, name = make_client(), homeserver.server_name
    unknown = await client.request("GET", name, USERINFO, {"access_token": "x"})
    assert (unknown.status, unknown.errcode) == (401, "M_UNKNOWN_TOKEN")
    absent = await client.request("GET", name, "/absent")
    assert (absent.status, absent.errcode) == (404, "M_UNRECOGNIZED")


@pytest_twisted.ensureDeferred
async def test_calls_that_come_and_calls_that_came_are_handed_out_in_order(make_client, homeserver):
    coming = homeserver.next_onbind()
    for body in (b"1", b"2"):
        await make_client().request("PUT", homeserver.server_name, ONBIND, json_body=body)
    assert ((await coming).body, (await homeserver.next_onbind()).body) == (b"1", b"2")


class Lines(ProcessProtocol):
    """The output of a process, line by line."""

    def __init__(self):
        self.ended = Deferred()
        self._buffer = b""
        self._next = Deferred()

    def outReceived(self, data):
        self._buffer += data
        if b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            waiter, self._next = self._next, Deferred()
            waiter.callback(json.loads(line))

    def line(self):
        return self._next

    def processEnded(self, reason):
        self.ended.errback(reason)


@pytest_twisted.ensureDeferred
async def test_it_runs_as_a_process(make_https, internet, tmp_path, pytestconfig):
    process = Lines()
    listening, onbind = process.line(), None
    arguments = ["--write-ca", str(tmp_path / "ca.pem"), "--token", "secret=alice"]
    running = reactor.spawnProcess(
        process,
        sys.executable,
        [sys.executable, "-m", "standins.homeserver", *arguments],
        env={"PYTHONPATH": str(pytestconfig.rootpath / "scripts")},
    )
    try:
        port = (await listening)["port"]
        onbind = process.line()
        internet.names["localhost"], internet.routes["1.2.3.4", port] = ["1.2.3.4"], port
        https = make_https(tls=tls_options(tmp_path / "ca.pem", verify=True))
        route = Route((Target("localhost", port),), "localhost", f"localhost:{port}")
        received = await https(route, Request("GET", f"{USERINFO}?access_token=secret"), 1000)
        assert json.loads(received.body) == {"sub": f"@alice:localhost:{port}"}
        await https(route, Request("POST", ONBIND, b'{"a": 1}'), 1000)
        assert (await onbind)["body"] == '{"a": 1}'
    finally:
        running.signalProcess("TERM")
        await process.ended.addErrback(lambda failure: failure.trap(ProcessDone, ProcessTerminated))
