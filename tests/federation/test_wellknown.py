import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from sydentish.domain.ids import parse_server_name
from sydentish.federation.agent import RawAnswer
from sydentish.federation.wellknown import WellKnown, cache_seconds

MINUTE, HOUR = 60, 3600
DELEGATES = b'{"m.server": "matrix.a.org:443"}'
DELEGATED = parse_server_name("matrix.a.org:443")
# 2026-01-01T00:00:00Z
NOW = 1_767_225_600


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 24 * HOUR),
        ({"Cache-Control": "public"}, 24 * HOUR),
        ({"Cache-Control": "max-age=7200"}, 2 * HOUR),
        ({"Cache-Control": 'public, Max-Age="7200" '}, 2 * HOUR),
        ({"Cache-Control": "max-age=31536000"}, 48 * HOUR),
        ({"Cache-Control": "max-age=" + "9" * 400}, 48 * HOUR),
        ({"Cache-Control": "max-age=10"}, 5 * MINUTE),
        ({"Cache-Control": "max-age=0"}, 5 * MINUTE),
        ({"Cache-Control": "max-age=soon"}, 5 * MINUTE),
        ({"Cache-Control": "max-age=-1"}, 5 * MINUTE),
        ({"Cache-Control": "max-age"}, 5 * MINUTE),
        ({"Cache-Control": "no-store"}, 5 * MINUTE),
        ({"Cache-Control": "no-cache, max-age=7200"}, 5 * MINUTE),
        ({"Cache-Control": "max-age=7200", "Expires": "0"}, 2 * HOUR),
        ({"Expires": "Thu, 01 Jan 2026 03:00:00 GMT"}, 3 * HOUR),
        ({"Expires": "Thu, 01 Jan 2026 03:00:00 GMT", "Date": "Thu, 01 Jan 2026 01:00:00 GMT"}, 2 * HOUR),
        ({"Expires": "Thu, 01 Jan 2026 03:00:00 GMT", "Date": "today"}, 3 * HOUR),
        ({"Expires": "Thu, 01 Jan 2099 00:00:00 GMT"}, 48 * HOUR),
        ({"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 5 * MINUTE),
        ({"Expires": "0"}, 5 * MINUTE),
        ({"Expires": ""}, 5 * MINUTE),
    ],
)
def test_how_long_an_answer_is_kept(headers, seconds):
    assert cache_seconds(Headers({name: [value] for name, value in headers.items()}), NOW) == seconds


HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255))


@given(st.lists(st.tuples(st.sampled_from(["Cache-Control", "Expires", "Date"]), HEADER_TEXT)))
def test_whatever_the_headers_say_the_bounds_hold(lines):
    headers = Headers()
    for name, value in lines:
        headers.addRawHeader(name, value.encode("latin-1"))
    assert 5 * MINUTE <= cache_seconds(headers, NOW) <= 48 * HOUR


