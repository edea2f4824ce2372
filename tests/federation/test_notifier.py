import pytest
import pytest_twisted
from standins.behaviours import EndlessBody, Silence, answer, close, error, raw, redirect
from standins.homeserver import ONBIND
from twisted.internet.defer import CancelledError, Deferred

from sydentish.actions.ports import Delivered, Delivery, NotDelivered
from sydentish.federation.notifier import OnbindNotifier

# Neither canonical nor tidy: what was stored is what must arrive.
PAYLOAD = '{"b": 1,\n"a":"é \\u00e9", "signatures" : {} }'


@pytest.fixture
def notifier(make_client, clock):
    return OnbindNotifier(client=make_client(), clock=clock, time_limit=8)


def delivery(destination, method=None):
    return Delivery(outbox_id=1, destination=destination, payload=PAYLOAD, attempts=0, method=method)


def only(status, errcode="M_UNRECOGNIZED", method="POST", otherwise=None):
    """Answers one method with an error, and others otherwise."""

    def respond(request):
        told = error(status, errcode) if request.method == method.encode() else otherwise or answer(200)
        told(request)

    return respond


@pytest_twisted.ensureDeferred
async def test_the_payload_arrives_byte_for_byte(notifier, homeserver):
    assert await notifier.deliver(delivery(homeserver.server_name)) == Delivered("POST")
    received = await homeserver.next_onbind()
    assert (received.method, received.path, received.body) == ("POST", ONBIND, PAYLOAD.encode())
    assert received.headers["content-type"] == "application/json"
    assert "authorization" not in received.headers


@pytest.mark.parametrize(
    ("known", "before", "expected", "asked"),
    [
        ({"POST"}, None, "POST", ["POST"]),
        ({"PUT"}, None, "PUT", ["POST", "PUT"]),
        ({"PUT"}, "PUT", "PUT", ["PUT"]),
        ({"POST"}, "PUT", "POST", ["PUT", "POST"]),
        ({"POST", "PUT"}, "PUT", "PUT", ["PUT"]),
        ({"POST", "PUT"}, "POST", "POST", ["POST"]),
        ({"POST", "PUT"}, "GET", "POST", ["POST"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_other_method_is_tried_at_once(notifier, homeserver, *, known, before, expected, asked):
    homeserver.onbind_methods = known
    assert await notifier.deliver(delivery(homeserver.server_name, before)) == Delivered(expected)
    assert [request.method for request in homeserver.requests] == asked
    assert {request.body for request in homeserver.requests} == {PAYLOAD.encode()}


@pytest.mark.parametrize("status", [404, 405])
@pytest_twisted.ensureDeferred
async def test_404_leads_to_the_other_method_as_405_does(notifier, homeserver, status):
    homeserver.behaviours[ONBIND] = only(status)
    assert await notifier.deliver(delivery(homeserver.server_name)) == Delivered("PUT")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}"])
@pytest_twisted.ensureDeferred
async def test_any_2xx_is_a_delivery(notifier, homeserver, status, body):
    homeserver.behaviours[ONBIND] = answer(status, b"" if status == 204 else body)
    assert await notifier.deliver(delivery(homeserver.server_name)) == Delivered("POST")


@pytest.mark.parametrize(
    ("behaviour", "reason", "permanent"),
    [
        (error(408, "M_UNKNOWN"), "HTTP 408 M_UNKNOWN", False),
        (error(429, "M_LIMIT_EXCEEDED"), "HTTP 429 M_LIMIT_EXCEEDED", False),
        (error(500, "M_UNKNOWN"), "HTTP 500 M_UNKNOWN", False),
        (error(501, "M_UNRECOGNIZED"), "HTTP 501 M_UNRECOGNIZED", False),
        (answer(502, b"<html>user@example.org</html>"), "HTTP 502", False),
        (answer(503, {"errcode": "user@example.org"}), "HTTP 503", False),
        (redirect("https://example.org/"), "HTTP 302", False),
        (answer(304, b""), "HTTP 304", False),
        (error(400, "M_BAD_JSON"), "HTTP 400 M_BAD_JSON", True),
        (error(401, "M_UNAUTHORIZED"), "HTTP 401 M_UNAUTHORIZED", True),
        (error(403, "M_FORBIDDEN"), "HTTP 403 M_FORBIDDEN", True),
        (error(413, "M_TOO_LARGE"), "HTTP 413 M_TOO_LARGE", True),
        (
            error(404, "M_UNRECOGNIZED"),
            "HTTP 404 M_UNRECOGNIZED to POST, HTTP 404 M_UNRECOGNIZED to PUT",
            False,
        ),
        (only(404, otherwise=error(503, "M_UNKNOWN")), "HTTP 503 M_UNKNOWN", False),
        (only(405, otherwise=error(403, "M_FORBIDDEN")), "HTTP 403 M_FORBIDDEN", True),
        (close, "no usable answer", False),
        (raw(b"no http"), "no usable answer", False),
        (EndlessBody(), "the answer is too large", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_verdict_on_each_answer(notifier, homeserver, behaviour, reason, permanent):
    homeserver.behaviours[ONBIND] = behaviour
    assert await notifier.deliver(delivery(homeserver.server_name)) == NotDelivered(reason, permanent)


@pytest_twisted.ensureDeferred
async def test_trouble_with_the_connection_is_not_final(notifier, internet, start_homeserver, authority):
    homeserver = start_homeserver(authority.issue("other.example.org"))
    internet.names |= {"closed.org": ["1.2.3.9"], "inside.org": ["127.0.0.1"]}
    reasons = {
        homeserver.server_name: "certificate not accepted",
        "closed.org:443": "connection refused",
        "absent.org:443": "its name cannot be resolved",
        "inside.org:443": "its address is not one that may be connected to",
        "no server name": "its name is not a server name",
    }
    for destination, reason in reasons.items():
        verdict = await notifier.deliver(delivery(destination))
        assert verdict == NotDelivered(reason, permanent=False)


@pytest_twisted.ensureDeferred
async def test_one_time_limit_covers_both_methods(notifier, homeserver, clock):
    silence = Silence()
    homeserver.behaviours[ONBIND] = only(405, otherwise=silence)
    delivering = Deferred.fromCoroutine(notifier.deliver(delivery(homeserver.server_name)))
    await silence.asked
    clock.advance(7.9)
    assert not delivering.called
    clock.advance(0.2)
    assert await delivering == NotDelivered("timed out", permanent=False)
    await silence.gone
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_the_clients_time_limit_is_a_timeout_too(make_client, homeserver, clock):
    silence = homeserver.behaviours[ONBIND] = Silence()
    notifier = OnbindNotifier(client=make_client(), clock=clock, time_limit=100)
    delivering = Deferred.fromCoroutine(notifier.deliver(delivery(homeserver.server_name)))
    await silence.asked
    clock.advance(10)
    assert await delivering == NotDelivered("timed out", permanent=False)


@pytest_twisted.ensureDeferred
async def test_stopping_closes_the_connection(notifier, homeserver):
    silence = homeserver.behaviours[ONBIND] = Silence()
    delivering = Deferred.fromCoroutine(notifier.deliver(delivery(homeserver.server_name)))
    await silence.asked
    delivering.cancel()
    with pytest.raises(CancelledError):
        await delivering
    await silence.gone
