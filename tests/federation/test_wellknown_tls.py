"""Delegation over real sockets and real TLS."""

import pytest
import pytest_twisted
from standins.behaviours import EndlessBody, answer, raw, redirect
from standins.homeserver import WELL_KNOWN

from sydentish.domain.ids import parse_server_name
from sydentish.federation.wellknown import WellKnown

DELEGATES = b'{"m.server": "matrix.a.org:443"}'
DELEGATED = parse_server_name("matrix.a.org:443")


def url(host):
    return f"https://{host}/.well-known/matrix/server"


@pytest.fixture
def over_tls(make_https, clock):
    return WellKnown(clock=clock, exchange=make_https(), time_limit=5)


@pytest_twisted.ensureDeferred
async def test_over_tls_with_a_redirect_to_another_host(over_tls, start_homeserver, authority):
    first = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    second = start_homeserver(authority.issue("b.org"), "b.org", "1.2.3.5", port=443)
    first.behaviours[WELL_KNOWN] = redirect(url("b.org"))
    second.behaviours[WELL_KNOWN] = answer(200, DELEGATES)
    assert await over_tls.delegated("a.org") == DELEGATED
    assert [first.requests[0].headers["host"], second.requests[0].headers["host"]] == ["a.org", "b.org"]
    assert first.requests[0].headers["user-agent"] == "Sydentish/0"


@pytest.mark.parametrize("inside", ["127.0.0.1", "[::ffff:127.0.0.1]", "inside.org", "mapped.org"])
@pytest_twisted.ensureDeferred
async def test_a_redirect_into_the_own_network_is_refused(
    over_tls, start_homeserver, authority, internet, inside
):
    names = ["a.org", "127.0.0.1", "inside.org", "mapped.org"]
    homeserver = start_homeserver(authority.issue(*names), "a.org", port=443)
    internet.names |= {"inside.org": ["127.0.0.1"], "mapped.org": ["::ffff:127.0.0.1"]}
    internet.routes["127.0.0.1", 443] = homeserver.port
    homeserver.behaviours[WELL_KNOWN] = redirect(f"https://{inside}/secret")
    assert await over_tls.delegated("a.org") is None
    assert internet.connected == [("1.2.3.4", 443)]
    assert len(homeserver.requests) == 1


@pytest_twisted.ensureDeferred
async def test_the_certificate_of_each_hop_is_checked(over_tls, start_homeserver, authority):
    first = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    second = start_homeserver(authority.issue("other.org"), "b.org", "1.2.3.5", port=443)
    first.behaviours[WELL_KNOWN] = redirect(url("b.org"))
    second.behaviours[WELL_KNOWN] = answer(200, DELEGATES)
    assert await over_tls.delegated("a.org") is None
    assert second.requests == []


@pytest.mark.parametrize("body", [b" " * 51_201, b"{" + b" " * 60_000 + b"}"])
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_too_large_is_no_delegation(over_tls, start_homeserver, authority, body):
    homeserver = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    homeserver.behaviours[WELL_KNOWN] = answer(200, body)
    assert await over_tls.delegated("a.org") is None


@pytest_twisted.ensureDeferred
async def test_a_file_that_never_ends_is_dropped(over_tls, start_homeserver, authority):
    homeserver = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    endless = homeserver.behaviours[WELL_KNOWN] = EndlessBody()
    assert await over_tls.delegated("a.org") is None
    await endless.gone


@pytest_twisted.ensureDeferred
async def test_a_file_of_the_largest_size_is_read(over_tls, start_homeserver, authority):
    homeserver = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    homeserver.behaviours[WELL_KNOWN] = answer(200, DELEGATES.ljust(51_200))
    assert await over_tls.delegated("a.org") == DELEGATED


@pytest_twisted.ensureDeferred
async def test_what_is_no_http_is_no_delegation(over_tls, start_homeserver, authority):
    homeserver = start_homeserver(authority.issue("a.org"), "a.org", port=443)
    homeserver.behaviours[WELL_KNOWN] = raw(b"220 smtp.a.org ESMTP\r\n")
    assert await over_tls.delegated("a.org") is None
