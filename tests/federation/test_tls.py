"""Whom we believe to be a homeserver: real certificates, good and bad."""

from datetime import UTC, datetime

import pytest
import pytest_twisted
from standins.certificates import Authority
from standins.homeserver import USERINFO

from sydentish.federation.agent import Request
from sydentish.federation.discovery import Route, Target
from sydentish.federation.tls import tls_options
from sydentish.outgoing import explain

HOST = "hs.example.org"
ASK = Request("GET", USERINFO)
LIMIT = 65_536


def route_to(homeserver, host=None):
    host = host or homeserver.host
    return Route((Target(host, homeserver.port),), host, f"{host}:{homeserver.port}")


@pytest_twisted.ensureDeferred
async def test_the_certificate_is_checked_for_the_tls_name_and_not_for_the_target(
    make_https, start_homeserver, authority, internet
):
    homeserver = start_homeserver(authority.issue("a.org"), "target.example.org")
    route = Route((Target("target.example.org", homeserver.port),), "a.org", "a.org")
    assert (await make_https()(route, ASK, LIMIT)).status == 401
    assert homeserver.requests[0].headers["host"] == "a.org"
    route = Route(route.targets, "target.example.org", "a.org")
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the library's choice
        await make_https()(route, ASK, LIMIT)
    assert explain(raised.value) == "certificate not accepted"


@pytest.mark.parametrize("names", [("other.example.org",), ("example.org",), ("1.2.3.4",)])
@pytest_twisted.ensureDeferred
async def test_a_certificate_of_another_name_is_not_accepted(make_https, start_homeserver, authority, names):
    homeserver = start_homeserver(authority.issue(*names))
    await refuses_certificate(make_https(), homeserver)


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_an_unknown_authority_is_not_accepted(make_https, start_homeserver):
    await refuses_certificate(make_https(), start_homeserver(Authority().issue(HOST)))


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities_do_not_know_ours(make_https, homeserver):
    await refuses_certificate(make_https(tls=tls_options(None, verify=True)), homeserver)


@pytest_twisted.ensureDeferred
async def test_an_expired_certificate_is_not_accepted(make_https, start_homeserver, authority):
    expired = authority.issue(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC))
    await refuses_certificate(make_https(), start_homeserver(expired))


async def refuses_certificate(https, homeserver):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the library's choice
        await https(route_to(homeserver), ASK, LIMIT)
    assert explain(raised.value) == "certificate not accepted"
    assert homeserver.requests == []


@pytest.mark.parametrize("host", [HOST, "1.2.3.4"])
@pytest_twisted.ensureDeferred
async def test_without_checking_any_certificate_will_do(make_https, start_homeserver, host):
    homeserver = start_homeserver(Authority().issue("other.example.org"))
    https = make_https(tls=tls_options(None, verify=False))
    assert (await https(route_to(homeserver, host), ASK, LIMIT)).status == 401


@pytest.mark.parametrize("address", ["1.2.3.4", "2606::1"])
@pytest_twisted.ensureDeferred
async def test_an_ip_literal_is_proved_by_a_certificate_for_the_address(
    make_https, start_homeserver, authority, address
):
    homeserver = start_homeserver(authority.issue(address), address, address)
    route = Route((Target(address, homeserver.port),), address, f"[{address}]" if ":" in address else address)
    assert (await make_https()(route, ASK, LIMIT)).status == 401
    assert homeserver.requests[0].headers["host"] == route.host_header


def test_a_ca_file_holds_certificates(tmp_path):
    with pytest.raises(OSError, match="absent"):
        tls_options(tmp_path / "absent.pem", verify=True)
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ValueError, match=r"(?i)pem"):
        tls_options(tmp_path / "empty.pem", verify=True)


@pytest_twisted.ensureDeferred
async def test_a_ca_file_may_hold_several(make_https, homeserver, ca_file, tmp_path):
    other = Authority().write_ca(tmp_path / "other.pem")
    both = tmp_path / "both.pem"
    both.write_bytes(other.read_bytes() + ca_file.read_bytes())
    https = make_https(tls=tls_options(both, verify=True))
    assert (await https(route_to(homeserver), ASK, LIMIT)).status == 401