class Web:
    """An `Exchange`: answers by URL, 404 otherwise; a Deferred is awaited, an exception raised."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    async def __call__(self, route, request, max_bytes):
        assert (request.method, max_bytes) == ("GET", 51_200)
        assert route.tls_name == route.targets[0].host
        url = f"https://{route.host_header}{request.path}"
        self.asked.append(url)
        found = self.answers.get(url, response(404, b""))
        if isinstance(found, Exception):
            raise found
        return await found if isinstance(found, Deferred) else found


def response(status=200, body=DELEGATES, **headers):
    lines = {name.replace("_", "-").encode(): [value.encode("latin-1")] for name, value in headers.items()}
    return RawAnswer(status, Headers(lines), body)


@pytest.fixture
def web():
    return Web()


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW)
    return clock


@pytest.fixture
def well_known(web, clock):
    return WellKnown(clock=clock, exchange=web, time_limit=5, max_entries=3)


def url(host):
    return f"https://{host}/.well-known/matrix/server"


@pytest_twisted.ensureDeferred
async def test_a_delegation_is_found_and_kept_for_a_day(well_known, web, clock):
    web.answers[url("a.org")] = response(Content_Type="text/plain")
    assert await well_known.delegated("a.org") == DELEGATED
    clock.advance(24 * HOUR - 1)
    assert await well_known.delegated("a.org") == DELEGATED
    assert len(web.asked) == 1
    web.answers[url("a.org")] = response(body=b'{"m.server": "b.org"}', Cache_Control="max-age=600")
    clock.advance(1)
    assert await well_known.delegated("a.org") == parse_server_name("b.org")
    clock.advance(600)
    await well_known.delegated("a.org")
    assert len(web.asked) == 3
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "answered",
    [
        response(404, DELEGATES),
        response(204, b""),
        response(500, DELEGATES),
        response(body=b""),
        response(body=b"<html>"),
        response(body=b"\xff"),
        response(body=b"[]"),
        response(body=b'"matrix.a.org"'),
        response(body=b"{}"),
        response(body=b'{"m.server": null}'),
        response(body=b'{"m.server": 443}'),
        response(body=b'{"m.server": ""}'),
        response(body=b'{"m.server": "https://matrix.a.org"}'),
        response(body=b'{"m.server": "matrix.a.org:0"}'),
        response(body=b'{"m.server": "a b"}'),
        response(body=b"[" * 50_000),
        response(302),
        response(302, Location="http://a.org/x"),
        response(302, Location="ftp://a.org/x"),
        response(302, Location="https://user@b.org/x"),
        response(302, Location="https://[::1/x"),
        response(302, Location="https:///x"),
        response(302, Location="https://b.org:99999/x"),
        response(302, Location="https://b.org\u00e9/x"),
        ConnectionError(),
    ],
)
@pytest_twisted.ensureDeferred
async def test_anything_else_means_that_nothing_is_delegated(well_known, web, answered):
    web.answers[url("a.org")] = answered
    assert await well_known.delegated("a.org") is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest_twisted.ensureDeferred
async def test_redirects_are_followed(well_known, web, status):
    web.answers = {
        url("a.org"): response(status, Location="//b.org:8443/one?two#three"),
        "https://b.org:8443/one?two": response(status, Location="/four"),
        "https://b.org:8443/four": response(status, Location="https://[2606::1]"),
        "https://[2606::1]/": response(),
    }
    assert await well_known.delegated("a.org") == DELEGATED


@pytest_twisted.ensureDeferred
async def test_redirects_in_a_circle_end(well_known, web):
    web.answers[url("a.org")] = response(302, Location=url("a.org"))
    assert await well_known.delegated("a.org") is None
    assert len(web.asked) == 6


@pytest_twisted.ensureDeferred
async def test_errors_are_kept_longer_and_longer_up_to_an_hour(well_known, web, clock):
    for wait in (1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60):
        asked = len(web.asked)
        assert await well_known.delegated("a.org") is None
        clock.advance(wait * MINUTE - 1)
        assert await well_known.delegated("a.org") is None
        assert len(web.asked) == asked + 1
        clock.advance(1)
    web.answers[url("a.org")] = response()
    assert await well_known.delegated("a.org") == DELEGATED
    del web.answers[url("a.org")]
    clock.advance(24 * HOUR)
    assert await well_known.delegated("a.org") is None
    clock.advance(MINUTE)
    asked = len(web.asked)
    await well_known.delegated("a.org")
    assert len(web.asked) == asked + 1, "a success ends the growing"


@pytest_twisted.ensureDeferred
async def test_the_host_that_was_not_asked_about_for_longest_is_forgotten(well_known, web):
    for host in ("a", "b", "c", "a", "d"):
        await well_known.delegated(host)
    assert len(web.asked) == 4
    await well_known.delegated("a")
    assert len(web.asked) == 4
    await well_known.delegated("b")
    assert len(web.asked) == 5


@pytest_twisted.ensureDeferred
async def test_those_who_ask_at_the_same_time_share_one_request(well_known, web):
    pending = web.answers[url("a.org")] = Deferred()
    results = [Deferred.fromCoroutine(well_known.delegated("a.org")) for _ in range(3)]
    results[0].cancel()
    with pytest.raises(CancelledError):
        await results[0]
    pending.callback(response())
    assert [await result for result in results[1:]] == [DELEGATED, DELEGATED]
    assert len(web.asked) == 1


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_given_up_and_counts_as_an_error(well_known, web, clock):
    pending = web.answers[url("a.org")] = Deferred()
    result = Deferred.fromCoroutine(well_known.delegated("a.org"))
    clock.advance(4.9)
    assert not result.called
    clock.advance(0.2)
    assert await result is None
    assert pending.called


@pytest_twisted.ensureDeferred
async def test_a_request_that_was_given_up_is_not_remembered_as_an_error(well_known, web):
    pending = web.answers[url("a.org")] = Deferred()
    result = Deferred.fromCoroutine(well_known.delegated("a.org"))
    result.cancel()
    with pytest.raises(CancelledError):
        await result
    assert pending.called
    web.answers[url("a.org")] = response()
    assert await well_known.delegated("a.org") == DELEGATED
